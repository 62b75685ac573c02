# Gateways: HTTP/1 to the container (websockets do not pass HTTP/2 here), one service of one instance for each. An agent
# or a connector whose request has lasted an hour redials, and must come back to where its stream is: with one instance a
# URL it does, so no session affinity is needed (Docker clients keep no cookies).

resource "google_cloud_run_v2_service" "gateway" {
  for_each             = var.gateways
  project              = var.project
  name                 = each.key
  location             = var.region
  description          = "Sockerless gateway"
  ingress              = "INGRESS_TRAFFIC_ALL"
  invoker_iam_disabled = true
  deletion_protection  = var.deletion_protection
  labels               = var.labels

  scaling {
    min_instance_count = 1
  }

  template {
    service_account                  = var.service_account
    timeout                          = "3600s"
    execution_environment            = "EXECUTION_ENVIRONMENT_GEN2"
    max_instance_request_concurrency = 1000
    session_affinity                 = false
    labels                           = var.labels

    scaling {
      min_instance_count = 1
      max_instance_count = 1
    }

    vpc_access {
      egress = var.fixed_egress ? "ALL_TRAFFIC" : "PRIVATE_RANGES_ONLY"
      network_interfaces {
        network    = var.network
        subnetwork = var.subnet
      }
    }

    containers {
      name  = "gateway"
      image = var.image

      ports {
        name           = "http1"
        container_port = 8080
      }

      resources {
        limits = {
          cpu    = var.resources.cpu
          memory = var.resources.memory
        }
        # It renews its lease between requests.
        cpu_idle          = false
        startup_cpu_boost = true
      }

      dynamic "env" {
        for_each = each.value
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

      liveness_probe {
        period_seconds    = 30
        timeout_seconds   = 10
        failure_threshold = 3
        http_get {
          path = "/health"
          port = 8080
        }
      }

      startup_probe {
        period_seconds    = 1
        failure_threshold = 30
        tcp_socket {
          port = 8080
        }
      }
    }
  }

  traffic {
    type    = "TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST"
    percent = 100
  }

  lifecycle {
    ignore_changes = [client, client_version]
  }
}
