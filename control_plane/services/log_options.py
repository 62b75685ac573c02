"""`--log-opt` of the drivers json-file, local and none: how much output the agent keeps for `docker logs`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from control_plane.errors import InvalidParameter

_KNOWN = {
    "json-file": {"max-size", "max-file", "compress", "labels", "labels-regex", "env", "env-regex", "tag"},
    "local": {"max-size", "max-file", "compress"},
}
_UNKNOWN = {
    "json-file": "unknown log opt '{name}' for json-file log driver",
    "local": "unknown log opt '{name}' for log driver local",
}
_OF_EVERY_DRIVER = {"mode", "max-buffer-size", "cache-disabled", "cache-max-size", "cache-max-file", "cache-compress"}
"""Output never waits for its log here, and there is no second copy of it to bound."""
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,6})?) ?([kmgtp])?(i?b)?", re.IGNORECASE)
NOTHING = -1
"""Neither kept for `docker logs` nor passed on to the platform's logging."""
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


def check_log_options(log_config: Mapping[str, Any]) -> None:
    """Raises InvalidParameter with moby's text for options that a driver does not have, and for malformed ones."""
    driver = log_config["Type"] or "json-file"
    options: Mapping[str, str] = log_config["Config"]
    _check_mode(options)
    if driver == "none":
        return  # it has no options; moby does not look at them
    for name in options:
        if name not in _KNOWN[driver] and name not in _OF_EVERY_DRIVER:
            raise InvalidParameter(_UNKNOWN[driver].format(name=name))
    _size(options, driver)
    _files(options, driver)


def _check_mode(options: Mapping[str, str]) -> None:
    mode = options.get("mode", "")
    if mode not in ("", "blocking", "non-blocking"):
        raise InvalidParameter(f"logger: logging mode not supported: {mode}")
    buffer = options.get("max-buffer-size")
    if buffer is None:
        return
    if mode != "non-blocking":
        raise InvalidParameter("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
    if _SIZE.fullmatch(buffer.strip()) is None:
        raise InvalidParameter(f"error parsing option max-buffer-size: invalid size: '{buffer}'")


def kept_bytes(log_config: Mapping[str, Any], default: int) -> int:
    """What is kept of a container's output: `max-size` times `max-file`; the endpoint's default without `max-size`.

    `NOTHING` for the driver none.
    """
    options: Mapping[str, str] = log_config.get("Config") or {}
    driver = str(log_config.get("Type") or "json-file")
    if driver == "none":
        return NOTHING
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
