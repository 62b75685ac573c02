"""`--log-opt` of the drivers json-file and local: how much output the agent keeps for `docker logs`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from control_plane.errors import InvalidParameter

_KNOWN = {
    "json-file": {"max-size", "max-file", "compress", "labels", "labels-regex", "env", "env-regex", "tag"},
    "local": {"max-size", "max-file", "compress"},
}
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,6})?) ?([kmgtp])?(i?b)?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


def check_log_options(log_config: Mapping[str, Any]) -> None:
    """Raises InvalidParameter with moby's text for options that a driver does not have, and for malformed ones."""
    driver = log_config["Type"] or "json-file"
    options: Mapping[str, str] = log_config["Config"]
    for name in options:
        if name not in _KNOWN[driver]:
            raise InvalidParameter(f"unknown log opt '{name}' for {driver} log driver")
    _size(options, driver)
    _files(options, driver)


def kept_bytes(log_config: Mapping[str, Any], default: int) -> int:
    """What is kept of a container's output: `max-size` times `max-file`; the endpoint's default without `max-size`."""
    options: Mapping[str, str] = log_config.get("Config") or {}
    driver = str(log_config.get("Type") or "json-file")
    size = _size(options, driver)
    return default if size <= 0 else size * _files(options, driver)


def _size(options: Mapping[str, str], driver: str) -> int:
    """Bytes; -1 for no limit. moby reads json-file's units as decimal, local's as binary."""
    text = options.get("max-size", "-1")
    if text == "-1":
        return -1
    found = _SIZE.fullmatch(text.strip())
    if found is None or (size := int(float(found[1]) * _unit(driver) ** _POWERS[(found[2] or "").lower()])) <= 0:
        raise InvalidParameter(f"invalid value for max-size: '{text}'")
    return size


def _unit(driver: str) -> int:
    return 1024 if driver == "local" else 1000


def _files(options: Mapping[str, str], driver: str) -> int:
    text = options.get("max-file", "5" if driver == "local" else "1")
    if not text.isascii() or not text.isdigit() or len(text) > 9 or int(text) < 1:
        raise InvalidParameter(f"max-file must be a positive number, not '{text}'")
    return int(text)
