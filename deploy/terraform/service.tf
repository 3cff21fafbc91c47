locals {
  secret_arns = [for auth in var.auth : auth.secret_arn if auth.secret_arn != null]
  # As whom pgweir logs in to the database with IAM. Who has rds_iam there cannot log in by password any more.
  iam_entries = [for auth in var.auth : auth if var.default_auth_scheme == "IAM_AUTH" || auth.iam_auth == "REQUIRED"]

  # Numbered, as pgweir's variables of a list are.
  auth_environment = merge([for index, auth in var.auth : merge(
    auth.secret_arn == null ? {} : {
      "PGWEIR_PROXY_AUTH_${index}_SECRET_ARN"                = auth.secret_arn
      "PGWEIR_PROXY_AUTH_${index}_CLIENT_PASSWORD_AUTH_TYPE" = auth.client_password_auth_type
    },
    auth.secret_arn != null ? {} : { "PGWEIR_PROXY_AUTH_${index}_USERNAME" = auth.username },
    auth.iam_auth == "DISABLED" ? {} : { "PGWEIR_PROXY_AUTH_${index}_IAM_AUTH" = auth.iam_auth },
  )]...)

  environment = merge(
    {
      PGWEIR_PROXY_LISTEN                 = "0.0.0.0:${local.clients_port}"
      PGWEIR_PROXY_REQUIRE_TLS            = tostring(var.require_tls)
      PGWEIR_PROXY_IDLE_CLIENT_TIMEOUT    = tostring(var.idle_client_timeout)
      PGWEIR_PROXY_MAX_CLIENT_LIFETIME    = tostring(var.max_client_lifetime)
      PGWEIR_PROXY_MAX_CLIENT_CONNECTIONS = tostring(var.max_client_connections)
      # Less than stopTimeout, so that the last clients are told before the task is killed.
      PGWEIR_PROXY_SHUTDOWN_TIMEOUT              = "110s"
      PGWEIR_TARGET_HOST                         = local.target_host
      PGWEIR_TARGET_PORT                         = tostring(local.target_port)
      PGWEIR_TARGET_TLS                          = var.target_tls
      PGWEIR_TARGET_MAX_CONNECTIONS_PERCENT      = tostring(var.connection_pool_config.max_connections_percent)
      PGWEIR_TARGET_MAX_IDLE_CONNECTIONS_PERCENT = tostring(var.connection_pool_config.max_idle_connections_percent)
      PGWEIR_TARGET_CONNECTION_BORROW_TIMEOUT    = tostring(var.connection_pool_config.connection_borrow_timeout)
      PGWEIR_TARGET_INIT_QUERY                   = var.connection_pool_config.init_query
      PGWEIR_TARGET_SESSION_PINNING_FILTERS      = join(",", var.connection_pool_config.session_pinning_filters)
      PGWEIR_ADMIN_LISTEN                        = "0.0.0.0:${local.admin_port}"
      PGWEIR_FLEET_NAME                          = var.name
      PGWEIR_FLEET_SHARE                         = "equal"
      PGWEIR_METRICS_CLOUDWATCH_EMF              = "true"
      PGWEIR_METRICS_CLOUDWATCH_NAMESPACE        = var.metrics_namespace
      PGWEIR_METRICS_CLOUDWATCH_PROXY_NAME       = var.name
      PGWEIR_LOG_FORMAT                          = "json"
      PGWEIR_LOG_LEVEL                           = var.debug_logging ? "debug" : "info"
    },
    var.target_tls == "disable" ? {} : { PGWEIR_TARGET_TLS_CA = "/etc/pgweir/rds-global-bundle.pem" },
    var.fleet_user == null ? {} : { PGWEIR_FLEET_USER = var.fleet_user },
    var.default_auth_scheme == "NONE" ? {} : { PGWEIR_PROXY_DEFAULT_AUTH_SCHEME = var.default_auth_scheme },
    local.auth_environment,
  )

  secrets = var.tls_secret_arn == null ? {} : {
    PGWEIR_PROXY_TLS_CERTIFICATE = "${var.tls_secret_arn}:certificate::"
    PGWEIR_PROXY_TLS_PRIVATE_KEY = "${var.tls_secret_arn}:private_key::"
  }
}

resource "aws_cloudwatch_log_group" "this" {
  name_prefix       = "${var.name}-"
  retention_in_days = var.log_retention_in_days
  tags              = var.tags
}

resource "aws_ecs_cluster" "this" {
  name = "${var.name}-pgweir"
  tags = var.tags

  # Its metrics cost more than the tasks' log, and nothing here looks at them.
  setting {
    name  = "containerInsights"
    value = "disabled"
  }
}

