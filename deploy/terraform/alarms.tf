# Each says what a client feels, or soon will.

locals {
  target_dimensions = { ProxyName = var.name, TargetGroup = "default", TargetRole = "READ_WRITE" }

  alarms = {
    no-task = {
      description = "No task takes clients. Look at the service's events, then at the log."
      namespace   = "AWS/NetworkELB"
      metric      = "HealthyHostCount"
      dimensions  = { LoadBalancer = aws_lb.this.arn_suffix, TargetGroup = aws_lb_target_group.this.arn_suffix }
      statistic   = "Maximum"
      comparison  = "LessThanThreshold"
      threshold   = 1
      minutes     = 2
      missing     = "breaching"
    }
    database-away = {
      description = "The database does not answer pgweir, or no task reports. Clients wait, then get errors."
      namespace   = var.metrics_namespace
      metric      = "AvailabilityPercentage"
      dimensions  = local.target_dimensions
      statistic   = "Average"
      comparison  = "LessThanThreshold"
      threshold   = 100
      minutes     = 2
      missing     = "breaching"
    }
    refused-logins = {
      description = "Clients fail to log in, by a wrong password or missing TLS. After a rotation: do functions use the new secret?"
      namespace   = var.metrics_namespace
      metric      = "ClientConnectionsSetupFailedAuth"
      dimensions  = { ProxyName = var.name }
      statistic   = "Sum"
      comparison  = "GreaterThanThreshold"
      threshold   = 10
      minutes     = 3
      missing     = "notBreaching"
    }
    borrow-latency = {
      description = "Clients wait more than a second for a connection: statements are slow, or clients are pinned."
      namespace   = var.metrics_namespace
      metric      = "DatabaseConnectionsBorrowLatency"
      dimensions  = { ProxyName = var.name }
      statistic   = "Average"
      comparison  = "GreaterThanThreshold"
      threshold   = 1000000
      minutes     = 3
      missing     = "notBreaching"
    }
    cpu = {
      description = "The tasks are out of CPU although autoscaling had its time. Raise max_tasks or cpu."
      namespace   = "AWS/ECS"
      metric      = "CPUUtilization"
      dimensions  = { ClusterName = aws_ecs_cluster.this.name, ServiceName = aws_ecs_service.this.name }
      statistic   = "Average"
      comparison  = "GreaterThanThreshold"
      threshold   = 85
      minutes     = 10
      missing     = "notBreaching"
    }
  }

  # Those of a metric as a share of the connections that are allowed, in percent.
  share_alarms = {
    # The wait is known only of clients that got a connection in the end; this is seen also when nobody gets one.
    busy = {
      description = "More than 80 % of the connections are with clients. Further ones wait, then get errors: are transactions long or stuck, or is max_connections_percent low?"
      label       = "Borrowed share"
      metric      = "DatabaseConnectionsCurrentlyBorrowed"
      threshold   = 80
    }
    pinned = {
      description = "More than half of the connections are pinned to one client each. The log says why and what to do."
      label       = "Pinned share"
      metric      = "DatabaseConnectionsCurrentlySessionPinned"
      threshold   = 50
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "this" {
  for_each            = local.alarms
  alarm_name          = "${var.name}-pgweir-${each.key}"
  alarm_description   = each.value.description
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  dimensions          = each.value.dimensions
  statistic           = each.value.statistic
  comparison_operator = each.value.comparison
  threshold           = each.value.threshold
  period              = 60
  evaluation_periods  = each.value.minutes
  treat_missing_data  = each.value.missing
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions
  tags                = var.tags
}

resource "aws_cloudwatch_metric_alarm" "share" {
  for_each            = local.share_alarms
  alarm_name          = "${var.name}-pgweir-${each.key}"
  alarm_description   = each.value.description
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value.threshold
  evaluation_periods  = 5
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions
  tags                = var.tags

  metric_query {
    id          = "share"
    label       = each.value.label
    expression  = "100 * part / allowed"
    return_data = true
  }

  dynamic "metric_query" {
    for_each = {
      part    = each.value.metric
      allowed = "MaxDatabaseConnectionsAllowed"
    }

    content {
      id = metric_query.key

      metric {
        namespace   = var.metrics_namespace
        metric_name = metric_query.value
        dimensions  = { ProxyName = var.name }
        period      = 60
        stat        = "Sum"
      }
    }
  }
}

moved {
  from = aws_cloudwatch_metric_alarm.pinned
  to   = aws_cloudwatch_metric_alarm.share["pinned"]
}
