"""`sockerless tenant`, `token` and `login`: the operator's list of who may come in, and the user's way in.

Tenants and tokens are written straight into the store: `SOCKERLESS_STORE`, or the state directory of an endpoint on
this machine. Whoever can write to the store is the operator.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

if TYPE_CHECKING:
    from control_plane.model import AccessToken, TenantPolicy
    from control_plane.services.tenants import Tenants
    from control_plane.services.tokens import Tokens

T = TypeVar("T")

_DURATION = re.compile(r"(\d{1,6})([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}

_OPTIONS: dict[str, Any] = {"add_completion": False, "no_args_is_help": True, "pretty_exceptions_enable": False}
_tenant = typer.Typer(help="Tenants: who has containers, images, volumes and networks of its own.", **_OPTIONS)
_token = typer.Typer(help="Bearer tokens of a tenant's people and machines.", **_OPTIONS)

Data = Annotated[
    Path | None, typer.Option("--data", help="State directory, where SOCKERLESS_STORE is not set.", show_default=False)
]
Images = Annotated[
    list[str] | None,
    typer.Option("--image", help="Repository that images may come from: ghcr.io/acme/*, with ** of any depth."),
]
Backends = Annotated[list[str] | None, typer.Option("--backend", help="Backend that may be used; may be repeated.")]
Cpus = Annotated[float, typer.Option("--max-cpus", min=0, help="Most --cpus of a container; 0: no bound.")]
Memory = Annotated[str, typer.Option("--max-memory", help="Most -m of a container, such as 4g; 0: no bound.")]
RunTime = Annotated[str, typer.Option("--max-time", help="Longest run, such as 2h; 0: the platform's bound.")]
Containers = Annotated[int, typer.Option("--max-containers", min=0, help="Containers at once; 0: no bound.")]


def tenant(args: Sequence[str]) -> int:
    """`sockerless tenant …`; the exit code."""
    return _run(_tenant, args, "sockerless tenant")


def token(args: Sequence[str]) -> int:
    """`sockerless token …`; the exit code."""
    return _run(_token, args, "sockerless token")


def login(args: Sequence[str]) -> int:
    """`sockerless login URL`; the exit code."""
    from control_plane.entrypoints import login_cli

    return _run(login_cli.app, args, "sockerless login")


@_tenant.command("create")
def create_tenant(
    name: str,
    image: Images = None,
    backend: Backends = None,
    max_cpus: Cpus = 0,
    max_memory: Memory = "0",
    max_time: RunTime = "0",
    max_containers: Containers = 0,
    data: Data = None,
) -> None:
    """Make a tenant, with what its containers may be."""
    policy = _policy(image, backend, max_cpus, max_memory, max_time, max_containers)

    async def create(tenants: Tenants, _: Tokens) -> None:
        await tenants.create(name, policy)

    _with_store(data, create)
    typer.echo(name)


@_tenant.command("limit")
def limit_tenant(
    name: str,
    image: Images = None,
    backend: Backends = None,
    max_cpus: Cpus = 0,
    max_memory: Memory = "0",
    max_time: RunTime = "0",
    max_containers: Containers = 0,
    data: Data = None,
) -> None:
    """Set anew what the tenant's containers may be: the whole policy, as `create` takes it. Those there are stay."""
    policy = _policy(image, backend, max_cpus, max_memory, max_time, max_containers)

    async def limit(tenants: Tenants, _: Tokens) -> None:
        await tenants.limit(name, policy)

    _with_store(data, limit)
    typer.echo(name)


@_tenant.command("list")
def list_tenants(data: Data = None) -> None:
    """List all tenants, revoked ones too."""

    async def read(tenants: Tenants, _: Tokens) -> None:
        rows = [
            (entry.name, entry.created_at[:19], entry.revoked_at[:19] or "active", _summary(entry.policy))
            for entry in await tenants.list()
        ]
        _table(("TENANT", "CREATED", "REVOKED", "POLICY"), rows)

    _with_store(data, read)


@_tenant.command("revoke")
def revoke_tenant(name: str, data: Data = None) -> None:
    """Shut a tenant out: all its tokens, and every rule that leads to it. Its containers go on."""

    async def revoke(tenants: Tenants, tokens: Tokens) -> int:
        await tenants.revoke(name)
        return await tokens.revoke_all(name)

    count = _with_store(data, revoke)
    typer.echo(f"{name}: revoked, and {count} tokens with it", err=True)


@_token.command("create")
def create_token(
    tenant: Annotated[str, typer.Argument(help="Whose token it is.")],
    scope: Annotated[
        str, typer.Option(help="full; run: make and use containers, pull images; read: look at everything.")
    ] = "full",
    expires: Annotated[str, typer.Option(help="Life: 12h, 90d; 0: for ever.")] = "90d",
    note: Annotated[str, typer.Option(help="Who or what it is for.")] = "",
    data: Data = None,
) -> None:
    """Make a token. It is printed once, alone on the standard output, and kept nowhere."""
    seconds = _duration(expires, "--expires")

    async def create(_: Tenants, tokens: Tokens) -> None:
        made = await tokens.create(tenant, scope, seconds, note)  # type: ignore[arg-type]  # checked there
        end = f"expires {_moment(made.token.expires_at)}" if made.token.expires_at else "does not expire"
        typer.echo(f"token {made.token.id} of tenant {tenant}: scope {scope}, {end}", err=True)
        typer.echo(made.text)

    _with_store(data, create)