resource "aws_ecs_task_definition" "this" {
  family                   = "${var.name}-pgweir"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = var.cpu
  memory                   = var.memory
  task_role_arn            = aws_iam_role.task.arn
  execution_role_arn       = aws_iam_role.execution.arn
  tags                     = var.tags

  runtime_platform {
    cpu_architecture        = var.cpu_architecture
    operating_system_family = "LINUX"
  }

  container_definitions = jsonencode([{
    name                   = "pgweir"
    image                  = var.image
    essential              = true
    readonlyRootFilesystem = true
    linuxParameters        = { capabilities = { drop = ["ALL"] } }
    # A client and its share of a server are two descriptors at most.
    ulimits = [{ name = "nofile", softLimit = 65536, hardLimit = 65536 }]
    # Fargate's longest; a task is gone as soon as its last transaction is.
    stopTimeout = 120
    portMappings = [
      { containerPort = local.clients_port, protocol = "tcp" },
      { containerPort = local.admin_port, protocol = "tcp" },
    ]
    healthCheck = {
      command     = ["CMD", "/usr/local/bin/pgweir", "health"]
      interval    = 10
      timeout     = 5
      retries     = 3
      startPeriod = 30
    }
    environment = [for name, value in local.environment : { name = name, value = value }]
    secrets     = [for name, from in local.secrets : { name = name, valueFrom = from }]
    logConfiguration = {
      logDriver = "awslogs"
      options = {
        awslogs-group         = aws_cloudwatch_log_group.this.name
        awslogs-region        = local.region
        awslogs-stream-prefix = "pgweir"
        # A log service that is away must not stop the proxy.
        mode            = "non-blocking"
        max-buffer-size = "4m"
      }
    }
  }])

  lifecycle {
    precondition {
      condition     = !var.require_tls || var.tls_secret_arn != null
      error_message = "require_tls needs tls_secret_arn."
    }

    precondition {
      condition     = length(var.auth) > 0
      error_message = "At least one entry of auth; with default_auth_scheme = IAM_AUTH, { username = \"...\", iam_auth = \"REQUIRED\" } is enough."
    }

    precondition {
      condition     = var.fleet_user == null || length(var.auth) > 1
      error_message = "fleet_user needs an entry of auth of its own, as clients have a user too."
    }

    precondition {
      condition     = alltrue([for auth in local.iam_entries : auth.username != null])
      error_message = "An entry with iam_auth = REQUIRED, or any with default_auth_scheme = IAM_AUTH, needs the username beside its secret."
    }

    precondition {
      condition     = length(local.iam_entries) == 0 || var.target_tls == "verify-full"
      error_message = "IAM needs target_tls = verify-full, as tokens go to nobody but the database."
    }

    precondition {
      condition     = alltrue([for auth in var.auth : auth.iam_auth == "DISABLED"]) || var.tls_secret_arn != null
      error_message = "Clients with IAM tokens need tls_secret_arn."
    }
  }
}

resource "aws_ecs_service" "this" {
  name                               = "${var.name}-pgweir"
  cluster                            = aws_ecs_cluster.this.id
  task_definition                    = aws_ecs_task_definition.this.arn
  launch_type                        = "FARGATE"
  desired_count                      = var.min_tasks
  deployment_minimum_healthy_percent = 100
  deployment_maximum_percent         = 200
  health_check_grace_period_seconds  = 60
  propagate_tags                     = "SERVICE"
  tags                               = var.tags

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  load_balancer {
    container_name   = "pgweir"
    container_port   = local.clients_port
    target_group_arn = aws_lb_target_group.this.arn
  }

  network_configuration {
    assign_public_ip = false
    subnets          = var.vpc_subnet_ids
    security_groups  = [aws_security_group.task.id]
  }

  lifecycle {
    # That is autoscaling's.
    ignore_changes = [desired_count]
  }

  depends_on = [
    aws_lb_listener.this,
    aws_iam_role_policy.task,
    aws_iam_role_policy.execution,
    aws_vpc_security_group_egress_rule.task_to_database,
    aws_vpc_security_group_ingress_rule.database_from_task,
    aws_vpc_security_group_egress_rule.task_to_apis,
    aws_vpc_security_group_egress_rule.task_to_apis_anywhere,
    aws_vpc_security_group_egress_rule.task_to_s3,
    aws_vpc_security_group_egress_rule.load_balancer_to_task,
    aws_vpc_security_group_ingress_rule.task_from_load_balancer,
  ]
}

resource "aws_appautoscaling_target" "this" {
  service_namespace  = "ecs"
  scalable_dimension = "ecs:service:DesiredCount"
  resource_id        = "service/${aws_ecs_cluster.this.name}/${aws_ecs_service.this.name}"
  min_capacity       = var.min_tasks
  max_capacity       = var.max_tasks
  tags               = var.tags
}

resource "aws_appautoscaling_policy" "cpu" {
  name               = "cpu"
  policy_type        = "TargetTrackingScaling"
  service_namespace  = aws_appautoscaling_target.this.service_namespace
  scalable_dimension = aws_appautoscaling_target.this.scalable_dimension
  resource_id        = aws_appautoscaling_target.this.resource_id

  target_tracking_scaling_policy_configuration {
    target_value       = 60
    scale_out_cooldown = 60
    # A task that goes sends its clients to the others: not for a short lull.
    scale_in_cooldown = 600

    predefined_metric_specification {
      predefined_metric_type = "ECSServiceAverageCPUUtilization"
    }
  }
}

resource "aws_appautoscaling_policy" "connections" {
  name               = "connections"
  policy_type        = "TargetTrackingScaling"
  service_namespace  = aws_appautoscaling_target.this.service_namespace
  scalable_dimension = aws_appautoscaling_target.this.scalable_dimension
  resource_id        = aws_appautoscaling_target.this.resource_id

  target_tracking_scaling_policy_configuration {
    target_value       = var.connections_per_task
    scale_out_cooldown = 60
    scale_in_cooldown  = 600

    customized_metric_specification {
      namespace   = var.metrics_namespace
      metric_name = "ClientConnections"
      # Each task reports its own number once a minute, so the average is that of a task.
      statistic = "Average"

      dimensions {
        name  = "ProxyName"
        value = var.name
      }
    }
  }
}
