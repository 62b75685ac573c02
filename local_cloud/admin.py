"""`/_local/`: how tests and tools look at the local cloud and disturb it."""

from __future__ import annotations

import json

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from local_cloud.calls import Calls, Fault
from local_cloud.errors import ServiceError

_MAX_BODY = 1 << 20


def routes(calls: Calls) -> list[Route]:
    """GET and DELETE `/_local/calls`; PUT and DELETE `/_local/faults`."""

    async def get_calls(_request: Request) -> Response:
        return JSONResponse(calls.counts())

    async def reset_calls(_request: Request) -> Response:
        calls.reset()
        return Response(status_code=204)

    async def put_faults(request: Request) -> Response:
        body = await request.body()
        try:
            wanted = json.loads(body) if len(body) <= _MAX_BODY else None
            if not isinstance(wanted, dict):
                raise ServiceError("INVALID_ARGUMENT", "want an object: method glob -> fault")
            calls.set_faults({glob: Fault.parse(fault) for glob, fault in wanted.items()})
        except ServiceError as error:
            return JSONResponse({"message": error.message}, status_code=400)
        except (ValueError, RecursionError):
            return JSONResponse({"message": "the body is not JSON"}, status_code=400)
        return Response(status_code=204)

    async def clear_faults(_request: Request) -> Response:
        calls.set_faults({})
        return Response(status_code=204)

    return [
        Route("/_local/calls", get_calls, methods=["GET"]),
        Route("/_local/calls", reset_calls, methods=["DELETE"]),
        Route("/_local/faults", put_faults, methods=["PUT"]),
        Route("/_local/faults", clear_faults, methods=["DELETE"]),
    ]
