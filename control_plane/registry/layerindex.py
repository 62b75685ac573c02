"""What a layer holds, and what the layers of an image show together (whiteouts, links).

Fact source: the OCI image specification's layer rules (`.wh.NAME` removes, `.wh..wh..opq` hides what is below).
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from control_plane.registry.tarsource import ForwardReader, members, normal_path

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_COUNT_LIMIT = 2_000_000
_LINK_LIMIT = 255


@dataclass(slots=True)
class LayerIndex:
    """One layer: its entries by path without leading slash, the last of a name counting."""

    entries: dict[str, tarfile.TarInfo] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    opaque: set[str] = field(default_factory=set)
    implied: set[str] = field(default_factory=set)
    """Directories that exist only because something in them does."""

    def hides(self, path: str) -> bool:
        """Whether this layer hides `path` of the layers below it."""
        if path in self.entries and not (self.entries[path].isdir()):
            return True
        if path in self.removed:
            return True
        parent = path
        while parent:
            parent = parent.rpartition("/")[0]
            if parent in self.opaque or (parent and parent in self.removed):
                return True
            above = self.entries.get(parent)
            if above is not None and not above.isdir():
                return True
        return False


def index(reader: ForwardReader) -> LayerIndex:
    """Reads a layer's tar. Raises ArchiveError."""
    found = LayerIndex()
    for member in members(reader, _COUNT_LIMIT):
        path = normal_path(member.name)
        if path is None:
            continue
        parent, _, name = path.rpartition("/")
        if name == _OPAQUE:
            found.opaque.add(parent)
        elif name.startswith(_WHITEOUT):
            removed = name.removeprefix(_WHITEOUT)
            found.removed.add(f"{parent}/{removed}" if parent else removed)
        elif not name.startswith(".wh..wh."):
            found.entries[path] = member
            while parent and parent not in found.implied:
                found.implied.add(parent)
                parent = parent.rpartition("/")[0]
    return found


@dataclass(frozen=True, slots=True)
class Place:
    """An entry of the merged tree: the layer (from 0, the lowest) that shows it."""

    layer: int
    path: str
    entry: tarfile.TarInfo


class MergedTree:
    """The layers of an image, lowest first, as one tree."""

    def __init__(self, layers: Sequence[LayerIndex]) -> None:
        self._layers = layers

    def find(self, path: str) -> Place | None:
        """The entry at exactly this path, links not followed."""
        if not path:
            return Place(-1, "", _directory(""))
        implied = False
        for number in range(len(self._layers) - 1, -1, -1):
            layer = self._layers[number]
            entry = layer.entries.get(path)
            if entry is not None:
                if implied and not entry.isdir():
                    break
                return Place(number, path, entry)
            implied = implied or path in layer.implied
            if layer.hides(path):
                break
        return Place(-1, path, _directory(path)) if implied else None

    def resolve(self, path: str, *, follow_last: bool) -> str | None:
        """The path with links followed, never leading out of the root; None when a part is missing on the way
        (a missing last part is no fault) or links run in circles."""
        pending = [part for part in path.split("/") if part not in {"", "."}]
        done: list[str] = []
        links = 0
        while pending:
            part = pending.pop(0)
            if part == "..":
                del done[-1:]
                continue
            here = "/".join([*done, part])
            place = self.find(here)
            if place is not None and place.entry.issym() and (pending or follow_last):
                links += 1
                if links > _LINK_LIMIT:
                    return None
                target = place.entry.linkname
                if target.startswith("/"):
                    done.clear()
                pending = [piece for piece in target.split("/") if piece not in {"", "."}] + pending
                continue
            if pending and (place is None or not place.entry.isdir()):
                return None
            done.append(part)
        return "/".join(done)

    def below(self, path: str) -> Iterator[Place]:
        """Everything in a directory, parents before children."""
        prefix = f"{path}/" if path else ""
        seen: set[str] = set()
        for layer in reversed(self._layers):
            seen.update(one for one in layer.entries if one.startswith(prefix) and one != path)
            seen.update(one for one in layer.implied if one.startswith(prefix) and one != path)
        for one in sorted(seen):
            place = self.find(one)
            if place is not None:
                yield place


def _directory(path: str) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(path)
    entry.type, entry.mode = tarfile.DIRTYPE, 0o755
    return entry
