variable "name" {
  type = string
}

variable "suffix" {
  type = string
}

variable "resource_group" {
  type = string
}

variable "resource_group_id" {
  type = string
}

variable "location" {
  type = string
}

variable "plan_sku" {
  type = string
}

variable "plan_workers" {
  type = number
}

variable "workspace_id" {
  type = string
}

variable "principals" {
  description = "Principal ids of the identities, by role."
  type        = map(string)
}

variable "tags" {
  type = map(string)
}
