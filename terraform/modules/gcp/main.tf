# A hosted endpoint on Google Cloud: see docs/terraform.md.

locals {
  labels = merge(var.labels, { sockerless-deployment = var.name })
  events = var.events_image != ""
  direct = var.direct != null

  apis = toset(concat(
    [
      "artifactregistry.googleapis.com",
      "cloudkms.googleapis.com",
      "compute.googleapis.com",
      "firestore.googleapis.com",
      "iam.googleapis.com",
      "logging.googleapis.com",
      "monitoring.googleapis.com",
      "run.googleapis.com",
      "secretmanager.googleapis.com",
      "storage.googleapis.com",
    ],
    contains(var.backends, "gcf") ? ["cloudbuild.googleapis.com", "cloudfunctions.googleapis.com"] : [],
    local.events ? ["cloudscheduler.googleapis.com", "eventarc.googleapis.com", "pubsub.googleapis.com"] : [],
    var.connector_range == "" ? [] : ["vpcaccess.googleapis.com"],
    var.domain == null ? [] : ["certificatemanager.googleapis.com"],
  ))

  # The form of Cloud Run's URLs that is known before the service is there.
  run_domain        = "${data.google_project.project.number}.${var.region}.run.app"
  control_plane_url = "https://${var.name}-control-${local.run_domain}"
  endpoint_host     = var.domain == null ? "${var.name}-control-${local.run_domain}" : var.domain.host
  gateways          = { for index in range(var.gateway_shards) : "${var.name}-gateway-${index}" => "https://${var.name}-gateway-${index}-${local.run_domain}" }

  build_account = coalesce(var.build_account, "${data.google_project.project.number}-compute@developer.gserviceaccount.com")

  emails      = module.identity.emails
  secrets     = { SOCKERLESS_KEY = module.state.signing_key_secret }
  database    = var.name
  dns_zone    = var.domain == null ? "" : var.domain.zone
  environment = merge(local.backend_environment, var.extra_environment)

  backend_environment = merge(
    {
      SOCKERLESS_STORE              = module.state.store_url
      SOCKERLESS_SEALING_KEY        = "kms:${module.state.store_key}"
      SOCKERLESS_REGISTRY_URL       = module.state.registry_url
      SOCKERLESS_REGISTRY_PREFIX    = module.state.registry_prefix
      SOCKERLESS_BACKEND            = var.default_backend
      SOCKERLESS_ENDPOINT_NAME      = var.name
      SOCKERLESS_GCP_BUCKET         = module.state.bucket
      SOCKERLESS_VOLUME_STORAGE     = "gcs"
      SOCKERLESS_RECONCILE_INTERVAL = local.events ? "0" : "30"
    },
    contains(var.backends, "cloudrun") ? {
      SOCKERLESS_GCR_PROJECT         = var.project
      SOCKERLESS_GCR_REGION          = var.region
      SOCKERLESS_GCR_SERVICE_ACCOUNT = local.emails["containers"]
    } : {},
    contains(var.backends, "gcf") ? {
      SOCKERLESS_GCF_PROJECT         = var.project
      SOCKERLESS_GCF_REGION          = var.region
      SOCKERLESS_GCF_SERVICE_ACCOUNT = local.emails["containers"]
    } : {},
    var.connector_range != "" && contains(var.backends, "cloudrun") ? { SOCKERLESS_GCR_VPC_CONNECTOR = module.network.connector } : {},
    var.connector_range != "" && contains(var.backends, "gcf") ? { SOCKERLESS_GCF_VPC_CONNECTOR = module.network.connector } : {},
  )

  # Gateways send traces where control planes do.
  traces = { for name, value in var.extra_environment : name => value if startswith(name, "OTEL_") }

  gateway_environment = {
    for name, url in local.gateways : name => merge(local.traces, {
      SOCKERLESS_CONTROL_PLANE_URL = local.control_plane_url
      SOCKERLESS_GATEWAY_URL       = url
      SOCKERLESS_LISTEN            = "tcp://0.0.0.0:8080"
      # All come through one front end.
      SOCKERLESS_PEER_CONNECTIONS = "0"
      # Cloud Run kills 10 seconds after SIGTERM.
      SOCKERLESS_DRAIN_SECONDS = "8"
    })
  }
}

data "google_project" "project" {
  project_id = var.project
}

resource "google_project_service" "api" {
  for_each           = local.apis
  project            = var.project
  service            = each.key
  disable_on_destroy = false
}

module "identity" {
  source        = "./identity"
  project       = var.project
  name          = var.name
  backends      = var.backends
  database      = local.database
  events        = local.events
  direct        = local.direct
  build_account = local.build_account
  depends_on    = [google_project_service.api]
}

