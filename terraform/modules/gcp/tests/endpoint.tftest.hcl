mock_provider "google" {
  mock_data "google_project" {
    defaults = {
      number = "123456789012"
    }
  }
  mock_data "google_compute_zones" {
    defaults = {
      names = ["europe-west1-b", "europe-west1-c"]
    }
  }
  mock_resource "google_kms_crypto_key" {
    defaults = {
      id = "projects/some-project/locations/europe-west1/keyRings/sockerless/cryptoKeys/store"
    }
  }
  mock_resource "google_certificate_manager_dns_authorization" {
    defaults = {
      dns_resource_record = [{ name = "_acme-challenge.docker.example.com.", type = "CNAME", data = "x.authorize.certificatemanager.goog." }]
    }
  }
}

variables {
  project             = "some-project"
  region              = "europe-west1"
  control_plane_image = "europe-docker.pkg.dev/some-project/sockerless/control-plane@sha256:00"
  gateway_image       = "europe-docker.pkg.dev/some-project/sockerless/gateway@sha256:00"
}

run "smallest" {
  command = apply

  variables {
    # An ephemeral variable that a test leaves out fails in its apply (Terraform 1.11).
    signing_key = "not used, as no version of the secret is written"
  }

  assert {
    condition     = output.endpoint_url == "https://sockerless-control-123456789012.europe-west1.run.app"
    error_message = "The endpoint's URL is the control plane's own."
  }
  assert {
    condition     = output.control_plane_environment.SOCKERLESS_STORE == "firestore://some-project/sockerless"
    error_message = "The store is the database of the endpoint's name."
  }
  assert {
    condition     = output.control_plane_environment.SOCKERLESS_SEALING_KEY == "kms:projects/some-project/locations/europe-west1/keyRings/sockerless/cryptoKeys/store"
    error_message = "Secrets in the store are sealed with the endpoint's own key."
  }
  assert {
    condition     = output.control_plane_environment.SOCKERLESS_REGISTRY_URL == "https://europe-west1-docker.pkg.dev" && output.control_plane_environment.SOCKERLESS_REGISTRY_PREFIX == "some-project/sockerless"
    error_message = "The registry is the repository of the endpoint's name."
  }
  assert {
    condition     = output.control_plane_environment.SOCKERLESS_RECONCILE_INTERVAL == "30" && length(output.events_environment) == 0
    error_message = "Without events_image each control plane reconciles by itself."
  }
  assert {
    condition     = !contains(keys(output.control_plane_environment), "SOCKERLESS_GCF_PROJECT")
    error_message = "There is no backend gcf unless it is asked for."
  }
  assert {
    condition     = alltrue([for name, gateway in output.gateway_environment : gateway.SOCKERLESS_GATEWAY_URL == "https://${name}-123456789012.europe-west1.run.app"]) && length(output.gateway_environment) == 2
    error_message = "Two gateways, each with a URL of its own."
  }
  assert {
    condition     = keys(output.secrets) == ["SOCKERLESS_KEY"]
    error_message = "The signing key comes from Secret Manager."
  }
  assert {
    condition     = output.docker_host == "" && length(output.dns_records.direct) == 0
    error_message = "No VMs unless they are asked for."
  }
}

run "whole" {
  command = apply

  variables {
    name                = "team-a"
    backends            = ["cloudrun", "gcf"]
    default_backend     = "gcf"
    events_image        = "europe-docker.pkg.dev/some-project/sockerless/functions@sha256:00"
    gateway_shards      = 3
    signing_key         = "0123456789012345678901234567890123456789"
    signing_key_version = 1
    connector_range     = "10.65.0.0/28"
    domain              = { host = "docker.example.com", zone = "example-com" }
    direct              = { host = "direct.example.com", certificate_secret = "direct-tls", client_ca_secret = "direct-ca" }
    extra_environment   = { SOCKERLESS_GCR_TIMEOUT = "3600", OTEL_EXPORTER_OTLP_ENDPOINT = "http://collector:4318" }
  }

  assert {
    condition     = output.endpoint_url == "https://docker.example.com" && output.docker_host == "tcp://direct.example.com:2376"
    error_message = "Both ways in have the names that were asked for."
  }
  assert {
    condition     = alltrue([for environment in values(output.gateway_environment) : environment.OTEL_EXPORTER_OTLP_ENDPOINT == "http://collector:4318" && !can(environment.SOCKERLESS_GCR_TIMEOUT)])
    error_message = "Gateways send traces, and get no other settings of control planes."
  }
  assert {
    condition     = output.control_plane_environment.SOCKERLESS_BACKEND == "gcf" && output.control_plane_environment.SOCKERLESS_GCF_PROJECT == "some-project"
    error_message = "The backend gcf is set up."
  }
  assert {
    condition     = output.control_plane_environment.SOCKERLESS_GCF_VPC_CONNECTOR == "projects/some-project/locations/europe-west1/connectors/team-a"
    error_message = "Containers use the connector."
  }
  assert {
    condition     = output.control_plane_environment.SOCKERLESS_RECONCILE_INTERVAL == "0" && output.events_environment == output.control_plane_environment
    error_message = "With events_image a schedule reconciles, with the same settings."
  }
  assert {
    condition     = length(output.gateway_environment) == 5
    error_message = "Three services and two VMs."
  }
  assert {
    condition     = output.gateway_environment["team-a-direct-1"].SOCKERLESS_GATEWAY_URL == "https://1.direct.example.com:2376"
    error_message = "Agents dial each VM by its own name."
  }
  assert {
    condition     = sort(keys(output.service_accounts)) == tolist(["containers", "control", "direct", "events", "gateway", "trigger"])
    error_message = "One service account for each role."
  }
  assert {
    condition     = output.control_plane_environment.SOCKERLESS_GCR_TIMEOUT == "3600"
    error_message = "More settings reach the control plane."
  }
}

run "refuses_a_long_name" {
  command = plan
  variables {
    name = "a-name-that-is-too-long"
  }
  expect_failures = [var.name]
}

run "refuses_an_unknown_backend" {
  command = plan
  variables {
    backends = ["cloudrun", "azf"]
  }
  expect_failures = [var.backends]
}

run "refuses_a_default_that_is_not_there" {
  command = plan
  variables {
    default_backend = "gcf"
  }
  expect_failures = [var.default_backend]
}

run "refuses_a_short_key" {
  command = plan
  variables {
    signing_key         = "short"
    signing_key_version = 1
  }
  expect_failures = [var.signing_key]
}

run "refuses_half_a_gateway" {
  command = plan
  variables {
    gateway_shards = 1.5
  }
  expect_failures = [var.gateway_shards]
}

run "refuses_a_small_subnet" {
  command = plan
  variables {
    subnet_range = "10.0.0.0/28"
  }
  expect_failures = [var.subnet_range]
}
