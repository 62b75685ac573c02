"""Wire types of image requests."""

from __future__ import annotations

from control_plane.api.schemas.wire import WireType


class AuthConfig(WireType):
    """Body of `POST /auth`. Read once, passed on, not kept."""

    username: str = ""
    password: str = ""
    auth: str = ""
    email: str = ""
    serveraddress: str = ""
    identitytoken: str = ""
    registrytoken: str = ""


class PlatformSpec(WireType):
    """A platform as JSON (`platform` of API 1.48 and later)."""

    os: str = ""
    architecture: str = ""
    variant: str = ""
