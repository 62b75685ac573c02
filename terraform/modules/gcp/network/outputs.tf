output "network" {
  description = "The network's id."
  value       = google_compute_network.network.id
}

output "subnet" {
  description = "The subnet's id."
  value       = google_compute_subnetwork.subnet.id
}

output "egress_address" {
  description = "Where connections from here come from, for the firewalls of others."
  value       = google_compute_address.egress.address
}

output "connector" {
  description = "SOCKERLESS_GCR_VPC_CONNECTOR; empty without one."
  value       = one(google_vpc_access_connector.containers[*].name) == null ? "" : "projects/${var.project}/locations/${var.region}/connectors/${var.name}"
}
