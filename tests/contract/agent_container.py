"""The real agent as PID 1 of a small container: own namespaces, a root of busybox or of one static binary."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent_gateway.agent import binary
from tests.contract.agent_peer import AgentPeer

BUSYBOX = shutil.which("busybox") or ""
_AGENT = Path(binary.__file__).parent

# One shell becomes PID 1, prepares the root and executes the agent.
_PREPARE = """
set -e
mount --make-rprivate /
mount --bind "$ROOT" "$ROOT"
mkdir -p "$ROOT/proc"; mount -t proc proc "$ROOT/proc"
if [ -d "$ROOT/dev" ]; then
  mount -t tmpfs tmpfs "$ROOT/dev"
  for d in null zero tty urandom; do : > "$ROOT/dev/$d"; mount --bind "/dev/$d" "$ROOT/dev/$d"; done
  mkdir "$ROOT/dev/pts" "$ROOT/dev/shm"
  mount -t devpts -o newinstance,ptmxmode=0666 devpts "$ROOT/dev/pts"
  ln -s pts/ptmx "$ROOT/dev/ptmx"
  mount -t tmpfs shm "$ROOT/dev/shm"
fi
exec env -i PATH="$PATH" SOCKERLESS_CALLBACK_URL="$URL" SOCKERLESS_CONTAINER_ID=c0ffee SOCKERLESS_AGENT_TOKEN="$TOKEN" \
  SOCKERLESS_CONNECT_TIMEOUT="$TIMEOUT" SSL_CERT_FILE=/ca.pem $SETTINGS chroot --userspec="$USERSPEC" "$ROOT" /agent
"""


def needs_namespaces() -> None:
    """Skip where the agent cannot be put into namespaces of its own."""
    if os.geteuid() != 0 or not shutil.which("unshare"):
        pytest.skip("needs root and unshare(1)")
    if not BUSYBOX:
        pytest.skip("needs a static busybox (apt install busybox-static)")


def built_agent() -> Path:
    try:
        found = binary.path()
    except binary.AgentNotBuiltError:
        subprocess.run([_AGENT / "build.sh"], check=True)
        return binary.path()
    newest = max(f.stat().st_mtime for f in _AGENT.rglob("*.go"))
    if found.stat().st_mtime < newest:
        subprocess.run([_AGENT / "build.sh"], check=True)
    return found


def busybox_root(root: Path) -> Path:
    for name in ("bin", "etc", "dev", "tmp", "root", "work"):
        (root / name).mkdir(parents=True)
    shutil.copy(BUSYBOX, root / "bin/busybox")
    for applet in subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split():
        if not (root / "bin" / applet).exists():
            (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:app:/home/app:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nstaff:x:50:\napp:x:1001:\naudio:x:63:app\nvideo:x:44:\n")
    shutil.copy(built_agent(), root / "agent")
    (root / "tmp").chmod(0o1777)
    return root


def scratch_root(root: Path, program: str) -> Path:
    """One static binary (busybox, under the name of one applet) and the agent; nothing else."""
    root.mkdir(parents=True)
    shutil.copy(BUSYBOX, root / program)
    shutil.copy(built_agent(), root / "agent")
    return root


def spec(*argv: str, **fields: object) -> dict[str, Any]:
    base: dict[str, Any] = {"run": 1, "argv": list(argv), "env": [], "workdir": "/", "user": "", "groups": []}
    base |= {"tty": False, "open_stdin": False, "stdin_once": False, "rows": 0, "cols": 0, "hostname": "c0ffee"}
    base |= {"stop_signal": 15, "cap_add": [], "cap_drop": [], "ulimits": [], "mounts": [], "sources": []}
    return base | {"log_max_bytes": 64 << 20, "linger_seconds": 0} | fields


class AgentContainer:
    """A running container of the agent's."""

    def __init__(
        self,
        root: Path,
        url: str,
        *,
        timeout: float = 30,
        user: str = "0:0",
        token: str = "secret",
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.root = root
        environment = {"ROOT": str(root), "URL": url, "TIMEOUT": str(timeout), "PATH": os.environ["PATH"]}
        environment |= {"USERSPEC": user, "TOKEN": token}
        environment["SETTINGS"] = " ".join(f"{name}={value}" for name, value in (settings or {}).items())
        command = ["unshare", "-m", "-p", "-u", "-f", "--kill-child", "sh", "-c", _PREPARE]
        self.stdout = root.parent / f"{root.name}.stdout"
        self.stderr = root.parent / f"{root.name}.stderr"
        with self.stdout.open("wb") as out, self.stderr.open("wb") as err:
            self.process = subprocess.Popen(command, env=environment, stdout=out, stderr=err, stdin=subprocess.DEVNULL)

    @property
    def pid(self) -> int:
        """The agent's process, as this machine sees it."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0])

    def resident(self) -> int:
        """Return the agent's resident memory in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) << 10

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    async def exit_code(self, timeout: float = 30) -> int:
        code = await asyncio.to_thread(self.process.wait, timeout)
        return code if code >= 0 else 128 - code

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()


Running = tuple[AgentPeer, AgentContainer]


@asynccontextmanager
async def agent(tmp_path: Path, *, scratch: str = "", timeout: float = 30, user: str = "0:0") -> AsyncIterator[Running]:
    """A peer, and an agent that has said hello to it."""
    needs_namespaces()
    root = scratch_root(tmp_path / "root", scratch) if scratch else busybox_root(tmp_path / "root")
    async with AgentPeer() as peer:
        container = AgentContainer(root, peer.url, timeout=timeout, user=user)
        try:
            await peer.hello()
            yield peer, container
        finally:
            container.end()
