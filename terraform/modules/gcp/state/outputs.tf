output "store_url" {
  description = "SOCKERLESS_STORE."
  value       = "firestore://${var.project}/${google_firestore_database.store.name}"
}

output "registry_url" {
  description = "SOCKERLESS_REGISTRY_URL."
  value       = "https://${var.region}-docker.pkg.dev"
}

output "registry_prefix" {
  description = "SOCKERLESS_REGISTRY_PREFIX."
  value       = "${var.project}/${google_artifact_registry_repository.images.repository_id}"
}

output "bucket" {
  description = "SOCKERLESS_GCP_BUCKET."
  value       = google_storage_bucket.files.name
}

output "store_key" {
  description = "The key that data keys of the store are wrapped with."
  value       = google_kms_crypto_key.store.id
}

output "signing_key_secret" {
  description = "The secret's short name. Known only once who may read it has been granted that."
  value       = google_secret_manager_secret.signing_key.secret_id
  depends_on  = [google_secret_manager_secret_iam_member.signing_key, google_secret_manager_secret_version.signing_key]
}
