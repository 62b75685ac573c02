"""Lets containers reach beyond this machine: address translation by nft or iptables, and forwarding.

Only new connections from containers outwards are let through; nothing outside may open one to a container.
"""

from __future__ import annotations

import os

_FORWARD = "/proc/sys/net/ipv4/ip_forward"
_PLACES = ("/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/sbin")


def tool() -> str:
    """Path of iptables, else nft, else empty.

    iptables first: where Docker is installed it drops what is forwarded, and only rules in that same chain precede it.
    """
    for name in ("iptables", "nft"):
        for place in _PLACES:
            if os.access(f"{place}/{name}", os.X_OK):
                return f"{place}/{name}"
    return ""


class Nat:
    """The rules of one bridge. `missing` says why there are none."""

    __slots__ = ("_bridge", "_marker", "_subnet", "_tool", "missing")

    def __init__(self, bridge: str, subnet: str, marker: str) -> None:
        """`marker`: a file that is there while forwarding is on because of us, whatever becomes of this process."""
        self._marker = marker
        self._bridge, self._subnet = bridge, subnet
        self._tool = tool()
        self.missing = "" if self._tool else "neither nft nor iptables is installed"

    def set_up(self) -> None:
        """Replaces the rules of an earlier launcher, then forwards. Failing is no error: `missing` tells."""
        if not self._tool:
            return
        if not (self._nft(_NFT) if self._tool.endswith("nft") else self._add_iptables()):
            self.missing = f"{self._tool} refused the rules"
            self._remove_rules()
            return
        try:
            with open(_FORWARD) as file:
                was_off = file.read().strip() == "0"
            if was_off:
                os.close(os.open(self._marker, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
                with open(_FORWARD, "w") as file:
                    file.write("1")
        except OSError as error:
            self.missing = f"{_FORWARD}: {error.strerror}"
            self._remove_rules()

    def remove(self, alone: bool) -> None:
        """Removes the rules; with `alone` (no other local cloud on this machine) forwarding is as it was before."""
        self._remove_rules()
        if os.path.exists(self._marker):
            os.unlink(self._marker)
            if alone:
                with open(_FORWARD, "w") as file:
                    file.write("0")

    def _remove_rules(self) -> None:
        if not self._tool:
            return
        if self._tool.endswith("nft"):
            self._nft(_NFT_NONE)
            return
        for table, chain in _JUMPS:
            while _run([self._tool, "-w", "-t", table, "-D", chain, "-j", self._bridge]):
                pass  # as many as interrupted launchers have left
        self._restore(_IPTABLES_NONE)

    def _nft(self, text: str) -> bool:
        return _run([self._tool, "-f", "-"], self._filled(text))

    def _add_iptables(self) -> bool:
        if not self._restore(_IPTABLES):
            return False
        for table, chain in _JUMPS:
            if not _run([self._tool, "-w", "-t", table, "-C", chain, "-j", self._bridge]) and not _run(
                [self._tool, "-w", "-t", table, "-I", chain, "-j", self._bridge]
            ):
                return False
        return True

    def _restore(self, text: str) -> bool:
        return _run([f"{self._tool}-restore", "-w", "--noflush"], self._filled(text))

    def _filled(self, text: str) -> str:
        return text.replace("{bridge}", self._bridge).replace("{subnet}", self._subnet)


_JUMPS = (("nat", "POSTROUTING"), ("filter", "FORWARD"))

# Naming a chain empties it.
_IPTABLES = """*nat
:{bridge} - [0:0]
-A {bridge} -s {subnet} ! -o {bridge} -j MASQUERADE
COMMIT
*filter
:{bridge} - [0:0]
-A {bridge} -i {bridge} ! -o {bridge} -j ACCEPT
-A {bridge} -o {bridge} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A {bridge} -o {bridge} -j DROP
COMMIT
"""

_IPTABLES_NONE = """*nat
:{bridge} - [0:0]
-X {bridge}
COMMIT
*filter
:{bridge} - [0:0]
-X {bridge}
COMMIT
"""

_NFT_NONE = "add table ip {bridge}\ndelete table ip {bridge}\n"

_NFT = (
    _NFT_NONE
    + """
table ip {bridge} {
  chain postrouting {
    type nat hook postrouting priority 100; policy accept;
    ip saddr {subnet} oifname != "{bridge}" masquerade
  }
  chain forward {
    type filter hook forward priority 0; policy accept;
    iifname "{bridge}" oifname != "{bridge}" accept
    oifname "{bridge}" ct state established,related accept
    oifname "{bridge}" drop
  }
}
"""
)


def _run(arguments: list[str], text: str = "") -> bool:
    """Whether a program ended well; its words go nowhere."""
    read, write = os.pipe()
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    os.write(write, text.encode())
    os.close(write)
    actions = [(os.POSIX_SPAWN_DUP2, read, 0), (os.POSIX_SPAWN_DUP2, null, 1), (os.POSIX_SPAWN_DUP2, null, 2)]
    try:
        pid = os.posix_spawn(arguments[0], arguments, {"PATH": ":".join(_PLACES)}, file_actions=actions)
        return os.waitpid(pid, 0)[1] == 0
    except OSError:
        return False
    finally:
        os.close(read)
        os.close(null)
