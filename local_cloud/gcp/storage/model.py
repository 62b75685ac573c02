"""Buckets and objects.

An object is a file under `<data>/storage/<bucket>/`, so that a gcs volume is a bind of that directory.
What a file cannot hold (generation, content type, metadata, checksums) is in the state file, and counts while the file
is the one that was stored; a file that a container wrote or changed is an object too, with a generation made of its
modification time.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from local_cloud.errors import ServiceError, invalid, not_found
from local_cloud.state import State

_BUCKET = re.compile(r"[a-z0-9](?:[a-z0-9._-]{1,220}[a-z0-9])")
_MAX_NAME = 1024
_MAX_PART = 255
_SCHEMA = """
CREATE TABLE IF NOT EXISTS storage_buckets(name TEXT PRIMARY KEY, created REAL NOT NULL, location TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS storage_objects(
    bucket TEXT, name TEXT, generation INTEGER NOT NULL, modified INTEGER NOT NULL, size INTEGER NOT NULL, content_type
    TEXT NOT NULL, md5 TEXT NOT NULL, crc32c TEXT NOT NULL, metadata TEXT NOT NULL, created REAL NOT NULL, PRIMARY
    KEY(bucket, name)) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket."""

    name: str
    created: float
    location: str


@dataclass(frozen=True, slots=True)
class Stored:
    """An object's metadata."""

    bucket: str
    name: str
    generation: int
    size: int
    updated: float
    content_type: str = "application/octet-stream"
    md5: str = ""
    """Base64; empty when a container wrote the file."""
    crc32c: str = ""
    metadata: dict[str, str] = field(default_factory=dict)


class Buckets:
    """All buckets of the storage stand-in."""

    def __init__(self, state: State, directory: Path) -> None:
        self._state = state
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        state.define(_SCHEMA)

    # --- buckets

    @staticmethod
    def check_bucket_name(name: str) -> str:
        """Returns a well-formed bucket name; raises ServiceError INVALID_ARGUMENT."""
        if not _BUCKET.fullmatch(name) or ".." in name or len(name) < 3:
            invalid(f"Invalid bucket name: '{name}'")
        return name

    def create(self, name: str, location: str) -> Bucket:
        """Makes a bucket; raises ServiceError ALREADY_EXISTS."""
        self.check_bucket_name(name)
        if self._find(name) is not None:
            message = "Your previous request to create the named bucket succeeded and you already own it."
            raise ServiceError("ALREADY_EXISTS", message)
        (self._directory / name).mkdir(exist_ok=True)
        (self._directory / name).chmod(0o777)  # containers run as any user
        bucket = Bucket(name, time.time(), location)
        self._state.execute("INSERT INTO storage_buckets VALUES (?, ?, ?)", name, bucket.created, location)
        return bucket

    def bucket(self, name: str) -> Bucket:
        """A bucket; raises ServiceError NOT_FOUND."""
        found = self._find(name)
        if found is None:
            not_found("The specified bucket does not exist.")
        return found

    def buckets(self, prefix: str) -> list[Bucket]:
        """All buckets whose name begins so."""
        rows = self._state.all("SELECT name, created, location FROM storage_buckets ORDER BY name")
        return [Bucket(*row) for row in rows if row[0].startswith(prefix)]

    def delete_bucket(self, name: str) -> None:
        """Deletes an empty bucket; raises ServiceError ABORTED (409) for another."""
        self.bucket(name)
        if next(self._names(name), None) is not None:
            raise ServiceError("ABORTED", "The bucket you tried to delete is not empty.")
        shutil.rmtree(self._directory / name, ignore_errors=True)
        with self._state.transaction():
            self._state.execute("DELETE FROM storage_buckets WHERE name = ?", name)
            self._state.execute("DELETE FROM storage_objects WHERE bucket = ?", name)

    def directory(self, name: str) -> Path | None:
        """A bucket's directory; None when there is no such bucket."""
        return None if self._find(name) is None else self._directory / name

    def _find(self, name: str) -> Bucket | None:
        row = self._state.one("SELECT name, created, location FROM storage_buckets WHERE name = ?", name)
        return Bucket(*row) if row else None

    # --- objects

    def path(self, bucket: str, name: str) -> Path:
        """An object's file; raises ServiceError for a name no file can have, or that leads out of the bucket."""
        self.bucket(bucket)
        parts = name.removesuffix("/").split("/")
        if not name or len(name.encode()) > _MAX_NAME or any(char in name for char in "\0\r\n"):
            invalid(f"Invalid object name: '{name[:80]}'")
        if any(part in ("", ".", "..") or len(part.encode()) > _MAX_PART for part in parts):
            invalid(
                f"Object name '{name[:80]}' cannot be a file of the local cloud: an empty, '.', '..' or too long part."
            )
        root = (self._directory / bucket).resolve()
        path = root.joinpath(*parts)
        if not path.parent.resolve().is_relative_to(root) or path.is_symlink():
            invalid(f"Object name '{name[:80]}' leads through a symbolic link of the volume.")
        return path

    def get(self, bucket: str, name: str) -> Stored:
        """An object's metadata; raises ServiceError NOT_FOUND."""
        found = self._look(bucket, name)
        if found is None:
            not_found(f"No such object: {bucket}/{name}")
        return found

    def put(self, part: Path, wanted: Stored, if_generation: int | None) -> Stored:
        """Makes a finished file an object.

        Raises ServiceError FAILED_PRECONDITION when the present generation is not the one wanted (0: none).
        """
        self.check_generation(wanted.bucket, wanted.name, if_generation)
        path = self.path(wanted.bucket, wanted.name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if wanted.name.endswith("/"):
                part.unlink()
                path.mkdir(exist_ok=True)
            else:
                os.replace(part, path)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise ServiceError(
                "ABORTED",
                f"'{wanted.name}' cannot be stored: here a name cannot be an object and a directory at once.",
            ) from None
        stat = path.stat()
        generation = max(time.time_ns() // 1000, self._last_generation(wanted) + 1)
        self._state.execute(
            "INSERT OR REPLACE INTO storage_objects VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            wanted.bucket,
            wanted.name,
            generation,
            stat.st_mtime_ns,
            0 if wanted.name.endswith("/") else stat.st_size,
            wanted.content_type,
            wanted.md5,
            wanted.crc32c,
            json.dumps(wanted.metadata),
            time.time(),
        )
        return self.get(wanted.bucket, wanted.name)

    def check_generation(self, bucket: str, name: str, wanted: int | None) -> None:
        """`ifGenerationMatch`; raises ServiceError FAILED_PRECONDITION (answered as 412)."""
        if wanted is None:
            return
        found = self._look(bucket, name)
        if (found.generation if found else 0) != wanted:
            message = "At least one of the pre-conditions you specified did not hold."
            raise ServiceError("FAILED_PRECONDITION", message)

    def delete(self, bucket: str, name: str, if_generation: int | None) -> None:
        """Deletes an object."""
        self.get(bucket, name)
        self.check_generation(bucket, name, if_generation)
        path = self.path(bucket, name)
        if path.is_dir():
            with contextlib.suppress(OSError):  # objects below keep the directory; the placeholder object alone goes
                path.rmdir()
        else:
            path.unlink(missing_ok=True)
            self._prune(path.parent, self._directory / bucket)
        self._state.execute("DELETE FROM storage_objects WHERE bucket = ? AND name = ?", bucket, name)

    def list(
        self, bucket: str, prefix: str, delimiter: str, after: str, limit: int
    ) -> tuple[list[Stored], list[str], str]:
        """Objects and common prefixes in order of name after a point, and where the next page begins (or empty)."""
        self.bucket(bucket)
        objects: list[Stored] = []
        prefixes: list[str] = []
        last = after
        for name in sorted(self._names(bucket)):
            if not name.startswith(prefix):
                continue
            rest = name[len(prefix) :]
            group = prefix + rest[: rest.index(delimiter) + len(delimiter)] if delimiter and delimiter in rest else ""
            if (group or name) <= after or (group and group in prefixes[-1:]):
                continue
            if len(objects) + len(prefixes) >= limit:
                return objects, prefixes, last
            last = group or name
            if group:
                prefixes.append(group)
            else:
                found = self._look(bucket, name)
                if found is not None:
                    objects.append(found)
        return objects, prefixes, ""

    def _names(self, bucket: str) -> Iterator[str]:
        root = self._directory / bucket
        placeholders = self._state.all("SELECT name FROM storage_objects WHERE bucket = ? AND name LIKE '%/'", bucket)
        for row in placeholders:
            if (root / row[0]).is_dir():
                yield row[0]
        for folder, _, files in os.walk(root):
            inner = os.path.relpath(folder, root)
            for file in files:
                if not os.path.islink(os.path.join(folder, file)):
                    yield file if inner == "." else f"{inner}/{file}"

    def _look(self, bucket: str, name: str) -> Stored | None:
        path = self.path(bucket, name)
        row = self._state.one(
            "SELECT generation, modified, size, content_type, md5, crc32c, metadata, created FROM storage_objects "
            "WHERE bucket = ? AND name = ?",
            bucket,
            name,
        )
        if name.endswith("/"):
            if row is None or not path.is_dir():
                return None
            return Stored(bucket, name, row[0], 0, row[7], row[3], row[4], row[5], json.loads(row[6]))
        if not path.is_file():
            return None
        stat = path.stat()
        if row is not None and (row[1], row[2]) == (stat.st_mtime_ns, stat.st_size):
            return Stored(bucket, name, row[0], row[2], row[7], row[3], row[4], row[5], json.loads(row[6]))
        return Stored(bucket, name, stat.st_mtime_ns // 1000, stat.st_size, stat.st_mtime)

    def _last_generation(self, wanted: Stored) -> int:
        row = self._state.one(
            "SELECT generation FROM storage_objects WHERE bucket = ? AND name = ?", wanted.bucket, wanted.name
        )
        return int(row[0]) if row else 0

    def _prune(self, folder: Path, root: Path) -> None:
        """Removes directories that only objects had made, as they do not exist in a bucket."""
        root = root.resolve()
        while folder != root:
            name = f"{folder.relative_to(root)}/"
            if self._state.one("SELECT 1 FROM storage_objects WHERE name = ?", name) is not None:
                return
            try:
                folder.rmdir()
            except OSError:
                return
            folder = folder.parent


def encode_crc32c(value: int) -> str:
    """A CRC32C as the API writes it: base64 of its four bytes, big endian."""
    return base64.b64encode(value.to_bytes(4, "big")).decode()
