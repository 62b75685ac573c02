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
  description = "Environment of the gateways, by service or VM."
  value       = merge(local.gateway_environment, local.direct ? module.direct[0].environment : {})
}

output "events_environment" {
  description = "Environment of the functions-framework targets; empty without events_image."
  value       = local.events ? tomap(local.environment) : tomap({})
}

output "secrets" {
  description = "Variable → secret of Secret Manager whose latest version a service gets in it."
  value       = local.secrets
}

output "registry" {
  description = "Where the images of tenants are, and where images of the endpoint's own may be put."
  value       = "${trimprefix(module.state.registry_url, "https://")}/${module.state.registry_prefix}"
}

output "store_key" {
  description = "Key of Cloud KMS for the store's encrypted fields."
  value       = module.state.store_key
}

output "service_accounts" {
  description = "Service accounts by role."
  value       = local.emails
}

output "egress_address" {
  description = "Where connections come from with `fixed_egress`."
  value       = module.network.egress_address
}

output "dns_records" {
  description = "Records to be made where no zone was given."
  value = {
    domain        = var.domain == null ? {} : { (var.domain.host) = [module.domain[0].address] }
    authorization = var.domain == null ? [] : module.domain[0].authorization
    direct        = local.direct ? module.direct[0].records : {}
  }
}
