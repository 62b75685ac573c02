"""The backends' settings in `sockerless up`: the user's environment, where it means something here."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from control_plane.backends.azure_functions.settings import AzureFunctionsSettings
    from control_plane.backends.cloud_functions.settings import CloudFunctionsSettings
    from control_plane.backends.cloud_run.settings import CloudRunSettings

PROJECT = "local"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

_REFUSED: Mapping[str, str] = {
    "SOCKERLESS_GCR_PROJECT": f"the local cloud is the project {PROJECT!r}",
    "SOCKERLESS_GCR_SERVICE_ACCOUNT": "the local cloud gives containers no identity",
    "SOCKERLESS_GCR_VPC_CONNECTOR": "the local cloud has no VPC; SOCKERLESS_LOCAL_NETWORK chooses the network",
    "SOCKERLESS_GCR_ARCHITECTURE": "containers run on this machine's processor",
    "SOCKERLESS_GCF_PROJECT": f"the local cloud is the project {PROJECT!r}",
    "SOCKERLESS_GCF_SERVICE_ACCOUNT": "the local cloud gives containers no identity",
    "SOCKERLESS_GCF_VPC_CONNECTOR": "the local cloud has no VPC; SOCKERLESS_LOCAL_NETWORK chooses the network",
    "SOCKERLESS_AZF_SUBSCRIPTION_ID": "the local cloud has one subscription",
    "SOCKERLESS_AZF_RESOURCE_GROUP": "the local cloud has one resource group",
    "SOCKERLESS_AZF_STORAGE_ACCOUNT": "the local cloud has one storage account",
    "SOCKERLESS_AZF_STORAGE_KEY": "the local cloud has one storage account",
    "SOCKERLESS_AZF_REGISTRY": "images are in the local cloud's registry",
    "SOCKERLESS_AZF_LOG_ANALYTICS_WORKSPACE": "the local cloud has one workspace",
    "SOCKERLESS_ENDPOINT_URL": "`up` brings its own local cloud",
    "SOCKERLESS_GCP_ENDPOINT": "`up` brings its own local cloud",
    "SOCKERLESS_GCP_STORAGE_ENDPOINT": "`up` brings its own local cloud",
}
"""Variable → why `up` cannot follow it."""

_DEFAULTS: Mapping[str, tuple[str, Any]] = {
    # One tenant and no neighbours: nothing is rationed, and nothing is late.
    "SOCKERLESS_GCR_WRITES_PER_MINUTE": ("writes_per_minute", 0),
    "SOCKERLESS_GCR_LOG_READS_PER_MINUTE": ("log_reads_per_minute", 0),
    "SOCKERLESS_GCR_LOG_DRAIN": ("log_drain", 0.2),
    "SOCKERLESS_BIND_RULES": ("bind_rules", "/=nfs://localhost/"),
}
_FUNCTIONS_DEFAULTS: Mapping[str, tuple[str, Any]] = {
    **{name: default for name, default in _DEFAULTS.items() if name != "SOCKERLESS_GCR_WRITES_PER_MINUTE"},
    "SOCKERLESS_GCF_WRITES_PER_MINUTE": ("writes_per_minute", 0),
}
_AZURE_DEFAULTS: Mapping[str, tuple[str, Any]] = {
    "SOCKERLESS_AZF_WRITES_PER_MINUTE": ("writes_per_minute", 0),
    "SOCKERLESS_AZF_LOG_READS_PER_MINUTE": ("log_reads_per_minute", 0),
    "SOCKERLESS_AZF_LOG_DRAIN": ("log_drain", 0.2),
}
"""Variable → field and default, where the embedded endpoint's default is another than the hosted one's."""


class RefusedSettingError(Exception):
    """A variable that means nothing here; the message is one line and names it."""


def architecture() -> str:
    """This machine's, as image configurations name it."""
    return _ARCHITECTURES.get(platform.machine(), platform.machine())


def refuse_meaningless() -> None:
    """Raises RefusedSettingError for a variable that `up` would not follow."""
    for variable, reason in _REFUSED.items():
        if os.environ.get(variable):
            raise RefusedSettingError(f"{variable} has no meaning for `sockerless up`: {reason}; unset it")


def local_cloud_run(callback_url: str, grpc_target: str, http_url: str) -> CloudRunSettings:
    """The settings for a local cloud at these addresses. Raises SettingsError."""
    from control_plane.backends.cloud_run.settings import load_settings

    return load_settings(**_google(callback_url, grpc_target, http_url), **_unset(_DEFAULTS))


def local_cloud_functions(callback_url: str, grpc_target: str, http_url: str) -> CloudFunctionsSettings:
    """As `local_cloud_run`, for the backend `gcf`."""
    from control_plane.backends.cloud_functions.settings import load_settings

    return load_settings(**_google(callback_url, grpc_target, http_url), **_unset(_FUNCTIONS_DEFAULTS))


def local_azure_functions(callback_url: str, http_url: str) -> AzureFunctionsSettings:
    """As `local_cloud_run`, for the backend `azf`."""
    from control_plane.backends.azure_functions.settings import load_settings

    return load_settings(
        subscription_id="00000000-0000-0000-0000-000000000000",
        resource_group=PROJECT,
        storage_account=PROJECT,
        storage_key="bG9jYWw=",
        log_analytics_workspace="00000000-0000-0000-0000-000000000001",
        callback_url=callback_url,
        architecture=architecture(),
        endpoint_url=http_url,
        **_unset(_AZURE_DEFAULTS),
    )


def _google(callback_url: str, grpc_target: str, http_url: str) -> dict[str, Any]:
    return {
        "project": PROJECT,
        "callback_url": callback_url,
        "architecture": architecture(),
        "gcp_endpoint": grpc_target,
        "storage_endpoint": http_url,
    }


def _unset(defaults: Mapping[str, tuple[str, Any]]) -> dict[str, Any]:
    return {field: value for variable, (field, value) in defaults.items() if not os.environ.get(variable)}
