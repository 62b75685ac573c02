"""Platforms (`linux/amd64`, `linux/arm64/v8`): Docker's notation, and which manifest of a list fits one.

Fact source: containerd's documented platform rules (aliases, default variants, what runs on what).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from control_plane.errors import InvalidParameter

_component = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)
_KNOWN_SYSTEMS = frozenset(
    [
        "aix",
        "android",
        "darwin",
        "dragonfly",
        "freebsd",
        "hurd",
        "illumos",
        "ios",
        "js",
        "linux",
        "nacl",
        "netbsd",
        "openbsd",
        "plan9",
        "solaris",
        "windows",
        "zos",
    ]
)
_KNOWN_ARCHITECTURES = frozenset(
    [
        "386",
        "amd64",
        "amd64p32",
        "arm",
        "armbe",
        "arm64",
        "arm64be",
        "ppc64",
        "ppc64le",
        "loong64",
        "mips",
        "mipsle",
        "mips64",
        "mips64le",
        "mips64p32",
        "mips64p32le",
        "ppc",
        "riscv",
        "riscv64",
        "s390",
        "s390x",
        "sparc",
        "sparc64",
        "wasm",
    ]
)
_ALIASES = {"i386": "386", "x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True)
class Platform:
    """An operating system and a processor, normalised."""

    os: str = "linux"
    architecture: str = "amd64"
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


DEFAULT = Platform()


def normalize(os: str, architecture: str, variant: str = "") -> Platform:
    """The platform by its usual names: `x86_64` is amd64, arm without variant is v7, arm64/v8 is arm64."""
    os, architecture, variant = os.lower(), architecture.lower(), variant.lower()
    if os == "macos":
        os = "darwin"
    architecture = _ALIASES.get(architecture, architecture)
    if architecture == "386" or (architecture == "amd64" and variant == "v1"):
        variant = ""
    elif architecture == "arm64":
        variant = "" if variant in {"8", "v8", "v8.0"} else "v9" if variant in {"9", "9.0", "v9.0"} else variant
    elif architecture in {"armhf", "armel"}:
        architecture, variant = "arm", "v7" if architecture == "armhf" else "v6"
    elif architecture == "arm":
        variant = "v7" if variant in {"", "7"} else f"v{variant}" if variant in {"5", "6", "8"} else variant
    return Platform(os or "linux", architecture, variant)


def parse(text: str) -> Platform:
    """`os`, `arch`, `os/arch` or `os/arch/variant`. Raises InvalidParameter with containerd's texts."""
    parts = text.split("/")
    for part in parts:
        if not _component.fullmatch(part):
            raise InvalidParameter(
                f'"{part}" is an invalid component of "{text}": platform specifier component must match '
                '"^[A-Za-z0-9_.-]+$": invalid argument'
            )
    if len(parts) == 1:
        one = normalize(parts[0], "amd64")
        if one.os in _KNOWN_SYSTEMS:
            return one
        one = normalize("linux", parts[0])
        if one.architecture in _KNOWN_ARCHITECTURES:
            return one
        raise InvalidParameter(f'"{text}": unknown operating system or architecture: invalid argument')
    if len(parts) > 3:
        raise InvalidParameter(f'"{text}": cannot parse platform specifier: invalid argument')
    return normalize(*parts)


def choose(manifests: Sequence[Mapping[str, Any]], wanted: Platform) -> list[Mapping[str, Any]]:
    """The entries of a manifest list that run on `wanted`, the best first. An entry without platform fits any."""
    ranked: list[tuple[int, int, Mapping[str, Any]]] = []
    accepted = _runs(wanted)
    for place, entry in enumerate(manifests):
        described = entry.get("platform")
        if not isinstance(described, Mapping) or not described.get("architecture"):
            ranked.append((len(accepted), place, entry))
            continue
        found = normalize(
            str(described.get("os", "")), str(described.get("architecture", "")), str(described.get("variant", ""))
        )
        if found in accepted:
            ranked.append((accepted.index(found), place, entry))
    return [entry for _, _, entry in sorted(ranked, key=lambda row: row[:2])]


def runs_on(image: Platform, wanted: Platform) -> bool:
    """Whether an image of one platform runs on another; an image that names no variant fits any variant."""
    if image in _runs(wanted):
        return True
    return not image.variant and (image.os, image.architecture) == (wanted.os, wanted.architecture)


def _runs(wanted: Platform) -> list[Platform]:
    """What `wanted` runs, best first: older variants, and 32-bit code on 64-bit processors."""
    os, architecture, variant = wanted.os, wanted.architecture, wanted.variant
    if architecture == "amd64":
        level = int(variant[1:]) if re.fullmatch(r"v[2-9]", variant) else 1
        levels = [normalize(os, "amd64", f"v{number}") for number in range(level, 0, -1)]
        return [*levels, Platform(os, "386")]
    if architecture == "arm":
        level = int(variant[1:]) if re.fullmatch(r"v[5-8]", variant) else 7
        return [Platform(os, "arm", f"v{number}") for number in range(level, 4, -1)]
    if architecture == "arm64":
        above = re.fullmatch(r"v([89])(?:\.([0-9]))?", variant or "v8")
        major, minor = (int(above[1]), int(above[2] or 0)) if above else (8, 0)
        steps = [(9, number) for number in range(minor, -1, -1)] if major == 9 else []
        steps += [(8, number) for number in range(min(9, minor + 5) if major == 9 else minor, -1, -1)]
        levels = [normalize(os, "arm64", f"v{high}.{low}" if low else f"v{high}") for high, low in steps]
        return [*levels, *(Platform(os, "arm", f"v{number}") for number in range(8, 4, -1))]
    return [wanted]
