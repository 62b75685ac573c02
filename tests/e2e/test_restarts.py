"""`sockerless up` is stopped, or killed with -9: containers, names, exit codes and logs are found again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.conftest import load_images
from tests.e2e.endpoint import Endpoint, running_endpoint


@pytest.fixture
def own() -> Iterator[Endpoint]:
    with running_endpoint() as endpoint:
        load_images(endpoint)
        yield endpoint


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_everything_is_found_again(own: Endpoint, how: str) -> None:
    running = own.out(
        "run",
        "-d",
        "--name",
        "running",
        "busybox",
        "sh",
        "-c",
        "echo before; while ! test -e /go; do sleep 0.1; done; echo after; exit 8",
    )
    own.docker("run", "--name", "exited", "busybox", "sh", "-c", "echo gone; exit 6")
    own.out("create", "--name", "created", "busybox", "echo", "later")
    own.until("before", "logs", "running")
    getattr(own, how)()
    own.start()
    assert set(own.out("ps", "-a", "--format", "{{.Names}}").split()) == {"running", "exited", "created"}
    assert own.out("ps", "-q", "--no-trunc") == running
    assert own.out("inspect", "-f", "{{.State.ExitCode}}", "exited") == "6"
    assert own.out("logs", "exited") == "gone"
    assert own.out("start", "-a", "created") == "later"
    own.out("exec", "running", "touch", "/go")
    assert own.out("wait", "running") == "8"
    assert own.out("logs", "running") == "before\nafter"
    assert "busybox" in own.out("images", "--format", "{{.Repository}}")


def test_what_ended_meanwhile_has_its_real_code(own: Endpoint) -> None:
    own.out("run", "-d", "--name", "short", "busybox", "sh", "-c", "sleep 1; exit 23")
    own.kill()
    import time

    time.sleep(2)
    own.start()
    assert own.out("wait", "short") == "23"
