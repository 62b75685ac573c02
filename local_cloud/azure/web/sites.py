"""Sites: created, configured, started, stopped, deleted."""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime
from typing import Any, Protocol

from local_cloud.azure import errors
from local_cloud.azure.errors import WebError
from local_cloud.azure.names import SUBSCRIPTION
from local_cloud.azure.web import names, resources, settings
from local_cloud.azure.web.records import RUNNING, STOPPED, Records, Site, plan_key
from local_cloud.azure.web.skus import NO_CONTAINERS, sku

_KIND = {"functionapp", "linux", "container"}
_PLAN_ID = re.compile(
    rf"/subscriptions/{SUBSCRIPTION}/resourceGroups/([^/]+)/providers/Microsoft\.Web/serverfarms/([^/]+)", re.I
)
_SERVED = ("serverFarmId", "httpsOnly", "clientAffinityEnabled", "publicNetworkAccess", "keyVaultReferenceIdentity")
_UNSERVED = ("managedEnvironmentId", "virtualNetworkSubnetId", "hostingEnvironmentProfile", "cloningInfo",
             "functionAppConfig", "daprConfig")  # fmt: skip


class SiteContainers(Protocol):
    """What runs the sites' containers."""

    def start(self, name: str, delay: float = 0.0) -> None:
        """Starts a site's container unless it runs; anew after `restart`."""
        ...

    def restart(self, name: str) -> None:
        """Ends a running site's container and starts another with its present configuration."""
        ...

    def stop(self, name: str) -> None:
        """Ends a site's container."""
        ...


