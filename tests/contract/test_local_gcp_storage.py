"""The object storage stand-in, driven by google-cloud-storage."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from local_cloud.server import LocalCloud
from tests.contract.local_gcp_fixtures import local_cloud

T = TypeVar("T")


def client(cloud: LocalCloud) -> Any:
    credentials: Any = AnonymousCredentials()
    return storage.Client(project="local", credentials=credentials, client_options={"api_endpoint": cloud.http_url})


async def call(work: Callable[[], T]) -> T:
    """The storage client is synchronous: it works beside the loop that serves it."""
    return await asyncio.to_thread(work)


async def test_objects_are_files_of_the_bucket(tmp_path: Path) -> None:
    async with local_cloud(tmp_path) as (cloud, _):

        def work() -> None:
            bucket = client(cloud).create_bucket("data")
            blob = bucket.blob("dir/file.txt")
            blob.metadata = {"k": "v"}
            blob.upload_from_string("hello", content_type="text/plain")
            assert (tmp_path / "storage/data/dir/file.txt").read_text() == "hello"
            again = bucket.get_blob("dir/file.txt")
            assert (again.size, again.content_type, again.metadata) == (5, "text/plain", {"k": "v"})
            assert again.md5_hash
            assert again.download_as_bytes() == b"hello"
            assert again.download_as_bytes(start=1, end=3) == b"ell"
            again.delete()
            assert not (tmp_path / "storage/data/dir").exists()
            assert bucket.get_blob("dir/file.txt") is None

        await call(work)


async def test_large_uploads_are_resumable(tmp_path: Path) -> None:
    content = os.urandom(1 << 20) * 3 + b"tail"
    async with local_cloud(tmp_path) as (cloud, _):

        def work() -> None:
            bucket = client(cloud).create_bucket("data")
            blob = bucket.blob("big", chunk_size=1 << 20)
            blob.upload_from_file(io.BytesIO(content))
            assert bucket.blob("big").download_as_bytes() == content
            unknown_size = bucket.blob("stream", chunk_size=1 << 18)
            with unknown_size.open("wb") as file:
                for start in range(0, len(content), 100_000):
                    file.write(content[start : start + 100_000])
            assert bucket.blob("stream").download_as_bytes() == content

        await call(work)
        assert cloud.calls.counts()["Storage.ResumeUpload"] >= 4
        assert not list((tmp_path / "storage-uploads").iterdir())


async def test_generations_guard_writes(tmp_path: Path) -> None:
    async with local_cloud(tmp_path) as (cloud, _):

        def work() -> None:
            bucket = client(cloud).create_bucket("data")
            blob = bucket.blob("x")
            blob.upload_from_string("1", if_generation_match=0)
            with pytest.raises(exceptions.PreconditionFailed):
                bucket.blob("x").upload_from_string("2", if_generation_match=0)
            bucket.blob("x").upload_from_string("3", if_generation_match=blob.generation)
            with pytest.raises(exceptions.PreconditionFailed):
                bucket.blob("x").delete(if_generation_match=blob.generation)
            assert bucket.blob("x").download_as_text() == "3"

        await call(work)


async def test_lists_have_prefixes_and_pages(tmp_path: Path) -> None:
    async with local_cloud(tmp_path) as (cloud, _):

        def work() -> None:
            service = client(cloud)
            bucket = service.create_bucket("data")
            for name in ("a/1", "a/2", "b/c/3", "b/c/4", "top"):
                bucket.blob(name).upload_from_string(name)
            assert [blob.name for blob in service.list_blobs("data", page_size=2)] == [
                "a/1",
                "a/2",
                "b/c/3",
                "b/c/4",
                "top",
            ]
            assert [blob.name for blob in service.list_blobs("data", prefix="b/")] == ["b/c/3", "b/c/4"]
            listing = service.list_blobs("data", delimiter="/", page_size=1)
            assert [blob.name for blob in listing] == ["top"]
            assert listing.prefixes == {"a/", "b/"}
            with pytest.raises(exceptions.Conflict):
                bucket.delete()
            bucket.delete_blobs(list(bucket.list_blobs()))
            bucket.delete()
            with pytest.raises(exceptions.NotFound):
                service.get_bucket("data")

        await call(work)


async def test_files_that_containers_write_are_objects(tmp_path: Path) -> None:
    async with local_cloud(tmp_path) as (cloud, _):

        def work() -> None:
            bucket = client(cloud).create_bucket("data")
            (tmp_path / "storage/data/made").write_text("by a container")
            first = bucket.get_blob("made")
            assert first.download_as_text() == "by a container"
            (tmp_path / "storage/data/made").write_text("changed by it")
            assert bucket.get_blob("made").generation != first.generation

        await call(work)


async def test_names_stay_inside_the_bucket(tmp_path: Path) -> None:
    async with local_cloud(tmp_path) as (cloud, _):

        def work() -> None:
            service = client(cloud)
            bucket = service.create_bucket("data")
            (tmp_path / "storage/data/link").symlink_to("/etc")
            for name in ("../x", "a/../../x", "/etc/x", "a//b", "link/hosts", "x" * 2000):
                with pytest.raises(exceptions.BadRequest):
                    bucket.blob(name).upload_from_string("no")
            with pytest.raises(exceptions.BadRequest):
                bucket.blob("link/hosts").download_as_bytes()
            for name in ("..", "A", "a", "a/b", "x..y"):
                with pytest.raises((exceptions.BadRequest, ValueError)):
                    service.create_bucket(name)
            with pytest.raises(exceptions.Conflict):
                service.create_bucket("data")

        await call(work)


async def test_a_name_cannot_be_object_and_directory(tmp_path: Path) -> None:
    async with local_cloud(tmp_path) as (cloud, _):

        def work() -> None:
            bucket = client(cloud).create_bucket("data")
            bucket.blob("a").upload_from_string("file")
            with pytest.raises(exceptions.Conflict, match="cannot be an object and a directory"):
                bucket.blob("a/b").upload_from_string("below")
            bucket.blob("d/e").upload_from_string("below")
            with pytest.raises(exceptions.Conflict, match="cannot be an object and a directory"):
                bucket.blob("d").upload_from_string("file")

        await call(work)


async def test_objects_survive_a_restart(tmp_path: Path) -> None:
    async with local_cloud(tmp_path) as (cloud, _):
        made = await call(lambda: client(cloud).create_bucket("data").blob("x"))
        await call(lambda: made.upload_from_string("kept"))
    async with local_cloud(tmp_path) as (cloud, _):
        found = await call(lambda: client(cloud).bucket("data").get_blob("x"))
        assert found.generation == made.generation
