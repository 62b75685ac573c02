variable "location" {
  description = "Region of everything."
  type        = string
  default     = "eastus"
  validation {
    condition     = can(regex("^[a-z0-9]+$", var.location))
    error_message = "A region's short name, such as westeurope."
  }
}

variable "name" {
  description = "Name of the endpoint: the first part of every resource's name, and SOCKERLESS_ENDPOINT_NAME."
  type        = string
  default     = "sockerless"
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,10}[a-z0-9]$", var.name)) && !strcontains(var.name, "--")
    error_message = "3 to 12 lower-case letters, digits and single hyphens: storage accounts and vaults have short names."
  }
}

variable "control_plane_image" {
  description = "Image of the control plane, best by digest; from the registry made here, or one that needs no login."
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

variable "timers_image" {
  description = "Image of the azure-functions app (reconcile and sweep on a timer, Event Grid), with a tag or digest. Empty: none; each control plane then keeps its own timers."
  type        = string
  default     = ""
  validation {
    condition     = var.timers_image == "" || can(regex("^[^/]+[.][^/]+/.+:[^:/]+$", var.timers_image))
    error_message = "An image with its registry's host and a tag or digest: example.azurecr.io/functions:1."
  }
}

variable "site_events" {
  description = "Whether Event Grid tells the azure-functions app of stopped and restarted function apps. To be set in a second apply: Event Grid looks for the function, which is there once the app has run."
  type        = bool
  default     = false
  validation {
    condition     = !var.site_events || var.timers_image != ""
    error_message = "site_events needs timers_image."
  }
}

variable "control_plane_instances" {
  description = "Fewest and most replicas of the control plane. It keeps no state: any number works."
  type = object({
    min = optional(number, 1)
    max = optional(number, 10)
  })
  default = {}
  validation {
    condition     = var.control_plane_instances.min >= 1 && var.control_plane_instances.max >= var.control_plane_instances.min && var.control_plane_instances.max <= 300
    error_message = "1 <= min <= max <= 300."
  }
}

variable "gateway_shards" {
  description = "Number of gateways. Each is an app of one replica, because replicas of one app cannot be addressed."
  type        = number
  default     = 2
  validation {
    condition     = var.gateway_shards >= 1 && var.gateway_shards <= 20 && floor(var.gateway_shards) == var.gateway_shards
    error_message = "1 to 20 gateways."
  }
}

variable "signing_key" {
  description = "The endpoint's signing key, at least 32 characters (`openssl rand -base64 48`). It goes to Key Vault and is not kept in state. Null: the secret `signing-key` is made by hand before the apps are."
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
  description = "To be raised by one when signing_key is another one: Terraform cannot see that, as it does not keep it. 0: Terraform writes no secret."
  type        = number
  default     = 0
  validation {
    condition     = var.signing_key_version >= 0 && floor(var.signing_key_version) == var.signing_key_version
    error_message = "0, 1, 2, …"
  }
}

variable "address_space" {
  description = "Range of the virtual network; the first quarter of it is for the Container Apps environment."
  type        = string
  default     = "10.72.0.0/21"
  validation {
    condition     = can(cidrhost(var.address_space, 0)) && try(tonumber(split("/", var.address_space)[1]) <= 25, false)
    error_message = "An IPv4 range of /25 or larger: the environment needs a /27 at least."
  }
}

variable "plan_sku" {
  description = "Size of the plan that all containers share (SOCKERLESS_AZF_PLAN_SKU): EP1 to EP3, or a dedicated P1v3 to P3v3. Empty: each container has a plan of its own, an EP1 or larger."
  type        = string
  default     = "EP1"
  validation {
    condition     = contains(["", "EP1", "EP2", "EP3", "P1v3", "P2v3", "P3v3"], var.plan_sku)
    error_message = "One of EP1, EP2, EP3, P1v3, P2v3, P3v3, or empty."
  }
}

variable "plan_workers" {
  description = "Machines of the shared plan: the most, for EP; the number, for dedicated ones."
  type        = number
  default     = 5
  validation {
    condition     = var.plan_workers >= 1 && var.plan_workers <= 30
    error_message = "1 to 30."
  }
}

variable "cosmos_throughput" {
  description = "Most request units a second of the store (autoscale, at least 1000); 0: serverless."
  type        = number
  default     = 0
  validation {
    condition     = var.cosmos_throughput == 0 || var.cosmos_throughput >= 1000 && var.cosmos_throughput % 1000 == 0
    error_message = "0, or a multiple of 1000."
  }
}

variable "log_retention_days" {
  description = "Days that output of containers, and of the endpoint itself, is kept."
  type        = number
  default     = 30
  validation {
    condition     = var.log_retention_days >= 30 && var.log_retention_days <= 730
    error_message = "30 to 730 days."
  }
}

variable "deletion_protection" {
  description = "Whether deleted keys and secrets cannot be purged before their time, so that what is encrypted with them is not lost."
  type        = bool
  default     = true
}

variable "direct" {
  description = "Gateways with HAProxy behind TCP ingress, for raw Docker clients (DOCKER_HOST=tcp://host:2376). `host` is the name of the certificate, `certificate_secret` the name of the Key Vault secret with its PEM (chain and key), `client_ca_secret` one with the CA that client certificates must come from (empty: none are asked for). Who their subjects are says SOCKERLESS_CLIENT_CERTIFICATES in `extra_environment`; `client_certificate_required = false` also lets in Docker clients that have a token and no certificate."
  type = object({
    host                        = string
    certificate_secret          = string
    client_ca_secret            = optional(string, "")
    client_certificate_required = optional(bool, true)
    instances                   = optional(number, 1)
    haproxy_image               = optional(string, "docker.io/library/haproxy:3.2-alpine")
    source_ranges               = optional(list(string), [])
  })
  default = null
  validation {
    condition     = var.direct == null ? true : can(regex("^[a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)+$", var.direct.host))
    error_message = "direct.host must be a DNS name."
  }
  validation {
    condition     = var.direct == null ? true : var.direct.instances >= 1 && var.direct.instances <= 10
    error_message = "direct.instances: 1 to 10."
  }
}

variable "domain" {
  description = "A name of one's own for the control plane. `certificate_secret` is the name of the Key Vault secret (content type application/x-pkcs12) with its certificate; `zone` and `zone_resource_group` say which Azure DNS zone the records go to (empty: they are made elsewhere)."
  type = object({
    host                = string
    certificate_secret  = string
    zone                = optional(string, "")
    zone_resource_group = optional(string, "")
  })
  default = null
  validation {
    condition     = var.domain == null ? true : can(regex("^[a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)+$", var.domain.host))
    error_message = "domain.host must be a DNS name."
  }
  validation {
    condition     = var.domain == null ? true : var.domain.zone == "" || endswith(var.domain.host, ".${var.domain.zone}") && var.domain.zone_resource_group != ""
    error_message = "domain.host must lie in domain.zone, whose resource group is to be named."
  }
}

variable "alert_action_groups" {
  description = "Ids of the action groups that alerts go to. Empty: alerts are only shown."
  type        = list(string)
  default     = []
}

variable "extra_environment" {
  description = "More settings of the control plane, and, where they begin with OTEL_, of the gateways, such as SOCKERLESS_AZF_TIMEOUT (docs/backends). No secrets: they would be in state and in the app's definition."
  type        = map(string)
  default     = {}
  validation {
    condition     = alltrue([for name in keys(var.extra_environment) : can(regex("^[A-Z][A-Z0-9_]*$", name))])
    error_message = "Names of environment variables."
  }
}

variable "tags" {
  description = "Tags of all resources."
  type        = map(string)
  default     = {}
}
