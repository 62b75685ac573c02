variable "name" {
  type = string
}

variable "resource_group" {
  type = string
}

variable "location" {
  type = string
}

variable "control_plane_id" {
  type = string
}

variable "gateways" {
  description = "Ids of the gateways' apps, by name."
  type        = map(string)
}

variable "store_id" {
  type = string
}

variable "plan_ids" {
  description = "The shared plan, or none."
  type        = list(string)
}

variable "timers_ids" {
  description = "The azure-functions app, or none."
  type        = list(string)
}

variable "workspace_id" {
  type = string
}

variable "action_groups" {
  type = list(string)
}

variable "most_errors" {
  description = "Answers with 5xx in five minutes that are no alert yet."
  type        = number
  default     = 10
}

variable "tags" {
  type = map(string)
}
