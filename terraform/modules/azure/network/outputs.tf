output "environment_id" {
  description = "The Container Apps environment."
  value       = azurerm_container_app_environment.apps.id
}

output "default_domain" {
  description = "Apps are called <name>.<this>."
  value       = azurerm_container_app_environment.apps.default_domain
}

output "address" {
  description = "The environment's address."
  value       = azurerm_container_app_environment.apps.static_ip_address
}

output "domain_verification" {
  description = "What the record asuid.<host> must say."
  value       = azurerm_container_app_environment.apps.custom_domain_verification_id
  sensitive   = true
}

output "workspace_id" {
  description = "The workspace's resource id."
  value       = azurerm_log_analytics_workspace.logs.id
}

output "workspace_guid" {
  description = "SOCKERLESS_AZF_LOG_ANALYTICS_WORKSPACE."
  value       = azurerm_log_analytics_workspace.logs.workspace_id
}
