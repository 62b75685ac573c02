"""Signal names and numbers, as moby reads them."""

from __future__ import annotations

import signal

from control_plane.errors import InvalidParameter
from control_plane.model import Container

KILL = 9
TERM = 15

_ENDING = frozenset({1, 2, 3, TERM, KILL})
"""HUP, INT, QUIT, TERM, KILL: what a user sends to end a process."""
_RTMIN, _RTMAX = 34, 64
_BY_NAME = {known.name.removeprefix("SIG"): int(known) for known in signal.Signals}
# Other names of the same numbers, which Python's enumeration leaves out.
_BY_NAME |= {"CLD": 17, "IOT": 6, "POLL": 29, "STKFLT": 16, "RTMIN": _RTMIN, "RTMAX": _RTMAX}
_BY_NAME |= {f"RTMIN+{n}": _RTMIN + n for n in range(1, 16)} | {f"RTMAX-{n}": _RTMAX - n for n in range(1, 15)}
_NUMBERS = frozenset(_BY_NAME.values())


def parse_signal(text: str) -> int:
    """`TERM`, `SIGTERM`, `sigterm`, `15`, `RTMIN+3` → number. Raises InvalidParameter with moby's texts."""
    try:
        number = int(text, 10)
    except ValueError:
        named = _BY_NAME.get(text.upper().removeprefix("SIG"))
        if named is None:
            raise InvalidParameter(f"invalid signal: {text}") from None
        return named
    if number == 0:
        raise InvalidParameter(f"invalid signal: {text}")
    if number not in _NUMBERS:
        raise InvalidParameter(f"the linux daemon does not support signal {number}")
    return number


def stop_signal(container: Container) -> int:
    """The container's stop signal; SIGTERM when none or an unknown one is set."""
    text = container.config.get("StopSignal") or ""
    try:
        return parse_signal(text) if text else TERM
    except InvalidParameter:
        return TERM


def ends(container: Container, number: int) -> bool:
    """Whether a signal that nobody can deliver is as good as the platform's cancel."""
    return number in _ENDING or number == stop_signal(container)


def asks_to_end(container: Container, number: int) -> bool:
    """Whether moby takes this signal as the user's wish that the container ends (no restart, thawed when paused)."""
    if number == KILL or not container.config.get("StopSignal"):
        return True
    return number == stop_signal(container)
