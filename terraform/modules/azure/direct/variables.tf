variable "name" {
  type = string
}

variable "host" {
  type = string
}

variable "instances" {
  type = number
}

variable "resource_group" {
  type = string
}

variable "environment_id" {
  type = string
}

variable "identity_id" {
  type = string
}

variable "registry" {
  type = string
}

variable "vault_uri" {
  type = string
}

variable "signing_key_uri" {
  type = string
}

variable "certificate_secret" {
  type = string
}

variable "client_ca_secret" {
  type = string
}

variable "client_certificate_required" {
  type = bool
}

variable "image" {
  type = string
}

variable "haproxy_image" {
  type = string
}

variable "environment" {
  type = map(string)
}

variable "source_ranges" {
  type = list(string)
}

variable "tags" {
  type = map(string)
}
