variable "project" {
  description = "Google Cloud project of the endpoint and of its containers."
  type        = string
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project))
    error_message = "A project id has 6 to 30 lower-case letters, digits and hyphens."
  }
}

variable "region" {
  description = "Region of everything that has one."
  type        = string
  default     = "us-central1"
  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]+$", var.region))
    error_message = "A region looks like europe-west1."
  }
}

variable "name" {
  description = "Name of the endpoint: the first part of every resource's name, and SOCKERLESS_ENDPOINT_NAME. Endpoints that share a project need different ones."
  type        = string
  default     = "sockerless"
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,14}[a-z0-9]$", var.name))
    error_message = "3 to 16 lower-case letters, digits and hyphens: service accounts and connectors have short names."
  }
}

variable "backends" {
  description = "Backends of the endpoint: cloudrun (jobs), gcf (functions)."
  type        = set(string)
  default     = ["cloudrun"]
  validation {
    condition     = length(var.backends) > 0 && length(setsubtract(var.backends, ["cloudrun", "gcf"])) == 0
    error_message = "One or both of cloudrun and gcf."
  }
}

variable "default_backend" {
  description = "Backend of containers that name none."
  type        = string
  default     = "cloudrun"
  validation {
    condition     = contains(var.backends, var.default_backend)
    error_message = "The default backend must be one of the backends."
  }
}

variable "control_plane_image" {
  description = "Image of the control plane, best by digest. Cloud Run pulls from Artifact Registry only (or a remote repository of it)."
  type        = string
  validation {
    condition     = length(var.control_plane_image) > 0
    error_message = "An image must be named."
  }
}

variable "gateway_image" {
  description = "Image of the gateway, best by digest."
  type        = string
  validation {
    condition     = length(var.gateway_image) > 0
    error_message = "An image must be named."
  }
}

variable "events_image" {
  description = "Image of the functions-framework targets (reconcile, sweep, execution finished). Empty: none; each control plane then keeps its own timers."
  type        = string
  default     = ""
}

variable "control_plane_instances" {
  description = "Fewest and most instances of the control plane. It keeps no state: any number works."
  type = object({
    min = optional(number, 1)
    max = optional(number, 10)
  })
  default = {}
  validation {
    condition     = var.control_plane_instances.min >= 0 && var.control_plane_instances.max >= 1 && var.control_plane_instances.max >= var.control_plane_instances.min
    error_message = "0 <= min <= max, and max at least 1."
  }
}

variable "control_plane_resources" {
  description = "CPU and memory of one instance of the control plane."
  type = object({
    cpu    = optional(string, "1")
    memory = optional(string, "1Gi")
  })
  default = {}
}

variable "gateway_shards" {
  description = "Number of gateways. Each is a service of one instance, because instances of one service cannot be addressed."
  type        = number
  default     = 2
  validation {
    condition     = var.gateway_shards >= 1 && var.gateway_shards <= 20 && floor(var.gateway_shards) == var.gateway_shards
    error_message = "1 to 20 gateways."
  }
}

variable "gateway_resources" {
  description = "CPU and memory of a gateway."
  type = object({
    cpu    = optional(string, "1")
    memory = optional(string, "1Gi")
  })
  default = {}
}

variable "signing_key" {
  description = "The endpoint's signing key, at least 32 characters (`openssl rand -base64 48`). It goes to Secret Manager and is not kept in state. Null: a version of the secret is added by hand before the services are made."
  type        = string
  default     = null
  sensitive   = true
  ephemeral   = true
  validation {
    condition     = var.signing_key == null ? true : length(var.signing_key) >= 32
    error_message = "A signing key has at least 32 characters."
  }
}

variable "signing_key_version" {
  description = "To be raised by one when signing_key is another one: Terraform cannot see that, as it does not keep it. 0: Terraform writes no version of the secret."
  type        = number
  default     = 0
  validation {
    condition     = var.signing_key_version >= 0 && floor(var.signing_key_version) == var.signing_key_version
    error_message = "0, 1, 2, …"
  }
}

