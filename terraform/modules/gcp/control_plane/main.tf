# The control plane: HTTP/2 to the container (h2c), so that no body is limited to 32 MiB. Who may do what, it decides
# itself (tokens): Docker clients cannot show Google identities, so IAM is not asked.

resource "google_cloud_run_v2_service" "control_plane" {
  project              = var.project
  name                 = "${var.name}-control"
  location             = var.region
  description          = "Sockerless control plane"
  ingress              = var.ingress
  invoker_iam_disabled = true
  deletion_protection  = var.deletion_protection
  labels               = var.labels

  scaling {
    min_instance_count = var.instances.min
  }

  template {
    service_account                  = var.service_account
    timeout                          = "3600s"
    execution_environment            = "EXECUTION_ENVIRONMENT_GEN2"
    max_instance_request_concurrency = 250
    labels                           = var.labels

    scaling {
      min_instance_count = var.instances.min
      max_instance_count = var.instances.max
    }

    vpc_access {
      egress = var.fixed_egress ? "ALL_TRAFFIC" : "PRIVATE_RANGES_ONLY"
      network_interfaces {
        network    = var.network
        subnetwork = var.subnet
      }
    }

    containers {
      name  = "control-plane"
      image = var.image

      ports {
        name           = "h2c"
        container_port = 8080
      }

      resources {
        limits = {
          cpu    = var.resources.cpu
          memory = var.resources.memory
        }
        # The reconciler and the sweeper run between requests, unless a schedule calls them.
        cpu_idle          = var.scheduled
        startup_cpu_boost = true
      }

      dynamic "env" {
        for_each = var.environment
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

      startup_probe {
        period_seconds    = 1
        failure_threshold = 60
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
    # Set by whoever deployed last with a tool.
    ignore_changes = [client, client_version]
  }
}
