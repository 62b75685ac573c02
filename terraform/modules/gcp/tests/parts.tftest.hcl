# What the parts promise each other and the clouds' documentation.

mock_provider "google" {
  mock_data "google_compute_zones" {
    defaults = {
      names = ["europe-west1-b", "europe-west1-c"]
    }
  }
}

run "identity" {
  command = apply
  module {
    source = "./identity"
  }
  variables {
    project       = "some-project"
    name          = "team-a"
    backends      = ["cloudrun"]
    database      = "team-a"
    events        = false
    direct        = false
    build_account = "1-compute@developer.gserviceaccount.com"
  }
  assert {
    condition     = !anytrue([for permission in google_project_iam_custom_role.control_plane.permissions : startswith(permission, "cloudfunctions.") || strcontains(permission, "setIamPolicy") || strcontains(permission, "*")])
    error_message = "Without gcf nothing of functions; never a policy, never everything."
  }
  assert {
    condition     = contains(google_project_iam_custom_role.control_plane.permissions, "run.jobs.runWithOverrides")
    error_message = "Jobs are run with overrides."
  }
  assert {
    condition     = google_project_iam_custom_role.control_plane.role_id == "team_a_control_plane"
    error_message = "A role's id has no hyphens."
  }
  assert {
    condition     = strcontains(google_project_iam_member.store["control"].condition[0].expression, "databases/team-a\"")
    error_message = "Only the endpoint's own database."
  }
  assert {
    condition     = length(google_service_account_iam_member.act_as_build) == 0
    error_message = "Acting as the build account is for gcf."
  }
}

run "state" {
  command = apply
  module {
    source = "./state"
  }
  variables {
    project             = "some-project"
    region              = "europe-west1"
    name                = "team-a"
    firestore_location  = "eur3"
    deletion_protection = true
    labels              = {}
    signing_key         = "0123456789012345678901234567890123456789"
    signing_key_version = 2
    writers             = { control = "control@example.com" }
    readers             = { containers = "containers@example.com" }
    bucket_users        = { control = "control@example.com" }
    bucket_viewers      = {}
    key_readers         = { control = "control@example.com", gateway = "gateway@example.com" }
    store_users         = { control = "control@example.com" }
  }
  assert {
    condition     = google_firestore_field.expires.collection == "events" && google_firestore_field.expires.field == "expires" && length(google_firestore_field.expires.ttl_config) == 1
    error_message = "Events have a TTL policy."
  }
  assert {
    condition     = length(google_firestore_field.unindexed) == 24 && alltrue([for field in google_firestore_field.unindexed : length(field.index_config) == 1 && length(field.index_config[0].indexes) == 0])
    error_message = "No field of any collection has an index."
  }
  assert {
    condition     = google_firestore_field.due.collection == "containers" && google_firestore_field.due.field == "due" && one(google_firestore_field.due.index_config[0].indexes).query_scope == "COLLECTION_GROUP"
    error_message = "Containers are found by when they are due, of all tenants at once."
  }
  assert {
    condition     = google_firestore_database.store.delete_protection_state == "DELETE_PROTECTION_ENABLED" && google_storage_bucket.files.force_destroy == false
    error_message = "What is protected cannot be destroyed."
  }
  assert {
    condition     = google_secret_manager_secret_version.signing_key[0].secret_data_wo == null && google_secret_manager_secret_version.signing_key[0].secret_data_wo_version == 2
    error_message = "The key itself is never in state."
  }
  assert {
    condition     = google_storage_bucket.files.public_access_prevention == "enforced" && google_storage_bucket.files.uniform_bucket_level_access
    error_message = "The bucket is nobody else's."
  }
}

run "gateway" {
  command = plan
  module {
    source = "./gateway"
  }
  variables {
    project             = "some-project"
    region              = "europe-west1"
    gateways            = { "a-gateway-0" = { SOCKERLESS_GATEWAY_URL = "https://a" }, "a-gateway-1" = { SOCKERLESS_GATEWAY_URL = "https://b" } }
    image               = "image"
    service_account     = "gateway@example.com"
    secrets             = { SOCKERLESS_KEY = "key" }
    resources           = { cpu = "1", memory = "1Gi" }
    fixed_egress        = true
    network             = "network"
    subnet              = "subnet"
    deletion_protection = true
    labels              = {}
  }
  assert {
    condition     = alltrue([for gateway in google_cloud_run_v2_service.gateway : gateway.template[0].containers[0].ports[0].name == "http1" && gateway.template[0].timeout == "3600s"])
    error_message = "Websockets pass HTTP/1 only, for an hour."
  }
  assert {
    condition     = alltrue([for gateway in google_cloud_run_v2_service.gateway : gateway.template[0].scaling[0].min_instance_count == 1 && gateway.template[0].scaling[0].max_instance_count == 1 && !gateway.template[0].containers[0].resources[0].cpu_idle])
    error_message = "A gateway is one instance that never rests."
  }
  assert {
    condition     = alltrue([for gateway in google_cloud_run_v2_service.gateway : gateway.template[0].vpc_access[0].egress == "ALL_TRAFFIC"])
    error_message = "With a fixed address everything goes through the network."
  }
}

