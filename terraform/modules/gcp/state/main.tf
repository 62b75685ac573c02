# What outlives the processes: documents, images, volumes, the signing key and the key that secrets at rest are wrapped with.

locals {
  # Store.Collection of control_plane/store/base.py; each is a collection group.
  collections = toset([
    "containers", "names", "execs", "images", "networks", "volumes", "tenants", "tokens", "gateways", "events", "functions", "leases",
  ])
}

resource "google_firestore_database" "store" {
  project                           = var.project
  name                              = var.name
  location_id                       = var.firestore_location
  type                              = "FIRESTORE_NATIVE"
  concurrency_mode                  = "OPTIMISTIC"
  app_engine_integration_mode       = "DISABLED"
  point_in_time_recovery_enablement = "POINT_IN_TIME_RECOVERY_ENABLED"
  delete_protection_state           = var.deletion_protection ? "DELETE_PROTECTION_ENABLED" : "DELETE_PROTECTION_DISABLED"
  deletion_policy                   = var.deletion_protection ? "ABANDON" : "DELETE"
}

# Documents are found by their names, which every database has in order, and by `due`; no other field is queried.
# Firestore would index each field of each document: every write would cost that much more.
resource "google_firestore_field" "unindexed" {
  for_each   = { for pair in setproduct(local.collections, ["body", "tokens"]) : "${pair[0]}.${pair[1]}" => pair }
  project    = var.project
  database   = google_firestore_database.store.name
  collection = each.value[0]
  field      = each.value[1]
  index_config {}
}

# When somebody has to look at a container: a pass of the reconciler reads no others. Most containers have no such field.
resource "google_firestore_field" "due" {
  project    = var.project
  database   = google_firestore_database.store.name
  collection = "containers"
  field      = "due"
  index_config {
    indexes {
      order       = "ASCENDING"
      query_scope = "COLLECTION_GROUP"
    }
  }
}

# Events are kept for a while (FirestoreStore's event_days); `expires` says until when.
resource "google_firestore_field" "expires" {
  project    = var.project
  database   = google_firestore_database.store.name
  collection = "events"
  field      = "expires"
  index_config {}
  ttl_config {}
}

resource "google_artifact_registry_repository" "images" {
  project       = var.project
  location      = var.region
  repository_id = var.name
  format        = "DOCKER"
  description   = "Images of the endpoint ${var.name}, by tenant"
  labels        = var.labels
  docker_config {
    # Tags move, as in every Docker engine.
    immutable_tags = false
  }
}

resource "google_artifact_registry_repository_iam_member" "writer" {
  for_each   = var.writers
  project    = var.project
  location   = var.region
  repository = google_artifact_registry_repository.images.name
  role       = google_project_iam_custom_role.registry.name
  member     = "serviceAccount:${each.value}"
}

# `docker push`, `rmi` and `prune` of what the tenant owns: upload, tag, read, delete; no change of the repository.
resource "google_project_iam_custom_role" "registry" {
  project     = var.project
  role_id     = "${replace(var.name, "-", "_")}_registry"
  title       = "Sockerless registry (${var.name})"
  description = "Images of the endpoint ${var.name}: pushing, pulling and deleting them"
  permissions = [
    "artifactregistry.dockerimages.get",
    "artifactregistry.dockerimages.list",
    "artifactregistry.repositories.downloadArtifacts",
    "artifactregistry.repositories.get",
    "artifactregistry.repositories.uploadArtifacts",
    "artifactregistry.tags.create",
    "artifactregistry.tags.delete",
    "artifactregistry.tags.get",
    "artifactregistry.tags.list",
    "artifactregistry.tags.update",
    "artifactregistry.versions.delete",
    "artifactregistry.versions.get",
    "artifactregistry.versions.list",
  ]
}

resource "google_artifact_registry_repository_iam_member" "reader" {
  for_each   = var.readers
  project    = var.project
  location   = var.region
  repository = google_artifact_registry_repository.images.name
  role       = "roles/artifactregistry.reader"
  member     = "serviceAccount:${each.value}"
}

# Volumes, files copied in before a start, the functions' stub.
resource "google_storage_bucket" "files" {
  project                     = var.project
  name                        = "${var.project}-${var.name}"
  location                    = var.region
  labels                      = var.labels
  force_destroy               = !var.deletion_protection
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  soft_delete_policy {
    # A week of what containers throw away costs more than the rest of it.
    retention_duration_seconds = 0
  }
  lifecycle_rule {
    condition {
      days_since_noncurrent_time = 1
    }
    action {
      type = "Delete"
    }
  }
  lifecycle_rule {
    condition {
      age = 1
    }
    action {
      type = "AbortIncompleteMultipartUpload"
    }
  }
}

resource "google_storage_bucket_iam_member" "user" {
  for_each = var.bucket_users
  bucket   = google_storage_bucket.files.name
  role     = "roles/storage.objectUser"
  member   = "serviceAccount:${each.value}"
}

# Cloud Build reads the stub's source from there.
resource "google_storage_bucket_iam_member" "viewer" {
  for_each = var.bucket_viewers
  bucket   = google_storage_bucket.files.name
  role     = "roles/storage.objectViewer"
  member   = "serviceAccount:${each.value}"
}

resource "google_secret_manager_secret" "signing_key" {
  project   = var.project
  secret_id = "${var.name}-signing-key"
  labels    = var.labels
  replication {
    user_managed {
      replicas {
        location = var.region
      }
    }
  }
}

# Write-only: the key goes to Secret Manager and stays out of plan and state.
resource "google_secret_manager_secret_version" "signing_key" {
  count                  = var.signing_key_version > 0 ? 1 : 0
  secret                 = google_secret_manager_secret.signing_key.id
  secret_data_wo         = var.signing_key
  secret_data_wo_version = var.signing_key_version
}

resource "google_secret_manager_secret_iam_member" "signing_key" {
  for_each  = var.key_readers
  project   = var.project
  secret_id = google_secret_manager_secret.signing_key.secret_id
  role      = "roles/secretmanager.secretAccessor"
  member    = "serviceAccount:${each.value}"
}

# Wraps the data keys that environments and credentials in the store are encrypted with. A key ring cannot be deleted.
resource "google_kms_key_ring" "store" {
  project  = var.project
  name     = var.name
  location = var.region
}

resource "google_kms_crypto_key" "store" {
  name            = "store"
  key_ring        = google_kms_key_ring.store.id
  purpose         = "ENCRYPT_DECRYPT"
  rotation_period = "7776000s"
  labels          = var.labels
  # A destroyed version can be had back for so long: what is encrypted in the store would be lost with it.
  destroy_scheduled_duration = "2592000s"
}

resource "google_kms_crypto_key_iam_member" "store" {
  for_each      = var.store_users
  crypto_key_id = google_kms_crypto_key.store.id
  role          = "roles/cloudkms.cryptoKeyEncrypterDecrypter"
  member        = "serviceAccount:${each.value}"
}
