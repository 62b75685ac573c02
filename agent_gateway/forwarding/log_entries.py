"""Container output with timestamps, as it comes over the wire, taken apart into entries.

An entry is a line with its newline, a part of a line that is longer than 16 KiB, or the unfinished last line of a run:
`2006-01-02T15:04:05.000000000Z ` and the text. Without a TTY each entry has a stdcopy frame of its own, or several when
the sender's buffer was full in its middle; with a TTY there is nothing but the text.
"""

from __future__ import annotations

import calendar
import re
import time
from collections.abc import Iterator
from typing import NamedTuple

STAMP = 31
"""Bytes of a timestamp and the blank behind it."""
_STAMP = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z ")
_SHAPE = b"0000-00-00T00:00:00.000000000Z "
_DIGITS = bytes.maketrans(b"123456789", b"000000000")
_HEADER = 8
_LONGEST_PART = 16 * 1024
_LONGEST_FRAME = 4 * 1024 * 1024


class Piece(NamedTuple):
    """An entry, or the continuation of one."""

    kind: int
    """1 stdout, 2 stderr, 0 with a TTY."""
    stamp: bytes
    """With its blank; empty for a continuation."""
    text: bytes


class MalformedOutput(Exception):
    """What came is no container output."""


class Entries:
    """The parser of one connection's output."""

    def __init__(self, *, tty: bool) -> None:
        self._tty = tty
        self._pending = b""
        self._held: dict[int, bytes] = {}
        """Bytes that may be the begin of a timestamp."""
        self._open: dict[int, int] = {}
        """Kind → length of its entry that has no newline so far; absent when the next bytes begin an entry."""
        self._latest = b""

    def feed(self, data: bytes) -> Iterator[Piece]:
        """What is complete enough to be told. Raises MalformedOutput."""
        if self._tty:
            yield from self._payload(0, data)
            return
        data = self._pending + data if self._pending else data
        at, end = 0, len(data)
        while end - at >= _HEADER:
            size = int.from_bytes(data[at + 4 : at + 8], "big")
            if size > _LONGEST_FRAME or data[at] > 3:
                raise MalformedOutput("a frame's header makes no sense")
            if end - at - _HEADER < size:
                break
            yield from self._payload(data[at], data[at + _HEADER : at + _HEADER + size])
            at += _HEADER + size
        self._pending = data[at:]

    def rest(self) -> Iterator[Piece]:
        """At the output's end: what was held back, because it might have been a timestamp."""
        for kind, held in self._held.items():
            if held:
                yield Piece(kind, b"", held)
        self._held.clear()

    def _payload(self, kind: int, data: bytes) -> Iterator[Piece]:
        data = self._held.pop(kind, b"") + data
        while data:
            size = self._open.get(kind)
            if size is None or self._may_begin(size, data):
                if len(data) <= STAMP and _shaped(data):
                    self._held[kind] = data
                    return
                if self._begins(data):
                    stamp, data = data[:STAMP], data[STAMP:]
                    self._latest = stamp
                    text, data = self._line(kind, 0, data)
                    yield Piece(kind, stamp, text)
                    continue
            text, data = self._line(kind, size or 0, data)
            yield Piece(kind, b"", text)

    def _may_begin(self, size: int, data: bytes) -> bool:
        """Whether an entry may begin behind one without newline: frame for frame, or where long lines are parted."""
        return not self._tty or size == _LONGEST_PART

    def _begins(self, data: bytes) -> bool:
        # A program's own timestamp is older than the one its output got.
        return _STAMP.match(data) is not None and data[:STAMP] >= self._latest

    def _line(self, kind: int, size: int, data: bytes) -> tuple[bytes, bytes]:
        """The text up to where the entry may end, and what is behind."""
        # With a TTY nothing but its length tells where a long line is parted.
        room = _LONGEST_PART - size if self._tty and size < _LONGEST_PART else len(data)
        end = data.find(b"\n", 0, room + 1) + 1
        if end:
            self._open.pop(kind, None)
            return data[:end], data[end:]
        end = min(room, len(data))
        self._open[kind] = size + end
        return data[:end], data[end:]


def _shaped(data: bytes) -> bool:
    """Whether data may be the begin of a timestamp."""
    return data.translate(_DIGITS) == _SHAPE[: len(data)]


def nanoseconds(text: str) -> int:
    """Unix nanoseconds of an RFC 3339 time in UTC. Raises ValueError."""
    whole, _, fraction = text.strip().removesuffix("Z").partition(".")
    seconds = calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S"))
    return seconds * 1_000_000_000 + int((fraction + "000000000")[:9])
