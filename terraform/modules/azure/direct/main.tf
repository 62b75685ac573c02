# Gateways for raw Docker clients: HAProxy ends TLS beside the gateway, TCP ingress hands it the bytes. The ports of all
# apps lie at one address, so each gateway has a port of its own, from 2376 on.

locals {
  ports   = { for index in range(var.instances) : "${var.name}-direct-${index}" => 2376 + index }
  secrets = merge({ "signing-key" = var.signing_key_uri, "tls" = "${var.vault_uri}secrets/${var.certificate_secret}" }, var.client_ca_secret == "" ? {} : { "client-ca" = "${var.vault_uri}secrets/${var.client_ca_secret}" })
  environment = {
    for app, port in local.ports : app => merge(var.environment, { SOCKERLESS_GATEWAY_URL = "https://${var.host}:${port}" })
  }
  start = join("; ", compact([
    "umask 077",
    "mkdir -p /tmp/sockerless",
    "printf '%s' \"$HAPROXY_CONFIGURATION\" > /tmp/sockerless/haproxy.cfg",
    "printf '%s\\n' \"$TLS\" > /tmp/sockerless/tls.pem",
    var.client_ca_secret == "" ? "" : "printf '%s\\n' \"$CLIENT_CA\" > /tmp/sockerless/client-ca.pem",
    "exec haproxy -W -db -f /tmp/sockerless/haproxy.cfg",
  ]))
}

resource "azurerm_container_app" "gateway" {
  for_each                     = local.ports
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

  dynamic "secret" {
    for_each = local.secrets
    content {
      name                = secret.key
      identity            = var.identity_id
      key_vault_secret_id = secret.value
    }
  }

  ingress {
    external_enabled = true
    target_port      = 2376
    exposed_port     = each.value
    transport        = "tcp"

    dynamic "ip_security_restriction" {
      for_each = { for index, range in var.source_ranges : "range-${index}" => range }
      content {
        name             = ip_security_restriction.key
        action           = "Allow"
        ip_address_range = ip_security_restriction.value
      }
    }

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
      name    = "haproxy"
      image   = var.haproxy_image
      cpu     = 0.25
      memory  = "0.5Gi"
      command = ["/bin/sh", "-c"]
      args    = [local.start]

      env {
        name = "HAPROXY_CONFIGURATION"
        value = replace(
          templatefile("${path.module}/haproxy.cfg.tftpl", { client_ca = var.client_ca_secret != "", certificate_required = var.client_certificate_required }),
          "/run/sockerless/", "/tmp/sockerless/"
        )
      }

      env {
        name        = "TLS"
        secret_name = "tls"
      }

      dynamic "env" {
        for_each = var.client_ca_secret == "" ? [] : ["client-ca"]
        content {
          name        = "CLIENT_CA"
          secret_name = env.value
        }
      }
    }

    container {
      name   = "gateway"
      image  = var.image
      cpu    = 0.75
      memory = "1.5Gi"

      dynamic "env" {
        for_each = local.environment[each.key]
        content {
          name  = env.key
          value = env.value
        }
      }

      env {
        name        = "SOCKERLESS_KEY"
        secret_name = "signing-key"
      }
    }
  }
}
