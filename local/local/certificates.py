"""Certificates for the sandbox's mutual TLS: two CAs, a server's and a client's, made anew each time."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import trustme
from cryptography.hazmat.primitives import serialization

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Certificates", "make"]

#: NHS certificates are valid for about three years.
_VALID_FOR = timedelta(days=3 * 365)


@dataclass(frozen=True, slots=True)
class Certificates:
    """Where the server's certificates are, and what a client needs, as PEM texts."""

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
    """Make a root CA and a sub CA, a server certificate, and a client certificate with an encrypted key.

    Parameters
    ----------
    folder
        Where the files that the server needs go. Only this user may read its key.
    host
        The address that the server listens on.
    common_name
        The client certificate's, as in an NHS certificate request.
    """
    root = trustme.CA(organization_name="MESH sandbox", organization_unit_name="Root CA")
    sub = trustme.CA(root, path_length=0, organization_name="MESH sandbox", organization_unit_name="Sub CA")
    server = sub.issue_cert("localhost", "127.0.0.1", *({host} - {"127.0.0.1"}))
    client = sub.issue_cert(
        common_name,
        common_name=common_name,
        not_after=datetime.now(UTC) + _VALID_FOR,
        key_type=trustme.KeyType.RSA,  # like a real one
    )

    bundle = b"".join(ca.cert_pem.bytes() for ca in (root, sub))
    ca_file, server_file, key_file = (folder / name for name in ("ca.pem", "server.pem", "server-key.pem"))
    ca_file.write_bytes(bundle)
    server_file.write_bytes(b"".join(pem.bytes() for pem in server.cert_chain_pems))
    key_file.touch(mode=0o600)
    key_file.write_bytes(server.private_key_pem.bytes())
    passphrase = secrets.token_urlsafe(24)
    return Certificates(
        ca_file=ca_file,
        server_certificate_file=server_file,
        server_key_file=key_file,
        ca_bundle=bundle.decode(),
        certificate=client.cert_chain_pems[0].bytes().decode(),
        private_key=_encrypted(client.private_key_pem.bytes(), passphrase),
        passphrase=passphrase,
    )


def _encrypted(key: bytes, passphrase: str) -> str:
    """Encrypt a key, which trustme leaves open."""
    return (
        serialization.load_pem_private_key(key, password=None)
        .private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(passphrase.encode()),
        )
        .decode()
    )
