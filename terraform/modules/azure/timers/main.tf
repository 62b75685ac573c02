# The azure-functions app: reconcile and sweep on a timer, and Event Grid. A small plan of its own: on the containers'
# shared one, a busy container would starve it.

locals {
  # host/repository:tag or host/repository@sha256:digest; App Service puts name and tag together with a colon.
  image = regex("^(?P<host>[^/]+)/(?P<name>.+):(?P<tag>[^:/]+)$", var.image)
}

resource "azurerm_service_plan" "timers" {
  name                = "${var.name}-timers"
  resource_group_name = var.resource_group
  location            = var.location
  os_type             = "Linux"
  sku_name            = "B1"
  tags                = var.tags
}

resource "azurerm_storage_account" "timers" {
  name                            = "${replace(var.name, "-", "")}t${var.suffix}"
  resource_group_name             = var.resource_group
  location                        = var.location
  account_tier                    = "Standard"
  account_replication_type        = "LRS"
  min_tls_version                 = "TLS1_2"
  shared_access_key_enabled       = false
  default_to_oauth_authentication = true
  allow_nested_items_to_be_public = false
  tags                            = var.tags
}

resource "azurerm_linux_function_app" "timers" {
  name                            = "${var.name}-timers-${var.suffix}"
  resource_group_name             = var.resource_group
  location                        = var.location
  service_plan_id                 = azurerm_service_plan.timers.id
  storage_account_name            = azurerm_storage_account.timers.name
  storage_uses_managed_identity   = true
  functions_extension_version     = "~4"
  https_only                      = true
  key_vault_reference_identity_id = var.identity_id
  app_settings = merge(var.environment, {
    SOCKERLESS_KEY                      = "@Microsoft.KeyVault(SecretUri=${var.signing_key_uri})"
    WEBSITES_ENABLE_APP_SERVICE_STORAGE = "false"
    WEBSITES_PORT                       = "8080"
  })
  tags = var.tags

  # The host's storage as its own identity, everything else as the control plane's.
  identity {
    type         = "SystemAssigned, UserAssigned"
    identity_ids = [var.identity_id]
  }

  site_config {
    always_on                                     = true
    minimum_tls_version                           = "1.2"
    ftps_state                                    = "Disabled"
    container_registry_use_managed_identity       = true
    container_registry_managed_identity_client_id = var.identity_client_id
    application_stack {
      docker {
        registry_url = "https://${local.image.host}"
        image_name   = local.image.name
        image_tag    = local.image.tag
      }
    }
  }
}

resource "azurerm_role_assignment" "storage" {
  for_each             = toset(["Storage Blob Data Owner", "Storage Queue Data Contributor"])
  scope                = azurerm_storage_account.timers.id
  role_definition_name = each.key
  principal_id         = azurerm_linux_function_app.timers.identity[0].principal_id
  principal_type       = "ServicePrincipal"
}

resource "azurerm_eventgrid_system_topic" "containers" {
  count               = var.site_events ? 1 : 0
  name                = "${var.name}-containers"
  resource_group_name = var.containers_group
  location            = "global"
  source_resource_id  = var.containers_group_id
  topic_type          = "Microsoft.Resources.ResourceGroups"
  tags                = var.tags
}

resource "azurerm_eventgrid_system_topic_event_subscription" "site_changed" {
  count                = var.site_events ? 1 : 0
  name                 = "site-changed"
  system_topic         = azurerm_eventgrid_system_topic.containers[0].name
  resource_group_name  = var.containers_group
  included_event_types = ["Microsoft.Resources.ResourceActionSuccess", "Microsoft.Resources.ResourceDeleteSuccess"]
  advanced_filter {
    string_contains {
      key    = "subject"
      values = ["/providers/Microsoft.Web/sites/"]
    }
  }
  azure_function_endpoint {
    function_id                       = "${azurerm_linux_function_app.timers.id}/functions/site_changed"
    max_events_per_batch              = 1
    preferred_batch_size_in_kilobytes = 64
  }
  retry_policy {
    max_delivery_attempts = 10
    event_time_to_live    = 60
  }
}
