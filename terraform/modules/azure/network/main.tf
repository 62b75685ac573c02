# One network: the Container Apps environment must lie in one for TCP ingress.

resource "azurerm_virtual_network" "network" {
  name                = var.name
  resource_group_name = var.resource_group
  location            = var.location
  address_space       = [var.address_space]
  tags                = var.tags
}

resource "azurerm_subnet" "apps" {
  name                 = "apps"
  resource_group_name  = var.resource_group
  virtual_network_name = azurerm_virtual_network.network.name
  address_prefixes     = [cidrsubnet(var.address_space, 2, 0)]
  delegation {
    name = "environment"
    service_delegation {
      name    = "Microsoft.App/environments"
      actions = ["Microsoft.Network/virtualNetworks/subnets/join/action"]
    }
  }
}

resource "azurerm_log_analytics_workspace" "logs" {
  name                         = var.name
  resource_group_name          = var.resource_group
  location                     = var.location
  sku                          = "PerGB2018"
  retention_in_days            = var.log_retention_days
  local_authentication_enabled = false
  tags                         = var.tags
}

resource "azurerm_container_app_environment" "apps" {
  name                     = var.name
  resource_group_name      = var.resource_group
  location                 = var.location
  infrastructure_subnet_id = azurerm_subnet.apps.id
  logs_destination         = "azure-monitor"
  tags                     = var.tags
  workload_profile {
    name                  = "Consumption"
    workload_profile_type = "Consumption"
  }
  dynamic "identity" {
    for_each = length(var.environment_identities) == 0 ? [] : [var.environment_identities]
    content {
      type         = "UserAssigned"
      identity_ids = identity.value
    }
  }
}

# Without shared keys: what the apps print goes through a diagnostic setting.
resource "azurerm_monitor_diagnostic_setting" "apps" {
  name                       = "sockerless"
  target_resource_id         = azurerm_container_app_environment.apps.id
  log_analytics_workspace_id = azurerm_log_analytics_workspace.logs.id
  enabled_log {
    category = "ContainerAppConsoleLogs"
  }
  enabled_log {
    category = "ContainerAppSystemLogs"
  }
}
