"""Key-encryption keys of the operator's: one a line, an id and 32 bytes in base64.

The first line is the key for what is sealed from now on; the others open what was sealed before. To rotate, put a new
line on top, restart, run `sockerless reseal`, and take the old line out.
"""

from __future__ import annotations

import base64
import secrets

from control_plane.store.key_wrapper import UnknownKey

_BYTES = 32


class KeyList:
    """`KeyWrapper` with keys out of a text. Raises ValueError, which says `where`, for one that is not as it should be.

    A key is never part of an error's text.
    """

    def __init__(self, text: str, where: str) -> None:
        self._keys: dict[str, bytes] = {}
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            self._add(line.split(), f"{where}, line {number}")
        if not self._keys:
            raise ValueError(f"{where} has no key")
        self._current = next(iter(self._keys))

    def _add(self, words: list[str], where: str) -> None:
        if len(words) != 2:
            raise ValueError(f"{where}: an id and a key are wanted")
        try:
            key = base64.b64decode(words[1], validate=True)
        except ValueError:
            raise ValueError(f"{where}: the key is not base64") from None
        if len(key) != _BYTES:
            raise ValueError(f"{where}: the key has {len(key)} bytes, {_BYTES} are wanted")
        if words[0] in self._keys:
            raise ValueError(f"{where}: the id {words[0]} is there twice")
        self._keys[words[0]] = key

    async def wrap(self, data_key: bytes) -> tuple[str, bytes]:
        """AES key wrap (RFC 3394) with the key of the first line."""
        from cryptography.hazmat.primitives.keywrap import aes_key_wrap

        return self._current, aes_key_wrap(self._keys[self._current], data_key)

    async def unwrap(self, key_id: str, wrapped: bytes) -> bytes:
        """The data key. Raises UnknownKey, ValueError."""
        from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap

        key = self._keys.get(key_id)
        if key is None:
            raise UnknownKey(key_id)
        try:
            return aes_key_unwrap(key, wrapped)
        except InvalidUnwrap:
            raise ValueError(f"the data key was not wrapped with the key {key_id} of the operator's") from None

    async def close(self) -> None:
        """Nothing is open."""


def new_key(key_id: str) -> str:
    """A line with a new key."""
    return f"{key_id} {base64.b64encode(secrets.token_bytes(_BYTES)).decode()}\n"
