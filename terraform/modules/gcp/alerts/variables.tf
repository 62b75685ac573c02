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
  description = "Host of the control plane's URL."
  type        = string
}

variable "control_plane" {
  description = "Cloud Run service of the control plane."
  type        = string
}

variable "gateways" {
  description = "Cloud Run services of the gateways."
  type        = list(string)
}

variable "scheduled" {
  description = "Cloud Run services of the scheduled work, by target."
  type        = map(string)
}

variable "channels" {
  type = list(string)
}

variable "labels" {
  type = map(string)
}

variable "error_percent" {
  type    = number
  default = 5
}
