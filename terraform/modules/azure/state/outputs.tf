output "store_url" {
  description = "SOCKERLESS_STORE."
  value       = "cosmos://${azurerm_cosmosdb_account.store.name}.documents.azure.com/${azurerm_cosmosdb_sql_database.store.name}"
  depends_on  = [azurerm_cosmosdb_sql_container.documents, azurerm_cosmosdb_sql_role_assignment.control_plane]
}

output "account_id" {
  description = "The Cosmos account's id."
  value       = azurerm_cosmosdb_account.store.id
}

output "registry" {
  description = "The registry's host."
  value       = azurerm_container_registry.images.login_server
  depends_on  = [azurerm_role_assignment.registry]
}

output "vault_id" {
  description = "The vault's id."
  value       = azurerm_key_vault.keys.id
}

output "vault_uri" {
  description = "The vault's URI."
  value       = azurerm_key_vault.keys.vault_uri
}

output "signing_key_uri" {
  description = "The signing key's secret, newest version."
  value       = "${azurerm_key_vault.keys.vault_uri}secrets/signing-key"
  depends_on  = [azurerm_role_assignment.signing_key]
}

output "store_key" {
  description = "The key that data keys of the store are wrapped with."
  value       = azurerm_key_vault_key.store.versionless_id
}
