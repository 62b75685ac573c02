# A name of one's own for the control plane: an external Application Load Balancer, a serverless NEG, a certificate that
# Certificate Manager renews by a DNS record.

resource "google_compute_global_address" "address" {
  project = var.project
  name    = var.name
}

resource "google_compute_region_network_endpoint_group" "control_plane" {
  project               = var.project
  name                  = "${var.name}-control"
  region                = var.region
  network_endpoint_type = "SERVERLESS"
  cloud_run {
    service = var.service
  }
}

resource "google_compute_backend_service" "control_plane" {
  project               = var.project
  name                  = "${var.name}-control"
  load_balancing_scheme = "EXTERNAL_MANAGED"
  protocol              = "HTTPS"
  backend {
    group = google_compute_region_network_endpoint_group.control_plane.id
  }
  log_config {
    enable      = true
    sample_rate = 0.1
  }
}

resource "google_compute_url_map" "control_plane" {
  project         = var.project
  name            = "${var.name}-control"
  default_service = google_compute_backend_service.control_plane.id
}

resource "google_certificate_manager_dns_authorization" "host" {
  project = var.project
  name    = "${var.name}-control"
  domain  = var.host
}

resource "google_certificate_manager_certificate" "host" {
  project = var.project
  name    = "${var.name}-control"
  labels  = var.labels
  managed {
    domains            = [var.host]
    dns_authorizations = [google_certificate_manager_dns_authorization.host.id]
  }
}

resource "google_certificate_manager_certificate_map" "host" {
  project = var.project
  name    = "${var.name}-control"
  labels  = var.labels
}

resource "google_certificate_manager_certificate_map_entry" "host" {
  project      = var.project
  name         = "${var.name}-control"
  map          = google_certificate_manager_certificate_map.host.name
  hostname     = var.host
  certificates = [google_certificate_manager_certificate.host.id]
}

resource "google_compute_ssl_policy" "modern" {
  project         = var.project
  name            = var.name
  profile         = "MODERN"
  min_tls_version = "TLS_1_2"
}

resource "google_compute_target_https_proxy" "control_plane" {
  project         = var.project
  name            = "${var.name}-control"
  url_map         = google_compute_url_map.control_plane.id
  certificate_map = "//certificatemanager.googleapis.com/${google_certificate_manager_certificate_map.host.id}"
  ssl_policy      = google_compute_ssl_policy.modern.id
}

resource "google_compute_global_forwarding_rule" "control_plane" {
  project               = var.project
  name                  = "${var.name}-control"
  load_balancing_scheme = "EXTERNAL_MANAGED"
  target                = google_compute_target_https_proxy.control_plane.id
  ip_address            = google_compute_global_address.address.id
  port_range            = "443"
}

resource "google_dns_record_set" "host" {
  count        = var.zone == "" ? 0 : 1
  project      = var.project
  managed_zone = var.zone
  name         = "${var.host}."
  type         = "A"
  ttl          = 300
  rrdatas      = [google_compute_global_address.address.address]
}

resource "google_dns_record_set" "authorization" {
  count        = var.zone == "" ? 0 : 1
  project      = var.project
  managed_zone = var.zone
  name         = google_certificate_manager_dns_authorization.host.dns_resource_record[0].name
  type         = google_certificate_manager_dns_authorization.host.dns_resource_record[0].type
  ttl          = 300
  rrdatas      = [google_certificate_manager_dns_authorization.host.dns_resource_record[0].data]
}
