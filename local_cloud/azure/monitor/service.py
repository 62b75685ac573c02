"""The Log Analytics query API: `POST /v1/workspaces/{id}/query`."""

from __future__ import annotations

import json
import math
import re
import time
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from local_cloud.azure import errors
from local_cloud.azure.errors import ArmError
from local_cloud.azure.identity.tokens import LOGS_AUDIENCES, Tokens
from local_cloud.azure.monitor.functions import text
from local_cloud.azure.monitor.moments import parse_interval
from local_cloud.azure.monitor.query import limit, parse
from local_cloud.azure.monitor.tables import Tables
from local_cloud.azure.monitor.tokens import QueryError
from local_cloud.azure.names import WORKSPACE
from local_cloud.calls import Calls
from local_cloud.errors import ServiceError

METHOD = "Monitor.Query"
_MAX_BODY = 1 << 20
_PREFER = re.compile(r"include-(statistics|render)\s*=\s*true")
_INVALID = "The request had some invalid properties"
_MESSAGES = {
    "SyntaxError": "A recognition error occurred in the query.",
    "SemanticError": "A semantic error occurred.",
}


class MonitorFace:
    """The HTTP face of the workspace."""

    def __init__(self, tables: Tables, tokens: Tokens, calls: Calls) -> None:
        self._tables = tables
        self._tokens = tokens
        self._calls = calls

    def routes(self) -> list[Route]:
        """The query's route."""
        return [Route("/v1/workspaces/{workspace}/query", self.handle, methods=["POST"])]

    async def handle(self, request: Request) -> Response:
        """Answers one query, or refuses it in Log Analytics' form."""
        try:
            answer = await self._calls.call(METHOD, lambda: self._query(request))
        except QueryError as error:
            return JSONResponse({"error": _query_error(error)}, 400, headers=errors.request_headers())
        except (ArmError, ServiceError) as error:
            return errors.refusal(error)
        answer.headers.update(errors.request_headers())
        return answer

    async def _query(self, request: Request) -> Response:
        # The API answers a token that is no good with 403, unlike Resource Manager (its page of errors).
        self._tokens.check(request.headers.get("authorization"), LOGS_AUDIENCES, 403)
        workspace = request.path_params["workspace"]
        if workspace.lower() != WORKSPACE:
            raise ArmError(404, "WorkspaceNotFoundError", f"The workspace '{workspace}' could not be found.")
        unserved = _PREFER.search(request.headers.get("prefer", ""))
        if unserved is not None:
            raise errors.unserved(f"Prefer: {unserved[0]}")
        body = await _body(request)
        if body.get("workspaces") or body.get("additional_workspaces"):
            raise errors.unserved("queries of several workspaces")
        if not isinstance(body.get("query"), str) or not body["query"].strip():
            raise ArmError(400, "BadArgumentError", f"{_INVALID}: no query")
        query = parse(body["query"])
        if body.get("timespan"):
            interval = parse_interval(str(body["timespan"]), time.time_ns())
            if interval is None:
                raise ArmError(400, "BadArgumentError", f"{_INVALID}: the timespan '{body['timespan']}'")
            limit(query, *interval)
        await self._tables.catch_up()
        rows, more = await query.run(self._tables)
        kinds = list(query.columns.values())
        columns = [{"name": name, "type": kind} for name, kind in query.columns.items()]
        table = {
            "name": "PrimaryResult",
            "columns": columns,
            "rows": [[_value(kind, value) for kind, value in zip(kinds, row, strict=True)] for row in rows],
        }
        answer: dict[str, Any] = {"tables": [table]}
        if more:
            details = {"code": "QueryResultTruncated", "message": f"There were more than {len(rows)} rows."}
            partial = "There were some errors when processing your query."
            answer["error"] = {"code": "PartialError", "message": partial, "details": [details]}
        # Kept to ASCII: a line may hold half a character as a JSON escape, which no UTF-8 can.
        return Response(json.dumps(answer, separators=(",", ":")), media_type="application/json")


def _value(kind: str, value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if value is None or kind in ("long", "real", "bool", "string"):
        return value
    return text(kind, value)


def _query_error(error: QueryError) -> dict[str, Any]:
    inner = {"code": error.code, "message": error.message, **error.place}
    outer = {"code": error.kind, "message": _MESSAGES[error.kind], "innererror": inner}
    return {"message": _INVALID, "code": "BadArgumentError", "innererror": outer}


async def _body(request: Request) -> dict[str, Any]:
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > _MAX_BODY:
            raise ArmError(413, "RequestEntityTooLarge", f"The request is larger than {_MAX_BODY} bytes.")
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ArmError(400, "BadArgumentError", f"{_INVALID}: it is not a JSON object")
    return value
