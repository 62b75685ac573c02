"""kill -9 of a control plane or a gateway every few seconds, while containers are worked with through connectors."""

from __future__ import annotations

import json
import random
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait

import pytest

from tests.e2e.cloud import TEMPLATES
from tests.e2e.endpoint import Endpoint
from tests.hosted.deployment import RECONCILE, TENANTS, Deployment
from tests.hosted.operations import Operations

OPERATIONS = 200
AT_ONCE = 4
EVERY = 4.0


@pytest.mark.timeout(600)
def test_nothing_is_lost_while_processes_are_killed(deployment: Deployment) -> None:
    both = [Operations(deployment.connects[tenant]) for tenant in TENANTS]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        under_way = [pool.submit(both[number % 2].do, number) for number in range(OPERATIONS)]
        killed = _kill_until_done(deployment, under_way)
    assert killed & {plane.name for plane in deployment.planes}
    assert killed & {gateway.name for gateway in deployment.gateways}
    wrong = [line for operations in both for line in (*operations.wrong, *operations.refused)]
    assert not wrong, "\n".join(wrong)
    for tenant in TENANTS:
        _settled(deployment.connects[tenant])
    _until_the_cloud_is_empty(deployment)


def _kill_until_done(deployment: Deployment, under_way: list[Future[None]]) -> set[str]:
    """Kills one process after the other and starts it again at once; the names of those killed.

    By the test's own thread: what it starts ends with the thread that has started it.
    """
    dice = random.Random(4)
    kinds = (deployment.planes, deployment.gateways)
    killed: list[str] = []
    while wait(under_way, timeout=EVERY).not_done:
        victim = dice.choice(kinds[len(killed) % 2])
        victim.kill()
        victim.launch()
        killed.append(victim.name)
    for process in (*kinds[0], *kinds[1]):
        process.until_up()
    return set(killed)


def _states(endpoint: Endpoint) -> dict[str, str]:
    names = endpoint.out("ps", "-aq").split()
    found = json.loads(endpoint.out("inspect", *names)) if names else []
    return {container["Name"]: container["State"]["Status"] for container in found}


def _settled(endpoint: Endpoint) -> None:
    """After the reconciler's turn nothing is under way but what sleeps; then all of it is removed."""
    deadline = time.monotonic() + 20 * RECONCILE
    while not set(states := _states(endpoint).values()) <= {"exited", "running"}:
        assert time.monotonic() < deadline, states
        time.sleep(0.3)
    names = endpoint.out("ps", "-aq").split()
    if names:
        endpoint.out("rm", "-f", *names)
    assert _states(endpoint) == {}


def _until_the_cloud_is_empty(deployment: Deployment) -> None:
    """But for templates (kept for the next container of their image), and buckets."""
    deadline = time.monotonic() + 60
    while left := {kind: n for kind, n in deployment.resources().items() if kind != TEMPLATES}:
        assert time.monotonic() < deadline, left
        time.sleep(0.3)