@_token.command("list")
def list_tokens(
    tenant: Annotated[str | None, typer.Argument(help="Of this tenant only.", show_default=False)] = None,
    data: Data = None,
) -> None:
    """List tokens, revoked and expired ones too. Their secrets are not known."""

    async def read(_: Tenants, tokens: Tokens) -> None:
        rows = [
            (entry.id, entry.tenant, entry.scope, entry.created_at[:19], _standing(entry), entry.note)
            for entry in await tokens.list(tenant)
        ]
        _table(("ID", "TENANT", "SCOPE", "CREATED", "STATUS", "NOTE"), rows)

    _with_store(data, read)


@_token.command("revoke")
def revoke_token(
    token_id: Annotated[str, typer.Argument(help="Its id, or the token itself.", metavar="ID")], data: Data = None
) -> None:
    """Refuse a token from now on, in every instance."""
    parts = token_id.split("_", 2)
    wanted = parts[1] if len(parts) == 3 and parts[0] == "skls" else token_id

    async def revoke(_: Tenants, tokens: Tokens) -> None:
        await tokens.revoke(wanted)

    _with_store(data, revoke)
    typer.echo(wanted)


def _run(app: typer.Typer, args: Sequence[str], name: str) -> int:
    try:
        app(args=list(args), prog_name=name)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(bool(ended.code))
    return 0


def _with_store(data: Path | None, act: Callable[[Tenants, Tokens], Awaitable[T]]) -> T:
    from control_plane.backends.settings_error import SettingsError
    from control_plane.errors import DockerError

    async def run() -> T:
        from control_plane.services.tenants import Tenants
        from control_plane.services.tokens import Tokens

        store = _store(data)
        try:
            tenants = Tenants(store)
            return await act(tenants, Tokens(store, tenants))
        finally:
            await store.close()

    try:
        return asyncio.run(run())
    except DockerError as error:
        fail(error.message)
    except SettingsError as error:
        fail(str(error))


def _store(data: Path | None) -> Any:
    from pydantic import SecretStr

    from control_plane.backends.settings_error import SettingsError
    from control_plane.entrypoints.hosted_settings import HostedSettings
    from control_plane.entrypoints.stores import open_store
    from control_plane.settings import default_data_dir

    place = os.environ.get("SOCKERLESS_STORE", "")
    if place and data is not None:
        raise SettingsError("--data and SOCKERLESS_STORE: one of them is wanted")
    if not place:
        directory = (data or default_data_dir()).absolute()
        if not (directory / "state.sqlite").exists():
            raise SettingsError(f"no store: SOCKERLESS_STORE is not set, and there is no endpoint in {directory}")
        place = f"sqlite://{directory / 'state.sqlite'}"
    elif re.match(r"(firestore|cosmos|cosmos\+http)://[^/]|sqlite:///", place) is None:
        raise SettingsError("SOCKERLESS_STORE: firestore://, cosmos:// or sqlite:/// is wanted")
    key = SecretStr(os.environ.get("SOCKERLESS_COSMOS_KEY", ""))
    # What is sealed in the store is none of the operator's business here.
    return open_store(HostedSettings.model_construct(store=place, cosmos_key=key, sealing_key_file=""))


def _policy(
    images: list[str] | None,
    backends: list[str] | None,
    max_cpus: float,
    max_memory: str,
    max_time: str,
    max_containers: int,
) -> TenantPolicy:
    from control_plane.auth.policy import check_image_pattern
    from control_plane.backends.sizes import parse_size
    from control_plane.errors import InvalidParameter
    from control_plane.model import TenantPolicy

    try:
        return TenantPolicy(
            images=[check_image_pattern(pattern) for pattern in images or []],
            backends=backends or [],
            max_nano_cpus=round(max_cpus * 1e9),
            max_memory=parse_size(max_memory),
            max_run_seconds=int(_duration(max_time, "--max-time")),
            max_containers=max_containers,
        )
    except InvalidParameter as error:
        fail(error.message)
    except ValueError as error:
        fail(f"--max-memory: {error}")


def _duration(text: str, option: str) -> float:
    if text == "0":
        return 0
    found = _DURATION.fullmatch(text)
    if found is None or found[1] == "0":
        fail(f"{option} {text}: a duration such as 30m, 12h or 90d is wanted, or 0")
    return float(int(found[1]) * _SECONDS[found[2]])


def _summary(policy: TenantPolicy) -> str:
    parts = [f"image {pattern}" for pattern in policy.images] + [f"backend {name}" for name in policy.backends]
    if policy.max_nano_cpus:
        parts.append(f"{policy.max_nano_cpus / 1e9:g} cpus")
    if policy.max_memory:
        parts.append(f"{policy.max_memory // (1024 * 1024)}m")
    if policy.max_run_seconds:
        parts.append(f"{policy.max_run_seconds}s")
    if policy.max_containers:
        parts.append(f"{policy.max_containers} containers")
    return ", ".join(parts) or "no bounds"


def _standing(entry: AccessToken) -> str:
    if entry.revoked_at:
        return f"revoked {entry.revoked_at[:19]}"
    if not entry.expires_at:
        return "does not expire"
    return f"{'expired' if entry.expires_at <= time.time() else 'until'} {_moment(entry.expires_at)}"


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    for row in (head, *rows):
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def fail(reason: str) -> NoReturn:
    """One line for the user, and the end."""
    print(f"sockerless: {reason}", file=sys.stderr)
    raise typer.Exit(1)
