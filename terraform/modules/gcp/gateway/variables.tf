variable "project" {
  type = string
}

variable "region" {
  type = string
}

variable "gateways" {
  description = "Service name → environment."
  type        = map(map(string))
}

variable "image" {
  type = string
}

variable "service_account" {
  type = string
}

variable "secrets" {
  description = "Variable → secret of Secret Manager."
  type        = map(string)
}

variable "resources" {
  type = object({ cpu = string, memory = string })
}

variable "fixed_egress" {
  description = "Whether all connections leave through Cloud NAT."
  type        = bool
}

variable "network" {
  type = string
}

variable "subnet" {
  type = string
}

variable "deletion_protection" {
  type = bool
}

variable "labels" {
  type = map(string)
}
