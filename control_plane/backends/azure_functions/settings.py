"""The Azure Functions backend's settings, from the environment. The table in the documentation is made from it."""

from __future__ import annotations

import re
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from control_plane.backends.azure.sizes import SKUS, Sku
from control_plane.backends.settings_error import SettingsError

__all__ = ["AzureFunctionsSettings", "SettingsError", "load_settings"]

_IDENTITY = re.compile(
    r"^/subscriptions/[^/]+/resourceGroups/[^/]+/providers/Microsoft\.ManagedIdentity/"
    r"userAssignedIdentities/[^/]+$",
    re.IGNORECASE,
)
_REQUIRED = {
    "SOCKERLESS_AZF_SUBSCRIPTION_ID": "the Azure subscription the containers run in",
    "SOCKERLESS_AZF_RESOURCE_GROUP": "the resource group the function apps are made in",
    "SOCKERLESS_AZF_STORAGE_ACCOUNT": "the storage account that the Functions host of every app needs",
}


def _variable(name: str, default: Any, description: str, **limits: Any) -> Any:
    return Field(default, validation_alias=name, description=description, **limits)


class AzureFunctionsSettings(BaseSettings):
    """Field descriptions are the documentation."""

    model_config = SettingsConfigDict(extra="ignore", populate_by_name=True, frozen=True, env_ignore_empty=True)

    subscription_id: str = _variable(
        "SOCKERLESS_AZF_SUBSCRIPTION_ID",
        ...,
        "Azure subscription the function apps are made in. Required.",
        pattern=r"^[A-Za-z0-9-]{1,64}$",
    )
    resource_group: str = _variable(
        "SOCKERLESS_AZF_RESOURCE_GROUP",
        ...,
        "Resource group of the function apps and their plans; it must exist. Required.",
        pattern=r"^[\w.()-]{1,90}$",
    )
    storage_account: str = _variable(
        "SOCKERLESS_AZF_STORAGE_ACCOUNT",
        ...,
        "Storage account for the Functions host of every app (`AzureWebJobsStorage`). Required.",
        pattern=r"^[a-z0-9]{3,24}$",
    )
    storage_key: str = _variable(
        "SOCKERLESS_AZF_STORAGE_KEY",
        "",
        "Key of that account: apps get a full connection string. Empty: apps reach the account as their managed "
        "identity (`AzureWebJobsStorage__accountName`).",
        repr=False,
    )
    location: str = _variable("SOCKERLESS_AZF_LOCATION", "eastus", "Region of apps and plans.")
    registry: str = _variable(
        "SOCKERLESS_AZF_REGISTRY",
        "",
        "Host of the registry the apps pull from (`example.azurecr.io`); images of other registries are refused. "
        "Empty: the endpoint's own registry, whatever it is.",
    )
    registry_user: str = _variable("SOCKERLESS_AZF_REGISTRY_USER", "", "User name the apps pull with.")
    registry_password: str = _variable("SOCKERLESS_AZF_REGISTRY_PASSWORD", "", "Its password.", repr=False)
    registry_identity: str = _variable(
        "SOCKERLESS_AZF_REGISTRY_IDENTITY",
        "",
        "Client id of the managed identity the apps pull with (`acrUseManagedIdentityCreds`), in place of a password. "
        "`system`: each app's own.",
    )
    identity: str = _variable(
        "SOCKERLESS_AZF_IDENTITY",
        "",
        "Resource id of the user-assigned identity that the apps get: the one whose client id is "
        "SOCKERLESS_AZF_REGISTRY_IDENTITY. Empty: each app has an identity of its own, which nobody can be granted "
        "rights for in advance.",
    )
    app_service_plan: str = _variable(
        "SOCKERLESS_AZF_APP_SERVICE_PLAN",
        "",
        "Name (in the resource group) or resource id of a Linux plan that all containers share. Empty: each container "
        "has a plan of its own, made and removed with it.",
    )
    plan_sku: str = _variable(
        "SOCKERLESS_AZF_PLAN_SKU",
        "EP1",
        f"Size of a plan of a container without `-m` and `--cpus`, or of the shared plan: {', '.join(SKUS)}. Plans are "
        "of its family.",
    )
    architecture: Literal["amd64", "arm64"] = _variable(
        "SOCKERLESS_AZF_ARCHITECTURE", "amd64", "Architecture of the platform's machines; App Service has amd64 only."
    )
    timeout: int = _variable(
        "SOCKERLESS_AZF_TIMEOUT",
        600,
        "Seconds a container may run; then its agent ends it.",
        ge=1,
        le=30 * 24 * 3600,
    )
    start_limit: int = _variable(
        "SOCKERLESS_AZF_START_LIMIT",
        230,
        "Seconds the platform gives a container to answer after its start (`WEBSITES_CONTAINER_START_TIME_LIMIT`), and "
        "we the app to take the request to run.",
        ge=10,
        le=1800,
    )
    log_analytics_workspace: str = _variable(
        "SOCKERLESS_AZF_LOG_ANALYTICS_WORKSPACE",
        "",
        "Id (a GUID) of the Log Analytics workspace that the apps' diagnostic setting sends `AppServiceConsoleLogs` "
        "to. Empty: the output of a container whose agent is gone cannot be read.",
    )
    log_reads_per_minute: int = _variable(
        "SOCKERLESS_AZF_LOG_READS_PER_MINUTE",
        200,
        "Log Analytics queries a minute that this process keeps to; 0: no bound.",
        ge=0,
    )
    log_drain: float = _variable(
        "SOCKERLESS_AZF_LOG_DRAIN",
        60.0,
        "Seconds without a new line after which the log archive of a finished container counts as complete.",
        ge=0,
    )
    writes_per_minute: int = _variable(
        "SOCKERLESS_AZF_WRITES_PER_MINUTE",
        200,
        "Azure Resource Manager writes a minute that this process keeps to; 0: no bound.",
        ge=0,
    )
    callback_url: str = _variable(
        "SOCKERLESS_CALLBACK_URL",
        "",
        "Where agents dial at their start, and nowhere else: a URL, or several with spaces between them. Empty: the "
        "gateway that the container was given, then up to four others.",
    )
    endpoint_url: str = _variable(
        "SOCKERLESS_ENDPOINT_URL",
        "",
        "Where the cloud's APIs are in place of Azure's, `http://host:port` (a local cloud): Resource Manager, Log "
        "Analytics, tokens, and the apps by their `Host`.",
    )
    endpoint_name: str = _variable(
        "SOCKERLESS_ENDPOINT_NAME",
        "sockerless",
        "Name of this endpoint in the tags of its cloud resources. Endpoints that share a resource group need "
        "different ones: the sweeper removes what carries its own name and belongs to no container it knows.",
        pattern=r"^[a-z][a-z0-9_-]{0,62}$",
    )
    sweep_grace: float = _variable(
        "SOCKERLESS_SWEEP_GRACE",
        600.0,
        "Seconds the sweeper leaves a cloud resource alone after it was made.",
        ge=0,
    )

    @field_validator("plan_sku")
    @classmethod
    def _sku_is_known(cls, value: str) -> str:
        if value not in SKUS:
            raise ValueError(f"{value!r} is not a size we know; one of {', '.join(SKUS)}")
        return value

    @field_validator("identity")
    @classmethod
    def _identity_is_a_resource(cls, value: str) -> str:
        if value and not _IDENTITY.match(value):
            raise ValueError(
                f"{value!r} is not a resource id "
                "/subscriptions/…/resourceGroups/…/providers/Microsoft.ManagedIdentity/userAssignedIdentities/…"
            )
        return value

    @field_validator("endpoint_url")
    @classmethod
    def _endpoint_is_a_url(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError(f"{value!r} must begin with http:// or https://")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if bool(self.registry_user) != bool(self.registry_password):
            raise ValueError("SOCKERLESS_AZF_REGISTRY_USER and SOCKERLESS_AZF_REGISTRY_PASSWORD go together")
        if self.registry_user and self.registry_identity:
            raise ValueError("SOCKERLESS_AZF_REGISTRY_IDENTITY and SOCKERLESS_AZF_REGISTRY_USER exclude each other")
        if self.registry_identity not in ("", "system") and not self.identity:
            raise ValueError(
                "SOCKERLESS_AZF_REGISTRY_IDENTITY needs SOCKERLESS_AZF_IDENTITY, the resource id of the same identity"
            )
        if self.identity and self.registry_identity in ("", "system"):
            raise ValueError("SOCKERLESS_AZF_IDENTITY needs SOCKERLESS_AZF_REGISTRY_IDENTITY, its client id")
        return self

    @property
    def sku(self) -> Sku:
        """The size of `plan_sku`."""
        return SKUS[self.plan_sku]

    @property
    def group_id(self) -> str:
        """The resource group's id."""
        return f"/subscriptions/{self.subscription_id}/resourceGroups/{self.resource_group}"

    def site_id(self, name: str) -> str:
        """The resource id of a site."""
        return f"{self.group_id}/providers/Microsoft.Web/sites/{name}"

    def plan_id(self, name: str) -> str:
        """The resource id of the plan a container's site belongs to: the shared one, or the one called `name`."""
        plan = self.app_service_plan or name
        return plan if "/" in plan else f"{self.group_id}/providers/Microsoft.Web/serverfarms/{plan}"


def load_settings(**overrides: Any) -> AzureFunctionsSettings:
    """From the environment, with `overrides` by field name on top. Raises SettingsError with one line."""
    try:
        return AzureFunctionsSettings(**overrides)
    except ValidationError as error:
        raise SettingsError("; ".join(_one_line(problem) for problem in error.errors())) from None


def _one_line(problem: Any) -> str:
    text = str(problem["msg"]).removeprefix("Value error, ")
    if not problem["loc"]:
        return text
    name = str(problem["loc"][0])
    field = AzureFunctionsSettings.model_fields.get(name)
    variable = str(field.validation_alias) if field is not None else name
    if problem["type"] == "missing":
        return f"{variable} is not set: it names {_REQUIRED.get(variable, 'what the backend needs')}"
    return f"{variable}: {text}"