run "control_plane" {
  command = plan
  module {
    source = "./control_plane"
  }
  variables {
    project             = "some-project"
    region              = "europe-west1"
    name                = "team-a"
    image               = "image"
    service_account     = "control@example.com"
    environment         = { SOCKERLESS_BACKEND = "cloudrun" }
    secrets             = { SOCKERLESS_KEY = "key" }
    instances           = { min = 1, max = 10 }
    resources           = { cpu = "1", memory = "1Gi" }
    scheduled           = false
    ingress             = "INGRESS_TRAFFIC_ALL"
    fixed_egress        = true
    network             = "network"
    subnet              = "subnet"
    deletion_protection = true
    labels              = {}
  }
  assert {
    condition     = google_cloud_run_v2_service.control_plane.template[0].containers[0].ports[0].name == "h2c"
    error_message = "HTTP/2 to the container, for bodies beyond 32 MiB."
  }
  assert {
    condition     = google_cloud_run_v2_service.control_plane.template[0].containers[0].resources[0].cpu_idle == false
    error_message = "An instance that reconciles by itself must not rest."
  }
  assert {
    condition     = !anytrue([for variable in google_cloud_run_v2_service.control_plane.template[0].containers[0].env : variable.name == "SOCKERLESS_KEY" && variable.value != null])
    error_message = "The key is a reference, not a value."
  }
}

run "events" {
  command = plan
  module {
    source = "./events"
  }
  variables {
    project             = "some-project"
    region              = "europe-west1"
    name                = "team-a"
    image               = "image"
    service_account     = "events@example.com"
    trigger_account     = "trigger@example.com"
    environment         = {}
    secrets             = {}
    reconcile_schedule  = "* * * * *"
    sweep_schedule      = "*/15 * * * *"
    fixed_egress        = true
    network             = "network"
    subnet              = "subnet"
    deletion_protection = true
    labels              = {}
  }
  assert {
    condition     = alltrue([for member in google_cloud_run_v2_service_iam_member.trigger : member.member == "serviceAccount:trigger@example.com"])
    error_message = "Only the trigger's account may call."
  }
  assert {
    condition     = keys(google_cloud_scheduler_job.target) == ["reconcile", "sweep"]
    error_message = "Two schedules."
  }
}

run "direct" {
  command = apply
  module {
    source = "./direct"
  }
  variables {
    project                     = "some-project"
    region                      = "europe-west1"
    name                        = "team-a"
    host                        = "direct.example.com"
    zone                        = "zone"
    instances                   = 2
    machine_type                = "e2-small"
    image                       = "gateway-image"
    haproxy_image               = "haproxy-image"
    environment                 = { SOCKERLESS_DOCKER_LISTEN = "tcp://127.0.0.1:2375" }
    signing_key_secret          = "team-a-signing-key"
    certificate_secret          = "tls"
    client_ca_secret            = ""
    client_certificate_required = true
    service_account             = "direct@example.com"
    source_ranges               = ["203.0.113.0/24"]
    network                     = "network"
    subnet                      = "subnet"
    labels                      = {}
  }
  assert {
    condition     = alltrue([for rule in google_compute_firewall.clients.allow : rule.ports == tolist(["2376"])])
    error_message = "One port is open."
  }
  assert {
    condition     = length(yamldecode(google_compute_instance.gateway["0"].metadata["user-data"]).write_files) == 6
    error_message = "The VM's set-up can be read."
  }
  assert {
    condition     = strcontains(google_compute_instance.gateway["1"].metadata["user-data"], "SOCKERLESS_GATEWAY_URL=https://1.direct.example.com:2376")
    error_message = "Each VM is told its own name."
  }
  assert {
    condition     = !strcontains(base64decode(yamldecode(google_compute_instance.gateway["0"].metadata["user-data"]).write_files[1].content), "verify")
    error_message = "Without a CA no client certificate is asked for."
  }
}

run "direct_with_certificates" {
  command = apply
  module {
    source = "./direct"
  }
  variables {
    project                     = "some-project"
    region                      = "europe-west1"
    name                        = "team-a"
    host                        = "direct.example.com"
    zone                        = "zone"
    instances                   = 1
    machine_type                = "e2-small"
    image                       = "gateway-image"
    haproxy_image               = "haproxy-image"
    environment                 = { SOCKERLESS_DOCKER_LISTEN = "tcp://127.0.0.1:2375" }
    signing_key_secret          = "team-a-signing-key"
    certificate_secret          = "tls"
    client_ca_secret            = "ca"
    client_certificate_required = false
    service_account             = "direct@example.com"
    source_ranges               = ["203.0.113.0/24"]
    network                     = "network"
    subnet                      = "subnet"
    labels                      = {}
  }
  assert {
    condition     = strcontains(base64decode(yamldecode(google_compute_instance.gateway["0"].metadata["user-data"]).write_files[1].content), "verify optional") && !strcontains(base64decode(yamldecode(google_compute_instance.gateway["0"].metadata["user-data"]).write_files[1].content), "ssl_c_used")
    error_message = "A certificate may be shown, and need not be."
  }
}
