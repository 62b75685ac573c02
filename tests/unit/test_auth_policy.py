"""Policies: patterns of images, run limits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from control_plane.auth.policy import Wanted, check_image_pattern, check_policy, run_limit
from control_plane.errors import Forbidden, InvalidParameter
from control_plane.model import Container, Image, RunState, TenantPolicy
from control_plane.services.run_limits import over_limit
from control_plane.timestamps import rfc3339

DIGEST = "sha256:" + "ab" * 32


def allowed(pattern: str, *pulled: str) -> bool:
    image = cast(Image, SimpleNamespace(repo_digests=list(pulled)))
    try:
        check_policy(TenantPolicy(images=[check_image_pattern(pattern)]), Wanted(image, "x", {}, "fake"))
    except Forbidden:
        return False
    return True


@pytest.mark.parametrize(
    ("pattern", "pulled", "fits"),
    [
        ("busybox", f"busybox@{DIGEST}", True),
        ("library/*", f"busybox@{DIGEST}", True),
        ("docker.io/library/*", f"acme/busybox@{DIGEST}", False),
        ("acme/*", f"acme/app@{DIGEST}", True),
        ("acme/*", f"evil.example.com/acme/app@{DIGEST}", False),
        ("ghcr.io/acme/*", f"ghcr.io/acme/app@{DIGEST}", True),
        ("ghcr.io/acme/*", f"ghcr.io/acme/a/b@{DIGEST}", False),
        ("ghcr.io/acme/**", f"ghcr.io/acme/a/b@{DIGEST}", True),
        ("ghcr.io/acme/*", f"ghcr.io/acme-evil/app@{DIGEST}", False),
        ("ghcr.io/acme/*", f"ghcr.io:444/acme/app@{DIGEST}", False),
        (f"busybox@{DIGEST}", f"busybox@{DIGEST}", True),
        (f"busybox@{'sha256:' + '0' * 64}", f"busybox@{DIGEST}", False),
        ("localhost:5000/*", f"localhost:5000/app@{DIGEST}", True),
    ],
)
def test_image_patterns(pattern: str, pulled: str, fits: bool) -> None:
    assert allowed(pattern, pulled) is fits
    assert not allowed(pattern)


@pytest.mark.parametrize("pattern", ["", "*", "**", "*/*", "busybox:1", "Busy", "a b", "x@sha256:1", "a|b", "x@"])
def test_patterns_that_are_none(pattern: str) -> None:
    with pytest.raises(InvalidParameter):
        check_image_pattern(pattern)


@pytest.mark.parametrize(("most", "platform", "limit"), [(0, 3600, 3600), (60, 3600, 60), (7200, 3600, 3600)])
def test_the_shorter_limit_holds(most: int, platform: int, limit: int) -> None:
    assert run_limit(TenantPolicy(max_run_seconds=most), platform) == limit


@pytest.mark.parametrize(
    ("limit", "lasted", "over"), [(60, 61, True), (60, 59, False), (3600, 9999, False), (0, 9999, False)]
)
def test_only_a_limit_of_ours_ends_a_run(limit: int, lasted: int, over: bool) -> None:
    now = 1_800_000_000.0
    fields: dict[str, Any] = {
        "id": "a" * 64,
        "tenant": "t",
        "name": "n",
        "created_at": "",
        "image": "x",
        "image_id": "x",
        "config": {},
        "host_config": {},
        "backend": "fake",
        "gateway": "",
    }
    state = RunState(status="running", run=1, started_at=rfc3339(int((now - lasted) * 1e9)))
    container = Container(**fields, run_limit=limit, state=state)
    assert over_limit(container, cast(Any, SimpleNamespace(max_run_seconds=3600)), now) is over
