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
  description = "What the targets run as."
  type        = string
}

variable "trigger_account" {
  description = "What calls them."
  type        = string
}

variable "environment" {
  type = map(string)
}

variable "secrets" {
  description = "Variable → secret of Secret Manager."
  type        = map(string)
}

variable "reconcile_schedule" {
  type = string
}

variable "sweep_schedule" {
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
