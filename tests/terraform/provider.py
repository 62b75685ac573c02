"""A Terraform provider that has schemas and nothing else: go-plugin's handshake, then protocol 5 over gRPC and TLS.

Terraform starts it from a filesystem mirror, as it would the real one. `validate` and mock providers ask for schemas
only; everything that would reach a cloud is refused. Started as `python provider.py SCHEMA.json`, with nothing
imported from the repository: Terraform chooses the working directory. `python provider.py --stay SCHEMA.json` serves
any number of Terraform's processes (its `TF_REATTACH_PROVIDERS`), without TLS, until its standard input ends.
"""

from __future__ import annotations

import base64
import datetime
import json
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_NESTING = {"single": 1, "list": 2, "set": 3}
_SERVICE = "/tfplugin5.Provider/"


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value) if value else b""


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode())


def _block(block: dict[str, Any]) -> bytes:
    out = b""
    for name, (kind, flags) in sorted(block["attributes"].items()):
        words = flags.split()
        attribute = _text(1, name) + _bytes(2, json.dumps(kind).encode())
        attribute += _number(4, "required" in words) + _number(5, "optional" in words)
        attribute += _number(6, "computed" in words) + _number(10, "write_only" in words)
        out += _bytes(2, attribute)
    for name, (nesting, least, most, inner) in sorted(block["blocks"].items()):
        nested = _text(1, name) + _bytes(2, _block(inner)) + _number(3, _NESTING[nesting])
        out += _bytes(3, nested + _number(4, least) + _number(5, most))
    return out


def _schema(block: dict[str, Any]) -> bytes:
    return _bytes(2, _block(block))


def schema_response(schemas: dict[str, Any]) -> bytes:
    """`GetProviderSchema.Response`."""
    out = _bytes(1, _schema(schemas["provider"]))
    for field, kind in ((2, "resources"), (3, "data_sources")):
        for name, block in sorted(schemas[kind].items()):
            out += _bytes(field, _text(1, name) + _bytes(2, _schema(block)))
    return out


class Handlers(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """The methods that are answered; messages are bytes, encoded above."""

    def __init__(self, schemas: dict[str, Any], stopped: threading.Event) -> None:
        response = schema_response(schemas)
        self._methods = {
            f"{_SERVICE}GetSchema": lambda request, context: response,
            # Its request is its answer: a configuration, unchanged, in field 1.
            f"{_SERVICE}PrepareProviderConfig": lambda request, context: request,
            f"{_SERVICE}ValidateResourceTypeConfig": lambda request, context: b"",
            f"{_SERVICE}ValidateDataSourceConfig": lambda request, context: b"",
            f"{_SERVICE}Stop": lambda request, context: b"",
            "/grpc.health.v1.Health/Check": lambda request, context: _number(1, 1),
            "/plugin.GRPCController/Shutdown": lambda request, context: self._stop(stopped),
        }

    @staticmethod
    def _stop(stopped: threading.Event) -> bytes:
        stopped.set()
        return b""

    def service(self, details: Any) -> Any:
        """The method's handler; None is UNIMPLEMENTED."""
        method = self._methods.get(details.method)
        return None if method is None else grpc.unary_unary_rpc_method_handler(method)


def _certificate() -> tuple[bytes, bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    encoding = serialization.Encoding
    return private, certificate.public_bytes(encoding.PEM), certificate.public_bytes(encoding.DER)


def _serve(path: str, stopped: threading.Event, credentials: Any = None) -> tuple[Any, int]:
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.max_send_message_length", -1)])
    server.add_generic_rpc_handlers((Handlers(json.loads(Path(path).read_text()), stopped),))
    address = "127.0.0.1:0"
    port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    server.start()
    return server, port


def stay(path: str) -> None:
    """Serves until standard input ends; its first line of output is the port."""
    server, port = _serve(path, threading.Event())
    print(port, flush=True)
    sys.stdin.read()
    server.stop(0)
    os._exit(0)


def plugin(path: str) -> None:
    """Serves until Terraform says that it is done, or is gone."""
    if "TF_PLUGIN_MAGIC_COOKIE" not in os.environ:
        sys.exit("this is a provider plugin, started by terraform")
    stopped = threading.Event()
    private, certificate, der = _certificate()
    server, port = _serve(path, stopped, grpc.ssl_server_credentials([(private, certificate)]))
    encoded = base64.b64encode(der).decode().rstrip("=")
    print(f"1|5|tcp|127.0.0.1:{port}|grpc|{encoded}", flush=True)
    parent = os.getppid()
    while not stopped.wait(1):
        if os.getppid() != parent:
            break
    server.stop(0)
    os._exit(0)


if __name__ == "__main__":
    if sys.argv[1] == "--stay":
        stay(sys.argv[2])
    else:
        plugin(sys.argv[1])
