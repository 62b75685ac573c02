"""Certificate authorities made on the spot, and what they sign: a server's certificate and clients'."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_LOCAL = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


class Authority:
    """One CA; `pem` is its certificate."""

    def __init__(self, name: str = "clients' CA") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.pem = self._signed(self._name, self._key.public_key(), ca=True)

    def _signed(self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, ca: bool = False) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName(_LOCAL), critical=False)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        return made.public_bytes(serialization.Encoding.PEM)

    def issue(self, common_name: str) -> tuple[bytes, bytes]:
        """A certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        organisation = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "acme")
        subject = x509.Name([organisation, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        return self._signed(subject, key.public_key()), _pem(key)


def docker_certificates(directory: Path, server_ca: Authority, client: tuple[bytes, bytes] | None) -> Path:
    """What DOCKER_CERT_PATH wants: `ca.pem`, and the client's `cert.pem` and `key.pem` when it has some."""
    directory.mkdir()
    (directory / "ca.pem").write_bytes(server_ca.pem)
    if client is not None:
        (directory / "cert.pem").write_bytes(client[0])
        (directory / "key.pem").write_bytes(client[1])
    return directory
