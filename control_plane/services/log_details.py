"""`docker logs --details`: the attributes that `--log-opt labels`, `env` and `tag` add to each line."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote_plus

from control_plane.errors import NotServed
from control_plane.model import Container

_PATTERNS = ("labels-regex", "env-regex")


def details(container: Container) -> str:
    """What stands before each line, its space included. Raises NotServed for attributes by pattern or template."""
    options: Mapping[str, str] = (container.host_config.get("LogConfig") or {}).get("Config") or {}
    for name in _PATTERNS:
        if options.get(name):
            raise NotServed(f"log details by --log-opt {name} are not served; name them with labels= and env=")
    attributes = _chosen(options.get("labels"), container.labels)
    environment = dict(entry.partition("=")[::2] for entry in container.config.get("Env") or [])
    attributes |= _chosen(options.get("env"), environment)
    if tag := options.get("tag"):
        if "{{" in tag:
            raise NotServed("log details with a template as --log-opt tag are not served")
        attributes["tag"] = tag
    return ",".join(f"{quote_plus(name)}={quote_plus(attributes[name])}" for name in sorted(attributes)) + " "


def _chosen(names: str | None, values: Mapping[str, str]) -> dict[str, str]:
    return {name: values[name] for name in (names or "").split(",") if name in values}
