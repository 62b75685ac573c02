"""What every handler has: the parsed Docker request, and Docker's forms of answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from control_plane.errors import DockerError, InvalidParameter

if TYPE_CHECKING:
    from control_plane.auth.caller import Caller
    from control_plane.auth.gate import Gate
    from control_plane.services.bundle import Services

M = TypeVar("M", bound=BaseModel)

_TRUE = {"1", "true", "t", "yes", "y", "on"}
_BODY_LIMIT = 4 * 1024 * 1024
"""Of JSON bodies; archives are streamed and have no limit here."""


class DockerRequest:
    """One Docker API request: who asks, what, and the services that can answer."""

    def __init__(
        self,
        request: Request,
        services: Services,
        caller: Caller,
        api_version: tuple[int, int],
        path: Mapping[str, str],
        gate: Gate,
    ) -> None:
        self.raw = request
        self.services = services
        self.caller = caller
        self.tenant = caller.tenant
        self.gate = gate
        self.api_version = api_version
        self.path = path
        self.query = request.query_params
        self.headers = request.headers

    def flag(self, name: str, default: bool = False) -> bool:
        """A boolean query parameter, by moby's rule: anything but ''/0/no/false/none is true."""
        value = self.query.get(name)
        if value is None:
            return default
        return value.strip().lower() not in {"", "0", "no", "false", "none"}

    def integer(self, name: str, default: int | None = None) -> int | None:
        """An integer query parameter; a malformed one is 400 with Go's strconv text."""
        value = self.query.get(name)
        if value is None or value == "":
            return default
        try:
            return int(value, 10)
        except ValueError:
            raise InvalidParameter(f'strconv.Atoi: parsing "{value}": invalid syntax') from None

    def filters(self) -> dict[str, list[str]]:
        """The `filters` query parameter in both of Docker's forms: {"k":["v"]} and {"k":{"v":true}}."""
        text = self.query.get("filters")
        if not text:
            return {}
        try:
            parsed = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise InvalidParameter(f"invalid filter: {error}") from None
        if not isinstance(parsed, dict):
            raise InvalidParameter("invalid filter")
        filters: dict[str, list[str]] = {}
        for name, values in parsed.items():
            if isinstance(values, dict):
                filters[name] = [value for value, wanted in values.items() if wanted]
            elif isinstance(values, list) and all(isinstance(value, str) for value in values):
                filters[name] = values
            else:
                raise InvalidParameter("invalid filter")
        return filters

    async def json(self) -> Any:
        """The JSON body, None when empty. 400 on malformed JSON or a body over the limit."""
        body = bytearray()
        async for chunk in self.raw.stream():
            body += chunk
            if len(body) > _BODY_LIMIT:
                raise InvalidParameter("request body too large")
        if not body.strip():
            return None
        try:
            return orjson.loads(bytes(body))
        except orjson.JSONDecodeError as error:
            raise InvalidParameter(f"invalid JSON: {error}") from None

    async def parse(self, model: type[M]) -> M:
        """The JSON body as a wire type. 400 with the first fault named."""
        body = await self.json()
        if not isinstance(body, dict):
            raise InvalidParameter(
                "invalid JSON: got EOF while reading request body"
                if body is None
                else "invalid JSON: an object is wanted"
            )
        try:
            return model.model_validate(body)
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(str(part) for part in fault["loc"])
            raise InvalidParameter(f"invalid JSON: {where}: {fault['msg']}") from None

    def body(self) -> AsyncIterator[bytes]:
        """The raw body as it comes (archives, images)."""
        return self.raw.stream()


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Docker ends its JSON bodies with a newline."""
    body = orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)
    return Response(body, status, headers, media_type="application/json")


def error_response(error: DockerError) -> Response:
    """`{"message": …}` with the error's status; 304 has no body."""
    if error.status == 304:
        return Response(status_code=304)
    return json_response({"message": error.message}, error.status, error.headers)


def empty(status: int = 204) -> Response:
    """An answer without a body."""
    return Response(status_code=status)
