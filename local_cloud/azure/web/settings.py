"""What the platform reads in a site's configuration and app settings."""

from __future__ import annotations

import base64
import binascii
import re
import shlex
from collections.abc import Mapping
from typing import Any

from local_cloud.azure import errors
from local_cloud.azure.errors import ArmError

START_LIMIT, _LONGEST_START = 230.0, 1800.0
_STOP_LIMIT, _LONGEST_STOP = 5.0, 120.0
_IMAGE = re.compile(r"DOCKER\|([^\s|@]+/)?[^\s|@/]+(@sha256:[0-9a-f]{64})?", re.I)
_VERSIONS = ("~4", "4")
_EMULATOR = "usedevelopmentstorage=true"
_TYPES: dict[str, type | tuple[type, ...]] = {
    "linuxFxVersion": str,
    "appCommandLine": str,
    "alwaysOn": bool,
    "acrUseManagedIdentityCreds": bool,
    "acrUserManagedIdentityID": str,
    "http20Enabled": bool,
    "ftpsState": str,
    "minTlsVersion": str,
    "numberOfWorkers": int,
    "functionAppScaleLimit": int,
    "minimumElasticInstanceCount": int,
    "preWarmedInstanceCount": int,
    "healthCheckPath": str,
    "use32BitWorkerProcess": bool,
    "webSocketsEnabled": bool,
    "vnetRouteAllEnabled": bool,
    "publicNetworkAccess": str,
}
# What changes how the site answers or what it runs, and what is not done here.
_UNSERVED = ("azureStorageAccounts", "ipSecurityRestrictions", "handlerMappings", "connectionStrings", "autoHealRules")


def check_config(wanted: Any) -> dict[str, Any]:
    """A siteConfig without its app settings; what is null is left out. Raises ArmError."""
    if not isinstance(wanted, dict):
        raise errors.invalid_parameter("siteConfig")
    given = {name: value for name, value in wanted.items() if value is not None and name != "appSettings"}
    for name, value in given.items():
        if name in _UNSERVED and value:
            raise errors.unserved(f"siteConfig.{name}")
        kind = _TYPES.get(name)
        if kind is not None and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
            raise errors.invalid_parameter(f"siteConfig.{name}")
    return given


def check_image(config: Mapping[str, Any]) -> None:
    """`linuxFxVersion` of a site that runs a container. Raises ArmError."""
    wanted = str(config.get("linuxFxVersion") or "")
    kind = wanted.partition("|")[0].upper()
    if kind in ("COMPOSE", "KUBE", "SITECONTAINERS"):
        raise errors.unserved(f"linuxFxVersion {kind}|…")
    if not _IMAGE.fullmatch(wanted) or len(wanted) > 512:
        raise errors.invalid_parameter("LinuxFxVersion")


def check_storage(settings: Mapping[str, str]) -> None:
    """Refuses the platform's own volume at /home, which the local cloud does not have."""
    if settings.get("WEBSITES_ENABLE_APP_SERVICE_STORAGE", "").lower() == "true":
        raise errors.unserved("WEBSITES_ENABLE_APP_SERVICE_STORAGE=true")


def image(config: Mapping[str, Any]) -> str:
    """The image's reference."""
    return str(config.get("linuxFxVersion") or "").partition("|")[2]


def command(config: Mapping[str, Any]) -> tuple[str, ...]:
    """What `appCommandLine` replaces the image's CMD with; raises ValueError for an unclosed quote."""
    return tuple(shlex.split(str(config.get("appCommandLine") or "")))


def host_fault(settings: Mapping[str, str]) -> str:
    """Why the Functions host would not become healthy; empty when nothing is wrong."""
    version = settings.get("FUNCTIONS_EXTENSION_VERSION", "")
    if version not in _VERSIONS:
        said = f"'{version}'" if version else "missing"
        return f"FUNCTIONS_EXTENSION_VERSION is {said}: the host runs ~4 only."
    identity = any(settings.get(f"AzureWebJobsStorage__{name}") for name in ("accountName", "blobServiceUri"))
    if "AzureWebJobsStorage" not in settings:
        return "" if identity else "Storage account connection string 'AzureWebJobsStorage' does not exist."
    if not _connects(settings["AzureWebJobsStorage"]):
        return "Storage account connection string 'AzureWebJobsStorage' could not be parsed."
    return ""


def _connects(text: str) -> bool:
    if text.strip().rstrip(";").lower() == _EMULATOR:
        return True
    parts = dict(part.partition("=")[::2] for part in text.split(";") if part)
    try:
        key = base64.b64decode(parts.get("AccountKey", ""), validate=True)
    except binascii.Error:
        return False
    named = parts.get("AccountName") and (parts.get("EndpointSuffix") or parts.get("BlobEndpoint"))
    return bool(named and (key or parts.get("SharedAccessSignature")))


def port(settings: Mapping[str, str]) -> int:
    """WEBSITES_PORT; 80 when there is none. Raises ValueError."""
    number = int(settings.get("WEBSITES_PORT") or 80)
    if not 1 <= number <= 65535:
        raise ValueError(f"WEBSITES_PORT {number} is no port")
    return number


def start_limit(settings: Mapping[str, str]) -> float:
    """Seconds that the container has until it answers."""
    return _seconds(settings.get("WEBSITES_CONTAINER_START_TIME_LIMIT"), START_LIMIT, _LONGEST_START)


def stop_limit(settings: Mapping[str, str]) -> float:
    """Seconds between SIGTERM and SIGKILL."""
    return _seconds(settings.get("WEBSITES_CONTAINER_STOP_TIME_LIMIT"), _STOP_LIMIT, _LONGEST_STOP)


def _seconds(text: str | None, default: float, longest: float) -> float:
    try:
        return min(max(float(int(text or default)), 0.0), longest)
    except ValueError:
        return default


def refuse_plan(tier: str, name: str) -> ArmError:
    """What a container on a plan without containers is answered."""
    return errors.bad_request(
        f"The parameter LinuxFxVersion has an invalid value: custom containers are not supported in the {tier} "
        f"hosting plan '{name}'."
    )
