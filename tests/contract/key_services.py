"""Small servers that answer as Cloud KMS and Key Vault do, in what the store asks of them."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

NAME = "projects/p/locations/europe-west1/keyRings/r/cryptoKeys/store"
Answer = tuple[int, dict[str, Any]]


class Service:
    """One server: the tokens that count, failures to come, the versions of one key."""

    def __init__(self) -> None:
        self.tokens = {"good"}
        self.fail: list[Answer] = []
        self.asked: list[str] = []
        self.versions = {"1": b"1" * 32}
        self.disabled: set[str] = set()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def newest(self) -> str:
        return list(self.versions)[-1]

    def rotate(self) -> None:
        number = str(len(self.versions) + 1)
        self.versions[number] = number.encode() * 32

    def count(self, word: str) -> int:
        return sum(word in asked for asked in self.asked)

    def unauthorized(self) -> Answer:
        raise NotImplementedError

    def answer(self, method: str, path: str, body: dict[str, Any]) -> Answer:
        raise NotImplementedError

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Service]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                lines = head.split("\r\n")
                headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:] if line)}
                method, path, _ = lines[0].split(" ")
                raw = await reader.readexactly(int(headers.get("content-length", "0")))
                self.asked.append(f"{method} {path}")
                if headers.get("authorization", "").removeprefix("Bearer ") not in self.tokens:
                    status, told = self.unauthorized()
                elif self.fail:
                    status, told = self.fail.pop(0)
                else:
                    status, told = self.answer(method, path, json.loads(raw or b"{}"))
                text = json.dumps(told).encode()
                writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: {len(text)}\r\n\r\n".encode() + text)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()


class Kms(Service):
    """`cryptoKeys.encrypt` with the primary version, `cryptoKeys.decrypt` with the ciphertext's own."""

    def unauthorized(self) -> Answer:
        return _google(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")

    def answer(self, method: str, path: str, body: dict[str, Any]) -> Answer:
        key, _, verb = path.removeprefix("/v1/").rpartition(":")
        if method != "POST" or key != NAME:
            return _google(404, "NOT_FOUND", f"CryptoKey {key} not found.")
        if verb == "encrypt":
            version = self.newest
            sealed = version.encode() + aes_key_wrap(self.versions[version], base64.b64decode(body["plaintext"]))
            name = f"{NAME}/cryptoKeyVersions/{version}"
            return 200, {"name": name, "ciphertext": base64.b64encode(sealed).decode(), "protectionLevel": "SOFTWARE"}
        data = base64.b64decode(body["ciphertext"])
        version = data[:1].decode("latin-1")
        if version in self.disabled:
            text = f"{NAME}/cryptoKeyVersions/{version} is not enabled, current state is: DISABLED."
            return _google(400, "FAILED_PRECONDITION", text)
        try:
            plain = aes_key_unwrap(self.versions[version], data[1:])
        except (InvalidUnwrap, KeyError):
            return _google(400, "INVALID_ARGUMENT", "Decryption failed: the ciphertext is invalid.")
        return 200, {"plaintext": base64.b64encode(plain).decode(), "usedPrimary": version == self.newest}


class Vault(Service):
    """`GET /keys/NAME`, and wrapkey and unwrapkey of a version. RSA is not needed for what is seen from outside."""

    def unauthorized(self) -> Answer:
        return 401, {
            "error": {"code": "Unauthorized", "message": "AKV10000: Request is missing a Bearer or PoP token."}
        }

    def kid(self, version: str) -> str:
        return f"{self.url}/keys/store/{version.zfill(32)}"

    def answer(self, method: str, path: str, body: dict[str, Any]) -> Answer:
        path, _, query = path.partition("?")
        if query != "api-version=7.4":
            return 400, {"error": {"code": "BadParameter", "message": "api-version"}}
        parts = path.strip("/").split("/")
        if parts[:2] != ["keys", "store"]:
            return 404, {
                "error": {"code": "KeyNotFound", "message": "A key with (name/id) was not found in this vault."}
            }
        if method == "GET" and len(parts) == 2:
            return 200, {"key": {"kid": self.kid(self.newest), "kty": "RSA"}, "attributes": {"enabled": True}}
        version, operation = parts[2].lstrip("0"), parts[3]
        if version in self.disabled:
            inner = {"code": "KeyDisabled"}
            return 403, {
                "error": {"code": "Forbidden", "message": "not allowed on a disabled key.", "innererror": inner}
            }
        value = base64.urlsafe_b64decode(body["value"] + "=" * (-len(body["value"]) % 4))
        try:
            work = aes_key_wrap if operation == "wrapkey" else aes_key_unwrap
            done = work(self.versions[version], value)
        except (InvalidUnwrap, ValueError):
            return 400, {"error": {"code": "BadParameter", "message": "The parameter is incorrect."}}
        return 200, {"kid": self.kid(version), "value": base64.urlsafe_b64encode(done).rstrip(b"=").decode()}


def _google(status: int, name: str, text: str) -> Answer:
    return status, {"error": {"code": status, "message": text, "status": name}}
