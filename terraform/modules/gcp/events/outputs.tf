output "services" {
  description = "The services' names, by functions-framework target."
  value       = { for target, service in google_cloud_run_v2_service.target : target => service.name }
}
