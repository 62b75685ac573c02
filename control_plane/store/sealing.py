"""Sealing of single values: AES-256-GCM with a data key, the data key wrapped by a key-encryption key.

A sealed value is bound to its place: moved to another document, tenant or field it does not open.
"""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from control_plane.errors import ServerError
from control_plane.store.key_wrapper import KeyWrapper, UnknownKey

MARK = "$sealed"
_VERSION = 1
_NONCE = 12
_MOST_USES = 1 << 24
"""Values per data key: far below where random nonces of 96 bits may meet (2^32)."""
_LONGEST_USE = 24 * 3600.0
_OPENED_KEYS = 4096


@dataclass(slots=True)
class _DataKey:
    key_id: str
    wrapped: str
    cipher: Any
    made_at: float
    uses: int = 0


class Sealer:
    """Seals with a data key of this process's own, opens with whatever key a value names."""

    def __init__(self, wrapper: KeyWrapper) -> None:
        self._wrapper = wrapper
        self._own: _DataKey | None = None
        self._ciphers: dict[tuple[str, str], Any] = {}

    @property
    def key_id(self) -> str:
        """The key-encryption key in use."""
        return self._wrapper.key_id

    async def seal(self, value: Any, place: str) -> dict[str, Any]:
        """The value, fit for JSON and unreadable without the key. `place` is what it is bound to."""
        key = await self._data_key()
        key.uses += 1
        nonce = secrets.token_bytes(_NONCE)
        sealed = key.cipher.encrypt(nonce, orjson.dumps(value), _bound(place))
        data = base64.b64encode(nonce + sealed).decode()
        return {MARK: _VERSION, "kek": key.key_id, "key": key.wrapped, "data": data}

    async def open(self, sealed: Mapping[str, Any], place: str) -> Any:
        """The value. Raises ServerError when the key is missing or the value is not what was sealed there."""
        from cryptography.exceptions import InvalidTag

        try:
            if sealed[MARK] != _VERSION:
                raise ValueError(f"version {sealed[MARK]}")
            cipher = await self._cipher(str(sealed["kek"]), str(sealed["key"]))
            data = base64.b64decode(sealed["data"], validate=True)
            return orjson.loads(cipher.decrypt(data[:_NONCE], data[_NONCE:], _bound(place)))
        except UnknownKey as error:
            raise ServerError(
                "a part of this object is encrypted with a key that this endpoint does not have; "
                "tell the operator of this endpoint",
                internal=f"{place}: no key {error}",
            ) from error
        except (InvalidTag, ValueError, KeyError, TypeError) as error:
            raise ServerError(
                "a part of this object cannot be decrypted; tell the operator of this endpoint",
                internal=f"{place}: {error!r}",
            ) from error

    async def _data_key(self) -> _DataKey:
        own, now = self._own, time.monotonic()
        stale = own is None or own.uses >= _MOST_USES or now - own.made_at > _LONGEST_USE
        if own is None or stale or own.key_id != self._wrapper.key_id:
            raw, key_id = secrets.token_bytes(32), self._wrapper.key_id
            wrapped = base64.b64encode(await self._wrapper.wrap(raw)).decode()
            own = self._own = _DataKey(key_id, wrapped, _aes(raw), now)
            self._keep(key_id, wrapped, own.cipher)
        return own

    async def _cipher(self, key_id: str, wrapped: str) -> Any:
        known = self._ciphers.get((key_id, wrapped))
        if known is None:
            known = _aes(await self._wrapper.unwrap(key_id, base64.b64decode(wrapped, validate=True)))
            self._keep(key_id, wrapped, known)
        return known

    def _keep(self, key_id: str, wrapped: str, cipher: Any) -> None:
        if len(self._ciphers) >= _OPENED_KEYS:
            self._ciphers.clear()
        self._ciphers[(key_id, wrapped)] = cipher


def _aes(key: bytes) -> Any:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)


def _bound(place: str) -> bytes:
    return f"sockerless/{_VERSION}\0{place}".encode()
