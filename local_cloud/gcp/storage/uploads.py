"""Uploads on their way: spooled to a file with their checksums; resumable ones survive a restart."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c

from local_cloud.errors import ServiceError, invalid, not_found
from local_cloud.gcp.storage.model import Stored, encode_crc32c

_ID = re.compile(r"[a-f0-9]{32}")
_READ = 1 << 20
_CHECKSUM: Any = google_crc32c.Checksum
_MAX_HEAD = 1 << 20
"""A multipart upload's JSON part with its headers is at most this long (bytes)."""


@dataclass(frozen=True, slots=True)
class Session:
    """A resumable upload."""

    id: str
    bucket: str
    name: str
    description: dict[str, Any]
    if_generation: int | None


class Uploads:
    """The spool of one storage stand-in."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    async def spool(self, chunks: AsyncIterator[bytes]) -> Path:
        """Writes a request's body to a new file."""
        part = self._directory / uuid.uuid4().hex
        with part.open("wb") as file:
            async for chunk in chunks:
                file.write(chunk)
        return part

    # --- resumable

    def begin(self, session: Session) -> str:
        """Keeps a new resumable upload."""
        about = [session.bucket, session.name, session.description, session.if_generation]
        (self._directory / f"{session.id}.json").write_text(json.dumps(about))
        self.part(session.id).touch()
        return session.id

    def session(self, upload: str) -> Session:
        """A resumable upload; raises ServiceError NOT_FOUND."""
        path = self._directory / f"{upload}.json"
        if not _ID.fullmatch(upload) or not path.is_file():
            not_found("The upload session does not exist.")
        return Session(upload, *json.loads(path.read_text()))

    def part(self, upload: str) -> Path:
        """The file of a resumable upload's bytes."""
        return self._directory / upload

    async def append(self, upload: str, offset: int, chunks: AsyncIterator[bytes]) -> int:
        """Adds bytes at an offset; bytes from there on that were sent before are replaced. Returns the size."""
        part = self.part(upload)
        if offset > part.stat().st_size:
            invalid(f"The chunk begins at {offset}, behind the {part.stat().st_size} bytes received.")
        with part.open("r+b") as file:
            file.seek(offset)
            file.truncate()
            async for chunk in chunks:
                file.write(chunk)
            return file.tell()

    def end(self, upload: str) -> None:
        """Forgets a resumable upload."""
        (self._directory / f"{upload}.json").unlink(missing_ok=True)
        self.part(upload).unlink(missing_ok=True)


def describe(part: Path, bucket: str, name: str, description: dict[str, Any], content_type: str) -> Stored:
    """An object's metadata from its file and the client's words; raises ServiceError for a wrong checksum."""
    md5 = hashlib.md5(usedforsecurity=False)  # what the API calls md5Hash, not a protection
    crc: Any = _CHECKSUM()
    size = 0
    for chunk in _blocks(part):
        md5.update(chunk)
        crc.update(chunk)
        size += len(chunk)
    sums = {
        "md5Hash": base64.b64encode(md5.digest()).decode(),
        "crc32c": encode_crc32c(int.from_bytes(crc.digest(), "big")),
    }
    for key, value in sums.items():
        if description.get(key) not in (None, value):
            invalid(f"Provided {key} '{description[key]}' doesn't match calculated {key} '{value}'.")
    metadata = description.get("metadata") or {}
    if not isinstance(metadata, dict):
        invalid("metadata must be an object.")
    return Stored(
        bucket=bucket,
        name=name,
        generation=0,
        size=size,
        updated=0.0,
        content_type=str(description.get("contentType") or content_type or "application/octet-stream"),
        md5=sums["md5Hash"],
        crc32c=sums["crc32c"],
        metadata={str(key): str(value) for key, value in metadata.items()},
    )


def _blocks(part: Path) -> Iterator[bytes]:
    with part.open("rb") as file:
        while chunk := file.read(_READ):
            yield chunk


def split_multipart(part: Path, content_type: str) -> tuple[dict[str, Any], str]:
    """Cuts a spooled multipart/related body down to its second part; returns the JSON and the content type."""
    match = re.search(r'boundary="?([^";]{1,200})"?', content_type)
    if match is None:
        invalid("multipart/related without a boundary.")
    boundary = b"--" + match[1].encode()
    with part.open("rb") as file:
        head = file.read(_MAX_HEAD)
        tail_at = max(0, file.seek(0, 2) - len(boundary) - 64)
        file.seek(tail_at)
        closing = file.read().rfind(b"\r\n" + boundary + b"--")
    separator = b"\r\n" + boundary + b"\r\n"
    first = head.find(b"\r\n\r\n") + 4
    middle = head.find(separator, first)
    second = middle + len(separator)
    begin = head.find(b"\r\n\r\n", second - 2) + 4
    if (
        not head.startswith(boundary)
        or first < 4
        or middle < 0
        or begin < 4
        or closing < 0
        or begin > tail_at + closing
    ):
        invalid("malformed multipart/related body.")
    kind = re.search(rb"(?im)^content-type:\s*([^\r\n]+)", head[second:begin])
    description = _json(head[first:middle])
    _keep(part, begin, tail_at + closing)
    return description, kind[1].decode("latin-1").strip() if kind else ""


def _json(text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ServiceError("INVALID_ARGUMENT", "the object's description is not a JSON object.")
    return value


def _keep(part: Path, begin: int, end: int) -> None:
    """Moves bytes `begin…end` to the file's beginning and cuts the rest."""
    with part.open("r+b") as file:
        done = 0
        while begin + done < end:
            file.seek(begin + done)
            block = file.read(min(_READ, end - begin - done))
            file.seek(done)
            file.write(block)
            done += len(block)
        file.truncate(end - begin)
