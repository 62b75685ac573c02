"""Finds what crashes leave behind: apps and plans of containers that are gone."""

from __future__ import annotations

import logging
import time
from typing import Any

from control_plane.backends.azure import tags
from control_plane.backends.azure_functions.sites import Sites
from control_plane.backends.calls import CloudError

_log = logging.getLogger(__name__)


class Sweep:
    """One pass over the resource group. What is younger than `grace` seconds may belong to a container that is newer
    than the list of known ones."""

    def __init__(self, sites: Sites, endpoint_name: str, grace: float, known: set[str]) -> None:
        self._sites = sites
        self._endpoint_name = endpoint_name
        self._grace = grace
        self._known = known
        self._now = time.time()

    async def run(self) -> int:
        """Returns how many resources were removed. Raises CloudError when nothing can be listed."""
        removed = 0
        # Apps first: a plan cannot go before them.
        for site in [site async for site in self._sites.all() if self._orphaned(site)]:
            removed += await self._delete(site, self._sites.delete)
        for plan in [plan async for plan in self._sites.all_plans() if self._orphaned(plan)]:
            removed += await self._delete(plan, self._sites.delete_plan)
        return removed

    def _orphaned(self, resource: Any) -> bool:
        found = resource.tags
        if not tags.is_ours(found, self._endpoint_name):
            return False
        return found.get(tags.CONTAINER) not in self._known and self._now - tags.created_at(found) >= self._grace

    async def _delete(self, resource: Any, delete: Any) -> int:
        try:
            await delete(str(resource.name))
        except CloudError as error:
            _log.warning("%s cannot be swept: %s", resource.name, error)
            return 0
        return 1
