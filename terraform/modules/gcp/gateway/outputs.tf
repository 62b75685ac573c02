output "services" {
  description = "The services' names."
  value       = [for gateway in google_cloud_run_v2_service.gateway : gateway.name]
}
