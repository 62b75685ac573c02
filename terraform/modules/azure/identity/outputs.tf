output "ids" {
  description = "Resource ids by role: control, gateway, apps."
  value       = { for role, identity in azurerm_user_assigned_identity.identity : role => identity.id }
}

output "client_ids" {
  description = "Client ids by role."
  value       = { for role, identity in azurerm_user_assigned_identity.identity : role => identity.client_id }
}

output "principal_ids" {
  description = "Principal ids by role."
  value       = { for role, identity in azurerm_user_assigned_identity.identity : role => identity.principal_id }
}
