"""What one deployment is made of: the difference between the embedded endpoint and a hosted one, as values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from control_plane.auth.caller import Authenticate, single_tenant
from control_plane.auth.tokens import LASTING

if TYPE_CHECKING:
    from control_plane.backends.azure_functions.settings import AzureFunctionsSettings
    from control_plane.backends.cloud_functions.settings import CloudFunctionsSettings
    from control_plane.backends.cloud_run.settings import CloudRunSettings
    from control_plane.registry.push import RegistrySettings
    from control_plane.services.admission import Admission
    from control_plane.services.audit import Audit
    from control_plane.services.run_settings import RunSettings


@dataclass(frozen=True, slots=True)
class Deployment:
    """One control plane of one endpoint."""

    cloud_run: CloudRunSettings | None
    """None: the endpoint has no backend `cloudrun`; so for the others. One at least is there."""
    cloud_functions: CloudFunctionsSettings | None
    azure_functions: AzureFunctionsSettings | None
    registry: RegistrySettings
    run: RunSettings
    key: bytes
    """Signs tokens and tickets; the gateways have the same."""
    gateway_url: str
    """Of the one gateway, which does not register; empty: new containers get the least busy of those that have."""
    server_id: str
    temporary: Path
    """For archives on their way through."""
    backend: str = "cloudrun"
    """Of containers that name none."""
    azure_identity: tuple[str, str] = ("", "")
    """`IDENTITY_ENDPOINT` and `IDENTITY_HEADER` of a local cloud; empty: the platform's own."""
    registry_mirrors: tuple[str, ...] = ()
    insecure_registries: tuple[str, ...] = ()
    insecure_loopback: bool = True
    """Registries on loopback addresses are spoken to without TLS; never where tenants do not own the machine."""
    root: str = ""
    """Where the state is kept, as `docker info` shows it."""
    authenticate: Authenticate = single_tenant
    admission: Admission | None = None
    """Bounds of tenants; None: there are none."""
    audit: Audit | None = None
    agent_token_seconds: float = LASTING
    """Life of an agent's token; shorter than the default, it is renewed over the link."""
