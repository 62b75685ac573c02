"""Functions of Cloud Functions v2: created, read, deleted, listed. Counts its writes against the project's quota."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from control_plane.backends.calls import AMBIGUOUS, UNSENT, CloudError, call
from control_plane.backends.gcp import labels
from control_plane.backends.gcp.clients import Clients
from control_plane.backends.gcp.operations import finished
from control_plane.backends.minute_quota import MinuteQuota

_DEPLOYING = "deploying the container's function"
_REMOVING = "removing the container's function"
_DEPLOY_DEADLINE = 600.0
_REMOVE_DEADLINE = 300.0
_REMOVALS = 4


class Functions:
    """The functions of one project and region."""

    def __init__(self, clients: Clients, parent: str, endpoint_name: str, writes: MinuteQuota) -> None:
        self._clients = clients
        self._parent = parent
        self._endpoint_name = endpoint_name
        self._writes = writes

    def name(self, short: str) -> str:
        """The full resource name."""
        return f"{self._parent}/functions/{short}"

    def is_ours(self, function: Any) -> bool:
        """Whether this endpoint made it."""
        return labels.is_ours(dict(function.labels), self._endpoint_name)

    async def create(self, short: str, function: Mapping[str, Any]) -> Any:
        """CreateFunction, waited for: `functions_v2.Function`.

        Raises CloudError; ALREADY_EXISTS also when the answer to our own call was lost.
        """
        request = {"parent": self._parent, "function_id": short, "function": function}

        async def attempt(timeout: float) -> Any:
            client = await self._clients.functions()
            await self._writes.turn()
            return await client.create_function(request=request, timeout=timeout, retry=None)

        operation = await call(_DEPLOYING, attempt, total=180.0, each=60.0, repeat=AMBIGUOUS | UNSENT)
        done = await finished(operation, _DEPLOYING, total=_DEPLOY_DEADLINE)
        from google.cloud.functions_v2 import Function

        return Function.deserialize(done.response.value)

    async def get(self, short: str) -> Any:
        """`functions_v2.Function`. Raises CloudError."""

        async def attempt(timeout: float) -> Any:
            client = await self._clients.functions()
            return await client.get_function(name=self.name(short), timeout=timeout, retry=None)

        return await call("reading the container's function", attempt)

    async def delete(self, short: str) -> bool:
        """DeleteFunction, waited for; False when it is gone already. What the service cannot do now (a deployment is
        under way), and what has failed for a passing reason, is asked for again. Raises CloudError."""
        for left in reversed(range(_REMOVALS)):
            try:
                return await self._delete_once(short)
            except CloudError as error:
                if not left or error.code not in AMBIGUOUS | UNSENT:
                    raise
        return False

    async def _delete_once(self, short: str) -> bool:
        async def attempt(timeout: float) -> Any:
            client = await self._clients.functions()
            await self._writes.turn()
            return await client.delete_function(name=self.name(short), timeout=timeout, retry=None)

        try:
            operation = await call(_REMOVING, attempt, total=_REMOVE_DEADLINE, each=30.0, repeat=AMBIGUOUS | UNSENT)
            await finished(operation, _REMOVING, total=_REMOVE_DEADLINE)
        except CloudError as error:
            if error.code != "NOT_FOUND":
                raise
            return False
        return True

    async def ours(self) -> AsyncIterator[Any]:
        """All functions of this endpoint (`functions_v2.Function`)."""
        token = ""
        while True:
            page = await self._page(token)
            for function in page.functions:
                if self.is_ours(function):
                    yield function
            token = page.next_page_token
            if not token:
                return

    async def _page(self, token: str) -> Any:
        async def attempt(timeout: float) -> Any:
            client = await self._clients.functions()
            request = {"parent": self._parent, "page_size": 100, "page_token": token}
            pager = await client.list_functions(request=request, timeout=timeout, retry=None)
            return await anext(aiter(pager.pages))

        return await call("listing the endpoint's functions", attempt)
