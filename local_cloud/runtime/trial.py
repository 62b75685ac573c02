"""Tries, in a throw-away process, what containers need of this machine: `trial DIRECTORY`.

Prints one JSON object: for each thing tried the kernel's words, empty when it worked. Everything happens in namespaces
that end with the process, so the machine is left as it was.
"""

from __future__ import annotations

import json
import os
import sys

from local_cloud.runtime import syscalls as sc
from local_cloud.runtime import userns
from local_cloud.runtime.netlink import Netlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def _tried(action: Callable[[], object]) -> str:
    try:
        action()
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return ""


def _overlay(directory: str, privileged: bool) -> None:
    for name in ("lower", "upper", "work", "root"):
        os.mkdir(f"{directory}/{name}")
    options = f"lowerdir={directory}/lower,upperdir={directory}/upper,workdir={directory}/work,volatile"
    if not privileged:
        options += ",userxattr"
    sc.mount("overlay", f"{directory}/root", "overlay", sc.MS_NODEV, options)


def _proc(directory: str) -> None:
    os.mkdir(f"{directory}/proc")
    sc.mount("proc", f"{directory}/proc", "proc", sc.MS_NOSUID)


def _mount_calls(directory: str) -> None:
    """The calls that came with Linux 5.12."""
    tree = sc.open_tree(directory)
    sc.restrict_tree(tree, sc.ATTR_RDONLY)
    os.close(tree)


def _bridge() -> None:
    links = Netlink()
    links.add_bridge("sockerless0", b"\x02\0\0\0\0\1", 1500)
    here = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    links.add_pair("sockerless1", links.index("sockerless0"), "sockerless2", here, 1500)


def _inside(directory: str, privileged: bool) -> dict[str, str]:
    sc.mount("none", "/", None, sc.MS_REC | sc.MS_PRIVATE)
    return {
        "overlay": _tried(lambda: _overlay(directory, privileged)),
        "proc": _tried(lambda: _proc(directory)),
        "mounts": _tried(lambda: _mount_calls(directory)),
        "bridge": _tried(_bridge) if privileged else "",
    }


def main(arguments: list[str]) -> int:
    """Always 0: the findings are the answer."""
    directory = arguments[0]
    privileged = userns.privileged()
    answer: dict[str, object] = {"privileged": privileged, "namespaces": ""}
    try:
        answer["range"] = privileged or userns.enter()
        read, write = os.pipe()
        flags = sc.CLONE_NEWNS | sc.CLONE_NEWPID | sc.CLONE_NEWUTS | sc.CLONE_NEWIPC | sc.CLONE_NEWNET
        pid, _ = sc.clone(flags)
        if pid == 0:
            try:
                os.write(write, json.dumps(_inside(directory, privileged)).encode())
            finally:
                os._exit(0)
        os.close(write)
        answer.update(json.loads(os.read(read, 65536) or b'{"overlay": "the process in the namespaces died"}'))
        os.waitpid(pid, 0)
    except OSError as error:
        answer["namespaces"] = (error.strerror or str(error)).lower()
    os.write(1, json.dumps(answer).encode())
    return 0


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))
