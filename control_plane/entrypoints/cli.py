"""The `sockerless` command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from control_plane.version import VERSION

app = typer.Typer(
    name="sockerless",
    help="A DOCKER_HOST with no Docker daemon behind it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Data = Annotated[Path | None, typer.Option("--data", help="State directory.", show_default=False)]


@app.command()
def up(
    listen: Annotated[
        list[str] | None,
        typer.Option("--listen", help="unix://PATH or tcp://127.0.0.1:PORT; may be repeated.", show_default=False),
    ] = None,
    data: Data = None,
    backend: Annotated[str | None, typer.Option("--backend", help="Backend of containers that name none.")] = None,
    registry_mirror: Annotated[
        list[str] | None, typer.Option("--registry-mirror", help="Mirror of docker.io (URL); may be repeated.")
    ] = None,
    insecure_registry: Annotated[
        list[str] | None,
        typer.Option("--insecure-registry", help="Registry (CIDR or HOST) without TLS; may be repeated."),
    ] = None,
) -> None:
    """Run an endpoint on this machine: control plane, gateway and a local cloud in one process."""
    from control_plane.entrypoints import embedded

    given = {
        "listen": listen,
        "data": data,
        "backend": backend,
        "registry_mirror": registry_mirror,
        "insecure_registry": insecure_registry,
    }
    raise typer.Exit(embedded.up({name: value for name, value in given.items() if value}))


@app.command()
def down(data: Data = None) -> None:
    """End the local cloud of a state directory and every container in it (containers outlive `up`)."""
    from control_plane.entrypoints import embedded

    raise typer.Exit(embedded.down(data))


@app.command()
def doctor(data: Data = None) -> None:
    """Tell what is missing on this machine, and how to get it."""
    from control_plane.entrypoints import doctor as examination

    raise typer.Exit(examination.run(data))


@app.command()
def status(
    url: Annotated[
        str | None,
        typer.Argument(help="https://HOST, tcp://HOST:PORT or unix:///PATH; default: DOCKER_HOST, else the local one."),
    ] = None,
    token: Annotated[
        str, typer.Option("--token", help="Yours; SOCKERLESS_TOKEN. The operator sets SOCKERLESS_KEY_FILE instead.")
    ] = "",
    data: Data = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tell how an endpoint stands: versions, backends, gateways, store, containers."""
    from control_plane.entrypoints import status_cli

    raise typer.Exit(status_cli.run(url, token, data, as_json=as_json))


_HANDED_ON: dict[str, Any] = {
    "context_settings": {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
}
"""The command's own part of the program reads the arguments, so that no other part of it is imported here."""


@app.command(**_HANDED_ON)
def gateway(context: typer.Context) -> None:
    """Run a gateway: where agents dial in and Docker clients' streams end."""
    from agent_gateway import entrypoint

    raise typer.Exit(entrypoint.main())


@app.command(**_HANDED_ON)
def connect(context: typer.Context) -> None:
    """Serve a hosted endpoint on this machine: `connect URL [--listen …] [--token …]`."""
    from agent_gateway.connector import cli as connector

    raise typer.Exit(connector.main(context.args))


@app.command(**_HANDED_ON)
def login(context: typer.Context) -> None:
    """Make the docker CLI use a hosted endpoint: `login URL`."""
    from control_plane.entrypoints import access_cli

    raise typer.Exit(access_cli.login(context.args))


@app.command(**_HANDED_ON)
def tenant(context: typer.Context) -> None:
    """The operator's: `tenant create|list|revoke`."""
    from control_plane.entrypoints import access_cli

    raise typer.Exit(access_cli.tenant(context.args))


@app.command(**_HANDED_ON)
def token(context: typer.Context) -> None:
    """The operator's: `token create|list|revoke`."""
    from control_plane.entrypoints import access_cli

    raise typer.Exit(access_cli.token(context.args))


@app.command()
def reseal() -> None:
    """The operator's: seal everything in SOCKERLESS_STORE with the current key. Safe to repeat."""
    from control_plane.entrypoints import reseal_cli

    raise typer.Exit(reseal_cli.run())


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(f"sockerless {VERSION}")


def main() -> None:
    """Entry point of the `sockerless` script."""
    app()


if __name__ == "__main__":
    main()
