variable "host" {
  type = string
}

variable "zone" {
  type = string
}

variable "zone_resource_group" {
  type = string
}

variable "verification" {
  description = "The environment's verification id."
  type        = string
}

variable "address" {
  type = string
}

variable "environment_id" {
  type = string
}

variable "app_id" {
  type = string
}

variable "identity_id" {
  description = "Identity of the environment, which reads the certificate."
  type        = string
}

variable "certificate_uri" {
  type = string
}

variable "tags" {
  type = map(string)
}
