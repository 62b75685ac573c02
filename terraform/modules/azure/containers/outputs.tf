output "storage_account" {
  description = "SOCKERLESS_AZF_STORAGE_ACCOUNT."
  value       = azurerm_storage_account.host.name
  depends_on  = [azurerm_role_assignment.host_storage]
}

output "storage_account_id" {
  description = "The storage account's id."
  value       = azurerm_storage_account.host.id
}

output "plan_id" {
  description = "SOCKERLESS_AZF_APP_SERVICE_PLAN; empty without a shared plan."
  value       = var.plan_sku == "" ? "" : azurerm_service_plan.shared[0].id
}
