# pgweir in front of an RDS for PostgreSQL instance or an Aurora cluster, in the place of aws_db_proxy.

data "aws_region" "current" {}

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

data "aws_subnet" "first" {
  id = var.vpc_subnet_ids[0]

  lifecycle {
    precondition {
      condition     = (var.db_instance_identifier == null) != (var.db_cluster_identifier == null)
      error_message = "Either db_instance_identifier or db_cluster_identifier."
    }
  }
}

data "aws_db_instance" "target" {
  count                  = var.db_instance_identifier == null ? 0 : 1
  db_instance_identifier = var.db_instance_identifier
}

data "aws_rds_cluster" "target" {
  count              = var.db_cluster_identifier == null ? 0 : 1
  cluster_identifier = var.db_cluster_identifier
}

locals {
  vpc_id     = data.aws_subnet.first.vpc_id
  region     = data.aws_region.current.id
  partition  = data.aws_partition.current.partition
  account_id = data.aws_caller_identity.current.account_id

  # One of the two lists is empty; where that is not so, the subnet's precondition says it.
  target_host            = try(concat(data.aws_db_instance.target[*].address, data.aws_rds_cluster.target[*].endpoint)[0], null)
  target_port            = try(concat(data.aws_db_instance.target[*].port, data.aws_rds_cluster.target[*].port)[0], null)
  target_resource_id     = try(concat(data.aws_db_instance.target[*].resource_id, data.aws_rds_cluster.target[*].cluster_resource_id)[0], null)
  target_security_groups = flatten(concat(data.aws_db_instance.target[*].vpc_security_groups, [for cluster in data.aws_rds_cluster.target : tolist(cluster.vpc_security_group_ids)]))

  clients_port = 5432
  admin_port   = 9127
}
