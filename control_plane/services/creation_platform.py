"""`--platform` against the platform an image is for."""

from __future__ import annotations

import re

from control_plane.errors import InvalidParameter, NotFound
from control_plane.model import Image

_PART = re.compile(r"[a-z0-9_-]+", re.IGNORECASE)
_ARCHITECTURES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "i386": "386", "armhf": "arm"}
_SYSTEMS = ("linux", "windows", "darwin", "freebsd")
_RUNS = "linux/amd64"
"""What the container platforms run."""


def check_platform(image: Image, reference: str, wanted: str) -> list[str]:
    """Warnings. Raises NotFound (the CLI then pulls the right one) or InvalidParameter."""
    has = f"{image.os}/{image.architecture}"
    if wanted:
        if _normal(wanted) != has:
            raise NotFound(
                f"image with reference {reference} was found but its platform ({has}) "
                f"does not match the specified platform ({wanted})"
            )
    elif has != _RUNS:
        return [
            f"The requested image's platform ({has}) does not match the detected host platform ({_RUNS}) "
            "and no specific platform was requested"
        ]
    return []


def _normal(text: str) -> str:
    """`os/architecture`; a lone word is the one or the other. The variant is not looked at."""
    parts = text.lower().split("/")
    if not 1 <= len(parts) <= 3 or not all(_PART.fullmatch(part) for part in parts):
        raise InvalidParameter(f'"{text}": invalid platform: must be os/architecture, as in {_RUNS}')
    if len(parts) == 1:
        parts = [parts[0], "amd64"] if parts[0] in _SYSTEMS else ["linux", parts[0]]
    return f"{parts[0]}/{_ARCHITECTURES.get(parts[1], parts[1])}"
