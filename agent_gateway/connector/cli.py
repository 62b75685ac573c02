"""The command line of `sockerless connect`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

_DESCRIPTION = (
    "Serve Docker clients on this machine from a hosted endpoint: point DOCKER_HOST at the address it prints. "
    "Streams go on after cuts and restarts on the way."
)
_TOKENS = (
    "The token comes from the first of: --token, --token-file, --token-command, SOCKERLESS_TOKEN, "
    "SOCKERLESS_TOKEN_FILE, SOCKERLESS_TOKEN_COMMAND, SOCKERLESS_ID_TOKEN (GitLab's id_tokens), `sockerless login`, "
    "GitHub Actions' identity token."
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("sockerless connect", description=_DESCRIPTION, epilog=_TOKENS)
    parser.add_argument(
        "url",
        metavar="URL",
        nargs="?",
        default=os.environ.get("SOCKERLESS_URL", ""),
        help="of the endpoint: https://HOST[:PORT][/PREFIX] (default: SOCKERLESS_URL)",
    )
    parser.add_argument(
        "--listen",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="unix:///PATH or tcp://127.0.0.1:PORT; may be repeated (default: in the runtime directory)",
    )
    parser.add_argument("--token", default="", help="shown to the endpoint; others on this machine may see it in `ps`")
    parser.add_argument("--token-file", default="", metavar="FILE", help="read again when the token expires")
    parser.add_argument("--token-command", default="", metavar="COMMAND", help="prints the token; run when one expires")
    parser.add_argument("--audience", default="", help="of GitHub's identity token (default: URL)")
    parser.add_argument("--ca", default="", metavar="FILE", help="trust these certificates in place of the system's")
    parser.add_argument(
        "--allow-http", action="store_true", help="take http:// beyond loopback: the network sees your token"
    )
    parser.add_argument(
        "--allow-network-clients",
        action="store_true",
        help="take --listen addresses beyond loopback: whoever reaches them acts with your token",
    )
    return parser


def main(args: Sequence[str] | None = None) -> int:
    """Runs until SIGINT or SIGTERM; the exit code."""
    try:
        given = _parser().parse_args(args)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 2
    from agent_gateway.connector.run import connect

    return connect(
        given.url,
        given.listen,
        token=given.token,
        token_file=given.token_file,
        token_command=given.token_command,
        audience=given.audience,
        ca=given.ca,
        allow_http=given.allow_http,
        beyond_loopback=given.allow_network_clients,
    )


if __name__ == "__main__":
    raise SystemExit(main())
