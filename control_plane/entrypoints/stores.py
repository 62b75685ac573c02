"""`SOCKERLESS_STORE` → the store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from control_plane.backends.settings_error import SettingsError

if TYPE_CHECKING:
    from control_plane.entrypoints.hosted_settings import HostedSettings
    from control_plane.store.base import Store


def open_store(settings: HostedSettings) -> Store:
    """The store the settings name, sealed where they name keys. To be called in the running loop.

    Raises SettingsError. No connection is made here.
    """
    store = _plain(settings)
    if not settings.sealing_key_file:
        return store
    from control_plane.store.key_file import KeyFile
    from control_plane.store.sealed import SealedStore

    try:
        return SealedStore(store, KeyFile(Path(settings.sealing_key_file)))
    except (OSError, ValueError) as error:
        raise SettingsError(f"SOCKERLESS_SEALING_KEY_FILE: {error}") from None


def _plain(settings: HostedSettings) -> Store:
    parts = urlsplit(settings.store)
    name = parts.path.strip("/")
    if parts.scheme == "sqlite":
        from control_plane.store.sqlite import SqliteStore

        try:
            return SqliteStore(Path(parts.path))
        except OSError as error:
            raise SettingsError(f"SOCKERLESS_STORE: {parts.path} cannot be used: {error.strerror}") from None
    if parts.scheme == "firestore":
        from control_plane.store.firestore.store import FirestoreStore

        return FirestoreStore(parts.netloc, name or "(default)")
    from control_plane.store.cosmos.store import CosmosStore

    key = settings.cosmos_key.get_secret_value() or None
    database = name or "sockerless"
    if parts.scheme == "cosmos+http":  # an emulator
        return CosmosStore(f"http://{parts.netloc}", key, database, endpoint_discovery=False)
    return CosmosStore(f"https://{parts.netloc}", key, database)
