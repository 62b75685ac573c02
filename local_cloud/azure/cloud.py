"""Puts the Azure stand-ins together. No SDK is needed: all faces are JSON over HTTP."""

from __future__ import annotations

from pathlib import Path

from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from local_cloud.azure.arm_face import ArmFace
from local_cloud.azure.identity.service import PATH, IdentityFace
from local_cloud.azure.identity.tokens import Tokens
from local_cloud.azure.monitor.service import MonitorFace
from local_cloud.azure.monitor.tables import Tables
from local_cloud.azure.names import SITE_SUFFIX
from local_cloud.azure.operations import Operations
from local_cloud.azure.throttle import Throttle
from local_cloud.azure.web.containers import Containers
from local_cloud.azure.web.front_end import FrontEnd
from local_cloud.azure.web.plans import Plans
from local_cloud.azure.web.records import Records
from local_cloud.azure.web.service import WebFace
from local_cloud.azure.web.sites import Sites
from local_cloud.calls import Calls
from local_cloud.images import Images
from local_cloud.instances import Instances
from local_cloud.options import Options
from local_cloud.state import State

IDENTITY_PATH = PATH
"""Where the managed identity endpoint is on the local cloud's HTTP address."""


class AzureCloud:
    """The simulated services of one subscription, in one data directory."""

    def __init__(
        self, data_dir: Path, state: State, calls: Calls, images: Images, instances: Instances, options: Options
    ) -> None:
        self._calls = calls
        self._tokens = Tokens(data_dir / "azure")
        self._records = Records(state)
        self._tables = Tables(state, options.azure_ingestion_delay, options.azure_log_retention_days)
        self._operations = Operations(state, options.azure_operation_delay)
        logs = data_dir / "azure" / "logs"
        self._containers = Containers(
            self._records, images, instances, self._tables, logs, options.azure_restart_backoff
        )
        throttle = Throttle(options.quotas)
        self._arm = ArmFace(self._tokens, calls, options.azure_resource_groups, throttle)
        web = WebFace(Plans(self._records), Sites(self._records, self._containers), self._operations)
        self._arm.add([*web.actions(), *self._operations.actions()])
        self._front_end = FrontEnd(self._records, self._containers, calls, options.azure_front_end_seconds)

    @property
    def identity_header(self) -> str:
        """The `IDENTITY_HEADER` of programs that may have tokens of the managed identity."""
        return self._tokens.header

    def http_routes(self) -> list[BaseRoute]:
        """The HTTP faces: Resource Manager, tokens, Log Analytics."""
        identity = IdentityFace(self._tokens, self._calls)
        monitor = MonitorFace(self._tables, self._tokens, self._calls)
        return [*self._arm.routes(), *identity.routes(), *monitor.routes()]

    def hosts(self) -> dict[str, ASGIApp]:
        """Host name suffix → the app that answers there."""
        return {SITE_SUFFIX: self._front_end}

    def resources(self) -> dict[str, int]:
        """How many plans and sites there are."""
        plans, sites = self._records.counts()
        return {"web.plans": plans, "web.sites": sites}

    async def resume(self) -> None:
        """Takes up what an earlier process left."""
        await self._containers.resume()
        self._operations.resume()
        self._tables.start()

    async def detach(self) -> None:
        """Stops working; the sites' containers go on."""
        await self._operations.detach()
        await self._containers.detach()
        await self._tables.stop()
