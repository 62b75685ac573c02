output "emails" {
  description = "Service accounts by role: control, gateway, containers, and those that are there: events, trigger, direct."
  value       = { for role, account in google_service_account.account : role => account.email }
}

output "permissions" {
  description = "Permissions of the control plane's custom role."
  value       = local.permissions
}
