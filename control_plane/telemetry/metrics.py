"""Prometheus metrics. Labels are bounded: routes are templates, statuses classes, cloud calls our own phrases."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from control_plane.telemetry import hooks
from control_plane.version import VERSION

_REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600)
_CLOUD_BUCKETS = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 180)
_PASS_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60)
_STATUSES = ("created", "starting", "running", "paused", "restarting", "exited", "removing")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"})
_UNKNOWN = "other"


class Metrics:
    """The metrics of this process."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Histogram(
            "sockerless_request_seconds",
            "Requests to the control plane, until the answer's end",
            ("method", "route", "status"),
            buckets=_REQUEST_BUCKETS,
            registry=self.registry,
        )
        self._running = Gauge(
            "sockerless_requests_in_progress", "Requests whose answer is not at its end", registry=self.registry
        )
        self._calls = Histogram(
            "sockerless_cloud_call_seconds",
            "Calls to the cloud, one for each try",
            ("call", "outcome"),
            buckets=_CLOUD_BUCKETS,
            registry=self.registry,
        )
        self._passes = Histogram(
            "sockerless_reconcile_seconds",
            "Passes of the reconciler",
            ("outcome",),
            buckets=_PASS_BUCKETS,
            registry=self.registry,
        )
        self._containers = Gauge(
            "sockerless_containers",
            "Containers when the reconciler last looked at all",
            ("status",),
            registry=self.registry,
        )
        self._store = Gauge(
            "sockerless_store_seconds",
            "How long the last look at the store took; -1: it failed",
            registry=self.registry,
        )
        about = Gauge("sockerless_info", "1, with what runs here", ("version",), registry=self.registry)
        about.labels(VERSION).set(1)

    def attach(self) -> None:
        """From now on cloud calls and the reconciler are measured."""
        hooks.cloud_call = self._cloud_call
        hooks.reconciled = self._reconciled
        hooks.containers = self._counted

    def began(self) -> None:
        """A request has come."""
        self._running.inc()

    def ended(self, method: str, route: str, status: int, seconds: float) -> None:
        """It is answered, or was given up (status 0)."""
        self._running.dec()
        known = method if method in _METHODS else _UNKNOWN
        kind = f"{status // 100}xx" if 100 <= status < 600 else "none"
        self._requests.labels(known, route or _UNKNOWN, kind).observe(seconds)

    def store_took(self, seconds: float) -> None:
        """A look at the store; -1 when it failed."""
        self._store.set(seconds)

    def _cloud_call(self, doing: str, outcome: str, seconds: float) -> None:
        self._calls.labels(doing, outcome).observe(seconds)

    def _reconciled(self, seconds: float, whole: bool) -> None:
        self._passes.labels("done" if whole else "failed").observe(seconds)

    def _counted(self, found: Mapping[str, int] | None) -> None:
        if found is None:
            self._containers.clear()
            return
        for status in _STATUSES:
            self._containers.labels(status).set(found.get(status, 0))

    def page(self) -> bytes:
        """The exposition text."""
        return generate_latest(self.registry)
