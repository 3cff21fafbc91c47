# Who may talk to whom: functions -> load balancer -> tasks -> database, and nothing else.

resource "aws_security_group" "client" {
  name_prefix = "${var.name}-client-"
  description = "Lambda functions that may reach pgweir"
  vpc_id      = local.vpc_id
  tags        = var.tags
}

resource "aws_security_group" "load_balancer" {
  name_prefix = "${var.name}-lb-"
  description = "Load balancer of pgweir"
  vpc_id      = local.vpc_id
  tags        = var.tags
}

resource "aws_security_group" "task" {
  name_prefix = "${var.name}-task-"
  description = "Tasks of pgweir"
  vpc_id      = local.vpc_id
  tags        = var.tags
}

resource "aws_vpc_security_group_egress_rule" "client_to_load_balancer" {
  security_group_id            = aws_security_group.client.id
  referenced_security_group_id = aws_security_group.load_balancer.id
  ip_protocol                  = "tcp"
  from_port                    = local.clients_port
  to_port                      = local.clients_port
  description                  = "PostgreSQL through pgweir"
}

# A function may have to read its secret; its log does not pass here.
resource "aws_vpc_security_group_egress_rule" "client_to_apis" {
  count                        = var.api_security_group_id == null ? 0 : 1
  security_group_id            = aws_security_group.client.id
  referenced_security_group_id = var.api_security_group_id
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
  description                  = "AWS APIs by the VPC's endpoints"
}

resource "aws_vpc_security_group_ingress_rule" "load_balancer_from_client" {
  security_group_id            = aws_security_group.load_balancer.id
  referenced_security_group_id = aws_security_group.client.id
  ip_protocol                  = "tcp"
  from_port                    = local.clients_port
  to_port                      = local.clients_port
  description                  = "PostgreSQL from functions"
}

# For clients and for health checks.
resource "aws_vpc_security_group_egress_rule" "load_balancer_to_task" {
  for_each                     = toset([tostring(local.clients_port), tostring(local.admin_port)])
  security_group_id            = aws_security_group.load_balancer.id
  referenced_security_group_id = aws_security_group.task.id
  ip_protocol                  = "tcp"
  from_port                    = tonumber(each.key)
  to_port                      = tonumber(each.key)
  description                  = "PostgreSQL and health checks"
}

resource "aws_vpc_security_group_ingress_rule" "task_from_load_balancer" {
  for_each                     = toset([tostring(local.clients_port), tostring(local.admin_port)])
  security_group_id            = aws_security_group.task.id
  referenced_security_group_id = aws_security_group.load_balancer.id
  ip_protocol                  = "tcp"
  from_port                    = tonumber(each.key)
  to_port                      = tonumber(each.key)
  description                  = "PostgreSQL and health checks"
}

resource "aws_vpc_security_group_egress_rule" "task_to_database" {
  count                        = length(local.target_security_groups)
  security_group_id            = aws_security_group.task.id
  referenced_security_group_id = local.target_security_groups[count.index]
  ip_protocol                  = "tcp"
  from_port                    = local.target_port
  to_port                      = local.target_port
  description                  = "The database"
}

# One of the database's groups is enough.
resource "aws_vpc_security_group_ingress_rule" "database_from_task" {
  count                        = var.manage_database_ingress ? 1 : 0
  security_group_id            = local.target_security_groups[0]
  referenced_security_group_id = aws_security_group.task.id
  ip_protocol                  = "tcp"
  from_port                    = local.target_port
  to_port                      = local.target_port
  description                  = "pgweir"
}

resource "aws_vpc_security_group_egress_rule" "task_to_apis" {
  count                        = var.api_security_group_id == null ? 0 : 1
  security_group_id            = aws_security_group.task.id
  referenced_security_group_id = var.api_security_group_id
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
  description                  = "AWS APIs by the VPC's endpoints"
}

data "aws_ec2_managed_prefix_list" "s3" {
  count = var.api_security_group_id == null ? 0 : 1
  name  = "com.amazonaws.${local.region}.s3"
}

resource "aws_vpc_security_group_egress_rule" "task_to_s3" {
  count             = var.api_security_group_id == null ? 0 : 1
  security_group_id = aws_security_group.task.id
  prefix_list_id    = data.aws_ec2_managed_prefix_list.s3[0].id
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  description       = "Layers of the image"
}

resource "aws_vpc_security_group_egress_rule" "task_to_apis_anywhere" {
  count             = var.api_security_group_id == null ? 1 : 0
  security_group_id = aws_security_group.task.id
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  description       = "AWS APIs by a NAT gateway"
}

# TCP from end to end, so that TLS is between client and pgweir.

resource "aws_lb" "this" {
  name                             = "${var.name}-pgweir"
  internal                         = true
  load_balancer_type               = "network"
  subnets                          = var.vpc_subnet_ids
  security_groups                  = concat([aws_security_group.load_balancer.id], var.vpc_security_group_ids)
  enable_cross_zone_load_balancing = true
  tags                             = var.tags
}

resource "aws_lb_target_group" "this" {
  name        = "${var.name}-pgweir"
  vpc_id      = local.vpc_id
  target_type = "ip"
  protocol    = "TCP"
  port        = local.clients_port
  # The time in which new clients learn to go elsewhere; ECS stops the task after it.
  deregistration_delay = 30
  tags                 = var.tags

  # Whether the process works. Not /readyz: with the database away, replacing tasks would only cut the clients that
  # wait for it.
  health_check {
    protocol            = "HTTP"
    port                = tostring(local.admin_port)
    path                = "/healthz"
    interval            = 10
    healthy_threshold   = 2
    unhealthy_threshold = 3
  }
}

resource "aws_lb_listener" "this" {
  load_balancer_arn = aws_lb.this.arn
  protocol          = "TCP"
  port              = local.clients_port
  # By default the balancer forgets a connection after 350 s of silence without telling its ends. pgweir ends idle
  # clients itself and tells them; and its keepalive of 60 s counts as traffic.
  tcp_idle_timeout_seconds = 6000
  tags                     = var.tags

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.this.arn
  }
}
