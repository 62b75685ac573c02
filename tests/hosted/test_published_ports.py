"""Published ports of a hosted endpoint: on loopback of whoever has a connector, refused to whoever has none."""

from __future__ import annotations

import pytest

from tests.e2e.test_published_ports import (  # noqa: F401
    echo,
    test_a_port_on_which_nothing_listens,
    test_a_range_and_several_bindings,
    test_a_taken_port,
    test_http_on_both_loopback_addresses,
    test_many_connections_at_once,
    test_megabytes_both_ways_and_half_close,
    test_publish_all,
    test_restart_and_restart_policy,
    test_the_end_of_a_container_closes_its_port,
    test_what_clients_are_told,
)
from tests.hosted.deployment import Deployment

pytestmark = pytest.mark.parametrize("endpoint", ["connect"], indirect=True, scope="session")


def test_nobody_listens_for_clients_without_a_connector(deployment: Deployment, endpoint: object, name: str) -> None:
    refused = deployment.direct("red").docker("run", "--name", name, "-p", "8080:80", "busybox", "true")
    assert refused.returncode == 125
    assert b"sockerless connect" in refused.stderr
