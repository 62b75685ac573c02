"""Output with timestamps is taken apart into entries, however it is cut; what was told is not told again."""

from __future__ import annotations

import itertools
import random

import pytest

from agent_gateway.forwarding.log_entries import Entries, MalformedOutput, Piece, nanoseconds
from agent_gateway.forwarding.logs import Position

Entry = tuple[int, bytes, bytes]


def stamp(number: int) -> bytes:
    return b"2026-11-23T06:35:%02d.%09dZ " % (number // 100 % 60, number)


def frames(entries: list[Entry], dice: random.Random, *, split: bool) -> bytes:
    """Entries on the wire: a frame each, or two where the sender's buffer was full."""
    out = b""
    for kind, at, text in entries:
        whole = at + text
        places = [0, dice.randrange(len(whole)), len(whole)] if split and dice.random() < 0.3 else [0, len(whole)]
        for begin, end in itertools.pairwise(places):
            out += bytes((kind, 0, 0, 0)) + (end - begin).to_bytes(4, "big") + whole[begin:end]
    return out


def sample(dice: random.Random, kinds: tuple[int, ...]) -> list[Entry]:
    texts = [
        b"\n",
        b"a line\n",
        b"2026 is a year\n",
        b"x" * 16384,
        b"2026-01-01T00:00:00.000000000Z old\n",
        b"y" * 500 + b"\n",
    ]
    entries = []
    at = 0
    for _ in range(60):
        at += dice.choice([0, 0, 1, 7, 120])
        entries.append((dice.choice(kinds), stamp(at), dice.choice(texts)))
    return entries


def parsed(parser: Entries, data: bytes, dice: random.Random) -> list[Piece]:
    pieces: list[Piece] = []
    while data:
        size = dice.randrange(1, 3000)
        pieces += parser.feed(data[:size])
        data = data[size:]
    return pieces + list(parser.rest())


def joined(pieces: list[Piece]) -> list[Entry]:
    entries: list[Entry] = []
    latest: dict[int, int] = {}
    for piece in pieces:
        if piece.stamp:
            latest[piece.kind] = len(entries)
            entries.append((piece.kind, piece.stamp, piece.text))
        else:
            kind, at, text = entries[latest[piece.kind]]
            entries[latest[piece.kind]] = (kind, at, text + piece.text)
    return entries


@pytest.mark.parametrize("seed", range(20))
def test_frames_are_taken_apart(seed: int) -> None:
    dice = random.Random(seed)
    entries = sample(dice, (1, 2))
    assert joined(parsed(Entries(tty=False), frames(entries, dice, split=True), dice)) == entries


@pytest.mark.parametrize("seed", range(20))
def test_terminal_output_is_taken_apart(seed: int) -> None:
    dice = random.Random(seed)
    entries = sample(dice, (0,))
    assert joined(parsed(Entries(tty=True), b"".join(at + text for _, at, text in entries), dice)) == entries


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("tty", [False, True])
def test_nothing_is_lost_or_told_twice_over_cuts(seed: int, tty: bool) -> None:
    dice = random.Random(seed)
    entries = sample(dice, (0,) if tty else (1, 2))
    position, told = Position(), b""
    last = b""
    for attempt in range(8):
        rest = [entry for entry in entries if entry[1] >= last]
        wire = b"".join(at + text for _, at, text in rest) if tty else frames(rest, dice, split=True)
        cut = len(wire) if attempt == 7 else dice.randrange(len(wire) + 1)
        for piece in Entries(tty=tty).feed(wire[:cut]):
            if (news := position.passed(piece)) is not None:
                told += news.text
        last = position.stamp
        position.again()
    assert told == b"".join(text for _, _, text in entries)


def test_what_is_no_output_is_refused() -> None:
    with pytest.raises(MalformedOutput):
        list(Entries(tty=False).feed(b"HTTP/1.1 500 "))


def test_times() -> None:
    assert nanoseconds("1970-01-01T00:00:01.5Z") == 1_500_000_000
    assert nanoseconds("2026-11-23T06:35:56.123456789Z ") % 1_000_000_000 == 123456789
