"""One line of the route table, and the matcher compiled from it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Literal

from control_plane.auth.caller import Scope

if TYPE_CHECKING:
    from starlette.responses import Response

    from control_plane.api.http import DockerRequest

Handler = Callable[["DockerRequest"], Awaitable["Response"]]
ServedBy = Literal["control_plane", "front_door", "nobody"]


@dataclass(frozen=True, slots=True)
class Route:
    """A path of the API and what becomes of a request for it."""

    method: str
    path: str
    """With one `{variable}` that may hold slashes (image names do); of a second one nothing is told to the handler."""
    handler: str = ""
    """`module.function` in `control_plane.api`; empty when only the front door, or nobody, serves it."""
    served_by: ServedBy = "control_plane"
    status: int = 501
    """Of the refusal."""
    reason: str = ""
    """Why it is refused when it comes to the control plane, in words a user can act on."""
    note: str = ""
    """What `docs/compatibility.md` says of a served route that is not all of Docker's."""
    scope: Scope | None = None
    """What a caller's token must allow; None: `read` for GET and HEAD, else `full`."""

    quiet: bool = False
    """A POST that changes nothing, and need not be in the audit log."""

    @property
    def needs(self) -> Scope:
        """The scope a caller must have."""
        if self.scope is not None:
            return self.scope
        return "read" if self.method in ("GET", "HEAD") else "full"

    @property
    def changes(self) -> bool:
        """Whether it changes something, or lets into a container: such calls are in the audit log."""
        return not self.quiet and (self.method not in ("GET", "HEAD") or self.needs != "read")


def resolve(route: Route) -> Handler | None:
    """The handler function, imported now; None for a refused route."""
    if not route.handler:
        return None
    module, _, function = route.handler.rpartition(".")
    handler: Handler = getattr(import_module(f"control_plane.api.{module}"), function)
    return handler


@dataclass(slots=True)
class Bound:
    """A route with its imported handler."""

    route: Route
    handler: Handler | None
    variable: str
    prefix: str
    middle: str
    suffix: str
    internal: bool
    needs: Scope
    audited: bool


class Matcher:
    """Finds the route of a method and path: a dictionary for fixed paths, a short list per first segment for others."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._fixed: dict[tuple[str, str], Bound] = {}
        self._open: dict[tuple[str, str], list[Bound]] = {}
        for route in routes:
            bound = _bind(route)
            if not bound.variable:
                self._fixed[(route.method, route.path)] = bound
            else:
                self._open.setdefault((route.method, _first(route.path)), []).append(bound)
        for candidates in self._open.values():
            # The most words first: `/x/{id}/attach/ws` before `/x/{id}/ws`, both before `/x/{id}`.
            candidates.sort(key=lambda bound: (-bound.prefix.count("/"), -len(bound.middle + bound.suffix)))

    def match(self, method: str, path: str) -> tuple[Bound, str] | None:
        """The route and its variable's value, or None."""
        fixed = self._fixed.get((method, path))
        if fixed is not None:
            return fixed, ""
        for bound in self._open.get((method, _first(path)), ()):
            if path.startswith(bound.prefix) and path.endswith(bound.suffix):
                value = path[len(bound.prefix) : len(path) - len(bound.suffix)]
                if value and (not bound.middle or bound.middle in value):
                    return bound, value
        return None


def _first(path: str) -> str:
    end = path.find("/", 1)
    return path if end < 0 else path[:end]


def _bind(route: Route) -> Bound:
    prefix, brace, rest = route.path.partition("{")
    variable, _, rest = rest.partition("}")
    middle, second, end = rest.partition("{")
    suffix = end.partition("}")[2] if second else middle
    internal = route.path.startswith("/internal/")
    return Bound(
        route,
        resolve(route),
        variable if brace else "",
        prefix,
        middle if second else "",
        suffix,
        internal,
        route.needs,
        route.changes and not internal,
    )
