"""Keys as ids, bodies as bytes, revisions, and that no SDK is loaded before it is needed."""

from __future__ import annotations

import secrets
import subprocess
import sys

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from control_plane.store import bodies
from control_plane.store.base import Document, StoreFull
from control_plane.store.keys import AFTER_ALL, escape, unescape
from control_plane.store.revisions import Revision, new_token, revision_of

KEYS = st.text(st.characters(codec="utf-8"), max_size=12) | st.text("a_-.~/;[:%é\U00010000", max_size=4)


@given(KEYS)
def test_an_id_stands_for_one_key(key: str) -> None:
    assert unescape(escape(key)) == key


@given(KEYS)
def test_an_id_has_nothing_that_a_cloud_refuses(key: str) -> None:
    identifier = escape(key)
    assert identifier.isascii()
    assert identifier.isprintable()
    assert not set(identifier) & set("/\\?# ")
    assert identifier not in (".", "..")
    assert not identifier.startswith("__")


@given(KEYS, KEYS)
def test_ids_are_in_the_order_of_the_keys(one: str, other: str) -> None:
    assert (escape(one) < escape(other)) == (one.encode() < other.encode())


@given(KEYS, KEYS)
def test_a_prefix_is_a_range_of_ids(key: str, prefix: str) -> None:
    first = escape(prefix)
    assert (first <= escape(key) < first + AFTER_ALL) == key.startswith(prefix)


@given(st.text(st.characters(codec="utf-8"), max_size=3), st.text(st.characters(codec="utf-8"), max_size=6))
def test_a_key_is_in_the_range_of_its_beginning(prefix: str, rest: str) -> None:
    first = escape(prefix)
    assert first <= escape(prefix + rest) < first + AFTER_ALL


def test_a_large_body_is_compressed() -> None:
    body = {"text": "abc" * 100_000}
    written = bodies.encode(body, 1000)
    assert len(written) < 1000
    assert bodies.decode(written) == body


def test_a_body_that_stays_too_large_is_refused_with_its_sizes() -> None:
    with pytest.raises(StoreFull, match=r"20\d\d\d bytes long.* 1000 at most"):
        bodies.encode({"text": secrets.token_hex(10_000)}, 1000)


def test_a_body_that_would_unfold_without_end_is_refused() -> None:
    parts = zstandard.ZstdCompressor(level=1).compressobj(size=1 << 30)
    bomb = b"".join(parts.compress(bytes(1 << 20)) for _ in range(1 << 10)) + parts.flush()
    with pytest.raises(ValueError, match="longer than any"):
        bodies.decode(bomb)


def test_a_revision_keeps_the_last_writes() -> None:
    tokens = [new_token() for _ in range(12)]
    revision = Revision(0, "", "")
    for number, token in enumerate(tokens):
        revision = Revision(number, '"etag-1"', revision.tokens_after(token))
    read = revision_of(Document("names", "t", "k", str(revision), {}))
    assert read == revision
    assert [read.written_by(token) for token in tokens] == [False] * 4 + [True] * 8


def test_no_cloud_sdk_is_loaded_with_the_stores() -> None:
    script = """
import sys, control_plane.store.firestore.store, control_plane.store.cosmos.store, control_plane.store.sealed
print([name for name in sys.modules if name.startswith(("google.api", "google.cloud.", "grpc", "azure", "aiohttp"))])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
