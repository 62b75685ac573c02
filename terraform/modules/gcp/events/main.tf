# Scheduled work and events: one service for each functions-framework target, which only the trigger's account may call.

locals {
  targets = {
    reconcile          = { path = "/", signature = "http", schedule = var.reconcile_schedule, deadline = "600s" }
    sweep              = { path = "/", signature = "http", schedule = var.sweep_schedule, deadline = "1800s" }
    execution_finished = { path = "/", signature = "cloudevent", schedule = "", deadline = "" }
  }
  names     = { for target in keys(local.targets) : target => "${var.name}-${replace(target, "_", "-")}" }
  scheduled = { for target, what in local.targets : target => what if what.schedule != "" }
}

resource "google_cloud_run_v2_service" "target" {
  for_each            = local.targets
  project             = var.project
  name                = local.names[each.key]
  location            = var.region
  description         = "Sockerless: ${each.key}"
  ingress             = "INGRESS_TRAFFIC_INTERNAL_ONLY"
  deletion_protection = var.deletion_protection
  labels              = var.labels

  template {
    service_account = var.service_account
    timeout         = "1800s"
    # One pass at a time is enough; passes that meet do each other no harm.
    max_instance_request_concurrency = each.value.signature == "http" ? 1 : 80
    labels                           = var.labels

    scaling {
      min_instance_count = 0
      max_instance_count = each.value.signature == "http" ? 1 : 5
    }

    vpc_access {
      egress = var.fixed_egress ? "ALL_TRAFFIC" : "PRIVATE_RANGES_ONLY"
      network_interfaces {
        network    = var.network
        subnetwork = var.subnet
      }
    }

    containers {
      name  = "function"
      image = var.image

      ports {
        name           = "http1"
        container_port = 8080
      }

      resources {
        limits = {
          cpu    = "1"
          memory = "1Gi"
        }
        cpu_idle          = true
        startup_cpu_boost = true
      }

      dynamic "env" {
        for_each = merge(var.environment, {
          FUNCTION_TARGET         = each.key
          FUNCTION_SIGNATURE_TYPE = each.value.signature
        })
        content {
          name  = env.key
          value = env.value
        }
      }

      dynamic "env" {
        for_each = var.secrets
        content {
          name = env.key
          value_source {
            secret_key_ref {
              secret  = env.value
              version = "latest"
            }
          }
        }
      }
    }
  }

  lifecycle {
    ignore_changes = [client, client_version]
  }
}

resource "google_cloud_run_v2_service_iam_member" "trigger" {
  for_each = local.targets
  project  = var.project
  location = var.region
  name     = google_cloud_run_v2_service.target[each.key].name
  role     = "roles/run.invoker"
  member   = "serviceAccount:${var.trigger_account}"
}

resource "google_cloud_scheduler_job" "target" {
  for_each         = local.scheduled
  project          = var.project
  region           = var.region
  name             = local.names[each.key]
  description      = "Sockerless: ${each.key}"
  schedule         = each.value.schedule
  time_zone        = "Etc/UTC"
  attempt_deadline = each.value.deadline

  retry_config {
    retry_count = 0
  }

  http_target {
    http_method = "POST"
    uri         = google_cloud_run_v2_service.target[each.key].uri
    oidc_token {
      service_account_email = var.trigger_account
      audience              = google_cloud_run_v2_service.target[each.key].uri
    }
  }
}

# The end of an execution is in the project's system event log, which is always on.
resource "google_eventarc_trigger" "execution_finished" {
  project         = var.project
  name            = local.names["execution_finished"]
  location        = var.region
  service_account = var.trigger_account
  labels          = var.labels

  matching_criteria {
    attribute = "type"
    value     = "google.cloud.audit.log.v1.written"
  }
  matching_criteria {
    attribute = "serviceName"
    value     = "run.googleapis.com"
  }
  matching_criteria {
    attribute = "methodName"
    value     = "/Jobs.RunJob"
  }

  destination {
    cloud_run_service {
      service = google_cloud_run_v2_service.target["execution_finished"].name
      region  = var.region
      path    = local.targets["execution_finished"].path
    }
  }

  depends_on = [google_cloud_run_v2_service_iam_member.trigger]
}
