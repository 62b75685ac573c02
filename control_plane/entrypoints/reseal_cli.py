"""`sockerless reseal`: everything that is sealed in the store, sealed with the current key."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable

_PASSES = 5
"""Others write meanwhile; those with the old key have to be restarted first."""
_LINES = 20


def run() -> int:
    """Reads SOCKERLESS_STORE, SOCKERLESS_SEALING_KEY and its file from the environment; the exit code."""
    from control_plane.backends.settings_error import SettingsError
    from control_plane.errors import DockerError

    try:
        return asyncio.run(_reseal())
    except SettingsError as error:
        print(f"sockerless: {error}", file=sys.stderr)
    except DockerError as error:
        detail = f" ({error.internal})" if error.internal else ""  # the operator is the one who sees this
        print(f"sockerless: {error.message}{detail}", file=sys.stderr)
    return 1


async def _reseal() -> int:
    from control_plane.backends.settings_error import SettingsError
    from control_plane.entrypoints.stores import open_named
    from control_plane.store.sealed import SECRET_FIELDS, SealedStore

    if not os.environ.get("SOCKERLESS_STORE"):
        raise SettingsError("SOCKERLESS_STORE is not set")
    store = open_named(os.environ["SOCKERLESS_STORE"])
    try:
        if not isinstance(store, SealedStore):
            raise SettingsError("SOCKERLESS_SEALING_KEY or SOCKERLESS_SEALING_KEY_FILE is wanted: nothing is sealed")
        left = 0
        for collection in SECRET_FIELDS:
            written = 0
            for _ in range(_PASSES):
                stale = await store.reseal(collection, _progress(collection))
                written += stale
                if not stale:
                    break
            else:
                left += 1
                print(f"{collection}: still written with another key: restart every control plane, and repeat")
                continue
            print(f"{collection}: {written} sealed anew; all are sealed with the current key")
        return 1 if left else 0
    finally:
        await store.close()


def _progress(collection: str) -> Callable[[int, int], None]:
    def told(done: int, total: int) -> None:
        if done == total or done % max(1, total // _LINES) == 0:
            print(f"{collection}: {done} of {total}", file=sys.stderr, flush=True)

    return told
