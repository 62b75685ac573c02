"""The container of each running site: started, warmed up, started again when it ends, stopped, found again.

Its messages are those that App Service writes into a site's platform log.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from local_cloud.azure.monitor.tables import Tables
from local_cloud.azure.names import resource_id
from local_cloud.azure.web import settings
from local_cloud.azure.web.launch import NotStarted, launch
from local_cloud.azure.web.records import RUNNING, Records, Site
from local_cloud.azure.web.warmup import warm_up
from local_cloud.images import Images
from local_cloud.instances import Instance, InstanceFailed, Instances

_log = logging.getLogger(__name__)
PREFIX = "1-"
STARTING, READY, FAILED = "starting", "ready", "failed"
_SETTLED_SECONDS = 60.0
"""A container that was ready that long is started again without having to wait longer for its earlier ends."""
T = TypeVar("T")


@dataclass(eq=False, slots=True)
class _Run:
    """A site, from a start to its stop; `ending` is set by the stop."""

    name: str
    adopted: tuple[str, int] | None = None
    state: str = STARTING
    instance: Instance | None = None
    ending: asyncio.Event = field(default_factory=asyncio.Event)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    def become(self, state: str) -> None:
        """Tells those who wait."""
        self.state = state
        before, self.changed = self.changed, asyncio.Event()
        before.set()


class Containers:
    """The containers of all sites. `backoff`: seconds before a container is started again, at first and at most."""

    def __init__(
        self,
        records: Records,
        images: Images,
        instances: Instances,
        tables: Tables,
        logs: Path,
        backoff: tuple[float, float],
    ) -> None:
        self._records = records
        self._images = images
        self._instances = instances
        self._tables = tables
        self._logs = logs
        self._backoff = backoff
        self._runs: dict[str, _Run] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # --- what the sites ask for

    def start(self, name: str, delay: float = 0.0) -> None:
        """Starts a site's container, after `delay` seconds, unless it runs."""
        run = self._runs.get(name.lower())
        if run is None or run.ending.is_set():
            self._begin(_Run(name), delay)

    def restart(self, name: str) -> None:
        """Ends a running site's container and starts another with its present configuration."""
        self.stop(name)
        self._begin(_Run(name), 0.0)

    def stop(self, name: str) -> None:
        """SIGTERM, the site's grace, SIGKILL; in the background."""
        run = self._runs.get(name.lower())
        if run is not None:
            run.ending.set()
            run.become(FAILED)

    async def ready(self, name: str, timeout: float) -> Instance | None:
        """The instance that answers for a site; None when its start failed or takes longer than `timeout` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while (run := self._runs.get(name.lower())) is not None:
                    if run.state == FAILED:
                        return None
                    if run.state == READY and run.instance is not None and not run.instance.ended.done():
                        return run.instance
                    await run.changed.wait()
        return None

    async def resume(self) -> None:
        """Takes up the containers of running sites, and ends those of nobody."""
        wanted = set()
        for site in self._records.sites(""):
            if site.state == RUNNING:
                adopted = (site.instance, site.port) if site.instance and site.port else None
                wanted.add(adopted[0] if adopted else "")
                self._begin(_Run(site.name, adopted), 0.0)
        known = await self._instances.known(PREFIX)
        for id in known.keys() - wanted:
            self._spawn(self._clear(id, settings.stop_limit({})))
        for id in set(self._tables.open_containers()) - known.keys() - wanted:
            self._tables.close(id)

    async def detach(self) -> None:
        """Stops looking after them; the containers go on."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._runs.clear()

    # --- one site

    def _begin(self, run: _Run, delay: float) -> None:
        before = self._runs.get(run.name.lower())
        self._runs[run.name.lower()] = run
        run.task = self._spawn(self._keep(run, before.task if before else None, delay))

    def _spawn(self, work: Awaitable[None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        assert isinstance(task, asyncio.Task)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _keep(self, run: _Run, before: asyncio.Task[None] | None, delay: float) -> None:
        """Keeps a site's container running until the site is stopped."""
        if before is not None:
            await asyncio.wait({before})
        if delay:
            await _unless_ending(run, asyncio.sleep(delay))
        pause, longest = self._backoff
        try:
            while not run.ending.is_set():
                lasted = await self._once(run)
                if lasted >= _SETTLED_SECONDS:
                    pause = self._backoff[0]
                if run.ending.is_set():
                    break
                run.become(STARTING if lasted else FAILED)
                await _unless_ending(run, asyncio.sleep(pause))
                pause = min(pause * 2, longest)
                run.become(STARTING if not run.ending.is_set() else FAILED)
        except Exception:
            _log.exception("the container of site %s is no longer looked after", run.name)
            run.become(FAILED)
        finally:
            if run.ending.is_set():
                run.become(FAILED)
                if self._runs.get(run.name.lower()) is run:
                    del self._runs[run.name.lower()]

    async def _once(self, run: _Run) -> float:
        """One container, from its start to its end; the seconds that it was ready."""
        site = self._records.site(run.name)
        if site is None:
            run.ending.set()
            return 0.0
        instance = await self._adopt(run) or await self._start(run, site)
        if instance is None:
            return 0.0
        try:
            return await self._attend(run, site, instance)
        finally:
            run.instance = None

    async def _attend(self, run: _Run, site: Site, instance: Instance) -> float:
        """A started container, to its end and its removal."""
        name, lasted = f"Container {instance.id} for site {site.name}", 0.0
        failed = await _unless_ending(run, warm_up(self._instances, instance, site))
        if failed:
            self._say(site, instance.id, failed, "Error")
            text = f"Stopping site {site.name} because it failed during startup."
            self._say(site, instance.id, text, "Error")
        elif not run.ending.is_set():
            self._say(site, instance.id, f"{name} initialized successfully and is ready to serve requests.")
            began = time.monotonic()
            run.instance = instance
            run.become(READY)
            await _unless_ending(run, asyncio.wait({instance.ended}))
            lasted = max(time.monotonic() - began, 1e-9)
            if not run.ending.is_set():
                run.become(STARTING)
                self._say(site, instance.id, f"{name} has exited. It will be started again.", "Error")
        await self._clear(instance.id, settings.stop_limit(site.settings))
        self._records.put_instance(site.name, site.starts, "", 0)
        return lasted

    async def _adopt(self, run: _Run) -> Instance | None:
        if run.adopted is None:
            return None
        (id, port), run.adopted = run.adopted, None
        instance = await self._instances.adopt(id, port)
        if instance is None:
            await self._clear(id, 0.0)
        return instance

    async def _start(self, run: _Run, site: Site) -> Instance | None:
        id = f"{PREFIX}{site.key}-{secrets.token_hex(4)}"
        site.starts += 1
        try:
            plan = self._records.plan(site.plan)
            spec = await _unless_ending(run, launch(self._images, site, plan, id, self._logs))
            if spec is None:
                return None
            port = self._instances.port_for(spec)
            self._records.put_instance(site.name, site.starts, id, port)
            self._tables.follow(id, _resource(site), spec.stdout, spec.stderr)
            self._say(site, id, f"Starting container for site. docker run -d -p {spec.port} --name {id}")
            return await self._instances.start(spec, port)
        except NotStarted as error:
            self._say(site, id, str(error), "Error")
            return None
        except InstanceFailed as error:
            self._say(site, id, f"Container {id} couldn't be started: Logs = {error}", "Error")
            await self._clear(id, 0.0)
            return None

    async def _clear(self, id: str, grace: float) -> None:
        """Ends a container, takes in the rest of its output and frees what it left."""
        with contextlib.suppress(InstanceFailed):
            await self._instances.stop(id, grace)
        await self._tables.drain(id)
        self._tables.close(id)
        await self._instances.clear(id)

    def _say(self, site: Site, container: str, message: str, level: str = "Informational") -> None:
        self._tables.platform(_resource(site), container, level, message)


def _resource(site: Site) -> str:
    return resource_id(site.group, "sites", site.name).lower()


async def _unless_ending(run: _Run, work: Awaitable[T]) -> T | None:
    """What the work gives; None when the site is stopped first, the work being abandoned."""
    task = asyncio.ensure_future(work)
    ending = asyncio.ensure_future(run.ending.wait())
    try:
        await asyncio.wait({task, ending}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        for each in (task, ending):
            each.cancel()
        await asyncio.gather(task, ending, return_exceptions=True)
