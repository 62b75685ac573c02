"""The client side of the launcher's socket: numbered requests, answers as they come; spawns an absent launcher."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from local_cloud.runtime.findings import RuntimeRefused
from local_cloud.runtime.frames import FrameError, Frames, encode
from local_cloud.runtime.spawn import command

SOCKET = "launcher.sock"
_ATTEMPTS = 40
_START_SECONDS = 20.0


class Connection(asyncio.Protocol):
    """One connection to a launcher. `greeting` is what it said of itself."""

    def __init__(self, lost: Callable[[Connection], None]) -> None:
        self.greeting: dict[str, Any] = {}
        self.closed = False
        self._lost = lost
        self._frames = Frames()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._transport: asyncio.Transport | None = None
        self._greeted: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def ask(self, operation: str, **fields: Any) -> dict[str, Any]:
        """The answer to one request; raises RuntimeRefused, ConnectionResetError when the launcher has gone."""
        if self._transport is None or self.closed:
            raise ConnectionResetError
        number = next(self._numbers)
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            self._transport.write(encode({"op": operation, "n": number, **fields}))
            message = await answer
        finally:
            self._waiting.pop(number, None)
        refused = message.get("refused")
        if refused:
            raise RuntimeRefused(refused["text"], refused["kind"])
        return message

    async def greeted(self) -> None:
        """Waits for the launcher's greeting."""
        await asyncio.wait_for(self._greeted, _START_SECONDS)

    def close(self) -> None:
        """Disconnects."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio's."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """asyncio's."""
        try:
            messages = self._frames.feed(data)
        except FrameError:
            self.close()
            return
        for message in messages:
            if "hello" in message:
                self.greeting = message
                if not self._greeted.done():
                    self._greeted.set_result(None)
                continue
            answer = self._waiting.get(message.get("n", 0))
            if answer is not None and not answer.done():
                answer.set_result(message)

    def connection_lost(self, error: Exception | None) -> None:
        """asyncio's."""
        self.closed = True
        waiting: list[asyncio.Future[Any]] = [self._greeted, *self._waiting.values()]
        for future in waiting:
            if not future.done():
                future.set_exception(ConnectionResetError())
                future.exception()  # looked at: nobody may be waiting any more
        self._lost(self)


async def connect(data_dir: Path, lost: Callable[[Connection], None], idle_seconds: float) -> Connection:
    """Connects to the launcher of this data directory, or spawns it; raises RuntimeRefused."""
    for attempt in range(_ATTEMPTS):
        with contextlib.suppress(OSError):
            return await _dial(data_dir, lost)
        if await _spawn(data_dir, idle_seconds):
            with contextlib.suppress(OSError):
                return await _dial(data_dir, lost)
        await asyncio.sleep(min(0.25, 0.01 * 2**attempt))
    raise RuntimeRefused(f"the launcher of {data_dir} does not answer; see {data_dir / 'launcher.log'}", "launcher")


async def _dial(data_dir: Path, lost: Callable[[Connection], None]) -> Connection:
    loop = asyncio.get_running_loop()
    directory = os.open(data_dir, os.O_PATH | os.O_DIRECTORY)
    try:
        # Through the descriptor: the path itself may be longer than the 107 bytes an address has.
        path = f"/proc/self/fd/{directory}/{SOCKET}"
        _, connection = await loop.create_unix_connection(lambda: Connection(lost), path)
    finally:
        os.close(directory)
    try:
        await connection.greeted()
    except BaseException:
        connection.close()
        raise
    return connection


async def _spawn(data_dir: Path, idle_seconds: float) -> bool:
    """Starts a launcher; False when another has the data directory (starting, or ending)."""
    arguments = command("launcher", "--socket", str(data_dir / SOCKET), "--idle", str(idle_seconds))
    with (data_dir / "launcher.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            cwd="/",
            env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LANG": "C.UTF-8"},
        )
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), _START_SECONDS)
        answer = json.loads(line or b"{}")
    except (TimeoutError, ValueError):
        answer = {}
    await process.wait()
    state = answer.get("state")
    if state == "refused":
        raise RuntimeRefused(answer.get("text", "the launcher cannot start"))
    if state not in ("ready", "another"):
        raise RuntimeRefused(f"the launcher ended at its start; see {data_dir / 'launcher.log'}", "launcher")
    return bool(state == "ready")
