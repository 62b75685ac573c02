variable "project" {
  type = string
}

variable "name" {
  type = string
}

variable "backends" {
  type = set(string)
}

variable "database" {
  description = "Firestore database that documents may be read and written in."
  type        = string
}

variable "events" {
  description = "Whether there is scheduled work of its own."
  type        = bool
}

variable "direct" {
  description = "Whether there are gateway VMs."
  type        = bool
}

variable "build_account" {
  description = "Service account that Cloud Build builds functions as."
  type        = string
}
