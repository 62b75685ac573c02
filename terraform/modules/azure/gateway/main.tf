# Gateways: HTTP/1 to the container (websockets), one app of one replica for each, so that a redial comes back to where
# its stream is.

resource "azurerm_container_app" "gateway" {
  for_each                     = var.gateways
  name                         = each.key
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
    transport        = "http"
    traffic_weight {
      latest_revision = true
      percentage      = 100
    }
  }

  template {
    min_replicas                     = 1
    max_replicas                     = 1
    termination_grace_period_seconds = 60

    container {
      name   = "gateway"
      image  = var.image
      cpu    = 1
      memory = "2Gi"

      dynamic "env" {
        for_each = each.value
        content {
          name  = env.key
          value = env.value
        }
      }

      env {
        name        = "SOCKERLESS_KEY"
        secret_name = "signing-key"
      }

      liveness_probe {
        transport               = "HTTP"
        path                    = "/health"
        port                    = 8080
        interval_seconds        = 30
        timeout                 = 10
        failure_count_threshold = 3
      }

      startup_probe {
        transport               = "TCP"
        port                    = 8080
        interval_seconds        = 1
        failure_count_threshold = 30
      }
    }
  }
}
