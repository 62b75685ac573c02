# What outlives the processes: documents, images, the signing key and the key that secrets at rest are wrapped with.

data "azurerm_client_config" "operator" {}

locals {
  database  = "sockerless"
  container = "documents"
}

resource "azurerm_cosmosdb_account" "store" {
  name                          = "${var.name}-${var.suffix}"
  resource_group_name           = var.resource_group
  location                      = var.location
  offer_type                    = "Standard"
  kind                          = "GlobalDocumentDB"
  local_authentication_disabled = true
  minimal_tls_version           = "Tls12"
  tags                          = var.tags

  # What one control plane has written, the others must see.
  consistency_policy {
    consistency_level = "Strong"
  }

  geo_location {
    location          = var.location
    failover_priority = 0
  }

  dynamic "capabilities" {
    for_each = var.throughput == 0 ? ["EnableServerless"] : []
    content {
      name = capabilities.value
    }
  }

  backup {
    type = "Continuous"
    tier = "Continuous7Days"
  }
}

resource "azurerm_cosmosdb_sql_database" "store" {
  name                = local.database
  resource_group_name = var.resource_group
  account_name        = azurerm_cosmosdb_account.store.name
}

resource "azurerm_cosmosdb_sql_container" "documents" {
  name                  = local.container
  resource_group_name   = var.resource_group
  account_name          = azurerm_cosmosdb_account.store.name
  database_name         = azurerm_cosmosdb_sql_database.store.name
  partition_key_paths   = ["/partition"]
  partition_key_version = 2
  # On, for items that say their own: events, and what stands for a deleted document.
  default_ttl = -1

  # What queries name; an index on a body would only make writes dear.
  indexing_policy {
    indexing_mode = "consistent"
    dynamic "included_path" {
      for_each = ["/id/?", "/partition/?", "/collection/?", "/gone/?", "/due/?"]
      content {
        path = included_path.value
      }
    }
    excluded_path {
      path = "/*"
    }
  }

  dynamic "autoscale_settings" {
    for_each = var.throughput == 0 ? [] : [var.throughput]
    content {
      max_throughput = autoscale_settings.value
    }
  }
}

# Items and nothing else: no database, no container, no keys.
resource "azurerm_cosmosdb_sql_role_definition" "documents" {
  name                = "Sockerless documents"
  resource_group_name = var.resource_group
  account_name        = azurerm_cosmosdb_account.store.name
  type                = "CustomRole"
  assignable_scopes   = [azurerm_cosmosdb_account.store.id]
  permissions {
    data_actions = [
      "Microsoft.DocumentDB/databaseAccounts/readMetadata",
      "Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers/executeQuery",
      "Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers/items/create",
      "Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers/items/read",
      "Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers/items/replace",
      "Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers/readChangeFeed",
    ]
  }
}

resource "azurerm_cosmosdb_sql_role_assignment" "control_plane" {
  resource_group_name = var.resource_group
  account_name        = azurerm_cosmosdb_account.store.name
  role_definition_id  = azurerm_cosmosdb_sql_role_definition.documents.id
  principal_id        = var.principals["control"]
  scope               = azurerm_cosmosdb_account.store.id
}

resource "azurerm_container_registry" "images" {
  name                   = "${replace(var.name, "-", "")}${var.suffix}"
  resource_group_name    = var.resource_group
  location               = var.location
  sku                    = "Standard"
  admin_enabled          = false
  anonymous_pull_enabled = false
  tags                   = var.tags
}

resource "azurerm_role_assignment" "registry" {
  for_each = {
    control_push   = { role = "AcrPush", principal = "control" }
    control_delete = { role = "AcrDelete", principal = "control" }
    gateway        = { role = "AcrPull", principal = "gateway" }
    apps           = { role = "AcrPull", principal = "apps" }
  }
  scope                = azurerm_container_registry.images.id
  role_definition_name = each.value.role
  principal_id         = var.principals[each.value.principal]
  principal_type       = "ServicePrincipal"
}

resource "azurerm_key_vault" "keys" {
  name                       = "${var.name}-${var.suffix}"
  resource_group_name        = var.resource_group
  location                   = var.location
  tenant_id                  = data.azurerm_client_config.operator.tenant_id
  sku_name                   = "standard"
  rbac_authorization_enabled = true
  purge_protection_enabled   = var.deletion_protection
  soft_delete_retention_days = 30
  tags                       = var.tags
}

# Whoever applies this writes the key and the secret.
resource "azurerm_role_assignment" "operator" {
  for_each             = toset(["Key Vault Secrets Officer", "Key Vault Crypto Officer"])
  scope                = azurerm_key_vault.keys.id
  role_definition_name = each.key
  principal_id         = data.azurerm_client_config.operator.object_id
}

# Write-only: the key goes to the vault and stays out of plan and state.
resource "azurerm_key_vault_secret" "signing_key" {
  count            = var.signing_key_version > 0 ? 1 : 0
  name             = "signing-key"
  key_vault_id     = azurerm_key_vault.keys.id
  value_wo         = var.signing_key
  value_wo_version = var.signing_key_version
  content_type     = "text/plain"
  depends_on       = [azurerm_role_assignment.operator]
}

resource "azurerm_role_assignment" "signing_key" {
  for_each             = toset(["control", "gateway"])
  scope                = "${azurerm_key_vault.keys.id}/secrets/signing-key"
  role_definition_name = "Key Vault Secrets User"
  principal_id         = var.principals[each.key]
  principal_type       = "ServicePrincipal"
  depends_on           = [azurerm_key_vault_secret.signing_key]
}

# Certificates are put there by others, and read by name: Terraform never sees them.
resource "azurerm_role_assignment" "certificate" {
  for_each             = var.certificates
  scope                = "${azurerm_key_vault.keys.id}/secrets/${each.key}"
  role_definition_name = "Key Vault Secrets User"
  principal_id         = var.principals[each.value]
  principal_type       = "ServicePrincipal"
}

# Wraps the data keys that environments and credentials in the store are encrypted with.
resource "azurerm_key_vault_key" "store" {
  name         = "store"
  key_vault_id = azurerm_key_vault.keys.id
  key_type     = "RSA"
  key_size     = 3072
  key_opts     = ["wrapKey", "unwrapKey"]
  tags         = var.tags
  rotation_policy {
    automatic {
      time_after_creation = "P90D"
    }
  }
  depends_on = [azurerm_role_assignment.operator]
}

resource "azurerm_role_assignment" "store_key" {
  scope                = azurerm_key_vault_key.store.resource_versionless_id
  role_definition_name = "Key Vault Crypto Service Encryption User"
  principal_id         = var.principals["control"]
  principal_type       = "ServicePrincipal"
}
