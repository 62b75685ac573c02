mock_provider "azurerm" {
  mock_data "azurerm_client_config" {
    defaults = {
      subscription_id = "00000000-0000-0000-0000-000000000001"
      tenant_id       = "00000000-0000-0000-0000-000000000002"
      object_id       = "00000000-0000-0000-0000-000000000003"
    }
  }
  mock_resource "azurerm_container_app_environment" {
    defaults = {
      default_domain                = "happy-sea.westeurope.azurecontainerapps.io"
      static_ip_address             = "203.0.113.7"
      custom_domain_verification_id = "verification"
    }
  }
  mock_resource "azurerm_container_registry" {
    defaults = {
      login_server = "teama.azurecr.io"
    }
  }
  mock_resource "azurerm_key_vault" {
    defaults = {
      id        = "/subscriptions/s/resourceGroups/g/providers/Microsoft.KeyVault/vaults/v"
      vault_uri = "https://v.vault.azure.net/"
    }
  }
  mock_resource "azurerm_key_vault_key" {
    defaults = {
      versionless_id          = "https://v1234.vault.azure.net/keys/store"
      resource_versionless_id = "/subscriptions/s/resourceGroups/g/providers/Microsoft.KeyVault/vaults/v/keys/store"
    }
  }
}

variables {
  location            = "westeurope"
  name                = "team-a"
  control_plane_image = "example.azurecr.io/control-plane@sha256:00"
  gateway_image       = "example.azurecr.io/gateway@sha256:00"
}

run "smallest" {
  command = apply

  variables {
    # An ephemeral variable that a test leaves out fails in its apply (Terraform 1.11).
    signing_key = "not used, as no version of the secret is written"
  }

  assert {
    condition     = output.endpoint_url == "https://team-a-control.happy-sea.westeurope.azurecontainerapps.io"
    error_message = "The endpoint's URL is the control plane's own."
  }
  assert {
    condition     = can(regex("^cosmos://team-a-[0-9a-f]{6}[.]documents[.]azure[.]com/sockerless$", output.control_plane_environment.SOCKERLESS_STORE))
    error_message = "The store is the account's database."
  }
  assert {
    condition     = output.control_plane_environment.SOCKERLESS_SEALING_KEY == "vault:https://v1234.vault.azure.net/keys/store"
    error_message = "Secrets in the store are sealed with the endpoint's own key."
  }
  assert {
    condition     = output.control_plane_environment.SOCKERLESS_REGISTRY_URL == "https://teama.azurecr.io" && output.control_plane_environment.SOCKERLESS_AZF_REGISTRY == "teama.azurecr.io"
    error_message = "Apps pull from the registry that the control plane pushes to."
  }
  assert {
    condition     = output.control_plane_environment.SOCKERLESS_AZF_RESOURCE_GROUP == "team-a-containers"
    error_message = "Containers have a resource group of their own."
  }
  assert {
    condition     = contains(keys(output.control_plane_environment), "SOCKERLESS_AZF_APP_SERVICE_PLAN") && !contains(keys(output.control_plane_environment), "SOCKERLESS_AZF_STORAGE_KEY")
    error_message = "One plan for all; no keys."
  }
  assert {
    condition     = output.control_plane_environment.SOCKERLESS_RECONCILE_INTERVAL == "30" && length(output.timers_environment) == 0
    error_message = "Without timers_image each control plane reconciles by itself."
  }
  assert {
    condition     = length(output.gateway_environment) == 2 && alltrue([for name, gateway in output.gateway_environment : gateway.SOCKERLESS_GATEWAY_URL == "https://${name}.happy-sea.westeurope.azurecontainerapps.io"])
    error_message = "Two gateways, each with a URL of its own."
  }
  assert {
    condition     = output.secrets == { SOCKERLESS_KEY = "https://v.vault.azure.net/secrets/signing-key" }
    error_message = "The signing key comes from Key Vault."
  }
}

run "whole" {
  command = apply

  variables {
    timers_image        = "example.azurecr.io/team/functions@sha256:11"
    site_events         = true
    plan_sku            = ""
    cosmos_throughput   = 4000
    signing_key         = "0123456789012345678901234567890123456789"
    signing_key_version = 1
    domain              = { host = "docker.example.com", certificate_secret = "docker-tls", zone = "example.com", zone_resource_group = "dns" }
    direct              = { host = "direct.example.com", certificate_secret = "direct-tls", client_ca_secret = "direct-ca", instances = 2 }
    alert_action_groups = ["/subscriptions/s/resourceGroups/g/providers/Microsoft.Insights/actionGroups/a"]
    extra_environment   = { SOCKERLESS_AZF_TIMEOUT = "3600", OTEL_EXPORTER_OTLP_ENDPOINT = "http://collector:4318" }
  }

  assert {
    condition     = alltrue([for environment in values(output.gateway_environment) : environment.OTEL_EXPORTER_OTLP_ENDPOINT == "http://collector:4318" && !can(environment.SOCKERLESS_AZF_TIMEOUT)])
    error_message = "Gateways send traces, and get no other settings of control planes."
  }

  assert {
    condition     = output.endpoint_url == "https://docker.example.com" && output.docker_host == "tcp://direct.example.com:2376"
    error_message = "Both ways in have the names that were asked for."
  }
  assert {
    condition     = output.gateway_environment["team-a-direct-1"].SOCKERLESS_GATEWAY_URL == "https://direct.example.com:2377"
    error_message = "Each gateway behind TCP ingress has a port of its own."
  }
  assert {
    condition     = output.control_plane_environment.SOCKERLESS_RECONCILE_INTERVAL == "0" && output.timers_environment == output.control_plane_environment
    error_message = "With timers_image a timer reconciles, with the same settings."
  }
  assert {
    condition     = !contains(keys(output.control_plane_environment), "SOCKERLESS_AZF_APP_SERVICE_PLAN")
    error_message = "A plan for each container, when no shared one is wanted."
  }
  assert {
    condition     = output.dns_records == tomap({ "docker.example.com" = "203.0.113.7", "direct.example.com" = "203.0.113.7" })
    error_message = "Both names lead to the environment's address."
  }
}

run "refuses_a_long_name" {
  command = plan
  variables {
    name = "a-name-that-is-long"
  }
  expect_failures = [var.name]
}

run "refuses_an_image_without_a_tag" {
  command = plan
  variables {
    timers_image = "example.azurecr.io/functions"
  }
  expect_failures = [var.timers_image]
}

run "refuses_events_for_nobody" {
  command = plan
  variables {
    site_events = true
  }
  expect_failures = [var.site_events]
}

run "refuses_a_plan_without_containers" {
  command = plan
  variables {
    plan_sku = "Y1"
  }
  expect_failures = [var.plan_sku]
}

run "refuses_a_name_outside_the_zone" {
  command = plan
  variables {
    domain = { host = "docker.example.org", certificate_secret = "tls", zone = "example.com", zone_resource_group = "dns" }
  }
  expect_failures = [var.domain]
}
