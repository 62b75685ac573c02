# A hosted endpoint on Azure: see docs/terraform.md.

locals {
  tags   = merge(var.tags, { sockerless-deployment = var.name })
  timers = var.timers_image != ""
  direct = var.direct != null
  # Some names are unique in all of Azure.
  suffix = substr(sha256("${data.azurerm_client_config.operator.subscription_id}/${var.name}/${var.location}"), 0, 6)

  control_plane_url = "https://${var.name}-control.${module.network.default_domain}"
  endpoint_host     = var.domain == null ? "${var.name}-control.${module.network.default_domain}" : var.domain.host

  certificates = merge(
    local.direct ? { for secret in compact([var.direct.certificate_secret, var.direct.client_ca_secret]) : secret => "gateway" } : {},
    var.domain == null ? {} : { (var.domain.certificate_secret) = "control" },
  )

  environment = merge(
    {
      AZURE_CLIENT_ID                        = module.identity.client_ids["control"]
      SOCKERLESS_STORE                       = module.state.store_url
      SOCKERLESS_SEALING_KEY                 = "vault:${module.state.store_key}"
      SOCKERLESS_REGISTRY_URL                = "https://${module.state.registry}"
      SOCKERLESS_REGISTRY_PREFIX             = var.name
      SOCKERLESS_BACKEND                     = "azf"
      SOCKERLESS_ENDPOINT_NAME               = var.name
      SOCKERLESS_RECONCILE_INTERVAL          = local.timers ? "0" : "30"
      SOCKERLESS_AZF_SUBSCRIPTION_ID         = data.azurerm_client_config.operator.subscription_id
      SOCKERLESS_AZF_RESOURCE_GROUP          = azurerm_resource_group.containers.name
      SOCKERLESS_AZF_LOCATION                = var.location
      SOCKERLESS_AZF_STORAGE_ACCOUNT         = module.containers.storage_account
      SOCKERLESS_AZF_REGISTRY                = module.state.registry
      SOCKERLESS_AZF_REGISTRY_IDENTITY       = module.identity.client_ids["apps"]
      SOCKERLESS_AZF_IDENTITY                = module.identity.ids["apps"]
      SOCKERLESS_AZF_PLAN_SKU                = var.plan_sku == "" ? "EP1" : var.plan_sku
      SOCKERLESS_AZF_LOG_ANALYTICS_WORKSPACE = module.network.workspace_guid
    },
    var.plan_sku == "" ? {} : { SOCKERLESS_AZF_APP_SERVICE_PLAN = module.containers.plan_id },
    var.extra_environment,
  )

  # Gateways send traces where control planes do.
  traces = { for name, value in var.extra_environment : name => value if startswith(name, "OTEL_") }

  gateway_environment = {
    for index in range(var.gateway_shards) : "${var.name}-gateway-${index}" => merge(local.traces, {
      SOCKERLESS_CONTROL_PLANE_URL = local.control_plane_url
      SOCKERLESS_GATEWAY_URL       = "https://${var.name}-gateway-${index}.${module.network.default_domain}"
      SOCKERLESS_LISTEN            = "tcp://0.0.0.0:8080"
      # All come through one front end.
      SOCKERLESS_PEER_CONNECTIONS = "0"
      SOCKERLESS_DRAIN_SECONDS    = "45"
    })
  }
}

data "azurerm_client_config" "operator" {}

resource "azurerm_resource_group" "endpoint" {
  name     = var.name
  location = var.location
  tags     = local.tags
}

# Function apps of containers, and nothing that is not theirs: all that the control plane may write to.
resource "azurerm_resource_group" "containers" {
  name     = "${var.name}-containers"
  location = var.location
  tags     = local.tags
}

module "identity" {
  source              = "./identity"
  name                = var.name
  suffix              = local.suffix
  resource_group      = azurerm_resource_group.endpoint.name
  location            = var.location
  containers_group_id = azurerm_resource_group.containers.id
  shared_plan         = var.plan_sku != ""
  tags                = local.tags
}

module "state" {
  source              = "./state"
  name                = var.name
  suffix              = local.suffix
  resource_group      = azurerm_resource_group.endpoint.name
  location            = var.location
  throughput          = var.cosmos_throughput
  principals          = module.identity.principal_ids
  certificates        = local.certificates
  signing_key         = var.signing_key
  signing_key_version = var.signing_key_version
  deletion_protection = var.deletion_protection
  tags                = local.tags
}

