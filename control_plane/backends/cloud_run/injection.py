"""How the agent becomes the first process of a container: three ways, and the choice among them.

- `image_layer`: the image with one layer appended through the registry's API. Works for every image, even `scratch`.
- `volume`: a read-only bucket mount that holds the agent.
- `startup_command`: the image's own shell downloads the agent from the gateway.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from control_plane.backends.cloud_run.settings import CloudRunSettings
from control_plane.backends.gcp.volume_storage import Location
from control_plane.errors import NotFound, NotServed
from control_plane.model import Image

Mode = Literal["image_layer", "volume", "startup_command"]
ORDER: tuple[Mode, ...] = ("image_layer", "volume", "startup_command")
AGENT_PATH = "/.sockerless/agent"
AGENT_VOLUME_PATH = "/.sockerless/bin"

_SHELL = "/bin/sh"
_DOWNLOADERS = {
    "curl": ("/usr/bin/curl", "/bin/curl", "/usr/local/bin/curl"),
    "wget": ("/usr/bin/wget", "/bin/wget", "/usr/local/bin/wget"),
}
_FETCH = {
    "curl": '{path} -fsSL -o "$a" -H "$h" "$u"',
    "wget": '{path} -q -O "$a" --header "$h" "$u"',
}
# 125 is Docker's exit code for "the container could not be started by us".
_SCRIPT = (
    "PATH=$PATH:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin; a=" + AGENT_PATH + "; "
    'u="${{SOCKERLESS_CALLBACK_URL%/}}/agent/binary/linux-{architecture}"; '
    'h="Authorization: Bearer $SOCKERLESS_AGENT_TOKEN"; umask 022; mkdir -p ${{a%/*}}; '
    "for i in 1 2 3; do {fetch} && chmod 755 $a && exec $a; sleep $i; done; "
    'echo "sockerless: the agent could not be fetched from $SOCKERLESS_CALLBACK_URL" >&2; exit 125'
)


class ImageContents(Protocol):
    """What injection asks of the images' side."""

    async def stat(self, image: Image, path: str) -> Mapping[str, Any]:
        """Docker's PathStat of a path in the image, links followed or not. Raises NotFound."""
        ...

    async def ensure_agent_layer(self, image: Image) -> Image:
        """The image with `agent_digest` set: the derived manifest is in our registry. Raises NotServed, Unavailable."""
        ...


@dataclass(frozen=True, slots=True)
class Launch:
    """What the job's container runs."""

    mode: Mode | Literal["none"]
    image: str
    """Reference with digest, without scheme."""
    command: tuple[str, ...]
    args: tuple[str, ...] = ()
    agent_volume: Location | None = None
    """A bucket place to be mounted read-only at AGENT_VOLUME_PATH."""


def image_reference(image: Image, digest: str | None = None) -> str:
    """`host/path@sha256:…`, as Cloud Run takes it."""
    repository = image.repository.removeprefix("https://").removeprefix("http://")
    return f"{repository}@{digest or image.manifest_digest}"


def runs_as_root(image: Image) -> bool:
    """Whether the platform starts the image's first process as root: the agent needs it, the user's command not."""
    user = str((image.config.get("config") or {}).get("User") or "")
    return user.partition(":")[0] in ("", "0", "root")


async def choose(image: Image, settings: CloudRunSettings, images: ImageContents) -> Launch:
    """The way that works for the image. Raises NotServed saying why none does."""
    _check_platform(image, settings)
    modes = ORDER if settings.injection == "auto" else tuple(mode for mode in ORDER if mode == settings.injection)
    reasons = []
    for mode in modes:
        launch = await _try(mode, image, settings, images)
        if isinstance(launch, Launch):
            return launch
        reasons.append(f"{mode}: {launch}")
    raise NotServed(
        f"the agent cannot be put into image {_shown(image)}: {'; '.join(reasons)}. "
        "Without agent there is no exec, attach, cp and live log"
    )


def _check_platform(image: Image, settings: CloudRunSettings) -> None:
    if (image.os, image.architecture) != ("linux", settings.architecture):
        raise NotServed(
            f"image {_shown(image)} is for {image.os}/{image.architecture}; Cloud Run runs linux/"
            f"{settings.architecture} images only: pull it with --platform linux/{settings.architecture}"
        )


def _shown(image: Image) -> str:
    return image.tags[0] if image.tags else image.id


async def _try(mode: Mode, image: Image, settings: CloudRunSettings, images: ImageContents) -> Launch | str:
    """A launch, or the reason why this mode cannot be had."""
    if mode == "image_layer":
        if not settings.registry_writable:
            return "the registry is not writable (SOCKERLESS_GCR_REGISTRY_WRITABLE)"
        # Asked every time: the digest on record may be of an older agent.
        derived = await images.ensure_agent_layer(image)
        return Launch(mode, image_reference(image, derived.agent_digest), (AGENT_PATH,))
    if not runs_as_root(image):
        return "the image's user is not root, and the platform cannot start it as another user"
    if mode == "volume":
        if not settings.agent_location:
            return "no bucket holds the agent (SOCKERLESS_GCR_AGENT_VOLUME)"
        place = Location.parse(settings.agent_location).below(f"linux-{settings.architecture}")
        return Launch(mode, image_reference(image), (f"{AGENT_VOLUME_PATH}/agent",), agent_volume=place)
    return await _startup_command(image, settings, images)


async def _startup_command(image: Image, settings: CloudRunSettings, images: ImageContents) -> Launch | str:
    if settings.callback_url.startswith("unix:"):
        return "the gateway is reached over a unix socket, which images' own tools do not speak"
    if not await _there(images, image, _SHELL):
        return f"the image has no {_SHELL}"
    for tool, paths in _DOWNLOADERS.items():
        for path in paths:
            if await _there(images, image, path):
                fetch = _FETCH[tool].format(path=path)
                script = _SCRIPT.format(architecture=settings.architecture, fetch=fetch)
                return Launch("startup_command", image_reference(image), (_SHELL, "-c", script))
    return "the image has neither curl nor wget"


async def _there(images: ImageContents, image: Image, path: str) -> bool:
    try:
        await images.stat(image, path)
    except NotFound:
        return False
    return True
