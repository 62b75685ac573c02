"""Which events a `docker events --filter` lets through: moby's rules, field by field."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from control_plane.model import Event

_NAMED = ("daemon", "container", "plugin", "volume", "network", "node", "service", "secret", "config")
_BY_PREFIX = {"health_status", "exec_create", "exec_start"}
_TAG = re.compile(r"(:[\w][\w.-]*)?(@.*)?$")


class EventFilters:
    """Parsed `filters`; unknown names are ignored, as moby does here."""

    def __init__(self, filters: Mapping[str, Sequence[str]]) -> None:
        self._filters = {name: set(values) for name, values in filters.items() if values}

    def include(self, event: Event) -> bool:
        """Whether the event passes every filter given."""
        if not self._filters:
            return True
        return (
            self._action(event)
            and self._exact("type", event.type)
            and self._exact("scope", "local")
            and all(self._name(kind, event) for kind in _NAMED if kind in self._filters)
            and self._image(event)
            and self._labels(event.attributes)
        )

    def _exact(self, name: str, value: str) -> bool:
        wanted = self._filters.get(name)
        return wanted is None or value in wanted

    def _prefixed(self, name: str, value: str) -> bool:
        wanted = self._filters.get(name)
        return wanted is None or any(value.startswith(prefix) for prefix in wanted)

    def _action(self, event: Event) -> bool:
        # `health_status: healthy` and `exec_start: sh` are asked for by the word before the colon.
        if self._filters.get("event", set()) & _BY_PREFIX:
            return self._prefixed("event", event.action)
        return self._exact("event", event.action)

    def _name(self, kind: str, event: Event) -> bool:
        return self._prefixed(kind, event.actor) or self._prefixed(kind, event.attributes.get("name", ""))

    def _image(self, event: Event) -> bool:
        if "image" not in self._filters:
            return True
        name = event.attributes.get("name" if event.type == "image" else "image", "")
        return any(self._exact("image", text) for text in (event.actor, name, _untagged(event.actor), _untagged(name)))

    def _labels(self, attributes: Mapping[str, str]) -> bool:
        return matches_labels(self._filters.get("label", ()), attributes)


def matches_labels(wanted: Sequence[str] | set[str], labels: Mapping[str, str]) -> bool:
    """Docker's `label` filter: every `key` or `key=value` must be there."""
    for text in wanted:
        key, sign, value = text.partition("=")
        if key not in labels or (sign and labels[key] != value):
            return False
    return True


def _untagged(reference: str) -> str:
    return _TAG.sub("", reference, count=1)
