"""Where a container's agent dials: what every backend gives it at its start."""

from __future__ import annotations

from collections.abc import Sequence

from control_plane.model import Container


def callback_urls(setting: str, container: Container, gateways: Sequence[str] = ()) -> str:
    """URLs with spaces between them, the container's own gateway first (docs/wire-protocol.md, section 1).

    `setting` is the operator's `SOCKERLESS_CALLBACK_URL`, which counts alone where there is one. None is less protected
    than the container's own: the agent shows its token to each.
    """
    if setting:
        return setting
    own = container.gateway
    others = [url for url in gateways if url.startswith("https://") or not own.startswith("https://")]
    return " ".join(dict.fromkeys(url for url in (own, *others) if url))
