output "id" {
  description = "The function app's id."
  value       = azurerm_linux_function_app.timers.id
}
