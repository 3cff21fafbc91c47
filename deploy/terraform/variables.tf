# Variables named as the arguments of aws_db_proxy, aws_db_proxy_default_target_group and aws_db_proxy_target mean the
# same as there, and have the same defaults. Of other wholes are the percentages: there of max_connections; here
# max_connections_percent of those that are usable, and max_idle_connections_percent of what this comes to.

variable "name" {
  description = "Name of the proxy: of its resources, in its metrics, and of the fleet whose tasks share the database's connections. One per database, and unique in account and region."
  type        = string

  validation {
    condition     = can(regex("^[a-zA-Z][a-zA-Z0-9-]{0,22}$", var.name))
    error_message = "A letter, then letters, digits and hyphens, at most 23 in all: it is part of the load balancer's name."
  }
}

variable "engine_family" {
  description = "Kind of database; there is one."
  type        = string
  default     = "POSTGRESQL"

  validation {
    condition     = var.engine_family == "POSTGRESQL"
    error_message = "pgweir speaks PostgreSQL only."
  }
}

variable "auth" {
  description = "The database users that clients log in as, up to 1000: by secret_arn, a secret with name and password, or by username alone where iam_auth is REQUIRED. With iam_auth = REQUIRED, or default_auth_scheme = IAM_AUTH, pgweir logs in to the database with IAM tokens as that user, who needs rds_iam, and username is needed beside a secret too."
  type = list(object({
    auth_scheme               = optional(string, "SECRETS")
    client_password_auth_type = optional(string, "POSTGRES_SCRAM_SHA_256")
    description               = optional(string)
    iam_auth                  = optional(string, "DISABLED")
    secret_arn                = optional(string)
    username                  = optional(string)
  }))
  default = []

  validation {
    condition     = alltrue([for auth in var.auth : auth.auth_scheme == "SECRETS"])
    error_message = "The auth_scheme of an entry is SECRETS."
  }

  validation {
    condition     = alltrue([for auth in var.auth : contains(["DISABLED", "REQUIRED"], auth.iam_auth)])
    error_message = "The iam_auth of an entry is DISABLED or REQUIRED."
  }

  validation {
    condition     = alltrue([for auth in var.auth : auth.secret_arn != null || (auth.username != null && auth.iam_auth == "REQUIRED")])
    error_message = "An entry has a secret_arn, or a username with iam_auth = REQUIRED."
  }
}

variable "default_auth_scheme" {
  description = "NONE, or IAM_AUTH: pgweir logs in to the database with IAM tokens of its own, as each user of auth."
  type        = string
  default     = "NONE"

  validation {
    condition     = contains(["NONE", "IAM_AUTH"], var.default_auth_scheme)
    error_message = "NONE or IAM_AUTH."
  }
}

variable "fleet_user" {
  description = "One of the users of auth, no client's, as whom alone the tasks know each other; none = any of them, so that their clients can pass for tasks. To be given in an apply of its own, after its entry of auth; deploy/README.md says why."
  type        = string
  default     = null
}

variable "debug_logging" {
  description = "Whether the log also tells of single clients and connections. It shows no literals, and does not switch itself off."
  type        = bool
  default     = false
}

variable "idle_client_timeout" {
  description = "Seconds that a client may be connected without sending anything."
  type        = number
  default     = 1800
}

variable "require_tls" {
  description = "Whether clients without TLS are refused. Needs tls_secret_arn."
  type        = bool
  default     = false
}

variable "vpc_subnet_ids" {
  description = "Private subnets in at least two availability zones of the database's VPC."
  type        = list(string)

  validation {
    condition     = length(var.vpc_subnet_ids) >= 2
    error_message = "At least two subnets."
  }
}

variable "vpc_security_group_ids" {
  description = "More security groups for the load balancer: whoever they let in reaches pgweir, beside the members of the group client_security_group_id."
  type        = list(string)
  default     = []
}

variable "tags" {
  description = "Tags of all resources."
  type        = map(string)
  default     = {}
}

