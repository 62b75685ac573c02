output "docker_host" {
  description = "DOCKER_HOST of raw Docker clients."
  value       = "tcp://${var.host}:2376"
}

output "environment" {
  description = "Environment of the gateways, by VM."
  value       = { for index, name in local.names : "${var.name}-direct-${index}" => merge(var.environment, { SOCKERLESS_GATEWAY_URL = "https://${name}:2376", SOCKERLESS_KEY_FILE = "/run/sockerless/key" }) }
}

output "records" {
  description = "Name → addresses."
  value       = merge({ for index, name in local.names : name => [google_compute_address.gateway[index].address] }, { (var.host) = [for address in google_compute_address.gateway : address.address] })
}
