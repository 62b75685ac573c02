variable "name" {
  type = string
}

variable "resource_group" {
  type = string
}

variable "location" {
  type = string
}

variable "address_space" {
  type = string
}

variable "log_retention_days" {
  type = number
}

variable "environment_identities" {
  description = "Identities of the environment itself, which reads certificates."
  type        = list(string)
}

variable "tags" {
  type = map(string)
}
