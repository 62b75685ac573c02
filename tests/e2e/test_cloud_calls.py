"""How many cloud API calls each Docker command costs, as the local cloud counted them."""

from __future__ import annotations

import httpx
import pytest

from tests.e2e.endpoint import Endpoint


class Calls:
    """The local cloud's own count."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._url = f"{endpoint.local_cloud}/_local/calls"

    def reset(self) -> None:
        httpx.delete(self._url).raise_for_status()

    def made(self) -> dict[str, int]:
        """Calls since the reset by service and method: Run, Logging, registry, storage."""
        counted: dict[str, int] = httpx.get(self._url).raise_for_status().json()
        return {method: n for method, n in counted.items() if n}


@pytest.fixture
def calls(endpoint: Endpoint) -> Calls:
    return Calls(endpoint)


@pytest.fixture
def box(endpoint: Endpoint, name: str) -> str:
    endpoint.out("run", "-d", "--name", name, "busybox", "sh", "-c", "echo line; sleep 300")
    endpoint.until("line", "logs", name)
    return name


@pytest.mark.parametrize(
    "command",
    [
        ["ps", "-a"], ["inspect", "{box}"], ["exec", "{box}", "true"], ["logs", "{box}"], ["top", "{box}"],
        ["cp", "{box}:/etc/passwd", "-"], ["info"], ["version"], ["images"],
        ["stop", "-t", "0", "{box}"], ["wait", "{box}"],
    ],
    ids=lambda command: command[0],
)  # fmt: skip
def test_no_cloud_call_at_all(endpoint: Endpoint, calls: Calls, box: str, command: list[str]) -> None:
    if command[0] == "wait":
        endpoint.out("kill", box)
    calls.reset()
    endpoint.docker(*(part.format(box=box) for part in command), check=True)
    assert calls.made() == {}


def test_attach_costs_none(endpoint: Endpoint, calls: Calls, box: str) -> None:
    calls.reset()
    attached = endpoint.spawn("attach", "--no-stdin", box)
    endpoint.out("exec", box, "true")
    attached.kill()
    attached.communicate()
    assert calls.made() == {}


def test_second_run_of_an_image_and_shape_is_one_write(endpoint: Endpoint, calls: Calls) -> None:
    endpoint.out("run", "--rm", "busybox", "true")
    calls.reset()
    endpoint.out("run", "--rm", "-e", "OTHER=1", "busybox", "echo", "different command, same shape")
    assert calls.made() == {"Jobs.RunJob": 1}
