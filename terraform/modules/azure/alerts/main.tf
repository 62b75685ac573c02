# What somebody should look at: errors of the control plane, gateways that are gone, throttling and quotas, work that is no
# longer done, a shared plan that is full.

resource "azurerm_monitor_metric_alert" "errors" {
  name                = "${var.name}-errors"
  resource_group_name = var.resource_group
  scopes              = [var.control_plane_id]
  description         = "The control plane answers with errors: its log has the reason of each."
  severity            = 2
  frequency           = "PT1M"
  window_size         = "PT5M"
  tags                = var.tags
  criteria {
    metric_namespace = "Microsoft.App/containerapps"
    metric_name      = "Requests"
    aggregation      = "Total"
    operator         = "GreaterThan"
    threshold        = var.most_errors
    dimension {
      name     = "statusCodeCategory"
      operator = "Include"
      values   = ["5xx"]
    }
  }
  dynamic "action" {
    for_each = var.action_groups
    content {
      action_group_id = action.value
    }
  }
}

resource "azurerm_monitor_metric_alert" "gateway" {
  for_each            = var.gateways
  name                = "${each.key}-gone"
  resource_group_name = var.resource_group
  scopes              = [each.value]
  description         = "A gateway has no replica: its agents redial others, its connectors resume there. With none left, docker create is refused with 503."
  severity            = 1
  frequency           = "PT1M"
  window_size         = "PT5M"
  tags                = var.tags
  criteria {
    metric_namespace = "Microsoft.App/containerapps"
    metric_name      = "Replicas"
    aggregation      = "Maximum"
    operator         = "LessThan"
    threshold        = 1
  }
  dynamic "action" {
    for_each = var.action_groups
    content {
      action_group_id = action.value
    }
  }
}

resource "azurerm_monitor_metric_alert" "store" {
  name                = "${var.name}-store-throttled"
  resource_group_name = var.resource_group
  scopes              = [var.store_id]
  description         = "Cosmos refuses requests (429): raise cosmos_throughput."
  severity            = 2
  frequency           = "PT5M"
  window_size         = "PT15M"
  tags                = var.tags
  criteria {
    metric_namespace = "Microsoft.DocumentDB/databaseAccounts"
    metric_name      = "TotalRequests"
    aggregation      = "Count"
    operator         = "GreaterThan"
    threshold        = 100
    dimension {
      name     = "StatusCode"
      operator = "Include"
      values   = ["429"]
    }
  }
  dynamic "action" {
    for_each = var.action_groups
    content {
      action_group_id = action.value
    }
  }
}

resource "azurerm_monitor_metric_alert" "plan" {
  count               = length(var.plan_ids)
  name                = "${var.name}-plan-memory"
  resource_group_name = var.resource_group
  scopes              = var.plan_ids
  description         = "The shared plan's machines are full: containers share their memory. Raise plan_sku or plan_workers."
  severity            = 3
  frequency           = "PT5M"
  window_size         = "PT15M"
  tags                = var.tags
  criteria {
    metric_namespace = "Microsoft.Web/serverfarms"
    metric_name      = "MemoryPercentage"
    aggregation      = "Average"
    operator         = "GreaterThan"
    threshold        = 90
  }
  dynamic "action" {
    for_each = var.action_groups
    content {
      action_group_id = action.value
    }
  }
}

resource "azurerm_monitor_metric_alert" "timers" {
  count               = length(var.timers_ids)
  name                = "${var.name}-timers-errors"
  resource_group_name = var.resource_group
  scopes              = var.timers_ids
  description         = "The scheduled work fails: what a killed control plane left half done stays so, and what removed containers ran on stays and costs."
  severity            = 2
  frequency           = "PT5M"
  window_size         = "PT15M"
  tags                = var.tags
  criteria {
    metric_namespace = "Microsoft.Web/sites"
    metric_name      = "Http5xx"
    aggregation      = "Total"
    operator         = "GreaterThan"
    threshold        = 0
  }
  dynamic "action" {
    for_each = var.action_groups
    content {
      action_group_id = action.value
    }
  }
}

# Azure Resource Manager has no metric of what it throttles: the control plane says so in its answers.
resource "azurerm_monitor_scheduled_query_rules_alert_v2" "quota" {
  name                  = "${var.name}-quota"
  resource_group_name   = var.resource_group
  location              = var.location
  display_name          = "${var.name}: a quota is used up"
  description           = "Commands were refused because of a quota, which the lines name."
  severity              = 2
  scopes                = [var.workspace_id]
  evaluation_frequency  = "PT5M"
  window_duration       = "PT15M"
  skip_query_validation = true
  tags                  = var.tags
  criteria {
    query                   = <<-KQL
      ContainerAppConsoleLogs
      | where ContainerAppName == "${var.name}-control"
      | where Log has "quota" or Log has "TooManyRequests"
    KQL
    time_aggregation_method = "Count"
    operator                = "GreaterThan"
    threshold               = 0
  }
  dynamic "action" {
    for_each = length(var.action_groups) == 0 ? [] : [var.action_groups]
    content {
      action_groups = action.value
    }
  }
}
