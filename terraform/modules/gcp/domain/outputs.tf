output "address" {
  description = "Where `host` must point."
  value       = google_compute_global_address.address.address
}

output "authorization" {
  description = "The record that the certificate is made and renewed by."
  value       = google_certificate_manager_dns_authorization.host.dns_resource_record
}
