"""One container as a function app and its plan: pure, plain data in the form of Azure Resource Manager's JSON.

Nothing of the user's is in it but the image: command, environment and secrets travel over the agent's link.
Source: Azure Functions documentation, "Create your first containerized functions"; App Service, "Configure a custom
container"; `Microsoft.Web/sites` and `Microsoft.Web/serverfarms` template references.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from control_plane.backends import sizes
from control_plane.backends.azure import tags
from control_plane.backends.azure.sizes import Sku, size
from control_plane.backends.azure_functions.capabilities import NOT_GIVEN
from control_plane.backends.azure_functions.host_config import AGENT_PORT
from control_plane.backends.azure_functions.settings import AzureFunctionsSettings
from control_plane.backends.callback import callback_urls
from control_plane.model import Container

_KIND = "functionapp,linux,container"
_STOP_LIMIT = "10"
"""Seconds from TERM to KILL when the app is stopped, as Docker has it; App Service's own default is 5."""


@dataclass(frozen=True, slots=True)
class AppPlan:
    """A site and, where the container has one of its own, its plan. Both are called `name`."""

    name: str
    site: dict[str, Any]
    plan: dict[str, Any] | None


def invoke_key(key: bytes, name: str) -> str:
    """What an invocation of a site must show: every control plane of the endpoint can compute it."""
    return hmac.new(key, f"invoke:{name}".encode(), hashlib.sha256).hexdigest()


def app_plan(
    container: Container,
    image: str,
    settings: AzureFunctionsSettings,
    *,
    key: bytes,
    agent_token: str,
    gateways: Sequence[str] = (),
) -> AppPlan:
    """What is asked of Resource Manager. `image` is `host/path@sha256:…`, the agent in it; `gateways` as for `run`."""
    name = tags.resource_name(container.id)
    app_settings = _app_settings(container, settings, image, invoke_key(key, name), agent_token)
    sku = size(sizes.asked(container.host_config, NOT_GIVEN), settings.sku)
    site = _site(name, image, settings, sku, app_settings)
    # The token is minted anew each time and tells nothing about the shape; nor do the gateways that live just now.
    shape = [site, sku.name, {k: v for k, v in app_settings.items() if k != "SOCKERLESS_AGENT_TOKEN"}]
    template = tags.fingerprint(shape)
    app_settings["SOCKERLESS_CALLBACK_URL"] = callback_urls(settings.callback_url, container, gateways)
    site["properties"]["siteConfig"]["appSettings"] = [{"name": k, "value": v} for k, v in app_settings.items()]
    site["tags"] = tags.tags(settings.endpoint_name, container.tenant, container.id, template)
    plan = None if settings.app_service_plan else _plan(container, settings, sku)
    return AppPlan(name, site, plan)


def _plan(container: Container, settings: AzureFunctionsSettings, sku: Sku) -> dict[str, Any]:
    properties: dict[str, Any] = {"reserved": True}  # Linux
    if sku.elastic:
        properties["maximumElasticWorkerCount"] = 1
    return {
        "location": settings.location,
        "kind": "elastic" if sku.elastic else "linux",
        "sku": {"name": sku.name, "tier": sku.tier, "size": sku.name, "family": sku.family, "capacity": 1},
        "properties": properties,
        "tags": tags.tags(settings.endpoint_name, container.tenant, container.id),
    }


def _site(
    name: str, image: str, settings: AzureFunctionsSettings, sku: Sku, app_settings: dict[str, str]
) -> dict[str, Any]:
    config: dict[str, Any] = {
        "linuxFxVersion": f"DOCKER|{image}",
        "ftpsState": "Disabled",
        "minTlsVersion": "1.2",
        "http20Enabled": False,
        "numberOfWorkers": 1,
        # One container is one instance: never a second one for the load.
        "functionAppScaleLimit": 1,
    }
    if sku.elastic:
        config["minimumElasticInstanceCount"] = 1
    else:
        config["alwaysOn"] = True
    if settings.registry_identity:
        config["acrUseManagedIdentityCreds"] = True
        if settings.registry_identity != "system":
            config["acrUserManagedIdentityID"] = settings.registry_identity
    properties = {
        "serverFarmId": settings.plan_id(name),
        "reserved": True,
        "enabled": False,  # made stopped: the start is docker's
        "httpsOnly": True,
        "clientAffinityEnabled": False,
        "siteConfig": config,
    }
    return {"location": settings.location, "kind": _KIND, "identity": _identity(settings), "properties": properties}


def _identity(settings: AzureFunctionsSettings) -> dict[str, Any]:
    if settings.identity:
        return {"type": "UserAssigned", "userAssignedIdentities": {settings.identity: {}}}
    return {"type": "SystemAssigned"}


def _app_settings(
    container: Container, settings: AzureFunctionsSettings, image: str, key: str, agent_token: str
) -> dict[str, str]:
    return {
        "FUNCTIONS_EXTENSION_VERSION": "~4",
        "WEBSITES_ENABLE_APP_SERVICE_STORAGE": "false",
        "WEBSITES_PORT": str(AGENT_PORT),
        "WEBSITES_CONTAINER_START_TIME_LIMIT": str(settings.start_limit),
        "WEBSITES_CONTAINER_STOP_TIME_LIMIT": _STOP_LIMIT,
        **_storage(settings),
        **_registry(settings, image),
        "SOCKERLESS_AGENT_MODE": "app",
        "SOCKERLESS_INVOKE_KEY": key,
        "SOCKERLESS_CALLBACK_URL": callback_urls(settings.callback_url, container),
        "SOCKERLESS_CONTAINER_ID": container.id,
        "SOCKERLESS_AGENT_TOKEN": agent_token,
    }


def _storage(settings: AzureFunctionsSettings) -> dict[str, str]:
    account = settings.storage_account
    if settings.storage_key:
        return {
            "AzureWebJobsStorage": f"DefaultEndpointsProtocol=https;AccountName={account};"
            f"AccountKey={settings.storage_key};EndpointSuffix=core.windows.net"
        }
    found = {"AzureWebJobsStorage__accountName": account, "AzureWebJobsStorage__credential": "managedidentity"}
    if settings.identity:
        found["AzureWebJobsStorage__clientId"] = settings.registry_identity
    return found


def _registry(settings: AzureFunctionsSettings, image: str) -> dict[str, str]:
    host = settings.registry or image.partition("/")[0]
    found = {"DOCKER_REGISTRY_SERVER_URL": f"https://{host}"}
    if settings.registry_user:
        found["DOCKER_REGISTRY_SERVER_USERNAME"] = settings.registry_user
        found["DOCKER_REGISTRY_SERVER_PASSWORD"] = settings.registry_password
    return found


def environment_names() -> dict[str, str]:
    """What an app's settings hold of ours, for the documentation."""
    return {
        "SOCKERLESS_AGENT_MODE": "`app`: the agent listens for the platform's requests and waits for SIGTERM when done",
        "SOCKERLESS_INVOKE_KEY": "what a request to run must show; different for each app",
        "SOCKERLESS_CALLBACK_URL": "where the agent dials: the container's gateway, then others, with spaces between",
        "SOCKERLESS_CONTAINER_ID": "which container it is",
        "SOCKERLESS_AGENT_TOKEN": "its token for the gateway",
    }
