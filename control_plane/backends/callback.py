"""Where a container's agent dials: what every backend gives it at its start."""

from __future__ import annotations

import re
from collections.abc import Sequence

from control_plane.model import Container

_SEPARATORS = re.compile(r"[\s,]")


def callback_urls(setting: str, container: Container, gateways: Sequence[str] = ()) -> str:
    """URLs with spaces between them, the container's own gateway first (docs/wire-protocol.md, section 1).

    `setting` is the operator's `SOCKERLESS_CALLBACK_URL`, which counts alone where there is one. None is less protected
    than the container's own: the agent shows its token to each, and starts with none if one of them is no URL.
    """
    if setting:
        return setting
    own = container.gateway
    schemes = ("https://",) if own.startswith("https://") else ("https://", "http://")
    others = [url for url in gateways if url.startswith(schemes) and not _SEPARATORS.search(url)]
    return " ".join(dict.fromkeys(url for url in (own, *others) if url))
