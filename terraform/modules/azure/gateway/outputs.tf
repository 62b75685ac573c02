output "ids" {
  description = "The apps' ids, by name."
  value       = { for name, app in azurerm_container_app.gateway : name => app.id }
}
