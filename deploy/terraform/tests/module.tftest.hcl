# What the module makes of its variables, without AWS and without credentials: `terraform init && terraform test`.
# Needs Terraform 1.7 or newer.

mock_provider "aws" {
  mock_data "aws_region" {
    defaults = { id = "eu-central-1" }
  }

  mock_data "aws_partition" {
    defaults = { partition = "aws", dns_suffix = "amazonaws.com" }
  }

  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }

  mock_data "aws_db_instance" {
    defaults = {
      address             = "orders.abc.eu-central-1.rds.amazonaws.com"
      port                = 5433
      resource_id         = "db-ABC"
      vpc_security_groups = ["sg-1", "sg-2"]
    }
  }

  mock_data "aws_rds_cluster" {
    defaults = {
      endpoint               = "orders.cluster-abc.eu-central-1.rds.amazonaws.com"
      port                   = 5432
      cluster_resource_id    = "cluster-ABC"
      vpc_security_group_ids = ["sg-3"]
    }
  }

  mock_data "aws_iam_policy_document" {
    defaults = { json = "{}" }
  }
}

variables {
  name                   = "orders"
  image                  = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/pgweir:1"
  vpc_subnet_ids         = ["subnet-a", "subnet-b"]
  auth                   = [{ secret_arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:app-AbCdEf" }]
  db_instance_identifier = "orders"
}

run "an_instance" {
  assert {
    condition = alltrue([for name, value in {
      PGWEIR_TARGET_HOST                   = "orders.abc.eu-central-1.rds.amazonaws.com"
      PGWEIR_TARGET_PORT                   = "5433"
      PGWEIR_TARGET_TLS_CA                 = "/etc/pgweir/rds-global-bundle.pem"
      PGWEIR_PROXY_AUTH_0_SECRET_ARN       = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:app-AbCdEf"
      PGWEIR_PROXY_MAX_CLIENT_LIFETIME     = "86400"
      PGWEIR_FLEET_NAME                    = "orders"
      PGWEIR_METRICS_CLOUDWATCH_PROXY_NAME = "orders"
    } : contains(jsondecode(aws_ecs_task_definition.this.container_definitions)[0].environment, { name = name, value = value })])
    error_message = "A task is told something else."
  }

  assert {
    condition     = length(aws_vpc_security_group_ingress_rule.database_from_task) == 1
    error_message = "The database lets tasks in."
  }

  assert {
    condition     = length(aws_vpc_security_group_egress_rule.task_to_database) == 2
    error_message = "Tasks reach each group of the database."
  }

  assert {
    condition     = length(aws_vpc_security_group_egress_rule.task_to_apis_anywhere) == 1
    error_message = "Without endpoints of the VPC, AWS is reached by a gateway."
  }

  assert {
    condition     = aws_appautoscaling_policy.connections.target_tracking_scaling_policy_configuration[0].target_value == 0.8 * var.max_client_connections
    error_message = "A further task is late, or takes connections from clients that are there."
  }

  assert {
    condition = alltrue([
      for alarm, metric in { busy = "DatabaseConnectionsCurrentlyBorrowed", pinned = "DatabaseConnectionsCurrentlySessionPinned" } :
      contains([for query in aws_cloudwatch_metric_alarm.share[alarm].metric_query : one(query.metric[*].metric_name)], metric)
    ])
    error_message = "An alarm looks at something else."
  }

  assert {
    condition     = length(jsondecode(aws_ecs_task_definition.this.container_definitions)[0].secrets) == 0
    error_message = "There is no certificate."
  }
}

run "a_cluster_with_everything" {
  variables {
    db_instance_identifier = null
    db_cluster_identifier  = "orders"
    require_tls            = true
    tls_secret_arn         = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:tls-AbCdEf"
    tls_secret_kms_key_arn = "arn:aws:kms:eu-central-1:123456789012:key/2"
    auth                   = [{ username = "app", iam_auth = "REQUIRED" }, { username = "pgweir_fleet", iam_auth = "REQUIRED" }]
    default_auth_scheme    = "IAM_AUTH"
    fleet_user             = "pgweir_fleet"
    api_security_group_id  = "sg-9"
    secrets_kms_key_arn    = "arn:aws:kms:eu-central-1:123456789012:key/1"
    connection_pool_config = { max_connections_percent = 90, session_pinning_filters = ["EXCLUDE_VARIABLE_SETS"] }
  }

  assert {
    condition = alltrue([for name, value in {
      PGWEIR_TARGET_HOST                    = "orders.cluster-abc.eu-central-1.rds.amazonaws.com"
      PGWEIR_TARGET_MAX_CONNECTIONS_PERCENT = "90"
      PGWEIR_TARGET_SESSION_PINNING_FILTERS = "EXCLUDE_VARIABLE_SETS"
      PGWEIR_PROXY_REQUIRE_TLS              = "true"
      PGWEIR_PROXY_DEFAULT_AUTH_SCHEME      = "IAM_AUTH"
      PGWEIR_FLEET_USER                     = "pgweir_fleet"
      PGWEIR_PROXY_AUTH_0_USERNAME          = "app"
      PGWEIR_PROXY_AUTH_0_IAM_AUTH          = "REQUIRED"
    } : contains(jsondecode(aws_ecs_task_definition.this.container_definitions)[0].environment, { name = name, value = value })])
    error_message = "A task is told something else."
  }

  assert {
    condition     = length(jsondecode(aws_ecs_task_definition.this.container_definitions)[0].secrets) == 2
    error_message = "ECS hands over certificate and key."
  }

  assert {
    condition     = length(aws_vpc_security_group_egress_rule.task_to_apis_anywhere) == 0
    error_message = "With endpoints of the VPC, nothing else is reached."
  }
}

run "the_rules_of_the_database_are_somebody_elses" {
  variables {
    manage_database_ingress = false
  }

  assert {
    condition     = length(aws_vpc_security_group_ingress_rule.database_from_task) == 0
    error_message = "A rule is added to a group that has its rules from elsewhere."
  }
}

run "tls_needs_a_certificate" {
  command = plan

  variables {
    require_tls = true
  }

  expect_failures = [aws_ecs_task_definition.this]
}

run "one_target_not_two" {
  command = plan

  variables {
    db_cluster_identifier = "orders"
  }

  expect_failures = [data.aws_subnet.first]
}

run "one_target_not_none" {
  command = plan

  variables {
    db_instance_identifier = null
  }

  expect_failures = [data.aws_subnet.first]
}

run "somebody_must_log_in" {
  command = plan

  variables {
    auth = []
  }

  expect_failures = [aws_ecs_task_definition.this]
}

run "the_user_of_the_fleet_is_no_clients" {
  command = plan

  variables {
    fleet_user = "pgweir_fleet"
  }

  expect_failures = [aws_ecs_task_definition.this]
}

run "a_user_of_iam_is_named_beside_the_secret" {
  command = plan

  variables {
    tls_secret_arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:tls-AbCdEf"
    auth           = [{ secret_arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:app-AbCdEf", iam_auth = "REQUIRED" }]
  }

  expect_failures = [aws_ecs_task_definition.this]
}

run "a_name_alone_needs_iam" {
  command = plan

  variables {
    auth = [{ username = "app" }]
  }

  expect_failures = [var.auth]
}

run "clients_with_tokens_need_tls" {
  command = plan

  variables {
    auth = [{ username = "app", iam_auth = "REQUIRED" }]
  }

  expect_failures = [aws_ecs_task_definition.this]
}

run "tokens_go_to_the_database_only" {
  command = plan

  variables {
    tls_secret_arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:tls-AbCdEf"
    auth           = [{ username = "app", iam_auth = "REQUIRED" }]
    target_tls     = "require"
  }

  expect_failures = [aws_ecs_task_definition.this]
}

run "the_balancer_has_no_more_connections_per_task" {
  command = plan

  variables {
    max_client_connections = 50001
  }

  expect_failures = [var.max_client_connections]
}

run "the_name_fits_the_balancer" {
  command = plan

  variables {
    name = "a-name-of-more-than-23-characters"
  }

  expect_failures = [var.name]
}
