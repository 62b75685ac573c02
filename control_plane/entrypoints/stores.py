"""`SOCKERLESS_STORE` → the store."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from control_plane.backends.settings_error import SettingsError

if TYPE_CHECKING:
    from control_plane.entrypoints.hosted_settings import HostedSettings
    from control_plane.store.base import Store
    from control_plane.store.key_wrapper import KeyWrapper


def open_store(settings: HostedSettings) -> Store:
    """The store the settings name, sealed where they name keys. To be called in the running loop.

    Raises SettingsError. No connection is made here.
    """
    try:
        keys = _sealing_keys(settings)
    except (OSError, ValueError) as error:
        raise SettingsError(str(error)) from None
    store = _plain(settings)
    if not keys:
        return store
    from control_plane.store.key_ring import KeyRing
    from control_plane.store.sealed import SealedStore

    return SealedStore(store, KeyRing(keys))


def open_named(place: str) -> Store:
    """The store with that name, without an endpoint around it, sealed as the environment says. Raises SettingsError."""
    from pydantic import SecretStr

    from control_plane.entrypoints.hosted_settings import STORE, HostedSettings

    if not STORE.fullmatch(place):
        raise SettingsError("SOCKERLESS_STORE: firestore://, cosmos:// or sqlite:/// is wanted")
    settings = HostedSettings.model_construct(
        store=place,
        cosmos_key=SecretStr(os.environ.get("SOCKERLESS_COSMOS_KEY", "")),
        sealing_key=SecretStr(os.environ.get("SOCKERLESS_SEALING_KEY", "")),
        sealing_key_file=os.environ.get("SOCKERLESS_SEALING_KEY_FILE", ""),
    )
    return open_store(settings)


def _sealing_keys(settings: HostedSettings) -> list[KeyWrapper]:
    """Those in the environment, then the file's: the first of all is for what is sealed from now on."""
    keys: list[KeyWrapper] = []
    text = settings.sealing_key.get_secret_value()
    if text.strip():
        from control_plane.store.key_ring import read_keys

        keys += read_keys(text, "SOCKERLESS_SEALING_KEY")
    if settings.sealing_key_file:
        from control_plane.store.key_file import KeyFile

        try:
            keys.append(KeyFile(Path(settings.sealing_key_file)))
        except (OSError, ValueError) as error:
            raise ValueError(f"SOCKERLESS_SEALING_KEY_FILE: {error}") from None
    return keys


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