class Sites:
    """All sites of the local cloud."""

    def __init__(self, records: Records, containers: SiteContainers) -> None:
        self._records = records
        self._containers = containers

    # --- PUT, PATCH

    def check(self, group: str, name: str, wanted: dict[str, Any], *, patch: bool = False) -> dict[str, Any]:
        """What `put` does for a request; raises ArmError. With `patch`, what is not named stays."""
        names.check_site(name)
        present = self._present(group, name)
        if patch and present is None:
            raise errors.missing("sites", name, group)
        old = present.body if present else {}
        if patch:
            wanted = {"location": old["location"], "kind": old["kind"], "tags": old["tags"]} | wanted
        location = names.check_location(wanted, "sites", old.get("location", ""), name, group)
        kind = str(wanted.get("kind") or old.get("kind") or "app")
        if set(kind.lower().split(",")) != _KIND:
            raise errors.unserved(f"sites of kind '{kind}' (only functionapp,linux,container)")
        properties = wanted.get("properties") or {}
        if not isinstance(properties, dict):
            raise errors.invalid_parameter("properties")
        for key in _UNSERVED:
            if properties.get(key):
                raise errors.unserved(f"properties.{key}")
        kept = old.get("properties", {}) | {key: properties[key] for key in _SERVED if properties.get(key) is not None}
        plan = self._check_plan(kept.get("serverFarmId"))
        kept["serverFarmId"] = plan[1]
        body = {
            "location": location,
            "kind": kind,
            "tags": names.check_tags(wanted.get("tags")),
            "identity": _identity(wanted.get("identity")) or old.get("identity"),
            "properties": kept,
            "modified": datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds"),
        }
        found = {"name": present.name if present else name, "group": group, "plan": plan[0], "body": body}
        return found | self._configuration(present, properties)

    def _configuration(self, present: Site | None, properties: dict[str, Any]) -> dict[str, Any]:
        given = properties.get("siteConfig") or {}
        config = (present.config if present else {}) | settings.check_config(given)
        settings.check_image(config)
        found = present.settings if present else {}
        if isinstance(given, dict) and given.get("appSettings") is not None:
            found = names.check_settings(given["appSettings"])
        settings.check_storage(found)
        enabled = properties.get("enabled")
        if enabled is not None and not isinstance(enabled, bool):
            raise errors.invalid_parameter("enabled")
        return {"config": config, "settings": found, "enabled": enabled}

    def _check_plan(self, wanted: Any) -> tuple[str, str]:
        """(key, id) of the plan that a site wants."""
        if not isinstance(wanted, str) or not wanted:
            raise errors.unserved("sites without a plan (properties.serverFarmId)")
        match = _PLAN_ID.fullmatch(wanted)
        key = plan_key(match[1], match[2]) if match else plan_key("", wanted)
        plan = self._records.plan(key)
        if plan is None:
            template = "Cannot find {0} with name {1}."
            raise WebError(404, "NotFound", "51004", template, "ServerFarm", wanted.rpartition("/")[2])
        tier = sku(plan.body["sku"]).tier
        if tier in NO_CONTAINERS:
            raise settings.refuse_plan(tier, plan.name)
        return key, resources.plan_body(plan, 0)["id"]

    def _present(self, group: str, name: str) -> Site | None:
        """The group's site of that name; raises ArmError 409 when another group has one."""
        site = self._records.site(name)
        if site is not None and site.group != group:
            raise WebError(409, "Conflict", "54001", "Website with given name {0} already exists.", name)
        return site

    def put(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """WebApps.CreateOrUpdate and Update of what `check` has found right."""
        present = self._present(wanted["group"], wanted["name"])
        enabled, state = wanted["enabled"], present.state if present else RUNNING
        if enabled is not None:
            state = RUNNING if enabled else STOPPED
        site = present or Site(wanted["name"], wanted["group"], wanted["plan"], state, {}, secrets=_host_keys())
        before = (site.state, site.config, site.settings) if present else None
        site.plan, site.body, site.state = wanted["plan"], wanted["body"], state
        site.config, site.settings = wanted["config"], wanted["settings"]
        self._records.put_site(site)
        self._settle(site, before)
        return resources.site_body(site)

    def _settle(self, site: Site, before: tuple[Any, ...] | None) -> None:
        """Brings the container to what the site now is."""
        if site.state == STOPPED:
            self._containers.stop(site.name)
        elif before is None or before[0] == STOPPED:
            self._containers.start(site.name)
        elif before[1:] != (site.config, site.settings):
            self._containers.restart(site.name)

    # --- configuration

    def configure(self, group: str, name: str, wanted: dict[str, Any]) -> dict[str, Any]:
        """WebApps.CreateOrUpdateConfiguration and UpdateConfiguration."""
        site = self.find(group, name)
        before = (site.state, site.config, site.settings)
        given = wanted.get("properties") or {}
        site.config = site.config | settings.check_config(given)
        settings.check_image(site.config)
        if isinstance(given, dict) and given.get("appSettings") is not None:
            site.settings = names.check_settings(given["appSettings"])
            settings.check_storage(site.settings)
        self._records.put_site(site)
        self._settle(site, before)
        return resources.config_body(site)

    def configuration(self, group: str, name: str) -> dict[str, Any]:
        """WebApps.GetConfiguration."""
        return resources.config_body(self.find(group, name))

    def set_settings(self, group: str, name: str, wanted: dict[str, Any]) -> dict[str, Any]:
        """WebApps.UpdateApplicationSettings: all are replaced."""
        site = self.find(group, name)
        before = (site.state, site.config, site.settings)
        site.settings = names.check_settings(wanted.get("properties") or {})
        settings.check_storage(site.settings)
        self._records.put_site(site)
        self._settle(site, before)
        return resources.settings_body(site)

    def settings(self, group: str, name: str) -> dict[str, Any]:
        """WebApps.ListApplicationSettings."""
        return resources.settings_body(self.find(group, name))

    def host_keys(self, group: str, name: str) -> dict[str, Any]:
        """WebApps.ListHostKeys."""
        return self.find(group, name).secrets

    # --- the rest

    def find(self, group: str, name: str) -> Site:
        """A resource group's site; raises ArmError."""
        site = self._records.site(name)
        if site is None or site.group != group:
            raise errors.missing("sites", name, group)
        return site

    def get(self, group: str, name: str) -> dict[str, Any]:
        """WebApps.Get."""
        return resources.site_body(self.find(group, name))

    def list(self, group: str) -> list[dict[str, Any]]:
        """The sites of a resource group, or all when it is empty."""
        return [resources.site_body(site) for site in self._records.sites(group)]

    def start(self, group: str, name: str, delay: float) -> None:
        """WebApps.Start. `delay`: seconds until its container is started."""
        site = self.find(group, name)
        if site.state == STOPPED:
            site.state = RUNNING
            self._records.put_site(site)
        self._containers.start(site.name, delay)

    def stop(self, group: str, name: str) -> None:
        """WebApps.Stop."""
        site = self.find(group, name)
        site.state = STOPPED
        self._records.put_site(site)
        self._containers.stop(site.name)

    def restart(self, group: str, name: str) -> None:
        """WebApps.Restart; a stopped site stays stopped."""
        site = self.find(group, name)
        if site.state == RUNNING:
            self._containers.restart(site.name)

    def delete(self, group: str, name: str, *, empty_plan: bool) -> bool:
        """WebApps.Delete; whether there was one. `empty_plan`: its plan goes with the last site on it."""
        site = self._records.site(name)
        if site is None or site.group != group:
            return False
        with self._records.state.transaction():
            self._records.delete_site(name)
            if empty_plan and not self._records.sites_of(site.plan):
                self._records.delete_plan(site.plan)
        self._containers.stop(site.name)
        return True


def _identity(wanted: Any) -> dict[str, Any] | None:
    """What is kept of `identity`. Containers get no identity of the platform's: they could rule this local cloud."""
    if not isinstance(wanted, dict) or str(wanted.get("type") or "None") == "None":
        return None
    return {key: wanted[key] for key in ("type", "userAssignedIdentities") if wanted.get(key)}


def _host_keys() -> dict[str, Any]:
    return {
        "masterKey": secrets.token_urlsafe(40),
        "functionKeys": {"default": secrets.token_urlsafe(40)},
        "systemKeys": {},
    }
