"""Sealing of single values: AES-256-GCM with a data key, the data key wrapped by a key-encryption key.

A sealed value is bound to its place: moved to another document, tenant or field it does not open.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from control_plane.backends.calls import docker_errors
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
        self._making = asyncio.Lock()
        self._ciphers: dict[tuple[str, str], Any] = {}
        self._opening: dict[tuple[str, str], asyncio.Task[Any]] = {}

    async def key_id(self) -> str:
        """The key-encryption key that values are sealed with now. Raises DockerError."""
        return (await self._data_key()).key_id

    async def seal(self, value: Any, place: str) -> dict[str, Any]:
        """The value, fit for JSON and unreadable without the key. `place` is what it is bound to.

        Raises DockerError when the key service does not wrap a data key; one lasts a day.
        """
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

    async def close(self) -> None:
        """Closes what the keys are had by."""
        await self._wrapper.close()

    async def _data_key(self) -> _DataKey:
        async with self._making:
            own, now = self._own, time.monotonic()
            if own is None or own.uses >= _MOST_USES or now - own.made_at > _LONGEST_USE:
                own = self._own = await self._new_data_key(now)
        return own

    async def _new_data_key(self, now: float) -> _DataKey:
        raw = secrets.token_bytes(32)
        with docker_errors():
            key_id, wrapped = await self._wrapper.wrap(raw)
            # Nothing is sealed with what cannot be opened again: a right that is missing, an answer that was damaged.
            if await self._wrapper.unwrap(key_id, wrapped) != raw:
                raise ServerError("the key service does not give back what it was given")
        text = base64.b64encode(wrapped).decode()
        made = _DataKey(key_id, text, _aes(raw), now)
        self._keep(key_id, text, made.cipher)
        return made

    async def _cipher(self, key_id: str, wrapped: str) -> Any:
        """Opened once, however many ask at the same time."""
        place = (key_id, wrapped)
        known = self._ciphers.get(place)
        if known is not None:
            return known
        if place not in self._opening:
            self._opening[place] = task = asyncio.create_task(self._open_key(key_id, wrapped))
            task.add_done_callback(lambda done: self._opened(place, done))
        return await asyncio.shield(self._opening[place])

    async def _open_key(self, key_id: str, wrapped: str) -> Any:
        data = base64.b64decode(wrapped, validate=True)
        with docker_errors():
            cipher = _aes(await self._wrapper.unwrap(key_id, data))
        self._keep(key_id, wrapped, cipher)
        return cipher

    def _opened(self, place: tuple[str, str], done: asyncio.Task[Any]) -> None:
        self._opening.pop(place, None)
        if not done.cancelled():
            done.exception()  # seen, also when whoever asked has gone

    def _keep(self, key_id: str, wrapped: str, cipher: Any) -> None:
        if len(self._ciphers) >= _OPENED_KEYS:
            self._ciphers.clear()
        self._ciphers[(key_id, wrapped)] = cipher


def _aes(key: bytes) -> Any:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)


def _bound(place: str) -> bytes:
    return f"sockerless/{_VERSION}\0{place}".encode()
