# Who does what: one service account for each role, with custom roles that hold what docs/terraform.md lists and no more.

locals {
  accounts = merge(
    {
      control    = "Sockerless control plane"
      gateway    = "Sockerless gateway"
      containers = "What the user's containers run as"
    },
    var.events ? { events = "Sockerless scheduled work and events", trigger = "Calls Sockerless' scheduled work" } : {},
    var.direct ? { direct = "Sockerless gateway VMs" } : {},
  )

  common = [
    "logging.logEntries.list",
    "logging.logServiceIndexes.list",
    "logging.logServices.list",
    "logging.logs.list",
    "logging.views.access",
    "resourcemanager.projects.get",
    "run.operations.get",
  ]
  cloudrun = [
    "run.executions.cancel",
    "run.executions.delete",
    "run.executions.get",
    "run.executions.list",
    "run.jobs.create",
    "run.jobs.delete",
    "run.jobs.get",
    "run.jobs.list",
    "run.jobs.run",
    "run.jobs.runWithOverrides",
    "run.jobs.update",
    "run.tasks.get",
    "run.tasks.list",
  ]
  gcf = [
    "cloudfunctions.functions.create",
    "cloudfunctions.functions.delete",
    "cloudfunctions.functions.get",
    "cloudfunctions.functions.list",
    "cloudfunctions.functions.sourceCodeSet",
    "cloudfunctions.functions.update",
    "cloudfunctions.operations.get",
    "run.revisions.get",
    "run.routes.invoke",
    "run.services.delete",
    "run.services.get",
    "run.services.list",
    "run.services.update",
  ]
  permissions = concat(
    local.common,
    contains(var.backends, "cloudrun") ? local.cloudrun : [],
    contains(var.backends, "gcf") ? local.gcf : [],
  )
}

resource "google_service_account" "account" {
  for_each     = local.accounts
  project      = var.project
  account_id   = "${var.name}-${each.key}"
  display_name = each.value
}

resource "google_project_iam_custom_role" "control_plane" {
  project     = var.project
  role_id     = "${replace(var.name, "-", "_")}_control_plane"
  title       = "Sockerless control plane (${var.name})"
  description = "Containers of the endpoint ${var.name}: making, running, reading and removing what they run on, and reading their output"
  permissions = local.permissions
}

# Documents and nothing else: no change of indexes, no export, no deletion of the database.
resource "google_project_iam_custom_role" "store" {
  project     = var.project
  role_id     = "${replace(var.name, "-", "_")}_store"
  title       = "Sockerless store (${var.name})"
  description = "Reading and writing documents of the endpoint ${var.name}"
  permissions = [
    "datastore.databases.get",
    "datastore.entities.allocateIds",
    "datastore.entities.create",
    "datastore.entities.delete",
    "datastore.entities.get",
    "datastore.entities.list",
    "datastore.entities.update",
  ]
}

# The scheduled work does what the control plane does, on a clock.
locals {
  workers = toset(var.events ? ["control", "events"] : ["control"])
}

resource "google_project_iam_member" "control_plane" {
  for_each = local.workers
  project  = var.project
  role     = google_project_iam_custom_role.control_plane.name
  member   = "serviceAccount:${google_service_account.account[each.key].email}"
}

resource "google_project_iam_member" "store" {
  for_each = local.workers
  project  = var.project
  role     = google_project_iam_custom_role.store.name
  member   = "serviceAccount:${google_service_account.account[each.key].email}"
  condition {
    title      = "${var.name} database"
    expression = "resource.name == \"projects/${var.project}/databases/${var.database}\""
  }
}

# Jobs and functions run as the containers' account: who deploys them must be allowed to act as it.
resource "google_service_account_iam_member" "act_as_containers" {
  for_each           = local.workers
  service_account_id = google_service_account.account["containers"].name
  role               = "roles/iam.serviceAccountUser"
  member             = "serviceAccount:${google_service_account.account[each.key].email}"
}

# Functions are made from a stub's source, which Cloud Build builds in this account's name.
resource "google_service_account_iam_member" "act_as_build" {
  for_each           = contains(var.backends, "gcf") ? local.workers : toset([])
  service_account_id = "projects/${var.project}/serviceAccounts/${var.build_account}"
  role               = "roles/iam.serviceAccountUser"
  member             = "serviceAccount:${google_service_account.account[each.key].email}"
}

resource "google_project_iam_member" "build" {
  count   = contains(var.backends, "gcf") ? 1 : 0
  project = var.project
  role    = "roles/cloudbuild.builds.builder"
  member  = "serviceAccount:${var.build_account}"
}

resource "google_project_iam_member" "direct_logs" {
  for_each = var.direct ? toset(["roles/logging.logWriter", "roles/monitoring.metricWriter"]) : toset([])
  project  = var.project
  role     = each.key
  member   = "serviceAccount:${google_service_account.account["direct"].email}"
}

resource "google_project_iam_member" "event_receiver" {
  count   = var.events ? 1 : 0
  project = var.project
  role    = "roles/eventarc.eventReceiver"
  member  = "serviceAccount:${google_service_account.account["trigger"].email}"
}
