"""Which execs of a container have not ended: inspect's `ExecIDs`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from control_plane.model import Container
from control_plane.store.base import Document, Store


class OpenExecs:
    """Grouped once per state of a tenant's execs: a store gives the same list object back while nothing changed."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Sequence[Document], Mapping[str, list[str]]]] = {}

    async def of(self, store: Store, container: Container) -> list[str]:
        """Exec ids, oldest knowledge included; empty when there are none."""
        documents = await store.list("execs", container.tenant)
        known = self._known.get(container.tenant)
        if known is None or known[0] is not documents:
            grouped: dict[str, list[str]] = {}
            for document in documents:
                if document.body.get("status") != "exited":
                    grouped.setdefault(str(document.body.get("container")), []).append(document.key)
            known = (documents, grouped)
            if len(self._known) > 1000:
                self._known.clear()
            self._known[container.tenant] = known
        return known[1].get(container.id, [])
