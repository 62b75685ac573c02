# What the parts promise each other and the clouds' documentation.

mock_provider "azurerm" {}

run "identity" {
  command = plan
  module {
    source = "./identity"
  }
  variables {
    name                = "team-a"
    suffix              = "abcdef"
    resource_group      = "team-a"
    location            = "westeurope"
    containers_group_id = "/subscriptions/s/resourceGroups/team-a-containers"
    shared_plan         = true
    tags                = {}
  }
  assert {
    condition     = !anytrue([for action in azurerm_role_definition.containers.permissions[0].actions : strcontains(action, "*") || action == "Microsoft.Web/serverfarms/write" || strcontains(action, "config")])
    error_message = "Sites only: no plans where one is shared, no reading of apps' settings."
  }
  assert {
    condition     = azurerm_role_assignment.containers.scope == "/subscriptions/s/resourceGroups/team-a-containers"
    error_message = "The containers' resource group only."
  }
}

run "state" {
  command = apply
  module {
    source = "./state"
  }
  variables {
    name                = "team-a"
    suffix              = "abcdef"
    resource_group      = "team-a"
    location            = "westeurope"
    throughput          = 0
    principals          = { control = "c", gateway = "g", apps = "a" }
    certificates        = { "direct-tls" = "gateway" }
    signing_key         = "0123456789012345678901234567890123456789"
    signing_key_version = 2
    deletion_protection = true
    tags                = {}
  }
  assert {
    condition     = azurerm_cosmosdb_account.store.consistency_policy[0].consistency_level == "Strong" && azurerm_cosmosdb_account.store.local_authentication_disabled
    error_message = "Strong consistency, no keys."
  }
  assert {
    condition     = azurerm_cosmosdb_sql_container.documents.name == "documents" && azurerm_cosmosdb_sql_container.documents.partition_key_paths == tolist(["/partition"]) && azurerm_cosmosdb_sql_container.documents.default_ttl == -1
    error_message = "The container is as CosmosStore wants it."
  }
  assert {
    condition     = toset(azurerm_cosmosdb_sql_container.documents.indexing_policy[0].included_path[*].path) == toset(["/id/?", "/partition/?", "/collection/?", "/gone/?", "/due/?"])
    error_message = "An index for what queries name."
  }
  assert {
    condition     = azurerm_key_vault_secret.signing_key[0].value_wo == null && azurerm_key_vault_secret.signing_key[0].value == null && azurerm_key_vault_secret.signing_key[0].value_wo_version == 2
    error_message = "The key itself is never in state."
  }
  assert {
    condition     = azurerm_role_assignment.registry["apps"].role_definition_name == "AcrPull"
    error_message = "Apps pull, and push nothing."
  }
}

run "containers" {
  command = apply
  module {
    source = "./containers"
  }
  variables {
    name              = "team-a"
    suffix            = "abcdef"
    resource_group    = "team-a-containers"
    resource_group_id = "/subscriptions/s/resourceGroups/team-a-containers"
    location          = "westeurope"
    plan_sku          = "EP1"
    plan_workers      = 3
    workspace_id      = "/subscriptions/s/resourceGroups/team-a/providers/Microsoft.OperationalInsights/workspaces/team-a"
    principals        = { control = "c", gateway = "g", apps = "a" }
    tags              = {}
  }
  override_resource {
    target = azurerm_resource_group_policy_assignment.console_logs
    values = {
      identity = { principal_id = "p" }
    }
  }
  assert {
    condition     = jsondecode(azurerm_policy_definition.console_logs.policy_rule).then.effect == "deployIfNotExists"
    error_message = "The policy makes what is missing."
  }
  assert {
    condition     = jsondecode(azurerm_policy_definition.console_logs.policy_rule).then.details.deployment.properties.template.resources[0].properties.logs[0].category == "AppServiceConsoleLogs"
    error_message = "It sends the console's output."
  }
  assert {
    condition     = jsondecode(azurerm_resource_group_policy_assignment.console_logs.parameters).endpoint.value == "team-a"
    error_message = "Only this endpoint's apps."
  }
  assert {
    condition     = azurerm_service_plan.shared[0].os_type == "Linux" && azurerm_service_plan.shared[0].maximum_elastic_worker_count == 3
    error_message = "One Linux plan for all containers."
  }
  assert {
    condition     = azurerm_storage_account.host.shared_access_key_enabled == false
    error_message = "The storage account has no keys."
  }
}

run "direct" {
  command = plan
  module {
    source = "./direct"
  }
  variables {
    name                        = "team-a"
    host                        = "direct.example.com"
    instances                   = 2
    resource_group              = "team-a"
    environment_id              = "environment"
    identity_id                 = "identity"
    registry                    = "teama.azurecr.io"
    vault_uri                   = "https://v.vault.azure.net/"
    signing_key_uri             = "https://v.vault.azure.net/secrets/signing-key"
    certificate_secret          = "direct-tls"
    client_ca_secret            = ""
    client_certificate_required = true
    image                       = "gateway"
    haproxy_image               = "haproxy"
    environment                 = {}
    source_ranges               = ["203.0.113.0/24"]
    tags                        = {}
  }
  assert {
    condition     = alltrue([for app in azurerm_container_app.gateway : app.ingress[0].transport == "tcp" && app.template[0].min_replicas == 1 && app.template[0].max_replicas == 1])
    error_message = "Raw TCP, one replica."
  }
  assert {
    condition     = sort([for app in azurerm_container_app.gateway : app.ingress[0].exposed_port]) == tolist(["2376", "2377"])
    error_message = "Ports do not meet."
  }
  assert {
    condition     = length([for container in azurerm_container_app.gateway["team-a-direct-0"].template[0].container : container if container.name == "haproxy" && length([for env in container.env : env if env.secret_name == "signing-key"]) == 0]) == 1
    error_message = "HAProxy does not get the signing key."
  }
}

run "control_plane" {
  command = plan
  module {
    source = "./control_plane"
  }
  variables {
    name            = "team-a"
    resource_group  = "team-a"
    environment_id  = "environment"
    identity_id     = "identity"
    registry        = "teama.azurecr.io"
    signing_key_uri = "https://v.vault.azure.net/secrets/signing-key"
    image           = "control-plane"
    environment     = { SOCKERLESS_BACKEND = "azf" }
    instances       = { min = 1, max = 10 }
    tags            = {}
  }
  assert {
    condition     = azurerm_container_app.control_plane.ingress[0].transport == "http2"
    error_message = "HTTP/2 to the container."
  }
  assert {
    condition     = alltrue([for secret in azurerm_container_app.control_plane.secret : secret.value == null])
    error_message = "Secrets are references, not values."
  }
}
