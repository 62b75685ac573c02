"""Sites and plans of one resource group. Counts its writes against the endpoint's quota."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

from control_plane.backends.azure.arm import arm_call, polling
from control_plane.backends.azure.clients import Clients
from control_plane.backends.calls import CloudError
from control_plane.backends.minute_quota import MinuteQuota

_MAKE_DEADLINE = 600.0
_ASKED = 120.0
"""Seconds the first answer of a long-running operation is waited for."""
START_DEADLINE = 60.0
_DELETE_DEADLINE = 120.0


class Sites:
    """Sites are `azure.mgmt.web.models.Site`, plans `AppServicePlan`; bodies are Resource Manager's JSON."""

    def __init__(self, clients: Clients, group: str, writes: MinuteQuota) -> None:
        self._clients = clients
        self._group = group
        self._writes = writes

    async def get(self, name: str) -> Any | None:
        """A site; None when there is none. Raises CloudError."""

        async def attempt() -> Any:
            return await (await self._clients.web()).web_apps.get(self._group, name)

        return await _or_none("reading the container's app", attempt)

    async def get_plan(self, name: str) -> Any | None:
        """A plan; None when there is none. Raises CloudError."""

        async def attempt() -> Any:
            return await (await self._clients.web()).app_service_plans.get(self._group, name)

        return await _or_none("reading the container's plan", attempt)

    async def put(self, name: str, body: dict[str, Any]) -> Any:
        """Creates or updates a site and waits for it. Raises CloudError."""

        async def begin(method: Any) -> Any:
            web = await self._clients.web()
            return await web.web_apps.begin_create_or_update(self._group, name, cast(Any, body), polling=method)

        return await self._operation("making the container's app", begin)

    async def put_plan(self, name: str, body: dict[str, Any]) -> Any:
        """Creates or updates a plan and waits for it. Raises CloudError."""

        async def begin(method: Any) -> Any:
            web = await self._clients.web()
            return await web.app_service_plans.begin_create_or_update(
                self._group, name, cast(Any, body), polling=method
            )

        return await self._operation("making the container's plan", begin)

    async def _operation(self, doing: str, begin: Callable[[Any], Awaitable[Any]]) -> Any:
        """The PUT and all its polls; whatever of it is lost, or fails for the moment, is begun again."""
        first, longest = self._clients.poll_pauses

        async def attempt() -> Any:
            await self._clients.web()
            await self._writes.turn()
            method = polling(doing, self._clients.base_url, first_pause=first, longest_pause=longest)
            async with asyncio.timeout(_ASKED):
                poller = await begin(method)
            return await poller.result()

        return await arm_call(doing, attempt, total=_MAKE_DEADLINE, each=_MAKE_DEADLINE)

    async def start(self, name: str) -> None:
        """Starts a site; one that runs goes on. Raises CloudError (NOT_FOUND when there is none)."""

        async def attempt() -> None:
            web = await self._clients.web()
            await self._writes.turn()
            await web.web_apps.start(self._group, name)

        await arm_call("starting the container", attempt, total=START_DEADLINE)

    async def stop(self, name: str) -> None:
        """Stops a site. One that is stopped, or gone, is no error. Raises CloudError."""

        async def attempt() -> None:
            web = await self._clients.web()
            await self._writes.turn()
            await web.web_apps.stop(self._group, name)

        await _or_none("stopping the container's app", attempt)

    async def delete(self, name: str) -> None:
        """Deletes a site and keeps its plan. One that is gone is no error. Raises CloudError."""

        async def attempt() -> None:
            web = await self._clients.web()
            await self._writes.turn()
            await web.web_apps.delete(self._group, name, delete_empty_server_farm=False)

        await _or_none("removing the container's app", attempt, total=_DELETE_DEADLINE)

    async def delete_plan(self, name: str) -> None:
        """Deletes a plan, as soon as its site is gone. One that is gone is no error. Raises CloudError."""

        async def attempt() -> None:
            web = await self._clients.web()
            await self._writes.turn()
            await web.app_service_plans.delete(self._group, name)

        await _or_none("removing the container's plan", attempt, total=_DELETE_DEADLINE)

    async def all(self) -> AsyncIterator[Any]:
        """The resource group's sites, page by page. Raises CloudError."""
        web = await self._clients.web()
        async for site in _pages("listing the endpoint's apps", web.web_apps.list_by_resource_group(self._group)):
            yield site

    async def all_plans(self) -> AsyncIterator[Any]:
        """The resource group's plans, page by page. Raises CloudError."""
        web = await self._clients.web()
        pager = web.app_service_plans.list_by_resource_group(self._group)
        async for plan in _pages("listing the endpoint's plans", pager):
            yield plan


async def _pages(doing: str, pager: Any) -> AsyncIterator[Any]:
    """Every entry once. A page that fails is asked for again from where it begins."""
    token: str | None = None
    while True:

        async def attempt(token: str | None = token) -> tuple[list[Any], str | None]:
            pages = pager.by_page(continuation_token=token)
            try:
                page = [entry async for entry in await anext(pages)]
            except StopAsyncIteration:
                return [], None
            return page, pages.continuation_token

        entries, token = await arm_call(doing, attempt)
        for entry in entries:
            yield entry
        if not token:
            return


async def _or_none(doing: str, attempt: Callable[[], Awaitable[Any]], *, total: float = 60.0) -> Any | None:
    try:
        return await arm_call(doing, attempt, total=total)
    except CloudError as error:
        if error.code != "NOT_FOUND":
            raise
        return None