module "network" {
  source                 = "./network"
  name                   = var.name
  resource_group         = azurerm_resource_group.endpoint.name
  location               = var.location
  address_space          = var.address_space
  log_retention_days     = var.log_retention_days
  environment_identities = var.domain == null ? [] : [module.identity.ids["control"]]
  tags                   = local.tags
}

module "containers" {
  source            = "./containers"
  name              = var.name
  suffix            = local.suffix
  resource_group    = azurerm_resource_group.containers.name
  resource_group_id = azurerm_resource_group.containers.id
  location          = var.location
  plan_sku          = var.plan_sku
  plan_workers      = var.plan_workers
  workspace_id      = module.network.workspace_id
  principals        = module.identity.principal_ids
  tags              = local.tags
}

module "control_plane" {
  source          = "./control_plane"
  name            = var.name
  resource_group  = azurerm_resource_group.endpoint.name
  environment_id  = module.network.environment_id
  identity_id     = module.identity.ids["control"]
  registry        = module.state.registry
  signing_key_uri = module.state.signing_key_uri
  image           = var.control_plane_image
  environment     = local.environment
  instances       = var.control_plane_instances
  tags            = local.tags
}

module "gateway" {
  source          = "./gateway"
  gateways        = local.gateway_environment
  resource_group  = azurerm_resource_group.endpoint.name
  environment_id  = module.network.environment_id
  identity_id     = module.identity.ids["gateway"]
  registry        = module.state.registry
  signing_key_uri = module.state.signing_key_uri
  image           = var.gateway_image
  tags            = local.tags
}

module "direct" {
  count                       = local.direct ? 1 : 0
  source                      = "./direct"
  name                        = var.name
  host                        = var.direct.host
  instances                   = var.direct.instances
  resource_group              = azurerm_resource_group.endpoint.name
  environment_id              = module.network.environment_id
  identity_id                 = module.identity.ids["gateway"]
  registry                    = module.state.registry
  vault_uri                   = module.state.vault_uri
  signing_key_uri             = module.state.signing_key_uri
  certificate_secret          = var.direct.certificate_secret
  client_ca_secret            = var.direct.client_ca_secret
  client_certificate_required = var.direct.client_certificate_required
  image                       = var.gateway_image
  haproxy_image               = var.direct.haproxy_image
  environment = merge(local.traces, {
    SOCKERLESS_CONTROL_PLANE_URL     = local.control_plane_url
    SOCKERLESS_LISTEN                = "tcp://127.0.0.1:8080"
    SOCKERLESS_DOCKER_LISTEN         = "tcp://127.0.0.1:2375"
    SOCKERLESS_DOCKER_PROXY_PROTOCOL = "1"
    SOCKERLESS_PEER_CONNECTIONS      = "0"
    SOCKERLESS_DRAIN_SECONDS         = "45"
  })
  source_ranges = var.direct.source_ranges
  tags          = local.tags
}

module "timers" {
  count               = local.timers ? 1 : 0
  source              = "./timers"
  name                = var.name
  suffix              = local.suffix
  resource_group      = azurerm_resource_group.endpoint.name
  location            = var.location
  containers_group    = azurerm_resource_group.containers.name
  containers_group_id = azurerm_resource_group.containers.id
  image               = var.timers_image
  identity_id         = module.identity.ids["control"]
  identity_client_id  = module.identity.client_ids["control"]
  environment         = local.environment
  signing_key_uri     = module.state.signing_key_uri
  site_events         = var.site_events
  tags                = local.tags
}

module "domain" {
  count               = var.domain == null ? 0 : 1
  source              = "./domain"
  host                = var.domain.host
  zone                = var.domain.zone
  zone_resource_group = var.domain.zone_resource_group
  verification        = module.network.domain_verification
  address             = module.network.address
  environment_id      = module.network.environment_id
  app_id              = module.control_plane.id
  identity_id         = module.identity.ids["control"]
  certificate_uri     = "${module.state.vault_uri}secrets/${var.domain.certificate_secret}"
  tags                = local.tags
}

module "alerts" {
  source           = "./alerts"
  name             = var.name
  resource_group   = azurerm_resource_group.endpoint.name
  location         = var.location
  control_plane_id = module.control_plane.id
  gateways         = merge(module.gateway.ids, local.direct ? module.direct[0].ids : {})
  store_id         = module.state.account_id
  plan_ids         = var.plan_sku == "" ? [] : [module.containers.plan_id]
  timers_ids       = module.timers[*].id
  workspace_id     = module.network.workspace_id
  action_groups    = var.alert_action_groups
  tags             = local.tags
}
