"""What Cloud Run can do for a container, and the check at `docker create`."""

from __future__ import annotations

from control_plane.backends.base import Capabilities
from control_plane.backends.cloud_run import resources, without_agent
from control_plane.backends.cloud_run.binds import platform_volumes
from control_plane.backends.cloud_run.host_config import HOST_CONFIG
from control_plane.backends.cloud_run.settings import LONGEST_RUN, CloudRunSettings
from control_plane.errors import NotServed
from control_plane.model import Container

NAME = "cloudrun"
TITLE = "Cloud Run"

_OPTIONS = {option.field: option for option in HOST_CONFIG}
_MAC_ADDRESS = "the platform gives the container its network interface"


def capabilities(settings: CloudRunSettings | None = None) -> Capabilities:
    """With the endpoint's own time limit where settings are given."""
    refused = {f"HostConfig.{option.field}": option.note for option in HOST_CONFIG if option.how == "refused"}
    refused["Config.MacAddress"] = _MAC_ADDRESS
    return Capabilities(
        name=NAME,
        title=TITLE,
        max_run_seconds=settings.timeout if settings is not None else LONGEST_RUN,
        refused_options=refused,
    )


def check(container: Container, settings: CloudRunSettings) -> list[str]:
    """Warnings for `docker create`. Raises NotServed or InvalidParameter naming the option, the reason, a way out."""
    warnings = []
    for field, value in container.host_config.items():
        option = _OPTIONS.get(field)
        if option is None:
            continue  # not a field of the API's: nothing was promised
        reason = option.refusal(value)
        if reason is not None:
            flags = (part for part in option.flag.split(", ") if part.startswith("--"))
            shown = next(flags, f"HostConfig.{field}")
            raise NotServed(f"{shown} is not served on {TITLE}: {reason}")
        warning = option.warning(value)
        if warning is not None:
            warnings.append(warning)
    if container.config.get("MacAddress"):
        raise NotServed(f"--mac-address is not served on {TITLE}: {_MAC_ADDRESS}")
    resources.limits(resources.asked(container.host_config, settings.default_resources))
    platform_volumes(container, settings.rules, settings.volume_root)
    if settings.injection == "none":
        warnings += without_agent.warnings(container)
    return warnings
