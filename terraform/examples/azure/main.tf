# A hosted endpoint on Azure. Before the first `terraform apply`: docs/terraform.md.

terraform {
  required_version = ">= 1.11"
  required_providers {
    azurerm = {
      source  = "hashicorp/azurerm"
      version = ">= 4.55, < 5"
    }
  }
  # State holds no secrets of the endpoint, but says where all is: keep it where only its operators read it.
  # backend "azurerm" { … }
}

provider "azurerm" {
  subscription_id = var.subscription_id
  # Storage accounts here have no shared keys.
  storage_use_azuread = true
  features {}
}

module "sockerless" {
  source = "../../modules/azure"

  location            = var.location
  control_plane_image = var.control_plane_image
  gateway_image       = var.gateway_image
  timers_image        = var.timers_image
  gateway_shards      = 2
  signing_key         = var.signing_key
  signing_key_version = var.signing_key_version
  alert_action_groups = var.alert_action_groups
  domain              = var.domain
  direct              = var.direct
}
