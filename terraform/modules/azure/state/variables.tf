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

variable "throughput" {
  description = "Most request units a second; 0: serverless."
  type        = number
}

variable "principals" {
  description = "Principal ids of the identities, by role."
  type        = map(string)
}

variable "certificates" {
  description = "Secrets of the vault that hold certificates → role of the identity that reads them."
  type        = map(string)
}

variable "signing_key" {
  type      = string
  default   = null
  sensitive = true
  ephemeral = true
}

variable "signing_key_version" {
  type = number
}

variable "deletion_protection" {
  type = bool
}

variable "tags" {
  type = map(string)
}