variable "connection_pool_config" {
  description = "Limits of the pool: seconds to wait for a connection, SQL for each new one, the budget in percent of the max_connections that are usable, and what may be idle in percent of the budget, where it is of max_connections in aws_db_proxy_default_target_group. SET does not pin in any case; with EXCLUDE_VARIABLE_SETS in session_pinning_filters, a setting that cannot follow its client is lost instead of pinning."
  type = object({
    connection_borrow_timeout    = optional(number, 120)
    init_query                   = optional(string, "")
    max_connections_percent      = optional(number, 100)
    max_idle_connections_percent = optional(number, 50)
    session_pinning_filters      = optional(list(string), [])
  })
  default = {}
}

variable "db_instance_identifier" {
  description = "The RDS instance behind the proxy; this or db_cluster_identifier."
  type        = string
  default     = null
}

variable "db_cluster_identifier" {
  description = "The Aurora or Multi-AZ cluster behind the proxy; its writer is used."
  type        = string
  default     = null
}

# What RDS Proxy has no word for.

variable "image" {
  description = "The image made from deploy/ecs/Dockerfile, in ECR."
  type        = string
}

variable "cpu_architecture" {
  description = "What the image was built for: X86_64 or ARM64."
  type        = string
  default     = "X86_64"
}

variable "cpu" {
  description = "CPU units of a task; 1024 are one vCPU."
  type        = number
  default     = 512
}

variable "memory" {
  description = "Memory of a task in MiB; at least two and at most eight times cpu."
  type        = number
  default     = 1024
}

variable "min_tasks" {
  description = "Fewest tasks; two survive the loss of an availability zone."
  type        = number
  default     = 2
}

variable "max_tasks" {
  description = "Most tasks."
  type        = number
  default     = 6
}

variable "connections_per_task" {
  description = "Clients per task that autoscaling aims at, less than max_client_connections. A further task takes its share of the database's connections from the others at once, and gets clients only as they connect anew."
  type        = number
  default     = 8000
}

variable "max_client_lifetime" {
  description = "Seconds that a client may be connected at all, cut between transactions; 0 = no limit."
  type        = number
  default     = 86400
}

variable "max_client_connections" {
  description = "Most clients of one task; one more is refused with 53300. The load balancer has some 55,000 connections per task."
  type        = number
  default     = 10000

  validation {
    condition     = var.max_client_connections >= 1 && var.max_client_connections <= 50000
    error_message = "From 1 to 50000."
  }
}

variable "tls_secret_arn" {
  description = "Secret with the certificate shown to clients: {\"certificate\": PEM with its chain, \"private_key\": PEM}; none = no TLS towards clients."
  type        = string
  default     = null
}

variable "tls_secret_kms_key_arn" {
  description = "Key that tls_secret_arn is encrypted with, if it is not the AWS-managed one."
  type        = string
  default     = null
}

variable "target_tls" {
  description = "How the database is reached, as libpq's sslmode."
  type        = string
  default     = "verify-full"
}

variable "secrets_kms_key_arn" {
  description = "Key that the users' secrets are encrypted with, if it is not the AWS-managed one."
  type        = string
  default     = null
}

variable "api_security_group_id" {
  description = "Security group of the VPC's interface endpoints (Secrets Manager, ECR, CloudWatch Logs); none where there is a NAT gateway instead."
  type        = string
  default     = null
}

variable "manage_database_ingress" {
  description = "Whether a rule that lets the tasks in is added to a security group of the database. False where that group is declared with ingress blocks, whose next apply would remove the rule: let task_security_group_id in there."
  type        = bool
  default     = true
}

variable "metrics_namespace" {
  description = "CloudWatch namespace of the metrics, whose names and dimensions are those of RDS Proxy in AWS/RDS."
  type        = string
  default     = "pgweir"
}

variable "alarm_actions" {
  description = "ARNs, of SNS topics for example, that alarms are sent to."
  type        = list(string)
  default     = []
}

variable "log_retention_in_days" {
  description = "How long log lines are kept."
  type        = number
  default     = 30
}
