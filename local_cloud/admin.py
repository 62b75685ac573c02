"""`/_local/`: how tests and tools look at the local cloud and disturb it."""

from __future__ import annotations

import json
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from local_cloud.calls import Calls
from local_cloud.errors import ServiceError
from local_cloud.faults import parse_faults

_MAX_BODY = 1 << 20


def routes(calls: Calls, resources: Callable[[], dict[str, int]]) -> list[Route]:
    """GET and DELETE `/_local/calls`; PUT and DELETE `/_local/faults`; GET `/_local/resources`."""

    async def get_calls(_request: Request) -> Response:
        return JSONResponse(calls.counts())

    async def reset_calls(_request: Request) -> Response:
        calls.reset()
        return Response(status_code=204)

    async def put_faults(request: Request) -> Response:
        body = await request.body()
        try:
            if len(body) > _MAX_BODY:
                raise ServiceError("INVALID_ARGUMENT", f"the body is larger than {_MAX_BODY} bytes")
            calls.set_faults(parse_faults(json.loads(body)))
        except ServiceError as error:
            return JSONResponse({"message": error.message}, status_code=400)
        except (ValueError, RecursionError):
            return JSONResponse({"message": "the body is not JSON"}, status_code=400)
        return Response(status_code=204)

    async def clear_faults(_request: Request) -> Response:
        calls.set_faults({})
        return Response(status_code=204)

    async def get_resources(_request: Request) -> Response:
        return JSONResponse(resources())

    return [
        Route("/_local/resources", get_resources, methods=["GET"]),
        Route("/_local/calls", get_calls, methods=["GET"]),
        Route("/_local/calls", reset_calls, methods=["DELETE"]),
        Route("/_local/faults", put_faults, methods=["PUT"]),
        Route("/_local/faults", clear_faults, methods=["DELETE"]),
    ]
