mock_provider "google" {
  mock_data "google_project" {
    defaults = {
      number = "123456789012"
    }
  }
}

run "applies" {
  command = apply
  variables {
    project             = "some-project"
    control_plane_image = "control-plane@sha256:00"
    gateway_image       = "gateway@sha256:00"
    signing_key         = "0123456789012345678901234567890123456789"
  }
  assert {
    condition     = output.endpoint_url == "https://sockerless-control-123456789012.europe-west1.run.app"
    error_message = "The endpoint has a URL."
  }
}
