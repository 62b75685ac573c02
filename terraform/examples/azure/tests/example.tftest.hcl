mock_provider "azurerm" {
  mock_resource "azurerm_container_app_environment" {
    defaults = {
      default_domain    = "happy-sea.westeurope.azurecontainerapps.io"
      static_ip_address = "203.0.113.7"
    }
  }
}

run "applies" {
  command = apply
  variables {
    subscription_id     = "00000000-0000-0000-0000-000000000001"
    control_plane_image = "example.azurecr.io/control-plane@sha256:00"
    gateway_image       = "example.azurecr.io/gateway@sha256:00"
    signing_key         = "0123456789012345678901234567890123456789"
  }
  assert {
    condition     = output.endpoint_url == "https://sockerless-control.happy-sea.westeurope.azurecontainerapps.io"
    error_message = "The endpoint has a URL."
  }
}
