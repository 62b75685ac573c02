"""Several sources of key-encryption keys: the first is for what is sealed from now on, all open what was sealed before.

So an endpoint moves from a key list to a key service, or from one service's key to another's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from control_plane.store.key_wrapper import KeyWrapper, UnknownKey

_SERVICE = re.compile(r"\s*(kms|vault):(\S+)\s*")


class KeyRing:
    """`KeyWrapper` of others."""

    def __init__(self, wrappers: Sequence[KeyWrapper]) -> None:
        self._wrappers = wrappers

    async def wrap(self, data_key: bytes) -> tuple[str, bytes]:
        """With the first one's key. Raises CloudError."""
        return await self._wrappers[0].wrap(data_key)

    async def unwrap(self, key_id: str, wrapped: bytes) -> bytes:
        """With whichever knows the key. Raises UnknownKey, ValueError, CloudError."""
        for wrapper in self._wrappers:
            try:
                return await wrapper.unwrap(key_id, wrapped)
            except UnknownKey:
                continue
        raise UnknownKey(key_id)

    async def close(self) -> None:
        """Closes all of them."""
        for wrapper in self._wrappers:
            await wrapper.close()


def read_keys(text: str, where: str) -> list[KeyWrapper]:
    """The sources that a text names, one a line: `kms:projects/…`, `vault:https://…/keys/NAME`, or `id base64`.

    Raises ValueError. No connection is made here.
    """
    found: list[KeyWrapper] = []
    listed: list[str] = []
    for line in text.splitlines():
        named = _SERVICE.fullmatch(line)
        if named is None:
            listed.append(line)
            continue
        _take_list(found, listed, where)
        found.append(_service(named[1], named[2]))
    _take_list(found, listed, where)
    if not found:
        raise ValueError(f"{where} has no key")
    return found


def _take_list(found: list[KeyWrapper], listed: list[str], where: str) -> None:
    from control_plane.store.key_list import KeyList

    if any(line.strip() and not line.startswith("#") for line in listed):
        found.append(KeyList("\n".join(listed), where))
    listed.clear()


def _service(kind: str, name: str) -> KeyWrapper:
    if kind == "kms":
        from control_plane.store.kms import KmsKey

        return KmsKey(name)
    from control_plane.store.key_vault import VaultKey

    return VaultKey(name)
