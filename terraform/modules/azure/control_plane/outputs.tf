output "id" {
  description = "The app's id."
  value       = azurerm_container_app.control_plane.id
}
