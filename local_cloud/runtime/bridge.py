"""The network of the containers of one data directory: a bridge, and network namespaces made ahead of their use.

Ports are isolated: a container reaches this machine and, with address translation, the world, but no other container.
A namespace serves one container and dies with it, since a container's root may have changed everything in it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import socket
import struct

from local_cloud.runtime import syscalls as sc
from local_cloud.runtime.nat import Nat
from local_cloud.runtime.netlink import Netlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX = "skls"
POOL = 8
"""Namespaces kept ready; each costs a fraction of a millisecond to make and some hundred KiB of kernel memory."""

_PREFIX_LENGTH = 22
_FIRST = 0x0AC80000  # 10.200.0.0
_SUBNETS, _SIZE = 64, 1 << (32 - _PREFIX_LENGTH)
_SIOCGIFADDR = 0x8915


class Namespace:
    """A network namespace with its address. `descriptor` keeps it alive until the container has entered it."""

    __slots__ = ("address", "descriptor")

    def __init__(self, address: str, descriptor: int) -> None:
        self.address, self.descriptor = address, descriptor

    def close(self) -> None:
        """Lets go of it: a container in it keeps it alive."""
        os.close(self.descriptor)


class Bridge:
    """Made at a launcher's start; raises OSError where this machine cannot have bridges or veth links."""

    __slots__ = (
        "_base",
        "_counter",
        "_here",
        "_index",
        "_links",
        "_mtu",
        "_next",
        "_pool",
        "_used",
        "address",
        "name",
        "nat",
    )

    def __init__(self, key: str, data_dir: str) -> None:
        self.name = f"{PREFIX}{key}"
        self._here = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._links = Netlink()
        self._mtu = _uplink_mtu()
        self._pool: list[Namespace] = []
        self._used: set[int] = set()
        # Anywhere: the namespaces of an interrupted launcher, with their names and addresses, take a while to die.
        start = int.from_bytes(os.urandom(3), "big")
        self._next, self._counter = 2 + start % (_SIZE - 4), start
        mac = b"\x02" + hashlib.sha256(self.name.encode()).digest()[:5]
        self._base = _kept(self.name) or _free(key)
        self.address = _dotted(self._base + 1)
        self._links.add_bridge(self.name, mac, self._mtu)
        self._index = self._links.index(self.name)
        self._links.add_address(self._index, self.address, _PREFIX_LENGTH)
        self.nat = Nat(self.name, f"{_dotted(self._base)}/{_PREFIX_LENGTH}", f"{data_dir}/forwarding-was-off")
        try:
            self._pool.append(self._make())
            self.nat.set_up()
        except OSError:
            self.remove()
            raise

    def claim(self) -> Namespace:
        """A ready namespace, else a new one; raises OSError."""
        return self._pool.pop() if self._pool else self._make()

    def give_back(self, address: str) -> None:
        """The container of this address is gone; the namespace died with it."""
        self._used.discard(struct.unpack(">I", socket.inet_aton(address))[0] - self._base)

    def discard(self, namespace: Namespace) -> None:
        """A claimed namespace that no container entered."""
        namespace.close()
        self.give_back(namespace.address)

    @property
    def wants_more(self) -> bool:
        """Whether the pool is not full."""
        return len(self._pool) < POOL

    def refill(self) -> bool:
        """Makes one namespace; False if that failed, and then it is not worth trying at once again."""
        try:
            self._pool.insert(0, self._make())
        except OSError:
            return False
        return True

    def remove(self) -> None:
        """Removes the namespaces made ahead, the rules and the bridge."""
        for namespace in self._pool:
            namespace.close()
        self._pool.clear()
        alone = not any(name.startswith(PREFIX) and name != self.name for _, name in socket.if_nameindex())
        try:
            self.nat.remove(alone)
            self._links.delete_link(self._index)
        except OSError:
            return  # someone else removed it
        finally:
            self._links.close()
            os.close(self._here)

    def _make(self) -> Namespace:
        number = self._number()
        self._counter += 1
        name = f"v{self.name[len(PREFIX) :]}{self._counter % 0xFFFFFF:x}"
        sc.unshare(sc.CLONE_NEWNET)
        try:
            descriptor = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            inside = Netlink()
        finally:
            sc.setns(self._here, sc.CLONE_NEWNET)
        try:
            address = _dotted(self._base + number)
            # The address's own: this machine remembers who had it last, and would call that one for seconds.
            mac = b"\x02\x42" + socket.inet_aton(address)
            self._links.add_pair(name, self._index, "eth0", descriptor, self._mtu, mac)
            self._links.isolate_port(self._links.index(name))
            inside.set_up_namespace(inside.index("eth0"), address, _PREFIX_LENGTH, self.address)
        except OSError:
            self._used.discard(number)
            os.close(descriptor)
            raise
        finally:
            inside.close()
        return Namespace(address, descriptor)

    def _number(self) -> int:
        """The next free address, going round: one just given back may still be answered for by a dying namespace."""
        for _ in range(_SIZE):
            number, self._next = self._next, self._next + 1 if self._next < _SIZE - 2 else 2
            if number not in self._used:
                self._used.add(number)
                return number
        raise OSError(105, f"all {_SIZE - 3} addresses of {self.name} are in use")


def _dotted(address: int) -> str:
    return socket.inet_ntoa(struct.pack(">I", address))


def _routes() -> Iterator[tuple[str, int, int]]:
    """(interface, destination, mask) of each IPv4 route."""
    with open("/proc/net/route") as file:
        next(file)
        for line in file:
            fields = line.split()
            yield fields[0], *(socket.ntohl(int(fields[column], 16)) for column in (1, 7))  # type: ignore[misc]


def _uplink_mtu() -> int:
    """MTU of the default route's interface: larger packets from containers would be lost there."""
    try:
        name = next(name for name, destination, mask in _routes() if not destination and not mask)
        with open(f"/sys/class/net/{name}/mtu") as file:
            return min(65535, max(576, int(file.read())))
    except (OSError, StopIteration, ValueError):
        return 1500


def _kept(name: str) -> int:
    """The subnet of a bridge that an interrupted launcher left, or 0."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            answer = fcntl.ioctl(any_socket.fileno(), _SIOCGIFADDR, struct.pack("16s24x", name.encode()))
        except OSError:
            return 0
    return int(struct.unpack(">I", answer[20:24])[0]) & ~(_SIZE - 1)


def _free(key: str) -> int:
    """A subnet of 10.200.0.0/16 that no route covers, the same for a key as long as that lasts."""
    taken = [(destination, mask) for _, destination, mask in _routes() if mask]
    for attempt in range(_SUBNETS):
        base = _FIRST + (int(key, 16) + attempt) % _SUBNETS * _SIZE
        net = ~(_SIZE - 1) & 0xFFFFFFFF
        if all(base & mask & net != destination & mask & net for destination, mask in taken):
            return base
    raise OSError(105, "no free subnet in 10.200.0.0/16")
