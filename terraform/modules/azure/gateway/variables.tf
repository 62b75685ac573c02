variable "gateways" {
  description = "App name → environment."
  type        = map(map(string))
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

variable "signing_key_uri" {
  type = string
}

variable "image" {
  type = string
}

variable "tags" {
  type = map(string)
}
