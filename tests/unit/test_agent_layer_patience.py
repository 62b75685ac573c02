"""Pushing the agent's layer to a registry that fails for the moment, or for good."""

from __future__ import annotations

from typing import Any, cast

import pytest

from control_plane.model import Image
from control_plane.registry import layer
from control_plane.registry.base import ImageRegistry, RegistryError
from control_plane.registry.layer import AgentLayerAppender

IMAGE = Image(
    id="sha256:" + "1" * 64,
    tenant="t",
    created_at="2026-01-01T00:00:00Z",
    repository="http://registry/p/r",
    manifest_digest="sha256:" + "2" * 64,
    config={"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": []}},
)


class Binaries:
    async def read(self, architecture: str) -> bytes:
        return b"agent"


class Registry:
    def __init__(self, *failures: RegistryError) -> None:
        self.failures = list(failures)
        self.puts: list[str] = []

    async def put_bytes(self, repository: str, data: bytes) -> None:
        self._put("bytes")

    async def put_manifest(self, repository: str, manifest: bytes, media_type: str) -> None:
        self._put("manifest")

    def _put(self, what: str) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.puts.append(what)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    async def pause(_: int) -> None:
        return

    monkeypatch.setattr(layer, "pause", pause)


def _appender(registry: Any) -> AgentLayerAppender:
    return AgentLayerAppender(cast(ImageRegistry, registry), cast(Any, Binaries()))


async def test_a_passing_failure_is_sat_out() -> None:
    registry = Registry(RegistryError("busy", status=503), RegistryError("slow down", status=429))
    assert await _appender(registry).derive(IMAGE)
    assert registry.puts == ["bytes", "bytes", "manifest"]


@pytest.mark.parametrize(
    "failures", [[RegistryError("denied", "DENIED", 403)], [RegistryError("down", status=503)] * 10]
)
async def test_a_refusal_is_told_at_once_and_patience_ends(failures: list[RegistryError]) -> None:
    registry = Registry(*failures)
    with pytest.raises(RegistryError):
        await _appender(registry).derive(IMAGE)
    assert registry.puts == []
    assert len(failures) - len(registry.failures) == (1 if len(failures) == 1 else 6)
