output "docker_host" {
  description = "DOCKER_HOST of raw Docker clients."
  value       = "tcp://${var.host}:2376"
}

output "environment" {
  description = "Environment of the gateways, by app."
  value       = local.environment
}

output "ids" {
  description = "The apps' ids, by name."
  value       = { for name, app in azurerm_container_app.gateway : name => app.id }
}
