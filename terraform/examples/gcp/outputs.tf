output "endpoint_url" {
  description = "For `sockerless login` and `sockerless connect`."
  value       = module.sockerless.endpoint_url
}

output "docker_host" {
  description = "DOCKER_HOST of raw Docker clients; empty without `direct`."
  value       = module.sockerless.docker_host
}

output "registry" {
  description = "Where images of the endpoint's own may be put."
  value       = module.sockerless.registry
}

output "environment" {
  description = "What each role runs with."
  value = {
    control_plane = module.sockerless.control_plane_environment
    gateway       = module.sockerless.gateway_environment
    events        = module.sockerless.events_environment
  }
}

output "dns_records" {
  description = "Records to be made where no zone was given."
  value       = module.sockerless.dns_records
}
