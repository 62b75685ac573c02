variable "name" {
  type = string
}

variable "suffix" {
  type = string
}

variable "resource_group" {
  type = string
}

variable "location" {
  type = string
}

variable "containers_group" {
  description = "Resource group of the containers' apps."
  type        = string
}

variable "containers_group_id" {
  type = string
}

variable "image" {
  type = string
}

variable "identity_id" {
  type = string
}

variable "identity_client_id" {
  type = string
}

variable "environment" {
  type = map(string)
}

variable "signing_key_uri" {
  type = string
}

variable "site_events" {
  type = bool
}

variable "tags" {
  type = map(string)
}
