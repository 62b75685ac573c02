# One network with one subnet. Services and VMs leave it through Cloud NAT with addresses that stay the same.

resource "google_compute_network" "network" {
  project                 = var.project
  name                    = var.name
  auto_create_subnetworks = false
  routing_mode            = "REGIONAL"
}

resource "google_compute_subnetwork" "subnet" {
  project                  = var.project
  name                     = var.name
  region                   = var.region
  network                  = google_compute_network.network.id
  ip_cidr_range            = var.subnet_range
  private_ip_google_access = true
}

resource "google_compute_address" "egress" {
  project      = var.project
  name         = "${var.name}-egress"
  region       = var.region
  address_type = "EXTERNAL"
}

resource "google_compute_router" "router" {
  project = var.project
  name    = var.name
  region  = var.region
  network = google_compute_network.network.id
}

resource "google_compute_router_nat" "nat" {
  project                            = var.project
  name                               = var.name
  region                             = var.region
  router                             = google_compute_router.router.name
  nat_ip_allocate_option             = "MANUAL_ONLY"
  nat_ips                            = [google_compute_address.egress.self_link]
  source_subnetwork_ip_ranges_to_nat = "ALL_SUBNETWORKS_ALL_IP_RANGES"
  log_config {
    enable = true
    filter = "ERRORS_ONLY"
  }
}

resource "google_vpc_access_connector" "containers" {
  count         = var.connector_range == "" ? 0 : 1
  project       = var.project
  name          = var.name
  region        = var.region
  network       = google_compute_network.network.name
  ip_cidr_range = var.connector_range
  min_instances = 2
  max_instances = 3
}
