"""Keys and tenants as ids that Firestore and Cosmos take, in the same order and with the same prefixes.

Both refuse some characters (`/`, `\\`, `?`, `#`), some names (`.`, `..`, `__x__`, nothing at all) and sort what is
beyond ASCII each in its own way. So every byte of the UTF-8 form that is not plain becomes a marker and two hex
digits. Each range of such bytes has a marker of its own out of that range, so an id sorts against the plain bytes as
the key does: ids are in the order of the keys' bytes, which is SQLite's order, and prefixes stay prefixes.
"""

from __future__ import annotations

import re

_START = ":"
"""Begins every id: an empty key, `..` and `__x__` are then ids like others."""
AFTER_ALL = "~~"
"""Sorts after whatever an id goes on with: the ids that start with `p` are those from `p` to before `p + AFTER_ALL`."""

_RANGES = ((0x00, 0x2F, "-"), (0x3B, 0x40, ";"), (0x5B, 0x5E, "["), (0x7E, 0xFF, "~"))
"""First and last byte of the bytes that are written out, and their marker; the rest stays as it is."""


def _table() -> list[str]:
    table = [chr(byte) for byte in range(256)]
    for first, last, marker in _RANGES:
        for byte in range(first, last + 1):
            table[byte] = f"{marker}{byte:02x}"
    return table


_ESCAPED = _table()
_PLAIN = re.compile(r"[0-9:A-Z_`a-z{|}]*")
_WRITTEN_OUT = re.compile(r"[-;\[~]([0-9a-f]{2})")


def escape(key: str) -> str:
    """The id for a key or a tenant: ASCII, never empty. Raises UnicodeEncodeError for lone surrogates."""
    if _PLAIN.fullmatch(key):
        return _START + key
    return _START + "".join([_ESCAPED[byte] for byte in key.encode()])


def unescape(identifier: str) -> str:
    """The key whose id this is."""
    text = identifier[len(_START) :]
    if _PLAIN.fullmatch(text):
        return text
    raw = _WRITTEN_OUT.sub(lambda found: chr(int(found[1], 16)), text)
    return raw.encode("latin-1").decode()
