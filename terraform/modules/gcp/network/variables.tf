variable "project" {
  type = string
}

variable "region" {
  type = string
}

variable "name" {
  type = string
}

variable "subnet_range" {
  type = string
}

variable "connector_range" {
  type = string
}
