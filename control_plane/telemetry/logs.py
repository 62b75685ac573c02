"""Structured logs: one JSON object a line on stdout, with the request's id, tenant and container.

`severity`, `message`, `time` and the trace are named as Google's Cloud Logging reads them; Azure's takes any JSON.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import MutableMapping
from typing import IO, Any

import orjson
import structlog

from control_plane.telemetry import context
from control_plane.telemetry.redaction import cleaned

Entry = MutableMapping[str, Any]

_SEVERITIES = {"debug": "DEBUG", "info": "INFO", "warning": "WARNING", "error": "ERROR", "critical": "CRITICAL"}
_QUIET = ("httpx", "httpcore", "hpack", "azure", "google", "urllib3", "h2")
"""What logs every request of its own, with URLs."""
_TRACE = "trace"
_AUDIT = "sockerless.audit"


def set_up(out: IO[str] | None = None, level: str = "") -> None:
    """From now on everything that is logged, by whatever module, goes out as JSON without secrets."""
    wanted = (level or os.environ.get("SOCKERLESS_LOG_LEVEL") or "INFO").upper()
    number = logging.getLevelNamesMapping().get(wanted, logging.INFO)
    shared: list[Any] = [_with_request, structlog.stdlib.add_logger_name, structlog.stdlib.add_log_level]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.format_exc_info,
            _named,
            _redacted,
            _rendered,
        ],
    )
    handler = logging.StreamHandler(out or sys.stdout)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    # Whatever else is left out, who did what is not.
    logging.getLogger(_AUDIT).setLevel(logging.INFO)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))


def audit(line: str) -> None:
    """One entry of the audit log, which is JSON already, as a line of this one with its fields."""
    structlog.stdlib.get_logger(_AUDIT).info("audit", **orjson.loads(line))


def _with_request(_logger: Any, _method: str, entry: Entry) -> Entry:
    for name, value in context.facts().items():
        entry.setdefault(name, value)
    return entry


def _named(_logger: Any, _method: str, entry: Entry) -> Entry:
    entry["severity"] = _SEVERITIES.get(str(entry.pop("level", "info")), "DEFAULT")
    entry["message"] = str(entry.pop("event", ""))
    trace = entry.pop(_TRACE, None)
    if trace:
        project = os.environ.get("SOCKERLESS_GCR_PROJECT") or os.environ.get("SOCKERLESS_GCF_PROJECT")
        # Cloud Logging shows the line with the trace when it is named in full.
        entry["trace_id"] = trace
        if project:
            entry["logging.googleapis.com/trace"] = f"projects/{project}/traces/{trace}"
    return entry


def _redacted(_logger: Any, _method: str, entry: Entry) -> Entry:
    found: dict[str, Any] = cleaned(entry)
    return found


def _rendered(_logger: Any, _method: str, entry: Entry) -> str:
    first = {name: entry[name] for name in ("time", "severity", "message") if name in entry}
    return orjson.dumps({**first, **entry}).decode()
