# What the backend azf makes containers' apps with: a resource group of their own, which is all that the control plane may
# write to; the plan they share; their storage account; and the policy that sends their output to Log Analytics.

resource "azurerm_service_plan" "shared" {
  count                        = var.plan_sku == "" ? 0 : 1
  name                         = var.name
  resource_group_name          = var.resource_group
  location                     = var.location
  os_type                      = "Linux"
  sku_name                     = var.plan_sku
  maximum_elastic_worker_count = startswith(var.plan_sku, "EP") ? var.plan_workers : null
  worker_count                 = startswith(var.plan_sku, "EP") ? null : var.plan_workers
  # An app has one instance, on one machine of the plan.
  per_site_scaling_enabled = !startswith(var.plan_sku, "EP")
  tags                     = var.tags
}

# Apps reach it as their identity: there is no key to steal.
resource "azurerm_storage_account" "host" {
  name                            = "${replace(var.name, "-", "")}${var.suffix}"
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

resource "azurerm_role_assignment" "host_storage" {
  scope                = azurerm_storage_account.host.id
  role_definition_name = "Storage Blob Data Owner"
  principal_id         = var.principals["apps"]
  principal_type       = "ServicePrincipal"
}

# The log archive: one table of the workspace.
resource "azurerm_role_definition" "archive" {
  name        = "Sockerless log archive (${var.name} ${var.suffix})"
  description = "Reading what the containers of the endpoint ${var.name} have printed"
  scope       = var.workspace_id
  permissions {
    actions = [
      "Microsoft.OperationalInsights/workspaces/query/AppServiceConsoleLogs/read",
      "Microsoft.OperationalInsights/workspaces/query/read",
      "Microsoft.OperationalInsights/workspaces/read",
    ]
  }
  assignable_scopes = [var.workspace_id]
}

resource "azurerm_role_assignment" "archive" {
  scope              = var.workspace_id
  role_definition_id = azurerm_role_definition.archive.role_definition_resource_id
  principal_id       = var.principals["control"]
  principal_type     = "ServicePrincipal"
}

# Apps are made one for each container, so nobody can list them here: the policy gives each new one its diagnostic setting.
resource "azurerm_role_definition" "policy" {
  name        = "Sockerless diagnostic settings (${var.name} ${var.suffix})"
  description = "Diagnostic settings for the function apps of the endpoint ${var.name}"
  scope       = var.resource_group_id
  permissions {
    actions = [
      "Microsoft.Insights/diagnosticSettings/read",
      "Microsoft.Insights/diagnosticSettings/write",
      "Microsoft.Resources/deployments/*",
      "Microsoft.Web/sites/read",
    ]
  }
  assignable_scopes = [var.resource_group_id]
}

resource "azurerm_policy_definition" "console_logs" {
  name         = "${var.name}-${var.suffix}-console-logs"
  display_name = "Sockerless (${var.name}): send console output of function apps to Log Analytics"
  policy_type  = "Custom"
  mode         = "Indexed"
  metadata     = jsonencode({ category = "Monitoring" })
  parameters = jsonencode({
    workspace = { type = "String", metadata = { displayName = "Log Analytics workspace", strongType = "omsWorkspace" } }
    endpoint  = { type = "String", metadata = { displayName = "Name of the endpoint" } }
  })
  policy_rule = jsonencode({
    if = {
      allOf = [
        { field = "type", equals = "Microsoft.Web/sites" },
        { field = "tags['managed-by']", equals = "sockerless" },
        { field = "tags['sockerless-endpoint']", equals = "[parameters('endpoint')]" },
      ]
    }
    then = {
      effect = "deployIfNotExists"
      details = {
        type              = "Microsoft.Insights/diagnosticSettings"
        name              = "sockerless"
        evaluationDelay   = "AfterProvisioningSuccess"
        roleDefinitionIds = [azurerm_role_definition.policy.role_definition_resource_id]
        existenceCondition = {
          field  = "Microsoft.Insights/diagnosticSettings/workspaceId"
          equals = "[parameters('workspace')]"
        }
        deployment = {
          properties = {
            mode = "incremental"
            parameters = {
              site      = { value = "[field('name')]" }
              workspace = { value = "[parameters('workspace')]" }
            }
            template = {
              "$schema"      = "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#"
              contentVersion = "1.0.0.0"
              parameters = {
                site      = { type = "string" }
                workspace = { type = "string" }
              }
              resources = [{
                type       = "Microsoft.Web/sites/providers/diagnosticSettings"
                apiVersion = "2021-05-01-preview"
                name       = "[concat(parameters('site'), '/Microsoft.Insights/sockerless')]"
                properties = {
                  workspaceId = "[parameters('workspace')]"
                  logs        = [{ category = "AppServiceConsoleLogs", enabled = true }]
                }
              }]
            }
          }
        }
      }
    }
  })
}

resource "azurerm_resource_group_policy_assignment" "console_logs" {
  name                 = "${var.name}-console-logs"
  display_name         = "Sockerless (${var.name}): console output of containers"
  resource_group_id    = var.resource_group_id
  location             = var.location
  policy_definition_id = azurerm_policy_definition.console_logs.id
  parameters = jsonencode({
    workspace = { value = var.workspace_id }
    endpoint  = { value = var.name }
  })
  identity {
    type = "SystemAssigned"
  }
}

resource "azurerm_role_assignment" "policy" {
  scope              = var.resource_group_id
  role_definition_id = azurerm_role_definition.policy.role_definition_resource_id
  principal_id       = azurerm_resource_group_policy_assignment.console_logs.identity[0].principal_id
  principal_type     = "ServicePrincipal"
}

# A diagnostic setting that sends to a workspace needs the right to do so there; it cannot be had by a smaller role.
resource "azurerm_role_assignment" "policy_workspace" {
  scope                = var.workspace_id
  role_definition_name = "Log Analytics Contributor"
  principal_id         = azurerm_resource_group_policy_assignment.console_logs.identity[0].principal_id
  principal_type       = "ServicePrincipal"
}
