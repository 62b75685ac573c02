"""What a gateway counts, in Prometheus' text format. Labels are bounded: kinds and directions, never an id."""

from __future__ import annotations

import resource
from collections import Counter
from collections.abc import Iterable

from agent_gateway.relay.streams import Streams

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
_KINDS = ("attach", "exec", "logs", "archive_get", "archive_put", "dial")
_PAGE = resource.getpagesize()


def exposition(streams: Streams, connections: int) -> bytes:
    """The state of one relay, and how many plain HTTP connections its listeners hold."""
    kinds = Counter(pair.kind if pair.kind in _KINDS else "other" for pair in streams.pairs.all())
    linked = sum(link.socket is not None for link in streams.links.all())
    lines = [
        *_metric("links", "gauge", "Agents that are linked.", [("", linked)]),
        *_metric(
            "streams",
            "gauge",
            "Streams by kind.",
            [(f'{{kind="{kind}"}}', kinds[kind]) for kind in (*_KINDS, "other")],
        ),
        *_metric("streams_opened_total", "counter", "Streams since the start.", [("", streams.pairs.opened)]),
        *_metric(
            "stream_bytes_total",
            "counter",
            "Payload relayed.",
            [
                ('{direction="from_agent"}', streams.pairs.bytes_from_agents),
                ('{direction="to_agent"}', streams.pairs.bytes_to_agents),
            ],
        ),
        *_metric("calls_total", "counter", "Calls of the control plane.", [("", streams.calls)]),
        *_metric("http_connections", "gauge", "Connections that are no websockets.", [("", connections)]),
        *_metric("resident_bytes", "gauge", "Memory of the process.", [("", _resident())]),
    ]
    return "\n".join((*lines, "")).encode()


def _metric(name: str, kind: str, meaning: str, samples: Iterable[tuple[str, int]]) -> list[str]:
    full = f"sockerless_gateway_{name}"
    return [
        f"# HELP {full} {meaning}",
        f"# TYPE {full} {kind}",
        *(f"{full}{labels} {value}" for labels, value in samples),
    ]


def _resident() -> int:
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * _PAGE
    except OSError:
        return 0