module "state" {
  source              = "./state"
  project             = var.project
  region              = var.region
  name                = var.name
  firestore_location  = coalesce(var.firestore_location, var.region)
  deletion_protection = var.deletion_protection
  labels              = local.labels
  signing_key         = var.signing_key
  signing_key_version = var.signing_key_version
  writers             = { for role, email in local.emails : role => email if contains(["control", "events"], role) }
  readers             = { for role, email in local.emails : role => email if contains(["containers", "direct"], role) }
  bucket_users        = { for role, email in local.emails : role => email if contains(["control", "events", "containers"], role) }
  bucket_viewers      = contains(var.backends, "gcf") ? { build = local.build_account } : {}
  key_readers         = { for role, email in local.emails : role => email if contains(["control", "events", "gateway", "direct"], role) }
  store_users         = { for role, email in local.emails : role => email if contains(["control", "events"], role) }
  depends_on          = [google_project_service.api]
}

module "network" {
  source          = "./network"
  project         = var.project
  region          = var.region
  name            = var.name
  subnet_range    = var.subnet_range
  connector_range = var.connector_range
  depends_on      = [google_project_service.api]
}

module "control_plane" {
  source              = "./control_plane"
  project             = var.project
  region              = var.region
  name                = var.name
  image               = var.control_plane_image
  service_account     = local.emails["control"]
  environment         = local.environment
  secrets             = local.secrets
  instances           = var.control_plane_instances
  resources           = var.control_plane_resources
  scheduled           = local.events
  ingress             = "INGRESS_TRAFFIC_ALL"
  fixed_egress        = var.fixed_egress
  network             = module.network.network
  subnet              = module.network.subnet
  deletion_protection = var.deletion_protection
  labels              = local.labels
}

module "gateway" {
  source              = "./gateway"
  project             = var.project
  region              = var.region
  gateways            = local.gateway_environment
  image               = var.gateway_image
  service_account     = local.emails["gateway"]
  secrets             = local.secrets
  resources           = var.gateway_resources
  fixed_egress        = var.fixed_egress
  network             = module.network.network
  subnet              = module.network.subnet
  deletion_protection = var.deletion_protection
  labels              = local.labels
}

module "direct" {
  count   = local.direct ? 1 : 0
  source  = "./direct"
  project = var.project
  region  = var.region
  name    = var.name
  host    = var.direct.host
  zone    = local.dns_zone
  environment = merge(local.traces, {
    SOCKERLESS_CONTROL_PLANE_URL     = local.control_plane_url
    SOCKERLESS_LISTEN                = "tcp://127.0.0.1:8080"
    SOCKERLESS_DOCKER_LISTEN         = "tcp://127.0.0.1:2375"
    SOCKERLESS_DOCKER_PROXY_PROTOCOL = "1"
    SOCKERLESS_PEER_CONNECTIONS      = "0"
    SOCKERLESS_DRAIN_SECONDS         = "45"
  })
  instances                   = var.direct.instances
  machine_type                = var.direct.machine_type
  image                       = var.gateway_image
  haproxy_image               = var.direct.haproxy_image
  signing_key_secret          = module.state.signing_key_secret
  certificate_secret          = var.direct.certificate_secret
  client_ca_secret            = var.direct.client_ca_secret
  client_certificate_required = var.direct.client_certificate_required
  service_account             = local.emails["direct"]
  source_ranges               = var.direct.source_ranges
  network                     = module.network.network
  subnet                      = module.network.subnet
  labels                      = local.labels
}

module "events" {
  count               = local.events ? 1 : 0
  source              = "./events"
  project             = var.project
  region              = var.region
  name                = var.name
  image               = var.events_image
  service_account     = local.emails["events"]
  trigger_account     = local.emails["trigger"]
  environment         = local.environment
  secrets             = local.secrets
  reconcile_schedule  = var.reconcile_schedule
  sweep_schedule      = var.sweep_schedule
  fixed_egress        = var.fixed_egress
  network             = module.network.network
  subnet              = module.network.subnet
  deletion_protection = var.deletion_protection
  labels              = local.labels
}

module "domain" {
  count   = var.domain == null ? 0 : 1
  source  = "./domain"
  project = var.project
  region  = var.region
  name    = var.name
  host    = var.domain.host
  zone    = var.domain.zone
  service = module.control_plane.service
  labels  = local.labels
}

module "alerts" {
  source        = "./alerts"
  project       = var.project
  region        = var.region
  name          = var.name
  host          = local.endpoint_host
  control_plane = module.control_plane.service
  gateways      = keys(local.gateways)
  scheduled     = local.events ? { reconcile = "${var.name}-reconcile", sweep = "${var.name}-sweep" } : {}
  channels      = var.alert_channels
  labels        = local.labels
}
