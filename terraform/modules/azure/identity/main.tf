# Who does what: one user-assigned identity for each role.

resource "azurerm_user_assigned_identity" "identity" {
  for_each            = toset(["control", "gateway", "apps"])
  name                = "${var.name}-${each.key}"
  resource_group_name = var.resource_group
  location            = var.location
  tags                = var.tags
}

# What docs/backends/azure_functions.md lists, on the containers' resource group alone.
resource "azurerm_role_definition" "containers" {
  name        = "Sockerless containers (${var.name} ${var.suffix})"
  description = "Function apps of the endpoint ${var.name}: making, starting, stopping and removing them"
  scope       = var.containers_group_id
  permissions {
    actions = concat(
      [
        "Microsoft.Resources/subscriptions/resourceGroups/read",
        "Microsoft.Web/sites/delete",
        "Microsoft.Web/sites/read",
        "Microsoft.Web/sites/start/action",
        "Microsoft.Web/sites/stop/action",
        "Microsoft.Web/sites/write",
        "Microsoft.Web/serverfarms/join/action",
        "Microsoft.Web/serverfarms/read",
      ],
      var.shared_plan ? [] : [
        "Microsoft.Web/serverfarms/delete",
        "Microsoft.Web/serverfarms/write",
      ],
    )
  }
  assignable_scopes = [var.containers_group_id]
}

resource "azurerm_role_assignment" "containers" {
  scope              = var.containers_group_id
  role_definition_id = azurerm_role_definition.containers.role_definition_resource_id
  principal_id       = azurerm_user_assigned_identity.identity["control"].principal_id
  principal_type     = "ServicePrincipal"
}

# Giving apps their identity, and no other one.
resource "azurerm_role_assignment" "assign_apps" {
  scope                = azurerm_user_assigned_identity.identity["apps"].id
  role_definition_name = "Managed Identity Operator"
  principal_id         = azurerm_user_assigned_identity.identity["control"].principal_id
  principal_type       = "ServicePrincipal"
}
