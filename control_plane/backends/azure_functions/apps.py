"""One container's function app from its making to its end; per app one change at a time.

What is known of an app can be found again: nothing is lost with this process.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from control_plane import trouble
from control_plane.backends.agent_image import ImageContents, image_reference
from control_plane.backends.azure import tags
from control_plane.backends.azure_functions.settings import AzureFunctionsSettings
from control_plane.backends.azure_functions.site import AppPlan, app_plan
from control_plane.backends.azure_functions.sites import Sites
from control_plane.backends.calls import CloudError
from control_plane.errors import Conflict
from control_plane.model import Container, Image

_REMEMBERED = 10_000
_UNKNOWN = -1


@dataclass(slots=True)
class App:
    """What this process knows of a site that exists."""

    host: str
    """Its default host name."""
    stopped_after: int
    """Number of the run after which it is known to be stopped (0: never started), -1 when it may run."""
    run: int = 0
    """The newest run this process has started it for."""


class Apps:
    """Makes, starts, stops and removes."""

    def __init__(self, sites: Sites, settings: AzureFunctionsSettings, images: ImageContents, key: bytes) -> None:
        self._sites = sites
        self._settings = settings
        self._images = images
        self._key = key
        self._known: OrderedDict[str, App] = OrderedDict()
        self._making: dict[str, asyncio.Task[App]] = {}
        self._troubles: dict[str, trouble.Trouble] = {}
        self._removed: OrderedDict[str, None] = OrderedDict()
        self._locks: dict[str, asyncio.Lock] = {}

    async def made(self, container: Container, image: Image, agent_token: str, gateways: Sequence[str] = ()) -> App:
        """The app, made unless it is there; made once for all who wait. Raises CloudError, DockerError."""
        name = tags.resource_name(container.id)
        found = self._known.get(name)
        if found is not None:
            return found
        task = self._making.get(name)
        if task is None:
            with trouble.watching() as self._troubles[name]:
                task = self._making[name] = asyncio.create_task(self._make(container, image, agent_token, gateways))
            task.add_done_callback(lambda done: self._made(name, done))
        met = self._troubles[name]
        try:
            return await asyncio.shield(task)
        finally:
            trouble.note(met.text)

    def _made(self, name: str, task: asyncio.Task[App]) -> None:
        self._making.pop(name, None)
        self._troubles.pop(name, None)
        if not task.cancelled() and task.exception() is None:
            self._known[name] = task.result()
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)

    async def _make(self, container: Container, image: Image, agent_token: str, gateways: Sequence[str]) -> App:
        derived = await self._images.ensure_agent_layer(image)
        reference = image_reference(image, derived.agent_digest)
        wanted = app_plan(
            container, reference, self._settings, key=self._key, agent_token=agent_token, gateways=gateways
        )
        site = await self._ours(wanted)
        if site is None:
            self._check_wanted(wanted.name)
            if wanted.plan is not None:
                await self._sites.put_plan(wanted.name, wanted.plan)
                self._check_wanted(wanted.name)
            site = await self._sites.put(wanted.name, wanted.site)
        stopped = str(site.properties.state) == "Stopped"
        return App(_host(site, wanted.name), max(container.state.run - 1, 0) if stopped else _UNKNOWN)

    async def _ours(self, wanted: AppPlan) -> Any | None:
        """The site if it is there as it is wanted, None when it has to be made. Raises CloudError for a stranger's."""
        plan = self._sites.get_plan(wanted.name) if wanted.plan is not None else _nothing()
        site, plan_found = await asyncio.gather(self._sites.get(wanted.name), plan)
        for found, kind in ((site, "app"), (plan_found, "plan")):
            if found is not None and not tags.is_ours(found.tags, self._settings.endpoint_name):
                raise CloudError(
                    "FAILED_PRECONDITION",
                    f"there is an {kind} {wanted.name} that is not this endpoint's".replace("an plan", "a plan"),
                    "making the container's app",
                )
        if site is None or (site.tags or {}).get(tags.TEMPLATE) != wanted.site["tags"][tags.TEMPLATE]:
            return None
        return site

    def _check_wanted(self, name: str) -> None:
        if name in self._removed:
            raise Conflict("the container was removed while its function app was being made")

    async def start(self, container: Container, image: Image, agent_token: str, gateways: Sequence[str] = ()) -> App:
        """Starts the app for the container's present run; one that ran for an earlier run is stopped first.

        App Service would else leave the old instance, whose agent has ended, as it is. Raises CloudError, DockerError.
        """
        name, run = tags.resource_name(container.id), container.state.run
        async with self._lock(name):
            app = await self.made(container, image, agent_token, gateways)
            if run > 1 and app.run != run and app.stopped_after != run - 1:
                await self._sites.stop(name)
            try:
                await self._sites.start(name)
            except CloudError as error:
                if error.code != "NOT_FOUND":
                    raise
                self._known.pop(name, None)  # removed behind our back
                app = await self.made(container, image, agent_token, gateways)
                await self._sites.start(name)
            app.run, app.stopped_after = run, _UNKNOWN
            return app

    async def stop(self, name: str, run: int) -> bool:
        """Stops the app unless it has been started for a newer run: then, or when it is stopped, False."""
        async with self._lock(name):
            app = self._known.get(name)
            if name in self._removed or (app is not None and (app.run > run or app.stopped_after >= run)):
                return False
            await self._sites.stop(name)
            if app is not None:
                app.stopped_after = run
            return True

    async def remove(self, name: str) -> None:
        """Deletes the app, and the plan that was made for it. Repeatable. Raises CloudError."""
        self._removed[name] = None
        while len(self._removed) > _REMEMBERED:
            self._removed.popitem(last=False)
        making = self._making.get(name)
        if making is not None:
            # Its request may be under way: what it makes has to be there to be deleted.
            await asyncio.wait([making])
        async with self._lock(name):
            self._known.pop(name, None)
            await self._sites.delete(name)
            if not self._settings.app_service_plan:
                await self._sites.delete_plan(name)
        self._locks.pop(name, None)

    def running_run(self, name: str) -> int:
        """The newest run this process has started the app for; 0 when it knows of none."""
        app = self._known.get(name)
        return 0 if app is None else app.run

    async def close(self) -> None:
        """Leaves what is being made as it is."""
        making = list(self._making.values())
        for task in making:
            task.cancel()
        await asyncio.gather(*making, return_exceptions=True)

    def _lock(self, name: str) -> asyncio.Lock:
        if len(self._locks) > _REMEMBERED:
            self._locks = {key: lock for key, lock in self._locks.items() if lock.locked()}
        return self._locks.setdefault(name, asyncio.Lock())


async def _nothing() -> None:
    return None


def _host(site: Any, name: str) -> str:
    return str(site.properties.default_host_name or f"{name}.azurewebsites.net")
