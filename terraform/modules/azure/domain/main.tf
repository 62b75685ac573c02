# A name of one's own for the control plane, with a certificate out of the vault.

resource "azurerm_dns_txt_record" "verification" {
  count               = var.zone == "" ? 0 : 1
  name                = "asuid.${trimsuffix(var.host, ".${var.zone}")}"
  zone_name           = var.zone
  resource_group_name = var.zone_resource_group
  ttl                 = 300
  record {
    value = var.verification
  }
}

resource "azurerm_dns_a_record" "host" {
  count               = var.zone == "" ? 0 : 1
  name                = trimsuffix(var.host, ".${var.zone}")
  zone_name           = var.zone
  resource_group_name = var.zone_resource_group
  ttl                 = 300
  records             = [var.address]
}

resource "azurerm_container_app_environment_certificate" "host" {
  name                         = replace(var.host, ".", "-")
  container_app_environment_id = var.environment_id
  tags                         = var.tags
  certificate_key_vault {
    identity            = var.identity_id
    key_vault_secret_id = var.certificate_uri
  }
}

resource "azurerm_container_app_custom_domain" "host" {
  name                                     = var.host
  container_app_id                         = var.app_id
  container_app_environment_certificate_id = azurerm_container_app_environment_certificate.host.id
  certificate_binding_type                 = "SniEnabled"
  depends_on                               = [azurerm_dns_txt_record.verification, azurerm_dns_a_record.host]
}
