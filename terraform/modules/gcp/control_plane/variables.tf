variable "project" {
  type = string
}

variable "region" {
  type = string
}

variable "name" {
  type = string
}

variable "image" {
  type = string
}

variable "service_account" {
  type = string
}

variable "environment" {
  type = map(string)
}

variable "secrets" {
  description = "Variable → secret of Secret Manager."
  type        = map(string)
}

variable "instances" {
  type = object({ min = number, max = number })
}

variable "resources" {
  type = object({ cpu = string, memory = string })
}

variable "scheduled" {
  description = "Whether reconciling and sweeping are called for, so that an instance without a request may rest."
  type        = bool
}

variable "ingress" {
  type = string
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
