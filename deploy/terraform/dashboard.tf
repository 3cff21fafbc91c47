locals {
  # A widget's title, its statistic, and its metrics with what they are called in it.
  widgets = [
    {
      title     = "Clients"
      statistic = "Sum"
      metrics = {
        ClientConnections                = "connected"
        ClientConnectionsInSetup         = "in setup"
        ClientConnectionsReceived        = "new in this minute"
        ClientConnectionsSetupFailedAuth = "refused in this minute"
      }
    },
    {
      title     = "Connections to the database"
      statistic = "Sum"
      metrics = {
        MaxDatabaseConnectionsAllowed             = "allowed"
        DatabaseConnections                       = "open"
        DatabaseConnectionsCurrentlyBorrowed      = "borrowed"
        DatabaseConnectionsCurrentlyInTransaction = "in a transaction"
        DatabaseConnectionsCurrentlySessionPinned = "pinned"
      }
    },
    {
      title     = "Latency in microseconds"
      statistic = "Average"
      metrics = {
        DatabaseConnectionsBorrowLatency = "wait for a connection"
        QueryResponseLatency             = "query, as clients see it"
        QueryDatabaseResponseLatency     = "query, in the database"
      }
    },
    {
      title     = "Queries in this minute"
      statistic = "Sum"
      metrics   = { QueryRequests = "queries" }
    },
  ]
}

resource "aws_cloudwatch_dashboard" "this" {
  dashboard_name = "${var.name}-pgweir"

  dashboard_body = jsonencode({
    widgets = [for index, widget in local.widgets : {
      type   = "metric"
      x      = index % 2 * 12
      y      = floor(index / 2) * 6
      width  = 12
      height = 6
      properties = {
        title   = widget.title
        region  = local.region
        period  = 60
        stat    = widget.statistic
        metrics = [for metric, label in widget.metrics : [var.metrics_namespace, metric, "ProxyName", var.name, { label = label }]]
      }
    }]
  })
}
