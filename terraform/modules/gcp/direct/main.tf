# Gateways for raw Docker clients. Each VM is a gateway of its own with an address and a name of its own
# (0.host, 1.host, …; the certificate must cover them), because agents come back to the gateway their streams are at.
# The name `host` itself leads to all of them, for Docker clients.

locals {
  names = { for index in range(var.instances) : tostring(index) => "${index}.${var.host}" }
}

resource "google_compute_address" "gateway" {
  for_each     = local.names
  project      = var.project
  name         = "${var.name}-direct-${each.key}"
  region       = var.region
  address_type = "EXTERNAL"
}

data "google_compute_zones" "available" {
  project = var.project
  region  = var.region
  status  = "UP"
}

resource "google_compute_instance" "gateway" {
  for_each                  = local.names
  project                   = var.project
  name                      = "${var.name}-direct-${each.key}"
  zone                      = data.google_compute_zones.available.names[tonumber(each.key) % length(data.google_compute_zones.available.names)]
  machine_type              = var.machine_type
  tags                      = ["${var.name}-direct"]
  labels                    = var.labels
  allow_stopping_for_update = true
  deletion_protection       = false

  boot_disk {
    initialize_params {
      image = "projects/cos-cloud/global/images/family/cos-stable"
      size  = 20
    }
  }

  network_interface {
    network    = var.network
    subnetwork = var.subnet
    access_config {
      nat_ip = google_compute_address.gateway[each.key].address
    }
  }

  metadata = {
    block-project-ssh-keys = "true"
    google-logging-enabled = "true"
    user-data = templatefile("${path.module}/cloud-init.yaml.tftpl", {
      project            = var.project
      registry           = "${var.region}-docker.pkg.dev"
      environment        = merge(var.environment, { SOCKERLESS_GATEWAY_URL = "https://${each.value}:2376", SOCKERLESS_KEY_FILE = "/run/sockerless/key" })
      haproxy            = base64encode(templatefile("${path.module}/haproxy.cfg.tftpl", { client_ca = var.client_ca_secret != "", certificate_required = var.client_certificate_required }))
      signing_key_secret = var.signing_key_secret
      certificate_secret = var.certificate_secret
      client_ca_secret   = var.client_ca_secret
      gateway_image      = var.image
      haproxy_image      = var.haproxy_image
    })
  }

  service_account {
    email  = var.service_account
    scopes = ["https://www.googleapis.com/auth/cloud-platform"]
  }

  shielded_instance_config {
    enable_secure_boot          = true
    enable_vtpm                 = true
    enable_integrity_monitoring = true
  }

  scheduling {
    automatic_restart   = true
    on_host_maintenance = "MIGRATE"
  }
}

resource "google_compute_firewall" "clients" {
  project       = var.project
  name          = "${var.name}-direct"
  network       = var.network
  direction     = "INGRESS"
  source_ranges = var.source_ranges
  target_tags   = ["${var.name}-direct"]
  allow {
    protocol = "tcp"
    ports    = ["2376"]
  }
}

# The certificate and the CA are made elsewhere: they are read by name, and Terraform never sees them.
resource "google_secret_manager_secret_iam_member" "certificate" {
  for_each  = toset(compact([var.certificate_secret, var.client_ca_secret]))
  project   = var.project
  secret_id = each.key
  role      = "roles/secretmanager.secretAccessor"
  member    = "serviceAccount:${var.service_account}"
}

resource "google_dns_record_set" "gateway" {
  for_each     = var.zone == "" ? {} : local.names
  project      = var.project
  managed_zone = var.zone
  name         = "${each.value}."
  type         = "A"
  ttl          = 60
  rrdatas      = [google_compute_address.gateway[each.key].address]
}

resource "google_dns_record_set" "all" {
  count        = var.zone == "" ? 0 : 1
  project      = var.project
  managed_zone = var.zone
  name         = "${var.host}."
  type         = "A"
  ttl          = 60
  rrdatas      = [for address in google_compute_address.gateway : address.address]
}
