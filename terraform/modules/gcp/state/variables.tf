variable "project" {
  type = string
}

variable "region" {
  type = string
}

variable "name" {
  type = string
}

variable "firestore_location" {
  type = string
}

variable "deletion_protection" {
  type = bool
}

variable "labels" {
  type = map(string)
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

variable "writers" {
  description = "Service accounts (by role) that push images."
  type        = map(string)
}

variable "readers" {
  description = "Service accounts (by role) that pull images."
  type        = map(string)
}

variable "bucket_users" {
  description = "Service accounts (by role) that read and write the bucket's objects."
  type        = map(string)
}

variable "bucket_viewers" {
  description = "Service accounts (by role) that read the bucket's objects."
  type        = map(string)
}

variable "key_readers" {
  description = "Service accounts (by role) that read the signing key."
  type        = map(string)
}

variable "store_users" {
  description = "Service accounts (by role) that read and write the store's encrypted fields."
  type        = map(string)
}
