variable "name" {
  type = string
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

variable "environment" {
  type = map(string)
}

variable "instances" {
  type = object({ min = number, max = number })
}

variable "tags" {
  type = map(string)
}
