"""What moby fills in at create: the image's configuration where the user gave none, and the host's defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from control_plane.errors import InvalidParameter

Json = dict[str, Any]

SHM_SIZE = 64 * 1024 * 1024
_CONFIG_NAMES = (
    "Hostname Domainname User AttachStdin AttachStdout AttachStderr ExposedPorts Tty OpenStdin StdinOnce Env Cmd "
    "Healthcheck Image Volumes WorkingDir Entrypoint NetworkDisabled MacAddress OnBuild Labels StopSignal StopTimeout "
    "Shell"
)
_CONFIG = _CONFIG_NAMES.split()
_OMITTED_WHEN_EMPTY = {
    "ExposedPorts",
    "Healthcheck",
    "NetworkDisabled",
    "MacAddress",
    "StopSignal",
    "StopTimeout",
    "Shell",
}
_HOST_OMITTED_WHEN_EMPTY = {"Annotations", "StorageOpt", "Tmpfs", "Sysctls", "Mounts"}
_TIMES = ("Interval", "Timeout", "StartPeriod", "StartInterval", "Retries")


def merge_image(config: Json, image: Mapping[str, Any]) -> None:
    """Fills `config` from the image's own configuration, in place.

    `image` comes from a registry: what has not the type it should have is refused (InvalidParameter).
    """
    config["User"] = config["User"] or _text(image, "User")
    config["ExposedPorts"] = {**_object(image, "ExposedPorts"), **(config["ExposedPorts"] or {})}
    env = list(config["Env"] or [])
    named = {entry.partition("=")[0] for entry in env}
    config["Env"] = env + [entry for entry in _texts(image, "Env") or [] if entry.partition("=")[0] not in named]
    config["Labels"] = {**_text_object(image, "Labels"), **(config["Labels"] or {})}
    if not config["Entrypoint"]:
        if not config["Cmd"]:
            config["Cmd"] = _texts(image, "Cmd")
        if config["Entrypoint"] is None:
            config["Entrypoint"] = _texts(image, "Entrypoint")
    config["Healthcheck"] = _merge_health(config["Healthcheck"], image)
    config["WorkingDir"] = config["WorkingDir"] or _text(image, "WorkingDir")
    config["Volumes"] = {**(config["Volumes"] or {}), **_object(image, "Volumes")}
    config["StopSignal"] = config["StopSignal"] or _text(image, "StopSignal")


def settle_command(config: Json) -> None:
    """`--entrypoint ""` clears the image's. Raises InvalidParameter when nothing is left to run."""
    if config["Entrypoint"] == [""]:
        config["Entrypoint"] = None
    if not config["Entrypoint"] and not config["Cmd"]:
        raise InvalidParameter("no command specified")


def final_config(config: Json, container_id: str) -> Json:
    """The Config document as inspect shows it: moby's fields, its empty ones left out."""
    config["Hostname"] = config["Hostname"] or container_id[:12]
    config["Volumes"] = config["Volumes"] or None
    return {name: config[name] for name in _CONFIG if config[name] or name not in _OMITTED_WHEN_EMPTY}


def fill_host(host: Json) -> list[str]:
    """Host defaults, in place; gives warnings."""
    warnings = []
    if not host["RestartPolicy"]["Name"]:
        host["RestartPolicy"]["Name"] = "no"
    host["ConsoleSize"] = (host["ConsoleSize"] + [0, 0])[:2]
    if host["Memory"] > 0 and host["MemorySwap"] == 0:
        host["MemorySwap"] = host["Memory"] * 2
    host["ShmSize"] = host["ShmSize"] or SHM_SIZE
    host["IpcMode"] = host["IpcMode"] or "private"
    host["CgroupnsMode"] = host["CgroupnsMode"] or "private"
    host["LogConfig"]["Type"] = host["LogConfig"]["Type"] or "json-file"
    if host["PidsLimit"] is not None and host["PidsLimit"] <= 0:
        host["PidsLimit"] = None
    if host["MemorySwappiness"] == -1:
        host["MemorySwappiness"] = None
    if host["OomKillDisable"]:
        warnings.append("Your kernel does not support OomKillDisable. OomKillDisable discarded.")
    host["OomKillDisable"] = None
    return warnings


def final_host(host: Json) -> Json:
    """The HostConfig document as inspect shows it."""
    return {
        name: value
        for name, value in host.items()
        if value or (name not in _HOST_OMITTED_WHEN_EMPTY and not (name == "Init" and value is None))
    }


def _merge_health(given: Json | None, image: Mapping[str, Any]) -> Json | None:
    own = image.get("Healthcheck")
    if own is None:
        return given
    if not isinstance(own, dict):
        raise _broken("Healthcheck")
    test = _texts(own, "Test")
    times = {name: _number(own, name) for name in _TIMES}
    if given is None:
        return {"Test": test, **times}
    merged = {"Test": given["Test"] or test}
    return merged | {name: given[name] or times[name] for name in _TIMES}


def _broken(name: str) -> InvalidParameter:
    return InvalidParameter(f"the image's configuration is malformed: {name} has not the type it should have")


def _text(image: Mapping[str, Any], name: str) -> str:
    value = image.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _broken(name)
    return value


def _texts(image: Mapping[str, Any], name: str) -> list[str] | None:
    value = image.get(name)
    if isinstance(value, str):
        return [value]
    if value is not None and not (isinstance(value, list) and all(isinstance(entry, str) for entry in value)):
        raise _broken(name)
    return value


def _object(image: Mapping[str, Any], name: str) -> Json:
    value = image.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _broken(name)
    return {key: {} for key in value}


def _text_object(image: Mapping[str, Any], name: str) -> dict[str, str]:
    value = image.get(name) or {}
    if not isinstance(value, dict) or not all(isinstance(entry, str) for entry in value.values()):
        raise _broken(name)
    return value


def _number(image: Mapping[str, Any], name: str) -> int:
    value = image.get(name) or 0
    if isinstance(value, bool) or not isinstance(value, int):
        raise _broken(name)
    return value
