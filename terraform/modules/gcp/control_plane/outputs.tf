output "service" {
  description = "The service's name."
  value       = google_cloud_run_v2_service.control_plane.name
}
