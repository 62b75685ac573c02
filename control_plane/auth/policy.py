"""What a tenant's containers may be: the rules of its policy on a container that is about to be made. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from control_plane.errors import Forbidden, InvalidParameter
from control_plane.model import Image, TenantPolicy
from control_plane.registry.reference import check_digest, parse_named

_MIB = 1024 * 1024
_DEFAULT_PERIOD = 100_000
_UNLIMITED = 0
_NAME = re.compile(r"[a-z0-9.*:_/-]+")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A container to be made, as far as a policy is concerned."""

    image: Image
    reference: str
    """As the user gave it."""
    host_config: Mapping[str, Any]
    backend: str


def check_policy(policy: TenantPolicy, wanted: Wanted) -> None:
    """Raises Forbidden naming the bound and what would keep within it.

    A size that is not given is the backend's default, which the operator sets beside the policy.
    """
    if policy.backends and wanted.backend not in policy.backends:
        raise _refused(f"backend {wanted.backend} is not one of {', '.join(policy.backends)}")
    if policy.images and not _from_allowed(policy.images, wanted.image):
        raise _refused(
            f"image {wanted.reference} was not pulled from {' or '.join(policy.images)}; "
            "tags given here and loaded images do not count, because anyone can name them"
        )
    check_size(policy, wanted.host_config)


def check_size(policy: TenantPolicy, host_config: Mapping[str, Any]) -> None:
    """The sizes alone, of `docker update` too. Raises Forbidden."""
    memory, cpus = int(host_config.get("Memory") or 0), nano_cpus(host_config)
    if policy.max_memory != _UNLIMITED and memory > policy.max_memory:
        raise _refused(f"-m {memory // _MIB}m is more than {policy.max_memory // _MIB}m")
    if policy.max_nano_cpus != _UNLIMITED and cpus > policy.max_nano_cpus:
        raise _refused(f"--cpus {cpus / 1e9:g} is more than {policy.max_nano_cpus / 1e9:g}")


def nano_cpus(host_config: Mapping[str, Any]) -> int:
    """CPUs in billionths, by `--cpus` or by quota and period; 0: not given."""
    nano = int(host_config.get("NanoCpus") or 0)
    quota = int(host_config.get("CpuQuota") or 0)
    if nano or quota <= 0:
        return nano
    return quota * 1_000_000_000 // (int(host_config.get("CpuPeriod") or 0) or _DEFAULT_PERIOD)


def run_limit(policy: TenantPolicy, platform: int) -> int:
    """Seconds after which a run is ended: the platform's bound, or the tenant's where that is less."""
    return min(platform, policy.max_run_seconds) if policy.max_run_seconds else platform


def check_image_pattern(pattern: str) -> str:
    """A policy's pattern in its full form: `busybox` is `docker.io/library/busybox`. Raises InvalidParameter."""
    name, at, digest = pattern.partition("@")
    if at:
        try:
            check_digest(digest)
        except InvalidParameter as error:
            raise InvalidParameter(f"image pattern {pattern!r}: {error.message}") from None
    if not _NAME.fullmatch(name) or ":" in name.rpartition("/")[2] or not name.strip("*/"):
        raise InvalidParameter(
            f"image pattern {pattern!r}: a repository is wanted, such as ghcr.io/acme/* (one level) or ghcr.io/acme/** "
            "(any), with or without @sha256:…; tags move, and are no part of it"
        )
    first, slash, _ = name.partition("/")
    if not slash:
        name = f"docker.io/library/{name}"
    elif "." not in first and ":" not in first and first != "localhost":
        name = f"docker.io/{name}"
    return name + at + digest


def _from_allowed(patterns: Sequence[str], image: Image) -> bool:
    """By the digests under which it was pulled: `docker tag` and `docker load` do not make any."""
    sources = [_source(digest) for digest in image.repo_digests]
    return any(_pattern(pattern).fullmatch(source) for pattern in patterns for source in sources)


def _source(repo_digest: str) -> str:
    familiar, _, digest = repo_digest.partition("@")
    return f"{parse_named(familiar).name}@{digest}"


@lru_cache(maxsize=1000)
def _pattern(text: str) -> re.Pattern[str]:
    name, at, digest = text.partition("@")
    parts = re.split(r"(\*+)", name)
    repository = "".join(
        "[^/]*" if part == "*" else ".*" if part.startswith("*") else re.escape(part) for part in parts
    )
    return re.compile(f"{repository}@{re.escape(digest) if at else '.*'}")


def _refused(why: str) -> Forbidden:
    return Forbidden(f"this endpoint's policy does not allow it: {why}")
