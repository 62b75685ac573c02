# What somebody should look at: errors of the control plane, gateways that are gone, quotas that are used up, work that
# is no longer done.

locals {
  service = "resource.type=\"cloud_run_revision\" AND resource.labels.location=\"${var.region}\" AND resource.labels.service_name="
}

resource "google_monitoring_alert_policy" "errors" {
  project               = var.project
  display_name          = "${var.name}: the control plane answers with errors"
  combiner              = "OR"
  notification_channels = var.channels
  user_labels           = var.labels

  conditions {
    display_name = "More than ${var.error_percent} % of requests end with 5xx"
    condition_threshold {
      filter             = "${local.service}\"${var.control_plane}\" AND metric.type=\"run.googleapis.com/request_count\" AND metric.labels.response_code_class=\"5xx\""
      denominator_filter = "${local.service}\"${var.control_plane}\" AND metric.type=\"run.googleapis.com/request_count\""
      comparison         = "COMPARISON_GT"
      threshold_value    = var.error_percent / 100
      duration           = "300s"
      aggregations {
        alignment_period     = "300s"
        per_series_aligner   = "ALIGN_RATE"
        cross_series_reducer = "REDUCE_SUM"
      }
      denominator_aggregations {
        alignment_period     = "300s"
        per_series_aligner   = "ALIGN_RATE"
        cross_series_reducer = "REDUCE_SUM"
      }
    }
  }

  documentation {
    mime_type = "text/markdown"
    content   = "Its log has the reason of each. A 503 with a quota's name is told by the alert on quotas, too."
  }
}

resource "google_monitoring_alert_policy" "gateway" {
  for_each              = toset(var.gateways)
  project               = var.project
  display_name          = "${var.name}: gateway ${each.key} is gone"
  combiner              = "OR"
  notification_channels = var.channels
  user_labels           = var.labels

  conditions {
    display_name = "No running instance"
    condition_absent {
      filter   = "${local.service}\"${each.key}\" AND metric.type=\"run.googleapis.com/container/instance_count\" AND metric.labels.state=\"active\""
      duration = "300s"
      aggregations {
        alignment_period     = "60s"
        per_series_aligner   = "ALIGN_MAX"
        cross_series_reducer = "REDUCE_SUM"
      }
    }
  }

  documentation {
    mime_type = "text/markdown"
    content   = "Its agents redial other gateways, its connectors resume there. New containers are given to the others; with none left, `docker create` is refused with 503."
  }
}

resource "google_monitoring_alert_policy" "quota" {
  project               = var.project
  display_name          = "${var.name}: a quota is used up"
  combiner              = "OR"
  notification_channels = var.channels
  user_labels           = var.labels

  dynamic "conditions" {
    for_each = toset(["run.googleapis.com", "cloudfunctions.googleapis.com", "logging.googleapis.com", "firestore.googleapis.com"])
    content {
      display_name = conditions.value
      condition_threshold {
        filter          = "resource.type=\"consumer_quota\" AND resource.labels.service=\"${conditions.value}\" AND metric.type=\"serviceruntime.googleapis.com/quota/exceeded\""
        comparison      = "COMPARISON_GT"
        threshold_value = 0
        duration        = "0s"
        aggregations {
          alignment_period     = "300s"
          per_series_aligner   = "ALIGN_COUNT_TRUE"
          cross_series_reducer = "REDUCE_SUM"
          group_by_fields      = ["metric.labels.quota_metric"]
        }
      }
    }
  }

  documentation {
    mime_type = "text/markdown"
    content   = "The control plane keeps to what its settings say (SOCKERLESS_GCR_WRITES_PER_MINUTE, …) in each of its instances: with several instances, or other users of the project, lower them or have the quota raised."
  }
}

resource "google_monitoring_alert_policy" "scheduled" {
  for_each              = var.scheduled
  project               = var.project
  display_name          = "${var.name}: ${each.key} fails"
  combiner              = "OR"
  notification_channels = var.channels
  user_labels           = var.labels

  conditions {
    display_name = "5xx for a quarter of an hour"
    condition_threshold {
      filter          = "${local.service}\"${each.value}\" AND metric.type=\"run.googleapis.com/request_count\" AND metric.labels.response_code_class=\"5xx\""
      comparison      = "COMPARISON_GT"
      threshold_value = 0
      duration        = "900s"
      aggregations {
        alignment_period     = "300s"
        per_series_aligner   = "ALIGN_DELTA"
        cross_series_reducer = "REDUCE_SUM"
      }
    }
  }

  documentation {
    mime_type = "text/markdown"
    content   = "Without the reconciler, what a killed control plane left half done stays so; without the sweeper, cloud resources of removed containers stay and cost."
  }
}

resource "google_monitoring_uptime_check_config" "control_plane" {
  project      = var.project
  display_name = "${var.name}: the control plane answers"
  timeout      = "10s"
  period       = "60s"
  http_check {
    path           = "/_ready"
    port           = 443
    use_ssl        = true
    validate_ssl   = true
    request_method = "GET"
    accepted_response_status_codes {
      status_class = "STATUS_CLASS_2XX"
    }
  }
  monitored_resource {
    type = "uptime_url"
    labels = {
      project_id = var.project
      host       = var.host
    }
  }
}

resource "google_monitoring_alert_policy" "uptime" {
  project               = var.project
  display_name          = "${var.name}: the control plane does not answer"
  combiner              = "OR"
  notification_channels = var.channels
  user_labels           = var.labels

  conditions {
    display_name = "/_ready fails from several places"
    condition_threshold {
      filter          = "resource.type=\"uptime_url\" AND metric.type=\"monitoring.googleapis.com/uptime_check/check_passed\" AND metric.labels.check_id=\"${google_monitoring_uptime_check_config.control_plane.uptime_check_id}\""
      comparison      = "COMPARISON_GT"
      threshold_value = 1
      duration        = "120s"
      aggregations {
        alignment_period     = "120s"
        per_series_aligner   = "ALIGN_NEXT_OLDER"
        cross_series_reducer = "REDUCE_COUNT_FALSE"
        group_by_fields      = ["resource.labels.host"]
      }
      trigger {
        count = 1
      }
    }
  }
}
