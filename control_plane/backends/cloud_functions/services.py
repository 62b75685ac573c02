"""The Cloud Run services that Cloud Functions makes: read, changed, and removed where their function is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from control_plane.backends.calls import AMBIGUOUS, UNSENT, CloudError, call, pause_before
from control_plane.backends.cloud_functions.plan import FunctionPlan, put_into
from control_plane.backends.gcp import labels
from control_plane.backends.gcp.clients import Clients
from control_plane.backends.gcp.operations import finished
from control_plane.backends.minute_quota import MinuteQuota

_DOING = "putting the container's image into its function"
_DEADLINE = 300.0
_POLLS = (0.05, 2.0)
_SETTLED = ("CONDITION_SUCCEEDED", "CONDITION_FAILED")
_MOST_TRIES = 6


class Services:
    """The services of one project and region."""

    def __init__(self, clients: Clients, parent: str, endpoint_name: str, writes: MinuteQuota) -> None:
        self._clients = clients
        self._parent = parent
        self._endpoint_name = endpoint_name
        self._writes = writes

    async def put(self, name: str, plan: FunctionPlan) -> None:
        """GetService and UpdateService, waited for; a service that has the plan already is only waited for.

        Who finds it changed by somebody else meanwhile (its etag), or whose answer was lost, looks again.
        Raises CloudError.
        """
        loop = asyncio.get_running_loop()
        ends = loop.time() + _DEADLINE
        tries = 0
        anew = 1
        while True:
            service = await self._get(name)
            if plan.is_in(service):
                service = await self._settled(name, service, ends)
                if service.terminal_condition.state.name != "CONDITION_FAILED":
                    return
                if not anew:
                    raise CloudError("FAILED_PRECONDITION", str(service.terminal_condition.message), _DOING)
                anew -= 1
            put_into(service, plan)
            try:
                operation = await call(_DOING, lambda timeout, s=service: self._update(s, timeout), repeat=UNSENT)  # type: ignore[misc]
                await finished(operation, _DOING, total=max(ends - loop.time(), 1.0))
                return
            except CloudError as error:
                pause = pause_before(tries, error.code)
                if error.code not in AMBIGUOUS or loop.time() + pause >= ends:
                    raise
                # What failed for a passing reason may succeed, though the service has it as a failed revision now.
                anew = int(tries < _MOST_TRIES)
            tries += 1
            await asyncio.sleep(pause)

    async def _get(self, name: str) -> Any:
        async def attempt(timeout: float) -> Any:
            client = await self._clients.services()
            return await client.get_service(name=name, timeout=timeout, retry=None)

        return await call(_DOING, attempt)

    async def _update(self, service: Any, timeout: float) -> Any:
        client = await self._clients.services()
        await self._writes.turn()
        return await client.update_service(request={"service": service}, timeout=timeout, retry=None)

    async def _settled(self, name: str, service: Any, ends: float) -> Any:
        """The service once its newest revision serves, or has failed to."""
        loop = asyncio.get_running_loop()
        pause = _POLLS[0]
        while service.reconciling or service.terminal_condition.state.name not in _SETTLED:
            if loop.time() + pause > ends:
                raise CloudError("DEADLINE_EXCEEDED", "the function is not ready", _DOING)
            await asyncio.sleep(pause)
            pause = min(pause * 1.6, _POLLS[1])
            service = await self._get(name)
        return service

    async def delete(self, name: str) -> bool:
        """DeleteService, not waited for; False when it is gone already. Raises CloudError."""

        async def attempt(timeout: float) -> Any:
            client = await self._clients.services()
            await self._writes.turn()
            return await client.delete_service(name=name, timeout=timeout, retry=None)

        try:
            await call("removing a leftover service", attempt, repeat=AMBIGUOUS | UNSENT)
        except CloudError as error:
            if error.code != "NOT_FOUND":
                raise
            return False
        return True

    async def ours(self) -> AsyncIterator[Any]:
        """All services of this endpoint (`run_v2.Service`)."""
        token = ""
        while True:
            page = await self._page(token)
            for service in page.services:
                if labels.is_ours(dict(service.labels), self._endpoint_name):
                    yield service
            token = page.next_page_token
            if not token:
                return

    async def _page(self, token: str) -> Any:
        async def attempt(timeout: float) -> Any:
            client = await self._clients.services()
            request = {"parent": self._parent, "page_size": 100, "page_token": token}
            pager = await client.list_services(request=request, timeout=timeout, retry=None)
            return await anext(aiter(pager.pages))

        return await call("listing the endpoint's services", attempt)
