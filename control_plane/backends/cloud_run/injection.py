"""How the agent becomes the first process of a container: three ways, and the choice among them.

- `image_layer`: the image with one layer appended through the registry's API. Works for every image, even `scratch`.
- `volume`: a read-only bucket mount that holds the agent.
- `startup_command`: the image's own shell downloads the agent from the gateway.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from control_plane.backends.agent_image import AGENT_PATH, ImageContents, check_platform, image_reference, shown
from control_plane.backends.cloud_run.agent_volume import AGENT_FILE, AgentVolume
from control_plane.backends.cloud_run.settings import CloudRunSettings
from control_plane.backends.location import Location
from control_plane.errors import DockerError, NotFound, NotServed
from control_plane.model import Image

Mode = Literal["image_layer", "volume", "startup_command"]
ORDER: tuple[Mode, ...] = ("image_layer", "volume", "startup_command")
AGENT_VOLUME_PATH = "/.sockerless/bin"

_SHELL = "/bin/sh"
_DOWNLOADERS = {
    "curl": ("/usr/bin/curl", "/bin/curl", "/usr/local/bin/curl"),
    "wget": ("/usr/bin/wget", "/bin/wget", "/usr/local/bin/wget"),
}
_FETCH = {
    "curl": '{path} -fsSL --connect-timeout 8 -o "$a" -H "$h" "$u"',
    # No -T and no -t: BusyBox' wget crashes with the one, or does not know the other.
    "wget": '{path} -q -O "$a" --header "$h" "$u"',
}
# 125 is Docker's exit code for "the container could not be started by us".
_SCRIPT = (
    "PATH=$PATH:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin; a=" + AGENT_PATH + "; "
    'h="Authorization: Bearer $SOCKERLESS_AGENT_TOKEN"; umask 022; mkdir -p ${{a%/*}}; set -f; '
    "for i in 1 2 3; do for g in $SOCKERLESS_CALLBACK_URL; do "
    'u="${{g%/}}/agent/binary/linux-{architecture}"; {fetch} && chmod 755 $a && exec $a; done; sleep $i; done; '
    'echo "sockerless: the agent could not be fetched from $SOCKERLESS_CALLBACK_URL" >&2; exit 125'
)


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


def runs_as_root(image: Image) -> bool:
    """Whether the platform starts the image's first process as root: the agent needs it, the user's command not."""
    user = str((image.config.get("config") or {}).get("User") or "")
    return user.partition(":")[0] in ("", "0", "root")


async def check(image: Image, settings: CloudRunSettings, images: ImageContents) -> None:
    """Refuses at create what `choose` would refuse at start. Writes nothing. Raises NotServed."""
    check_platform(image, settings.architecture, "Cloud Run")
    reasons = []
    for mode in _modes(settings):
        reason = await _obstacle(mode, image, settings, images)
        if not reason:
            return
        reasons.append(f"{mode}: {reason}")
    raise _impossible(image, reasons)


async def choose(
    image: Image, settings: CloudRunSettings, images: ImageContents, volume: AgentVolume | None = None
) -> Launch:
    """The first way that works for the image. Raises NotServed saying why none does.

    In `auto` a registry or bucket that turns us away leads to the next way; a way that was asked for by name fails
    with its own error.
    """
    check_platform(image, settings.architecture, "Cloud Run")
    reasons = []
    for mode in _modes(settings):
        reason = await _obstacle(mode, image, settings, images)
        if not reason:
            try:
                return await _launch(mode, image, settings, images, volume)
            except DockerError as error:
                if settings.injection != "auto":
                    raise
                reason = error.message
        reasons.append(f"{mode}: {reason}")
    raise _impossible(image, reasons)


def _modes(settings: CloudRunSettings) -> tuple[Mode, ...]:
    return ORDER if settings.injection == "auto" else tuple(mode for mode in ORDER if mode == settings.injection)


def _impossible(image: Image, reasons: list[str]) -> NotServed:
    return NotServed(
        f"the agent cannot be put into image {shown(image)}: {'; '.join(reasons)}. "
        "Without agent there is no exec, attach, cp and live log (SOCKERLESS_GCR_INJECTION=none)"
    )


async def _obstacle(mode: Mode, image: Image, settings: CloudRunSettings, images: ImageContents) -> str:
    """Why this way cannot be had for the image; empty when it can."""
    if mode == "image_layer":
        return "" if settings.registry_writable else "the registry is not writable (SOCKERLESS_GCR_REGISTRY_WRITABLE)"
    if not runs_as_root(image):
        return "the image's user is not root, and the platform cannot start it as another user"
    if mode == "volume":
        return "" if settings.agent_place else "no bucket is named for the agent (SOCKERLESS_GCR_AGENT_VOLUME)"
    return await _startup_obstacle(image, settings, images)


async def _startup_obstacle(image: Image, settings: CloudRunSettings, images: ImageContents) -> str:
    if settings.agent_image:
        return "SOCKERLESS_GCR_AGENT_IMAGE pins an agent, and the gateway hands out its own"
    if settings.callback_url.startswith("unix:"):
        return "the gateway is reached over a unix socket, which images' own tools do not speak"
    if not await _there(images, image, _SHELL):
        return f"the image has no {_SHELL}"
    return "" if await _downloader(images, image) else "the image has neither curl nor wget"


async def _launch(
    mode: Mode, image: Image, settings: CloudRunSettings, images: ImageContents, volume: AgentVolume | None
) -> Launch:
    """What a way that has no obstacle runs. Raises DockerError when the registry or the bucket refuses."""
    if mode == "image_layer":
        # Asked every time: the digest on record may be of an older agent.
        derived = await images.ensure_agent_layer(image)
        return Launch(mode, image_reference(image, derived.agent_digest), (AGENT_PATH,))
    if mode == "volume":
        if volume is None:
            raise NotServed("this endpoint has no bucket for the agent")
        place = await volume.location(settings.architecture)
        return Launch(mode, image_reference(image), (f"{AGENT_VOLUME_PATH}/{AGENT_FILE}",), agent_volume=place)
    tool, path = await _downloader(images, image) or ("", "")
    fetch = _FETCH[tool].format(path=path)
    script = _SCRIPT.format(architecture=settings.architecture, fetch=fetch)
    return Launch(mode, image_reference(image), (_SHELL, "-c", script))


async def _downloader(images: ImageContents, image: Image) -> tuple[str, str] | None:
    """The image's own tool and its path."""
    for tool, paths in _DOWNLOADERS.items():
        for path in paths:
            if await _there(images, image, path):
                return tool, path
    return None


async def _there(images: ImageContents, image: Image, path: str) -> bool:
    try:
        await images.stat(image, path)
    except NotFound:
        return False
    return True
