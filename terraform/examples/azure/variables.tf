variable "subscription_id" {
  description = "Azure subscription."
  type        = string
}

variable "location" {
  description = "Region."
  type        = string
  default     = "westeurope"
}

variable "control_plane_image" {
  description = "Image of the control plane, by digest."
  type        = string
}

variable "gateway_image" {
  description = "Image of the gateway, by digest."
  type        = string
}

variable "timers_image" {
  description = "Image of the azure-functions app; empty: none."
  type        = string
  default     = ""
}

variable "signing_key" {
  description = "`TF_VAR_signing_key=$(openssl rand -base64 48)` for the first apply and for each rotation."
  type        = string
  default     = null
  sensitive   = true
  ephemeral   = true
}

variable "signing_key_version" {
  description = "1 with the first key, one more with each rotation."
  type        = number
  default     = 1
}

variable "alert_action_groups" {
  description = "Ids of action groups of Azure Monitor."
  type        = list(string)
  default     = []
}

variable "domain" {
  description = "A name of one's own: { host = \"docker.example.com\", certificate_secret = \"docker-example-com\" }."
  type = object({
    host                = string
    certificate_secret  = string
    zone                = optional(string, "")
    zone_resource_group = optional(string, "")
  })
  default = null
}

variable "direct" {
  description = "TCP ingress for raw Docker clients: { host = \"direct.example.com\", certificate_secret = \"direct-tls\" }."
  type = object({
    host                        = string
    certificate_secret          = string
    client_ca_secret            = optional(string, "")
    client_certificate_required = optional(bool, true)
  })
  default = null
}
