"""The image with the agent in it, as every backend asks for it: one layer more, appended in our registry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from control_plane.errors import NotServed
from control_plane.model import Image

AGENT_PATH = "/.sockerless/agent"


class ImageContents(Protocol):
    """What injection asks of the images' side."""

    async def stat(self, image: Image, path: str) -> Mapping[str, Any]:
        """Docker's PathStat of a path in the image, links followed or not. Raises NotFound."""
        ...

    async def ensure_agent_layer(self, image: Image) -> Image:
        """The image with `agent_digest` set: the derived manifest is in our registry. Raises NotServed, Unavailable."""
        ...


def image_reference(image: Image, digest: str | None = None) -> str:
    """`host/path@sha256:…`, as Cloud Run takes it."""
    repository = image.repository.removeprefix("https://").removeprefix("http://")
    return f"{repository}@{digest or image.manifest_digest}"


def shown(image: Image) -> str:
    """The image by the name its user knows."""
    return image.tags[0] if image.tags else image.id


def check_platform(image: Image, architecture: str, title: str) -> None:
    """Raises NotServed for an image of another processor or system than the platform (`title`) runs."""
    if (image.os, image.architecture) != ("linux", architecture):
        raise NotServed(
            f"image {shown(image)} is for {image.os}/{image.architecture}; {title} runs linux/{architecture} images "
            f"only: pull it with --platform linux/{architecture}"
        )
