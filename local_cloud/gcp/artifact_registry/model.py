"""Repositories, manifests and tags, and the rules between them (OCI distribution v1.1)."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local_cloud.gcp.artifact_registry.blobs import BlobFiles, check_digest
from local_cloud.gcp.artifact_registry.errors import RegistryError
from local_cloud.state import State

_NAME = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
MAX_MANIFEST = 4 << 20
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
INDEXES = (OCI_INDEX, DOCKER_LIST)
_SERVED = (OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS registry_blobs(repository TEXT, digest TEXT, PRIMARY KEY(repository, digest)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS registry_blobs_digest ON registry_blobs(digest);
CREATE TABLE IF NOT EXISTS registry_manifests(repository TEXT, digest TEXT, media_type TEXT,
    PRIMARY KEY(repository, digest)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS registry_tags(repository TEXT, tag TEXT, digest TEXT,
    PRIMARY KEY(repository, tag)) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A stored manifest."""

    digest: str
    media_type: str
    content: bytes


class Registry:
    """All repositories of the registry stand-in."""

    def __init__(self, state: State, directory: Path) -> None:
        self._state = state
        self.files = BlobFiles(directory)
        state.define(_SCHEMA)

    @staticmethod
    def check_name(repository: str) -> str:
        """Returns a well-formed repository name; raises RegistryError NAME_INVALID."""
        if len(repository) > 255 or not _NAME.fullmatch(repository):
            raise RegistryError("NAME_INVALID", "invalid repository name", {"name": repository})
        return repository

    def blob(self, repository: str, digest: str) -> Path:
        """The file of a repository's blob; raises RegistryError BLOB_UNKNOWN."""
        path = self.files.path(digest)
        if not self._has_blob(repository, digest) or not path.is_file():
            raise RegistryError("BLOB_UNKNOWN", "blob unknown to registry", {"digest": digest})
        return path

    def link_blob(self, repository: str, digest: str) -> None:
        """Makes an uploaded blob one of the repository's."""
        self._state.execute("INSERT OR IGNORE INTO registry_blobs VALUES (?, ?)", repository, check_digest(digest))

    def mount(self, repository: str, digest: str, source: str) -> bool:
        """Links another repository's blob; False when it has none (the client then uploads)."""
        if not self._has_blob(source, check_digest(digest)):
            return False
        self.link_blob(repository, digest)
        return True

    def delete_blob(self, repository: str, digest: str) -> None:
        """Unlinks a blob; the file goes with its last link."""
        self.blob(repository, digest)
        with self._state.transaction():
            self._state.execute("DELETE FROM registry_blobs WHERE repository = ? AND digest = ?", repository, digest)
        self._sweep(digest)

    def manifest(self, repository: str, reference: str) -> Manifest:
        """A manifest by tag or digest; raises RegistryError MANIFEST_UNKNOWN."""
        digest: str | None = reference
        if ":" in reference:
            check_digest(reference)
        else:
            row = self._state.one(
                "SELECT digest FROM registry_tags WHERE repository = ? AND tag = ?",
                repository,
                self._check_tag(reference),
            )
            digest = row[0] if row else None
        row = self._state.one(
            "SELECT media_type FROM registry_manifests WHERE repository = ? AND digest = ?", repository, digest
        )
        if row is None or digest is None:
            raise RegistryError("MANIFEST_UNKNOWN", "manifest unknown", {"name": repository, "reference": reference})
        return Manifest(digest, row[0], self.files.path(digest).read_bytes())

    def put_manifest(self, repository: str, reference: str, media_type: str, content: bytes) -> str:
        """Keeps a manifest whose blobs (or children) are all here; returns its digest."""
        document = self._parse(media_type, content)
        self._check_complete(repository, document)
        digest = self.files.write(content)
        if ":" in reference and check_digest(reference) != digest:
            raise RegistryError(
                "DIGEST_INVALID", "provided digest did not match uploaded content", {"digest": reference}
            )
        kind = document.get("mediaType") or media_type.split(";")[0].strip()
        with self._state.transaction():
            self._state.execute("INSERT OR REPLACE INTO registry_manifests VALUES (?, ?, ?)", repository, digest, kind)
            if ":" not in reference:
                tag = self._check_tag(reference)
                self._state.execute("INSERT OR REPLACE INTO registry_tags VALUES (?, ?, ?)", repository, tag, digest)
        return digest

    def delete_manifest(self, repository: str, reference: str) -> None:
        """Deletes a tag, or a manifest with all tags on it."""
        digest = self.manifest(repository, reference).digest
        with self._state.transaction():
            if ":" not in reference:
                self._state.execute("DELETE FROM registry_tags WHERE repository = ? AND tag = ?", repository, reference)
                return
            self._state.execute("DELETE FROM registry_tags WHERE repository = ? AND digest = ?", repository, digest)
            self._state.execute(
                "DELETE FROM registry_manifests WHERE repository = ? AND digest = ?", repository, digest
            )
        self._sweep(digest)

    def tags(self, repository: str, after: str, limit: int) -> list[str]:
        """Tags in order, after a given one; raises RegistryError NAME_UNKNOWN for an unknown repository."""
        if self._state.one("SELECT 1 FROM registry_manifests WHERE repository = ? LIMIT 1", repository) is None:
            raise RegistryError("NAME_UNKNOWN", "repository name not known to registry", {"name": repository})
        rows = self._state.all(
            "SELECT tag FROM registry_tags WHERE repository = ? AND tag > ? ORDER BY tag LIMIT ?",
            repository,
            after,
            limit,
        )
        return [row[0] for row in rows]

    def collect(self) -> set[str]:
        """Unlinks blobs that no manifest of their repository names any more; returns the digests still linked.

        Only at start, when nobody is between pushing a blob and its manifest.
        """
        named: dict[str, set[str]] = {}
        for repository, digest in self._state.all("SELECT repository, digest FROM registry_manifests"):
            document = json.loads(self.files.path(digest).read_bytes())
            wanted = named.setdefault(repository, set())
            wanted.update(item["digest"] for item in [*(document.get("layers") or []), document.get("config")] if item)
        kept = set()
        for repository, digest in self._state.all("SELECT repository, digest FROM registry_blobs"):
            if digest in named.get(repository, ()):
                kept.add(digest)
                continue
            self._state.execute("DELETE FROM registry_blobs WHERE repository = ? AND digest = ?", repository, digest)
            self._sweep(digest)
        return kept

    def _has_blob(self, repository: str, digest: str) -> bool:
        row = self._state.one("SELECT 1 FROM registry_blobs WHERE repository = ? AND digest = ?", repository, digest)
        return row is not None

    def _sweep(self, digest: str) -> None:
        for table in ("registry_blobs", "registry_manifests"):
            if self._state.one(f"SELECT 1 FROM {table} WHERE digest = ?", digest) is not None:  # noqa: S608
                return
        self.files.remove(digest)

    @staticmethod
    def _check_tag(tag: str) -> str:
        if not _TAG.fullmatch(tag):
            raise RegistryError("MANIFEST_INVALID", "invalid tag", {"tag": tag})
        return tag

    @staticmethod
    def _parse(media_type: str, content: bytes) -> dict[str, Any]:
        if len(content) > MAX_MANIFEST:
            raise RegistryError("MANIFEST_INVALID", f"manifest is larger than {MAX_MANIFEST} bytes")
        try:
            document = json.loads(content)
        except (ValueError, RecursionError):
            raise RegistryError("MANIFEST_INVALID", "manifest is not JSON") from None
        kind = media_type.split(";")[0].strip()
        if not isinstance(document, dict) or document.get("schemaVersion") != 2:
            raise RegistryError("MANIFEST_INVALID", "manifest is not of schema version 2")
        if kind not in _SERVED or document.get("mediaType", kind) != kind:
            raise RegistryError("MANIFEST_INVALID", f"unsupported manifest media type {kind!r}")
        return document

    def _check_complete(self, repository: str, document: dict[str, Any]) -> None:
        children = document.get("manifests")
        wanted = children if isinstance(children, list) else [document.get("config"), *(document.get("layers") or [])]
        for descriptor in wanted:
            if not isinstance(descriptor, dict) or not isinstance(descriptor.get("digest"), str):
                raise RegistryError("MANIFEST_INVALID", "manifest has a descriptor without a digest")
            digest = check_digest(descriptor["digest"])
            if children is not None:
                row = self._state.one(
                    "SELECT 1 FROM registry_manifests WHERE repository = ? AND digest = ?", repository, digest
                )
                if row is None:
                    raise RegistryError(
                        "MANIFEST_BLOB_UNKNOWN", "manifest references an unknown manifest", {"digest": digest}
                    )
            elif not descriptor.get("urls") and not self._has_blob(repository, digest):
                raise RegistryError(
                    "MANIFEST_BLOB_UNKNOWN", "manifest references a manifest or blob unknown to registry", digest
                )
