output "endpoint" {
  description = "What functions set DB_HOST to; the port is 5432."
  value       = aws_lb.this.dns_name
}

output "endpoint_zone_id" {
  description = "Zone of that name, for an alias of it in Route 53."
  value       = aws_lb.this.zone_id
}

output "client_security_group_id" {
  description = "The security group that functions must be in to reach pgweir."
  value       = aws_security_group.client.id
}

output "task_security_group_id" {
  description = "Security group of the tasks."
  value       = aws_security_group.task.id
}

output "task_role_arn" {
  description = "Role that pgweir reads secrets with."
  value       = aws_iam_role.task.arn
}

output "cluster_name" {
  description = "Cluster of ECS."
  value       = aws_ecs_cluster.this.name
}

output "service_name" {
  description = "Service in it."
  value       = aws_ecs_service.this.name
}

output "log_group_name" {
  description = "Where the log is."
  value       = aws_cloudwatch_log_group.this.name
}
