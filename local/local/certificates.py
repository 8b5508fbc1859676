"""Certificates for the sandbox's mutual TLS: a CA, a server's and a client's, made anew each time."""

from __future__ import annotations

import ipaddress
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

__all__ = ["Certificates", "make"]

#: NHS certificates last about three years.
_DAYS = 3 * 365


@dataclass(frozen=True, slots=True)
class Certificates:
    """Where the certificates are, and what a client needs of them as PEM texts."""

    ca_file: Path
    server_certificate_file: Path
    server_key_file: Path
    ca_bundle: str
    certificate: str
    private_key: str = field(repr=False)
    passphrase: str = field(repr=False)


def make(
    folder: Path, *, host: str = "127.0.0.1", common_name: str = "x26abc1.x26.api.mesh-client.nhs.uk"
) -> Certificates:
    """Make a CA (root and sub), a server certificate and a client certificate with an encrypted key.

    Parameters
    ----------
    folder
        Where the files that the server needs go; only this user may read its key.
    host
        The address that the server listens on.
    common_name
        The client certificate's, as in an NHS certificate request.
    """
    root_key, sub_key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    root = _certificate("Sandbox Root CA", root_key, None, ca=True)
    sub = _certificate("Sandbox Sub CA", sub_key, (root, root_key), ca=True)
    server = _certificate("localhost", server_key, (sub, sub_key), addresses={"127.0.0.1", host})
    # RSA, like a real one.
    client_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    client = _certificate(common_name, client_key, (sub, sub_key))
    passphrase = secrets.token_urlsafe(24)

    bundle = _pem(root) + _pem(sub)
    ca_file, server_file, key_file = (folder / name for name in ("ca.pem", "server.pem", "server-key.pem"))
    ca_file.write_text(bundle)
    server_file.write_text(_pem(server) + _pem(sub))
    key_file.touch(mode=0o600)
    key_file.write_bytes(
        server_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    encrypted = client_key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(passphrase.encode()),
    )
    return Certificates(
        ca_file=ca_file,
        server_certificate_file=server_file,
        server_key_file=key_file,
        ca_bundle=bundle,
        certificate=_pem(client),
        private_key=encrypted.decode(),
        passphrase=passphrase,
    )


def _certificate(
    common_name: str,
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
    issuer: tuple[x509.Certificate, CertificateIssuerPrivateKeyTypes] | None,
    *,
    ca: bool = False,
    addresses: Collection[str] = (),
) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = datetime.now(UTC)
    issuer_name, issuer_key = (issuer[0].subject, issuer[1]) if issuer else (name, key)
    usage = ExtendedKeyUsageOID.SERVER_AUTH if addresses else ExtendedKeyUsageOID.CLIENT_AUTH
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer_name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=_DAYS))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .add_extension(
            x509.KeyUsage(
                digital_signature=not ca,
                key_cert_sign=ca,
                crl_sign=ca,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    )
    if not ca:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    if addresses:
        names: list[x509.GeneralName] = [x509.DNSName("localhost")]
        names += [x509.IPAddress(ipaddress.ip_address(address)) for address in sorted(addresses)]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
