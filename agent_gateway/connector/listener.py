"""Where the user's Docker clients connect: a unix socket of the user's own, or a loopback port."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from agent_gateway.faults import CannotConnect
from agent_gateway.forwarding.address import is_loopback

_BACKLOG = 1024
_PATH_LIMIT = 107


def default_address() -> str:
    """In the user's runtime directory, else in the home directory."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    directory = Path(runtime) / "sockerless" if os.path.isdir(runtime) else Path.home() / ".sockerless"
    return f"unix://{directory / 'connect.sock'}"


class Listener:
    """One listening socket."""

    def __init__(self, server: asyncio.Server, address: str, path: str = "") -> None:
        self._server = server
        self._path = path
        self.address = address
        """With the port that was taken."""

    def close(self) -> None:
        """Listens no more."""
        self._server.close()
        if self._path:
            with contextlib.suppress(OSError):
                os.unlink(self._path)


async def listen(address: str, protocol: Callable[[], asyncio.Protocol], *, beyond_loopback: bool = False) -> Listener:
    """Listens at `unix:///path` or `tcp://127.0.0.1:port`. Raises CannotConnect."""
    loop = asyncio.get_running_loop()
    try:
        parts = urlsplit(address)
        if parts.scheme == "unix" and parts.path and not parts.netloc:
            sock = _bound(parts.path)
            return Listener(await loop.create_unix_server(protocol, sock=sock, backlog=_BACKLOG), address, parts.path)
        if parts.scheme != "tcp" or not parts.hostname or parts.port is None:
            raise CannotConnect(f"--listen {address}: unix:///PATH or tcp://127.0.0.1:PORT is wanted")
        if not beyond_loopback and not is_loopback(parts.hostname):
            raise CannotConnect(
                f"--listen {address}: refused, because whoever reaches it would act with your token; "
                "use 127.0.0.1 or a unix socket"
            )
        server = await loop.create_server(protocol, parts.hostname, parts.port, backlog=_BACKLOG, reuse_address=True)
    except ValueError as error:
        raise CannotConnect(f"--listen {address}: {error}") from None
    except OSError as error:
        raise CannotConnect(f"--listen {address}: {error.strerror or error}") from None
    host, port = server.sockets[0].getsockname()[:2]
    return Listener(server, f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}")


def _bound(path: str) -> socket.socket:
    """A socket for its owner alone from the beginning; a dead one of an earlier run is replaced, a live one is not."""
    if len(path.encode()) > _PATH_LIMIT:
        raise CannotConnect(f"--listen unix://{path}: a unix socket's path has at most {_PATH_LIMIT} bytes")
    directory = os.path.dirname(path)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise CannotConnect(f"--listen unix://{path}: the file is there and is not a socket")
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)
            else:
                raise CannotConnect(f"--listen unix://{path}: another server listens there")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        sock.bind(path)
    except BaseException:
        sock.close()
        raise
    finally:
        os.umask(mask)
    return sock
