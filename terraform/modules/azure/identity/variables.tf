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

variable "containers_group_id" {
  description = "Id of the resource group that containers' apps are made in."
  type        = string
}

variable "shared_plan" {
  description = "Whether containers share a plan: then none is made or removed."
  type        = bool
}

variable "tags" {
  type = map(string)
}
