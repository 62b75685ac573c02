variable "project" {
  description = "Google Cloud project."
  type        = string
}

variable "region" {
  description = "Region."
  type        = string
  default     = "europe-west1"
}

variable "control_plane_image" {
  description = "Image of the control plane, by digest."
  type        = string
}

variable "gateway_image" {
  description = "Image of the gateway, by digest."
  type        = string
}

variable "events_image" {
  description = "Image of the functions-framework targets, by digest; empty: none."
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

variable "alert_channels" {
  description = "Notification channels of Cloud Monitoring."
  type        = list(string)
  default     = []
}

variable "domain" {
  description = "A name of one's own: { host = \"docker.example.com\", zone = \"example-com\" }."
  type = object({
    host = string
    zone = optional(string, "")
  })
  default = null
}

variable "direct" {
  description = "VMs for raw Docker clients: { host = \"direct.example.com\", certificate_secret = \"direct-tls\" }."
  type = object({
    host                        = string
    certificate_secret          = string
    client_ca_secret            = optional(string, "")
    client_certificate_required = optional(bool, true)
  })
  default = null
}
