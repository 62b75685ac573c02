"""Object storage: archives kept for containers without an agent, and volumes as prefixes of a bucket.

The storage SDK is synchronous (HTTP through `requests`): every call runs in a thread, data in pieces of megabytes.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import closing
from functools import partial
from typing import Any, TypeVar

from control_plane.backends.calls import TRANSIENT, CloudError, call, docker_errors
from control_plane.errors import NotFound
from control_plane.pieces import in_pieces

T = TypeVar("T")

_PIECE = 8 * 1024 * 1024
"""Bytes a request; a multiple of 256 KiB, as resumable uploads want."""
ONCE: Mapping[str, Any] = {"timeout": 30.0, "retry": None}
"""For calls of the SDK: `ObjectStorage.do` repeats them, the SDK's own two minutes of retries stay out of it."""
_TIMEOUT = 60.0
_TOTAL = 60.0


class ObjectStorage:
    """One bucket. The client is made on first use, in a thread.

    In Google's cloud the bucket is the operator's to make; a local cloud starts empty, there it is made on first use.
    """

    def __init__(self, project: str, bucket: str, *, endpoint: str = "") -> None:
        self.bucket_name = bucket
        self._project = project
        self._endpoint = endpoint
        self._client: Any = None
        self._making = threading.Lock()

    async def warm(self) -> None:
        """Imports the SDK and makes the client."""
        await asyncio.to_thread(self.bucket)

    def bucket(self) -> Any:
        """The bucket, for use in a thread."""
        from google.cloud.storage import Client

        client: Any = Client
        with self._making:
            if self._client is None:
                if self._endpoint:
                    from google.auth.credentials import AnonymousCredentials

                    anonymous: Any = AnonymousCredentials  # the SDK has no types
                    made = client(
                        project=self._project,
                        credentials=anonymous(),
                        client_options={"api_endpoint": self._endpoint},
                    )
                    _make(made.bucket(self.bucket_name))
                    self._client = made
                else:
                    self._client = client(project=self._project)
            return self._client.bucket(self.bucket_name)

    async def do(self, doing: str, work: Callable[[Any], T], *, repeat: bool = True) -> T:
        """Runs `work(bucket)` in a thread. Raises CloudError. `repeat` says that `work` may run twice."""

        async def attempt(timeout: float) -> T:
            return await asyncio.to_thread(lambda: work(self.bucket()))

        return await call(doing, attempt, total=_TOTAL, repeat=TRANSIENT if repeat else frozenset())

    async def close(self) -> None:
        """Closes the HTTP sessions."""
        if self._client is not None:
            await asyncio.to_thread(self._client.close)


def _make(bucket: Any) -> None:
    from google.api_core.exceptions import Conflict

    try:
        bucket.create(**ONCE)
    except Conflict:
        return  # it is there


class BucketBlobs:
    """`ports.Blobs` on a bucket, below `prefix`."""

    def __init__(self, storage: ObjectStorage, prefix: str = "blobs") -> None:
        self._storage = storage
        self._prefix = prefix.strip("/")

    def _name(self, key: str) -> str:
        return f"{self._prefix}/{key}"

    async def put(self, key: str, content: AsyncIterator[bytes]) -> int:
        """Stores and returns the size in bytes. A resumable upload: the object appears when the last byte is in.

        Raises Unavailable; nothing is kept of a broken upload.
        """
        with docker_errors():
            doing = "storing an archive"
            writer = await self._storage.do(
                doing,
                lambda bucket: bucket.blob(self._name(key)).open(
                    "wb", chunk_size=_PIECE, timeout=_TIMEOUT, content_type="application/x-tar", ignore_flush=True
                ),
            )
            size = 0
            try:
                async for piece in in_pieces(content, _PIECE):
                    size += len(piece)
                    await self._storage.do(doing, partial(_write, writer, piece), repeat=False)
                await self._storage.do(doing, lambda _: writer.close(), repeat=False)
            except BaseException:
                await asyncio.shield(asyncio.to_thread(_abandon, writer))
                raise
            return size

    async def get(self, key: str) -> AsyncIterator[bytes]:
        """The stored bytes, in pieces. Raises NotFound or Unavailable."""
        with docker_errors():
            doing = "reading an archive"
            try:
                reader = await self._storage.do(
                    doing, lambda bucket: bucket.blob(self._name(key)).open("rb", chunk_size=_PIECE, timeout=_TIMEOUT)
                )
                with closing(reader):
                    while piece := await self._storage.do(doing, lambda _: reader.read(_PIECE), repeat=False):
                        yield piece
            except CloudError as error:
                if error.code == "NOT_FOUND":
                    raise NotFound("the archive copied in before the start is gone", internal=str(error)) from error
                raise

    async def delete(self, key: str) -> None:
        """Deletes; a missing one is no error."""
        with docker_errors():
            try:
                await self._storage.do(
                    "deleting an archive", lambda bucket: bucket.blob(self._name(key)).delete(**ONCE)
                )
            except CloudError as error:
                if error.code != "NOT_FOUND":
                    raise


def _write(writer: Any, piece: bytes, _bucket: Any) -> None:
    writer.write(piece)


def _abandon(writer: Any) -> None:
    """Cancels a resumable upload; what cannot be cancelled expires at the service after a week, unseen."""
    try:
        writer.terminate()
    except Exception as error:
        # The first failure is the one to report; a broken upload was never visible.
        import structlog

        structlog.get_logger(__name__).warning("upload not cancelled", error=str(error))
