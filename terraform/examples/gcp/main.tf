# A hosted endpoint on Google Cloud. Before the first `terraform apply`: docs/terraform.md.

terraform {
  required_version = ">= 1.11"
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 6.50, < 7"
    }
  }
  # State holds no secrets of the endpoint, but says where all is: keep it where only its operators read it.
  # backend "gcs" { bucket = "…", prefix = "sockerless" }
}

provider "google" {
  project = var.project
  region  = var.region
}

module "sockerless" {
  source = "../../modules/gcp"

  project             = var.project
  region              = var.region
  control_plane_image = var.control_plane_image
  gateway_image       = var.gateway_image
  events_image        = var.events_image
  backends            = ["cloudrun", "gcf"]
  gateway_shards      = 2
  signing_key         = var.signing_key
  signing_key_version = var.signing_key_version
  alert_channels      = var.alert_channels
  domain              = var.domain
  direct              = var.direct
}
