"""Following output in a cloud's logs: what the feeds of all clouds have in common.

One feed serves all followers, so that their number does not cost queries. Each reading begins a while before the last
one's end, because lines are not taken in in order of time; what came already is known by its key.
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from typing import Generic, TypeVar

from control_plane.backends.base import LogLine
from control_plane.backends.calls import CloudError
from control_plane.errors import DockerError

QUEUE = 10_000
"""Lines kept for a reader that does not read, and keys remembered before the old ones are dropped."""


class Follower:
    """One reader of one output. Times are Unix nanoseconds of the order in which the cloud is read."""

    def __init__(self, begin: int, overlap: int, seen: Mapping[str, int]) -> None:
        """Lines from `begin` on, without those `seen` (key → time)."""
        self._first = begin
        self._overlap = overlap
        self._seen = dict(seen)
        self.read_to = begin
        """Readings have seen everything up to here."""
        self._lines: asyncio.Queue[LogLine | None] = asyncio.Queue(QUEUE)
        self._left: int | None = None
        self.quiet_since = asyncio.get_running_loop().time()
        """Loop time of the last new line, or of the first completed reading."""
        self.readings = 0
        self.failure: DockerError | CloudError | None = None

    @property
    def full(self) -> bool:
        """The reader has enough for now."""
        return self._lines.qsize() > self._lines.maxsize // 2

    @property
    def start_of_reading(self) -> int:
        """Where the next reading begins."""
        return max(self.read_to - self._overlap, self._first, 0)

    def take(self, line: LogLine, at: int) -> None:
        """Takes a line once. A slow reader's are left for a later reading: it must not hold up the others."""
        if line.insert_id in self._seen:
            return
        if self._left is not None or self._lines.full():
            self._left = min(self._left or at, at)
            return
        self._lines.put_nowait(line)
        self._seen[line.insert_id] = at
        self.quiet_since = asyncio.get_running_loop().time()

    def advance(self, read_to: int) -> None:
        """A reading has got to `read_to`: keys older than the overlap cannot come again."""
        reached = read_to if self._left is None else min(read_to, self._left)
        self._left = None
        self.read_to = max(self.read_to, reached)
        if len(self._seen) > QUEUE:
            horizon = self.start_of_reading
            self._seen = {key: at for key, at in self._seen.items() if at >= horizon}

    async def next_line(self, timeout: float) -> LogLine | None:
        """The next line, or None when none came in time. Raises what stopped the feed."""
        if self.failure is not None and self._lines.empty():
            raise self.failure
        try:
            async with asyncio.timeout(timeout):
                return await self._lines.get()
        except TimeoutError:
            return None

    def stop(self, failure: DockerError | CloudError) -> None:
        """Ends the follower with an error, after the lines it already has."""
        self.failure = failure
        with contextlib.suppress(asyncio.QueueFull):
            self._lines.put_nowait(None)


F = TypeVar("F", bound=Follower)


class SharedFeed(ABC, Generic[F]):
    """Runs while there are followers; reads for so many at once as one query may name."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._followers: set[F] = set()
        self._task: asyncio.Task[None] | None = None
        self._nudge = asyncio.Event()

    @abstractmethod
    async def _read(self, followers: list[F]) -> None:
        """Offers what is new to these followers, and advances them. Raises DockerError, CloudError."""

    @abstractmethod
    def _pause(self) -> float:
        """Seconds to the next reading."""

    def _changed(self) -> None:
        """A follower has come or gone."""

    @contextlib.asynccontextmanager
    async def _following(self, follower: F) -> AsyncIterator[F]:
        self._followers.add(follower)
        self._changed()
        self._nudge.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        try:
            yield follower
        finally:
            self._followers.discard(follower)
            self._changed()
            self._nudge.set()

    async def close(self) -> None:
        """Stops reading; followers get no more lines."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while self._followers:
            self._nudge.clear()
            try:
                await self._read_all()
            except (DockerError, CloudError) as error:
                for follower in list(self._followers):
                    follower.stop(error)
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause()):
                    await self._nudge.wait()

    async def _read_all(self) -> None:
        followers = [follower for follower in self._followers if not follower.full]
        for start in range(0, len(followers), self._at_once):
            await self._read(followers[start : start + self._at_once])
        now = asyncio.get_running_loop().time()
        for follower in followers:
            if not follower.readings:
                follower.quiet_since = now
            follower.readings += 1
