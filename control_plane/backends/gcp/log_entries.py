"""Cloud Logging entries as lines of a container's output. Pure: filters in, LogLines out."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

from control_plane.backends.base import LogLine
from control_plane.timestamps import rfc3339

EXECUTION_LABEL = "run.googleapis.com/execution_name"
"""The platform's own, on output of jobs."""
CONTAINER_LABEL = "sockerless-container"
"""The agent's, on output of functions: one service may serve several containers, one after another."""
ERROR_SEVERITY = 500
"""`google.logging.type.LogSeverity.ERROR`."""


Kind = Literal["cloud_run_job", "cloud_run_revision"]
_LABELS: dict[Kind, tuple[str, str]] = {
    "cloud_run_job": ("job_name", EXECUTION_LABEL),
    "cloud_run_revision": ("service_name", CONTAINER_LABEL),
}
"""Resource type → its label that names the job or service, and the entries' that tell whose they are."""


@dataclass(frozen=True, slots=True, order=True)
class Source:
    """Whose output is read: one execution of one job, or one container of one service (short names)."""

    resource: str
    """The job or service."""
    key: str
    """The execution or container."""
    kind: Kind = "cloud_run_job"


def log_names(project: str, log_id: str) -> list[str]:
    """The logs read: the platform's stdout and stderr, and `log_id` where the operator routes output elsewhere.

    Without this restriction audit and system entries of the same resource come along.
    """
    ids = ["run.googleapis.com/stdout", "run.googleapis.com/stderr"]
    if log_id:
        ids.append(log_id)
    return [f"projects/{project}/logs/{quote(name, safe='')}" for name in ids]


def entries_filter(project: str, log_id: str, sources: Iterable[Source], since: int | None, until: int | None) -> str:
    """A Cloud Logging filter for the output of `sources` within `since` ≤ timestamp ≤ `until` (Unix nanoseconds)."""
    wanted = sorted(set(sources))
    kinds = [_kind_filter(kind, [source for source in wanted if source.kind == kind]) for kind in _LABELS]
    kinds = [text for text in kinds if text]
    terms = [
        kinds[0] if len(kinds) == 1 else f"({' OR '.join(f'({text})' for text in kinds)})",
        f"logName={_any(log_names(project, log_id))}",
        # What the agent itself says there is for the operator.
        "NOT jsonPayload.sockerless.agent=true",
    ]
    if since is not None:
        terms.append(f'timestamp>="{rfc3339(since)}"')
    if until is not None:
        terms.append(f'timestamp<="{rfc3339(until)}"')
    return " AND ".join(terms)


def _kind_filter(kind: Kind, sources: list[Source]) -> str:
    if not sources:
        return ""
    resource_label, key_label = _LABELS[kind]
    return " AND ".join(
        [
            f'resource.type="{kind}"',
            f"resource.labels.{resource_label}={_any(sorted({source.resource for source in sources}))}",
            f'labels."{key_label}"={_any(list(dict.fromkeys(source.key for source in sources)))}',
        ]
    )


def key_of(entry: Any) -> str:
    """The `Source.key` an entry belongs to; empty when it carries none."""
    for _, label in _LABELS.values():
        if label in entry.labels:
            return str(entry.labels[label])
    return ""


def time_of(entry: Any) -> int:
    """When the line was written: the agent's time where there was one, else the platform's. Unix nanoseconds."""
    at = entry.timestamp
    return int(at.seconds) * 1_000_000_000 + int(at.nanos)


def line_of(entry: Any) -> LogLine:
    """One entry as what the process wrote. Entries are protobuf's own form: proto-plus would cost ten times as much."""
    return LogLine(
        at=time_of(entry),
        stream=stream_of(entry.log_name, int(entry.severity)),
        text=text_of(entry),
        insert_id=entry.insert_id,
    )


def stream_of(log_name: str, severity: int) -> Literal["stdout", "stderr"]:
    """By the log's name; by severity where the name does not tell (the operator's own log)."""
    last = log_name.rsplit("/", 1)[-1].lower().rsplit("%2f", 1)[-1]
    if last == "stdout":
        return "stdout"
    if last == "stderr":
        return "stderr"
    return "stderr" if severity >= ERROR_SEVERITY else "stdout"


def text_of(entry: Any) -> bytes:
    """The bytes of one line.

    The agent writes `{"message", "sockerless": {"run", "partial"}, "base64"?}`: the line without its newline, `base64`
    in place of `message` where it is not UTF-8, `partial` where the process had not ended the line. Output of a
    container without agent is the platform's own `textPayload`; where the platform took a line for JSON its text
    is gone and the object is written out again.
    """
    kind = entry.WhichOneof("payload")
    if kind == "text_payload":
        return str(entry.text_payload).encode() + b"\n"
    if kind != "json_payload":
        return b"\n"
    fields = entry.json_payload.fields
    if "sockerless" in fields and fields["sockerless"].HasField("struct_value"):
        text = _message_bytes(fields)
        return text if is_partial(entry) else text + b"\n"
    if set(fields) == {"message"} and fields["message"].HasField("string_value"):
        return str(fields["message"].string_value).encode() + b"\n"
    return (
        json.dumps(_plain(entry.json_payload), ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()
        + b"\n"
    )


def is_partial(entry: Any) -> bool:
    """Whether the next entry of the same stream goes on with this one's line."""
    if entry.WhichOneof("payload") != "json_payload" or "sockerless" not in entry.json_payload.fields:
        return False
    ours = entry.json_payload.fields["sockerless"].struct_value.fields
    return "partial" in ours and bool(ours["partial"].bool_value)


def _message_bytes(fields: Any) -> bytes:
    if "base64" in fields and fields["base64"].HasField("string_value"):
        encoded = str(fields["base64"].string_value)
        try:
            return base64.b64decode(encoded, validate=True)
        except binascii.Error:
            return encoded.encode()
    return str(fields["message"].string_value).encode() if "message" in fields else b""


def _plain(struct: Any) -> dict[str, Any]:
    from google.protobuf import json_format

    return dict(json_format.MessageToDict(struct))


def _any(values: list[str]) -> str:
    quoted = [json.dumps(value) for value in values]
    return quoted[0] if len(quoted) == 1 else f"({' OR '.join(quoted)})"
