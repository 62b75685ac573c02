"""How plans and sites look in answers."""

from __future__ import annotations

from typing import Any

from local_cloud.azure.names import SITE_SUFFIX, SUBSCRIPTION, resource_id
from local_cloud.azure.web import settings
from local_cloud.azure.web.records import RUNNING, Plan, Site
from local_cloud.azure.web.skus import sku

_CONFIG_DEFAULTS: dict[str, Any] = {
    "numberOfWorkers": 1,
    "appCommandLine": "",
    "alwaysOn": False,
    "acrUseManagedIdentityCreds": False,
    "http20Enabled": False,
    "minTlsVersion": "1.2",
    "ftpsState": "FtpsOnly",
    "functionAppScaleLimit": 0,
    "minimumElasticInstanceCount": 0,
}


def host_name(site: Site) -> str:
    """The name under which the front end serves a site."""
    return f"{site.key}{SITE_SUFFIX}"


def plan_body(plan: Plan, sites: int) -> dict[str, Any]:
    """A plan as `serverfarms` answers it."""
    size = sku(plan.body["sku"])
    body = _resource(plan.group, "serverfarms", plan.name, plan.body)
    capacity = int(plan.body["sku"].get("capacity") or 1)
    body["sku"] = size.body(capacity)
    body["properties"] = {
        **plan.body["properties"],
        "numberOfWorkers": capacity,
        "currentNumberOfWorkers": capacity,
        "numberOfSites": sites,
        "status": "Ready",
        "provisioningState": "Succeeded",
        "subscription": SUBSCRIPTION,
        "resourceGroup": plan.group,
        "geoRegion": plan.body["location"],
    }
    return body


def site_body(site: Site) -> dict[str, Any]:
    """A site as `sites` answers it. Its app settings are told by their own call alone."""
    host = host_name(site)
    body = _resource(site.group, "sites", site.name, site.body)
    if site.body.get("identity"):
        body["identity"] = site.body["identity"]
    shown = ("linuxFxVersion", "numberOfWorkers", "acrUseManagedIdentityCreds", "alwaysOn", "http20Enabled")
    config = {**_CONFIG_DEFAULTS, **site.config}
    body["properties"] = {
        **site.body["properties"],
        "name": site.name,
        "state": site.state,
        "enabled": site.state == RUNNING,
        "hostNames": [host],
        "defaultHostName": host,
        "enabledHostNames": [host, f"{site.key}.scm{host.removeprefix(site.key)}"] if site.state == RUNNING else [],
        "repositorySiteName": site.name,
        "usageState": "Normal",
        "availabilityState": "Normal",
        "lastModifiedTimeUtc": site.body["modified"],
        "resourceGroup": site.group,
        "siteConfig": {name: config.get(name) for name in shown},
        "reserved": True,
    }
    return body


def config_body(site: Site) -> dict[str, Any]:
    """`config/web`."""
    body = _resource(site.group, "sites", site.name, site.body)
    body |= {"id": f"{body['id']}/config/web", "name": site.name, "type": "Microsoft.Web/sites/config"}
    limits = {"linuxFxVersion": "", "appSettings": None}
    body["properties"] = {**limits, **_CONFIG_DEFAULTS, **site.config}
    return body


def settings_body(site: Site) -> dict[str, Any]:
    """`config/appsettings`."""
    body = _resource(site.group, "sites", site.name, site.body)
    body |= {"id": f"{body['id']}/config/appsettings", "name": "appsettings", "type": "Microsoft.Web/sites/config"}
    body["properties"] = dict(site.settings)
    return body


def environment(site: Site, plan: Plan | None, number: str) -> dict[str, str]:
    """What the platform puts into a container's environment, PORT apart. `number` is the instance's."""
    own = {}
    for name, value in site.settings.items():
        plain = name.replace(".", "_")  # Linux: no period in a variable's name
        own[plain] = own[f"APPSETTING_{plain}"] = value
    size = sku(plan.body["sku"]) if plan is not None else None
    return own | {
        "HOME": "/home",
        "WEBSITES_PORT": str(settings.port(site.settings)),
        "WEBSITE_SITE_NAME": site.name,
        "WEBSITE_INSTANCE_ID": number,
        "WEBSITE_HOSTNAME": host_name(site),
        "WEBSITE_RESOURCE_GROUP": site.group,
        "WEBSITE_OWNER_NAME": f"{SUBSCRIPTION}+{site.group}-{site.body['location']}webspace",
        "WEBSITE_ROLE_INSTANCE_ID": "0",
        "WEBSITE_SKU": size.tier if size else "",
        "REGION_NAME": site.body["location"],
        "FUNCTIONS_EXTENSION_VERSION": site.settings.get("FUNCTIONS_EXTENSION_VERSION", ""),
    }


def _resource(group: str, kind: str, name: str, body: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": resource_id(group, kind, name),
        "name": name,
        "type": f"Microsoft.Web/{kind}",
        "kind": body["kind"],
        "location": body["location"],
        "tags": body["tags"],
    }
