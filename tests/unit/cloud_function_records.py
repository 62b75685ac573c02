"""`FunctionRecords` in memory, for tests."""

from __future__ import annotations

import time

from control_plane.model import CloudFunction


class MemoryRecords:
    """One process, no store: every method is atomic."""

    def __init__(self) -> None:
        self.kept: dict[str, CloudFunction] = {}

    async def of(self, tenant: str, container: str) -> CloudFunction | None:
        found = (f for f in self.kept.values() if (f.tenant, f.container) == (tenant, container))
        return next(found, None)

    async def claim(self, tenant: str, shape: str, container: str) -> CloudFunction | None:
        for name, function in self.kept.items():
            if (function.tenant, function.shape, function.container) == (tenant, shape, ""):
                self.kept[name] = function.model_copy(update={"container": container, "changed_at": time.time()})
                return self.kept[name]
        return None

    async def put(self, function: CloudFunction) -> None:
        self.kept[function.name] = function

    async def release(self, function: CloudFunction) -> bool:
        current = self.kept.get(function.name)
        if current is None or current.container != function.container:
            return False
        self.kept[function.name] = current.model_copy(update={"container": "", "changed_at": time.time()})
        return True

    async def ready(self, tenant: str, shape: str) -> int:
        return sum((f.tenant, f.shape, f.container) == (tenant, shape, "") for f in self.kept.values())

    async def forget(self, function: CloudFunction) -> None:
        self.kept.pop(function.name, None)

    async def all(self) -> list[CloudFunction]:
        return list(self.kept.values())


def function(name: str = "skls-aaaaaaaaaaaa", **changes: object) -> CloudFunction:
    plain = CloudFunction(
        name=name, tenant="acme", shape="s", uri=f"https://{name}.a.run.app", container="", created_at="",
        changed_at=time.time(),
    )  # fmt: skip
    return plain.model_copy(update=changes)
