"""What inspect and the list show of a container's endpoints, by whether it runs (as dockerd 28 does)."""

from __future__ import annotations

from typing import Any

from control_plane.api.render_endpoints import endpoints_json, listed_endpoints_json
from control_plane.model import Container, RunState

_ID = "0123456789ab" + "c" * 52
_JOINED: dict[str, Any] = {
    "IPAMConfig": None,
    "Aliases": ["db"],
    "MacAddress": "02:42:ac:12:00:02",
    "NetworkID": "n" * 64,
    "EndpointID": "e" * 64,
    "Gateway": "172.18.0.1",
    "IPAddress": "172.18.0.2",
    "IPPrefixLen": 16,
    "DNSNames": None,
}


def container(network: str = "web", started: bool = True, **endpoint: Any) -> Container:
    state = RunState(status="exited", **({"started_at": "2026-01-01T00:00:00Z"} if started else {}))
    return Container(
        id=_ID,
        tenant="t",
        name="box",
        created_at="2026-01-01T00:00:00Z",
        image="x",
        image_id="x",
        config={"Hostname": "host"},
        host_config={},
        backend="fake",
        gateway="",
        networking={network: {**_JOINED, **endpoint}},
        state=state,
    )


def test_a_running_container_has_its_addresses_and_names() -> None:
    shown = endpoints_json(container(), running=True)["web"]
    assert (shown["IPAddress"], shown["Gateway"], shown["MacAddress"]) == (
        "172.18.0.2", "172.18.0.1", "02:42:ac:12:00:02",
    )  # fmt: skip
    assert shown["DNSNames"] == ["box", "db", "0123456789ab", "host"]
    assert endpoints_json(container("bridge"), running=True)["bridge"]["DNSNames"] is None


def test_a_stopped_container_has_none_but_keeps_its_network() -> None:
    shown = endpoints_json(container(), running=False)["web"]
    assert [shown[key] for key in ("IPAddress", "IPPrefixLen", "Gateway", "EndpointID", "MacAddress")] == [
        "", 0, "", "", "",
    ]  # fmt: skip
    assert shown["NetworkID"] == "n" * 64
    assert shown["Aliases"] == ["db"]
    assert shown["DNSNames"] == ["box", "db", "0123456789ab", "host"]


def test_a_container_that_never_ran_is_in_no_network_yet() -> None:
    shown = endpoints_json(container(started=False), running=False)["web"]
    assert (shown["NetworkID"], shown["IPAddress"], shown["DNSNames"]) == ("", "", None)


def test_a_mac_address_of_the_users_stays() -> None:
    assert endpoints_json(container(MacAddress="02:00:00:00:00:01"), running=False)["web"]["MacAddress"] == (
        "02:00:00:00:00:01"
    )


def test_the_list_has_no_names() -> None:
    shown = listed_endpoints_json(container(), running=True)["web"]
    assert (shown["IPAddress"], shown["Aliases"], shown["DNSNames"]) == ("172.18.0.2", None, None)
