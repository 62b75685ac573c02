output "endpoint_url" {
  description = "What people give to `sockerless login` and `sockerless connect`."
  value       = "https://${local.endpoint_host}"
}

output "docker_host" {
  description = "DOCKER_HOST of raw Docker clients; empty without `direct`."
  value       = local.direct ? module.direct[0].docker_host : ""
}

output "control_plane_environment" {
  description = "Environment of the control plane."
  value       = tomap(local.environment)
}

output "gateway_environment" {
  description = "Environment of the gateways, by app."
  value       = merge(local.gateway_environment, local.direct ? module.direct[0].environment : {})
}

output "timers_environment" {
  description = "Environment of the azure-functions app; empty without timers_image."
  value       = local.timers ? tomap(local.environment) : tomap({})
}

output "secrets" {
  description = "Variable → Key Vault secret that an app gets in it."
  value       = { SOCKERLESS_KEY = module.state.signing_key_uri }
}

output "registry" {
  description = "The registry's host: where the images of tenants are, and where images of the endpoint's own may be put."
  value       = module.state.registry
}

output "store_key" {
  description = "Key of Key Vault for the store's encrypted fields."
  value       = module.state.store_key
}

output "identities" {
  description = "Principal ids of the identities, by role."
  value       = module.identity.principal_ids
}

output "dns_records" {
  description = "A records to be made where no zone was given; domain.host needs asuid.<host> (TXT) as well, see domain_verification."
  value = merge(
    var.domain == null ? {} : { (var.domain.host) = module.network.address },
    local.direct ? { (var.direct.host) = module.network.address } : {},
  )
}

output "domain_verification" {
  description = "What the TXT record asuid.<host> must say."
  value       = module.network.domain_verification
  sensitive   = true
}
