# The control plane: HTTP/2 to the container (h2c). Who may do what, it decides itself (tokens).

resource "azurerm_container_app" "control_plane" {
  name                         = "${var.name}-control"
  resource_group_name          = var.resource_group
  container_app_environment_id = var.environment_id
  revision_mode                = "Single"
  workload_profile_name        = "Consumption"
  tags                         = var.tags

  identity {
    type         = "UserAssigned"
    identity_ids = [var.identity_id]
  }

  registry {
    server   = var.registry
    identity = var.identity_id
  }

  secret {
    name                = "signing-key"
    identity            = var.identity_id
    key_vault_secret_id = var.signing_key_uri
  }

  ingress {
    external_enabled = true
    target_port      = 8080
    transport        = "http2"
    traffic_weight {
      latest_revision = true
      percentage      = 100
    }
  }

  template {
    min_replicas                     = var.instances.min
    max_replicas                     = var.instances.max
    termination_grace_period_seconds = 30

    http_scale_rule {
      name                = "requests"
      concurrent_requests = "100"
    }

    container {
      name   = "control-plane"
      image  = var.image
      cpu    = 1
      memory = "2Gi"

      dynamic "env" {
        for_each = var.environment
        content {
          name  = env.key
          value = env.value
        }
      }

      env {
        name        = "SOCKERLESS_KEY"
        secret_name = "signing-key"
      }

      startup_probe {
        transport               = "TCP"
        port                    = 8080
        interval_seconds        = 1
        failure_count_threshold = 30
      }

      readiness_probe {
        transport = "HTTP"
        path      = "/_ready"
        port      = 8080
      }
    }
  }
}
