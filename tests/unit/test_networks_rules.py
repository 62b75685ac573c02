"""Docker's networks as records: subnets, names, endpoints, filters, conflicts."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.errors import Conflict, DockerError, Forbidden, InvalidParameter, NotFound, NotServed, ServerError
from control_plane.model import Container, RunState
from control_plane.services.networks import Networks
from control_plane.services.subnets import check_ipam, free_subnet
from control_plane.store.sqlite import SqliteStore
from tests.image_world import Remembered


class World:
    """Networks on a store, with containers found by name."""

    def __init__(self, directory: Path) -> None:
        self.store = SqliteStore(directory / "store.db")
        self.events = Remembered()
        self.networks = Networks(self.store, self, self.events)

    async def resolve(self, tenant: str, reference: str) -> Container:
        for document in await self.store.list("containers", tenant):
            container = Container.model_validate(document.body)
            if reference in (container.id, container.name):
                return container
        raise NotFound(f"No such container: {reference}")

    async def container(self, name: str, status: str = "running", mode: str = "bridge", **endpoints: Any) -> Container:
        container = Container(
            id=name.encode().hex().ljust(64, "0"),
            tenant="t",
            name=name,
            created_at="2026-01-01T00:00:00Z",
            image="x",
            image_id="x",
            config={},
            host_config={"NetworkMode": mode},
            backend="cloudrun",
            gateway="",
            networking=await self.networks.endpoints_for("t", mode, endpoints),
            state=RunState(status=status),
        )
        await self.store.create("containers", "t", container.id, container.model_dump(mode="json"))
        return container

    async def create(self, name: str, **body: Any) -> str:
        return (await self.networks.create("t", {"Name": name, **body})).id

    async def names(self, **filters: list[str]) -> list[str]:
        return [one["Name"] for one in await self.networks.list("t", filters)]

    async def subnets(self, name: str) -> list[str]:
        return [one["Subnet"] for one in (await self.networks.inspect("t", name))["IPAM"]["Config"]]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    await made.store.close()


async def test_three_networks_are_always_there(world: World) -> None:
    assert await world.names() == ["bridge", "host", "none"]
    bridge = await world.networks.inspect("t", "bridge")
    assert bridge["IPAM"]["Config"] == [{"Subnet": "172.17.0.0/16", "Gateway": "172.17.0.1"}]
    assert bridge["Id"] != (await world.networks.inspect("other", "bridge"))["Id"]
    for name in ("bridge", "host", "none"):
        with pytest.raises(Forbidden, match=f"{name} is a pre-defined network and cannot be removed"):
            await world.networks.remove("t", name)
        with pytest.raises(Forbidden, match=f"operation is not permitted on predefined {name} network "):
            await world.create(name)


async def test_subnets_are_given_without_overlap(world: World) -> None:
    await world.create("a")
    await world.create("b", IPAM={"Config": [{"Subnet": "172.19.0.0/24"}]})
    await world.create("c")
    assert [await world.subnets(name) for name in "abc"] == [["172.18.0.0/16"], ["172.19.0.0/24"], ["172.20.0.0/16"]]
    with pytest.raises(Forbidden, match="Pool overlaps with other one on this address space"):
        await world.create("d", IPAM={"Config": [{"Subnet": "172.18.5.0/24"}]})
    with pytest.raises(Conflict, match="network with name a already exists"):
        await world.create("a")


async def test_many_networks_at_once_do_not_overlap(world: World) -> None:
    await asyncio.gather(*(world.create(f"n{number}") for number in range(12)))
    found = [ipaddress.ip_network((await world.subnets(f"n{number}"))[0]) for number in range(12)]
    assert not any(a.overlaps(b) for a in found for b in found if a is not b)


async def test_processes_that_choose_the_same_subnet_part_again(world: World) -> None:
    other = Networks(world.store, world, world.events)
    made = await asyncio.gather(*(one.create("t", {"Name": f"n{n}"}) for n, one in enumerate([world.networks, other])))
    first, second = [(await world.subnets(network.name))[0] for network in made]
    assert not ipaddress.ip_network(first).overlaps(ipaddress.ip_network(second))


async def test_ipv6_gets_a_unique_local_subnet(world: World) -> None:
    await world.create("six", EnableIPv6=True)
    four, six = await world.subnets("six")
    assert ipaddress.ip_network(six).network_address in ipaddress.ip_network("fd00::/8")
    assert ipaddress.ip_network(four).version == 4
    container = await world.container("c", mode="six")
    assert container.networking["six"]["GlobalIPv6Address"] == str(ipaddress.ip_network(six)[2])


def test_all_pools_used_is_told() -> None:
    everything = [ipaddress.ip_network("172.16.0.0/12"), ipaddress.ip_network("192.168.0.0/16")]
    with pytest.raises(InvalidParameter, match="all predefined address pools have been fully subnetted"):
        free_subnet(everything)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"Subnet": "10.0.0.0"}, "invalid subnet 10.0.0.0: invalid CIDR block notation"),
        ({"Subnet": "10.0.0.1/24"}, "invalid subnet 10.0.0.1/24: it should be 10.0.0.0/24"),
        ({"Subnet": "10.0.0.0/24", "Gateway": "10.0.1.1"}, "doesn't contain this address"),
        ({"Subnet": "10.0.0.0/24", "Gateway": "fd00::1"}, "parent subnet is an IPv4 block"),
        ({"Subnet": "10.0.0.0/24", "IPRange": "10.0.0.0/16"}, "CIDR block is bigger than its parent subnet"),
        ({"Subnet": "10.0.0.0/24", "IPRange": "10.1.0.0/25"}, "doesn't contain ip-range"),
        ({"Subnet": "10.0.0.0/24", "AuxiliaryAddresses": {"x": "y"}}, "invalid auxiliary address x: invalid address"),
    ],
)
async def test_a_malformed_subnet_is_refused(world: World, entry: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        await world.create("a", IPAM={"Config": [entry]})
    assert caught.value.message.startswith("invalid network config:\n")
    assert message in caught.value.message


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_text_as_subnet_is_judged(subnet: str, gateway: str) -> None:
    try:
        check_ipam([{"Subnet": subnet, "Gateway": gateway, "IPRange": gateway}], ipv6=True)
    except InvalidParameter:
        return


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        ({"Driver": "overlay"}, Forbidden, "not a swarm manager"),
        ({"Driver": "host"}, Forbidden, 'only one instance of "host" network is allowed'),
        ({"Driver": "macvlan"}, NotServed, "macvlan"),
        ({"Driver": "weave"}, NotFound, 'plugin "weave" not found'),
        ({"ConfigOnly": True}, NotServed, "configuration-only"),
        ({"Name": " "}, InvalidParameter, "name is empty"),
        ({"IPAM": {"Driver": "dhcp"}}, NotFound, 'plugin "dhcp" not found'),
    ],
)
async def test_what_is_not_served_is_refused(
    world: World, body: dict[str, Any], error: type[DockerError], message: str
) -> None:
    with pytest.raises(error) as caught:
        await world.create(body.pop("Name", "a"), **body)
    assert message in caught.value.message


async def test_networks_are_found_by_id_name_and_prefix(world: World) -> None:
    network_id = await world.create("web")
    for text in (network_id, "web", network_id[:12]):
        assert (await world.networks.resolve("t", text)).id == network_id
    for tenant, text in (("t", "nosuch"), ("other", "web"), ("other", network_id)):
        with pytest.raises(NotFound, match=f"network {text} not found"):
            await world.networks.resolve(tenant, text)


async def test_lists_are_filtered(world: World) -> None:
    network_id = await world.create("web", Labels={"a": "b"})
    await world.create("idle")
    await world.container("c", mode="web")
    assert await world.names(driver=["bridge"]) == ["bridge", "idle", "web"]
    assert await world.names(driver=["null"]) == ["none"]
    assert await world.names(name=["we"]) == ["web"]
    assert await world.names(id=[network_id[:10]]) == ["web"]
    assert await world.names(label=["a=b"]) == ["web"]
    assert await world.names(scope=["swarm"]) == []
    assert await world.names(type=["custom"]) == ["idle", "web"]
    assert await world.names(type=["builtin"]) == ["bridge", "host", "none"]
    assert await world.names(dangling=["true"]) == ["idle"]
    assert await world.names(dangling=["0"]) == ["bridge", "host", "none", "web"]
    for wrong in ({"type": ["x"]}, {"dangling": ["x"]}, {"nosuch": ["x"]}):
        with pytest.raises(InvalidParameter):
            await world.names(**wrong)


async def test_a_container_gets_addresses_in_its_network(world: World) -> None:
    first, second = await world.container("a"), await world.container("b")
    settings = first.networking["bridge"]
    assert (settings["IPAddress"], settings["Gateway"], settings["IPPrefixLen"]) == ("172.17.0.2", "172.17.0.1", 16)
    assert settings["MacAddress"] == "02:42:ac:11:00:02"
    assert second.networking["bridge"]["IPAddress"] == "172.17.0.3"
    inside = (await world.networks.inspect("t", "bridge"))["Containers"]
    assert inside[first.id]["IPv4Address"] == "172.17.0.2/16"
    assert inside[first.id]["Name"] == "a"


async def test_many_containers_at_once_get_different_addresses(world: World) -> None:
    made = await asyncio.gather(*(world.networks.endpoints_for("t", "default", {}) for _ in range(20)))
    assert len({networks["bridge"]["IPAddress"] for networks in made}) == 20


async def test_host_none_and_another_containers_network_have_no_address(world: World) -> None:
    for mode in ("host", "none"):
        settings = (await world.networks.endpoints_for("t", mode, {}))[mode]
        assert (settings["IPAddress"], settings["MacAddress"]) == ("", "")
    assert await world.networks.endpoints_for("t", "container:abc", {}) == {}


async def test_a_network_that_is_not_there_is_looked_for_at_the_start(world: World) -> None:
    early = await world.container("early", status="created", mode="later", later={"Aliases": ["db"]})
    assert early.networking["later"]["NetworkID"] == ""
    with pytest.raises(NotFound, match=r"^failed to set up container networking: network later not found$"):
        await world.networks.rejoin(early)
    network_id = await world.create("later")
    await world.networks.rejoin(early)
    joined = (await world.resolve("t", "early")).networking["later"]
    assert (joined["NetworkID"], joined["IPAddress"], joined["Aliases"]) == (network_id, "172.18.0.2", ["db"])


async def test_a_network_made_anew_is_another_one_for_a_container_that_has_run(world: World) -> None:
    old = await world.create("web")
    fresh = await world.container("fresh", status="created", mode="web")
    ran = await world.container("ran", status="exited", mode="web")
    ran = ran.model_copy(update={"state": RunState(status="exited", started_at="2026-01-01T00:00:01Z")})
    await world.networks.remove("t", "web")
    new = await world.create("web")
    with pytest.raises(NotFound, match=f"network {old} not found"):
        await world.networks.rejoin(ran)
    await world.networks.rejoin(fresh)
    assert (await world.resolve("t", "fresh")).networking["web"]["NetworkID"] == new


async def test_static_addresses_need_a_configured_subnet(world: World) -> None:
    await world.create("fixed", IPAM={"Config": [{"Subnet": "10.9.0.0/24", "IPRange": "10.9.0.128/25"}]})
    await world.create("auto")
    wanted = {"IPAMConfig": {"IPv4Address": "10.9.0.7"}, "Aliases": ["db"]}
    settings = (await world.networks.endpoints_for("t", "fixed", {"fixed": wanted}))["fixed"]
    assert settings["IPAddress"] == "10.9.0.7"
    assert (await world.networks.endpoints_for("t", "fixed", {}))["fixed"]["IPAddress"] == "10.9.0.128"
    with pytest.raises(Forbidden, match="Address already in use"):
        await world.networks.endpoints_for("t", "fixed", {"fixed": wanted})
    cases = {
        "auto": (wanted, "only when connecting to networks with user configured subnets"),
        "fixed": ({"IPAMConfig": {"IPv4Address": "10.8.0.1"}}, "contain the IP address 10.8.0.1"),
        "bridge": (wanted, "on user defined networks only"),
    }
    for name, (given_settings, message) in cases.items():
        with pytest.raises(InvalidParameter) as caught:
            await world.networks.endpoints_for("t", name, {name: given_settings})
        assert caught.value.message.startswith(f"invalid config for network {name}: invalid endpoint settings:\n")
        assert message in caught.value.message
    with pytest.raises(InvalidParameter, match="invalid MAC address x"):
        await world.networks.endpoints_for("t", "auto", {"auto": {"MacAddress": "x"}})


async def test_connect_and_disconnect(world: World) -> None:
    network_id = await world.create("web")
    container = await world.container("c")
    await world.networks.connect("t", "web", "c", {"Aliases": ["x"]})
    joined = (await world.resolve("t", "c")).networking
    assert list(joined) == ["bridge", "web"]
    assert joined["web"]["Aliases"] == ["x"]
    told = {"container": container.id, "name": "web", "type": "bridge"}
    assert world.events.told[-1] == ("network", "connect", network_id, told)
    with pytest.raises(Forbidden, match="endpoint with name c already exists in network web"):
        await world.networks.connect("t", "web", "c", {})
    with pytest.raises(Forbidden) as caught:
        await world.networks.remove("t", "web")
    endpoint = joined["web"]["EndpointID"][:12]
    assert caught.value.message == (
        f'error while removing network: network web has active endpoints (name:"c" id:"{endpoint}")'
    )
    await world.networks.disconnect("t", "web", "c", force=False)
    assert world.events.told[-1] == ("network", "disconnect", network_id, told)
    with pytest.raises(ServerError, match="is not connected to network web"):
        await world.networks.disconnect("t", "web", "c", force=False)
    await world.networks.remove("t", "web")
    assert world.events.told[-1] == ("network", "destroy", network_id, {"name": "web", "type": "bridge"})


async def test_networks_that_stand_alone(world: World) -> None:
    await world.create("web")
    await world.container("h", mode="host")
    await world.container("n", mode="none")
    await world.container("b")
    await world.container("s", mode="container:x")
    for container, network, message in (
        ("h", "web", "container sharing network namespace"),
        ("s", "web", "container sharing network namespace"),
        ("n", "web", "in private"),
        ("b", "host", "cannot connect container to host network"),
    ):
        with pytest.raises(InvalidParameter, match=message):
            await world.networks.connect("t", network, container, {})
    with pytest.raises(InvalidParameter, match="cannot disconnect container from host network"):
        await world.networks.disconnect("t", "host", "h", force=False)


async def test_a_network_of_stopped_containers_is_removed_and_they_can_leave_it(world: World) -> None:
    await world.create("web")
    await world.container("c", status="exited", mode="web")
    await world.networks.remove("t", "web")
    with pytest.raises(NotFound, match="network web not found"):
        await world.networks.resolve("t", "web")
    await world.networks.disconnect("t", "web", "c", force=True)
    assert (await world.resolve("t", "c")).networking == {}
    # A new network of the name is another one.
    await world.create("web")
    assert (await world.networks.inspect("t", "web"))["Containers"] == {}


async def test_prune_takes_networks_without_running_containers(world: World) -> None:
    for name in ("idle", "used", "kept"):
        await world.create(name, Labels={"keep": ""} if name == "kept" else {})
    await world.container("c", mode="used")
    assert await world.networks.prune("t", {"until": ["1h"]}) == {"NetworksDeleted": None}
    assert await world.networks.prune("t", {"label!": ["keep"]}) == {"NetworksDeleted": ["idle"]}
    assert await world.networks.prune("t", {}) == {"NetworksDeleted": ["kept"]}
