"""App Service plans: created, changed, listed, deleted."""

from __future__ import annotations

from typing import Any

from local_cloud.azure import errors
from local_cloud.azure.errors import WebError
from local_cloud.azure.web import names, resources
from local_cloud.azure.web.records import Plan, Records, plan_key
from local_cloud.azure.web.skus import sku

_SERVED = ("reserved", "maximumElasticWorkerCount", "elasticScaleEnabled", "perSiteScaling", "zoneRedundant")


class Plans:
    """All plans of the local cloud."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def check(self, group: str, name: str, wanted: dict[str, Any]) -> dict[str, Any]:
        """What `put` does for a request; raises ArmError."""
        names.check_plan(name)
        present = self._records.plan(plan_key(group, name))
        location = names.check_location(wanted, "serverfarms", present.body["location"] if present else "", name, group)
        size = sku(wanted.get("sku") or (present.body["sku"] if present else {"name": "F1"}))
        properties = wanted.get("properties") or {}
        if not isinstance(properties, dict):
            raise errors.invalid_parameter("properties")
        kept = {key: properties[key] for key in _SERVED if properties.get(key) is not None}
        if present is not None:
            kept = present.body["properties"] | kept
        if kept.get("reserved") is not True:
            raise errors.unserved("plans of Windows workers (properties.reserved is not true)")
        capacity = (wanted.get("sku") or {}).get("capacity") or 1
        if not isinstance(capacity, int) or not 1 <= capacity <= 100:
            raise errors.invalid_parameter("sku.capacity")
        kind = "elastic" if size.tier == "ElasticPremium" else "functionapp" if size.tier == "Dynamic" else "linux"
        body = {
            "location": location,
            "kind": str(wanted.get("kind") or (present.body["kind"] if present else kind)),
            "tags": names.check_tags(wanted.get("tags")),
            "sku": {"name": size.name, "capacity": capacity},
            "properties": kept,
        }
        return {"name": present.name if present else name, "group": group, "body": body}

    def put(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """AppServicePlans.CreateOrUpdate of what `check` has found right."""
        plan = Plan(wanted["name"], wanted["group"], wanted["body"])
        self._records.put_plan(plan)
        return self._body(plan)

    def get(self, group: str, name: str) -> dict[str, Any]:
        """AppServicePlans.Get; raises ArmError."""
        return self._body(self._find(group, name))

    def list(self, group: str) -> list[dict[str, Any]]:
        """The plans of a resource group, or all when it is empty."""
        return [self._body(plan) for plan in self._records.plans(group)]

    def delete(self, group: str, name: str) -> bool:
        """AppServicePlans.Delete; whether there was one. Raises ArmError when sites are on it."""
        plan = self._records.plan(plan_key(group, name))
        if plan is None:
            return False
        sites = self._records.sites_of(plan_key(group, name))
        if sites:
            template = "Server farm '{0}' cannot be deleted because it has web app(s) {1} assigned to it."
            raise WebError(409, "Conflict", "11003", template, plan.name, ",".join(sites))
        self._records.delete_plan(plan_key(group, name))
        return True

    def _find(self, group: str, name: str) -> Plan:
        plan = self._records.plan(plan_key(group, name))
        if plan is None:
            raise errors.missing("serverFarms", name, group)
        return plan

    def _body(self, plan: Plan) -> dict[str, Any]:
        return resources.plan_body(plan, len(self._records.sites_of(plan_key(plan.group, plan.name))))