variable "subnet_range" {
  description = "Range of the subnet of services, gateways and containers (direct VPC egress takes up to twice as many addresses as there are instances)."
  type        = string
  default     = "10.64.0.0/20"
  validation {
    condition     = can(cidrhost(var.subnet_range, 0)) && try(tonumber(split("/", var.subnet_range)[1]) <= 26, false)
    error_message = "An IPv4 range of /26 or larger."
  }
}

variable "fixed_egress" {
  description = "Whether all connections of control plane, gateways and scheduled work leave through Cloud NAT, from the address `egress_address`. False: those to the Internet go there directly."
  type        = bool
  default     = false
}

variable "connector_range" {
  description = "A /28 for a Serverless VPC Access connector of the containers, which NFS volumes need. Empty: no connector."
  type        = string
  default     = ""
  validation {
    condition     = var.connector_range == "" || endswith(var.connector_range, "/28") && can(cidrhost(var.connector_range, 0))
    error_message = "A range of /28, or empty."
  }
}

variable "firestore_location" {
  description = "Location of the Firestore database; empty: the region. It cannot be changed later."
  type        = string
  default     = ""
}

variable "deletion_protection" {
  description = "Whether database, bucket, keys and services refuse to be destroyed."
  type        = bool
  default     = true
}

variable "direct" {
  description = "A group of VMs with HAProxy for raw Docker clients (DOCKER_HOST=tcp://host:2376). `host` is the name of its certificate, `certificate_secret` the Secret Manager secret with its PEM (chain and key), `client_ca_secret` one with the CA that client certificates must come from (empty: none are asked for). Who their subjects are says SOCKERLESS_CLIENT_CERTIFICATES in `extra_environment`; `client_certificate_required = false` also lets in Docker clients that have a token and no certificate."
  type = object({
    host                        = string
    certificate_secret          = string
    client_ca_secret            = optional(string, "")
    client_certificate_required = optional(bool, true)
    instances                   = optional(number, 2)
    machine_type                = optional(string, "e2-small")
    source_ranges               = optional(list(string), ["0.0.0.0/0"])
    haproxy_image               = optional(string, "docker.io/library/haproxy:3.2-alpine")
  })
  default = null
  validation {
    condition     = var.direct == null ? true : can(regex("^[a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)+$", var.direct.host))
    error_message = "direct.host must be a DNS name."
  }
  validation {
    condition     = var.direct == null ? true : var.direct.instances >= 1 && var.direct.instances <= 20
    error_message = "direct.instances: 1 to 20."
  }
}

variable "domain" {
  description = "A name of one's own for the control plane, behind an external load balancer with a managed certificate. `zone` is the Cloud DNS zone for the records; empty: they are made elsewhere (see the output `dns_records`)."
  type = object({
    host = string
    zone = optional(string, "")
  })
  default = null
  validation {
    condition     = var.domain == null ? true : can(regex("^[a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)+$", var.domain.host))
    error_message = "domain.host must be a DNS name."
  }
}

variable "alert_channels" {
  description = "Notification channels of Cloud Monitoring (projects/…/notificationChannels/…) that alerts go to. Empty: alerts are only shown."
  type        = list(string)
  default     = []
}

variable "reconcile_schedule" {
  description = "When the reconciler is asked to run, in cron's form (with events_image)."
  type        = string
  default     = "* * * * *"
}

variable "sweep_schedule" {
  description = "When the sweeper is asked to run, in cron's form (with events_image)."
  type        = string
  default     = "*/15 * * * *"
}

variable "extra_environment" {
  description = "More settings of the control plane, and, where they begin with OTEL_, of the gateways, such as SOCKERLESS_GCR_TIMEOUT (docs/backends). No secrets: they would be in state and in the service's definition."
  type        = map(string)
  default     = {}
  validation {
    condition     = alltrue([for name in keys(var.extra_environment) : can(regex("^[A-Z][A-Z0-9_]*$", name))])
    error_message = "Names of environment variables."
  }
}

variable "build_account" {
  description = "Service account that Cloud Build builds the functions' stubs as (backend gcf); empty: the project's default, <number>-compute@developer.gserviceaccount.com. The backend does not choose it: it must be what Cloud Build uses in this project."
  type        = string
  default     = ""
}

variable "labels" {
  description = "Labels of all resources that take some."
  type        = map(string)
  default     = {}
}
