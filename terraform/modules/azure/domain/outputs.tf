output "host" {
  description = "The name, once it works."
  value       = azurerm_container_app_custom_domain.host.name
}
