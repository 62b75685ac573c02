variable "project" {
  type = string
}

variable "region" {
  type = string
}

variable "name" {
  type = string
}

variable "host" {
  type = string
}

variable "zone" {
  description = "Cloud DNS zone of the records; empty: they are made elsewhere."
  type        = string
}

variable "instances" {
  type = number
}

variable "machine_type" {
  type = string
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

variable "signing_key_secret" {
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

variable "service_account" {
  type = string
}

variable "source_ranges" {
  type = list(string)
}

variable "network" {
  type = string
}

variable "subnet" {
  type = string
}

variable "labels" {
  type = map(string)
}
