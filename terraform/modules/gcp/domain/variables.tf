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
  type = string
}

variable "service" {
  description = "Cloud Run service of the control plane."
  type        = string
}

variable "labels" {
  type = map(string)
}
