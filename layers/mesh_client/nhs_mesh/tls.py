"""Mutual TLS towards MESH, from PEM texts; and what a certificate says of itself.

The private key stays encrypted wherever it is put down: OpenSSL opens it with its passphrase in memory.
"""

from __future__ import annotations

import os
import secrets
import ssl
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from nhs_mesh.errors import CertificateExpired, TlsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptography.x509 import Certificate

__all__ = ["CertificateFacts", "certificate_facts", "check_ca_bundle", "check_not_expired", "ssl_context"]


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """What a certificate says of itself."""

    common_name: str
    not_before: datetime
    not_after: datetime

    def days_left(self, now: datetime) -> int:
        """Tell how many whole days are left; negative after the end."""
        return (self.not_after - now).days


def ssl_context(
    *,
    certificate: str,
    private_key: str,
    passphrase: str | None,
    ca_bundle: str,
    verify: bool = True,
    now: datetime | None = None,
) -> ssl.SSLContext:
    """Make the TLS context of a MESH connection.

    Parameters
    ----------
    certificate, private_key, ca_bundle
        PEM texts. The key may be PKCS#8 or traditional, encrypted or not; the bundle holds the
        root CAs as well as the sub CAs.
    passphrase
        Opens the key.
    verify
        False does not check the server's certificate: for a sandbox.
    now
        When the client certificate has to be valid; by default at this moment.

    Returns
    -------
    ssl.SSLContext
        It trusts the bundle alone.

    Raises
    ------
    TlsError
        Something of it cannot be used; the message says what, and what to do.
    """
    moment = now or datetime.now(UTC)
    facts = certificate_facts(certificate)
    check_not_expired(facts.not_after, moment)
    if moment < facts.not_before:
        raise TlsError(
            f"the client certificate is not valid before {facts.not_before:%Y-%m-%d %H:%M} UTC; check the clock"
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if verify:
        check_ca_bundle(ca_bundle)
        # Made anew, since OpenSSL takes no notes between the certificates that are not ASCII.
        bundle = "".join(_pem(each) for each in _certificates(ca_bundle, "CA bundle"))
        try:
            context.load_verify_locations(cadata=bundle)
        except ssl.SSLError as error:
            raise TlsError(f"OpenSSL does not take the CA bundle ({error.reason})") from None
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    _load_key(context, certificate, private_key, passphrase)
    return context


def check_not_expired(not_after: datetime, now: datetime) -> None:
    """Check that a client certificate can still be used.

    Raises
    ------
    CertificateExpired
        It cannot.
    """
    if now >= not_after:
        raise CertificateExpired(
            f"the client certificate expired on {not_after:%Y-%m-%d}; ask NHS England for a new one"
        )


def _load_key(context: ssl.SSLContext, certificate: str, private_key: str, passphrase: str | None) -> None:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    encrypted = "ENCRYPTED" in private_key
    if encrypted and not passphrase:
        raise TlsError("the private key is encrypted and no passphrase was given")
    try:
        key = load_pem_private_key(
            private_key.encode(),
            passphrase.encode() if encrypted and passphrase else None,
            # Whether its numbers are good primes was settled when it was made; asking again takes 50 ms.
            unsafe_skip_rsa_key_validation=True,
        )
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # `from None`: the library's own text says less, and nothing of the key is to be shown.
        what = "or the passphrase is wrong" if encrypted else "as PEM"
        raise TlsError(f"the private key cannot be read, {what}") from None
    if key.public_key() != _certificates(certificate, "client certificate")[0].public_key():
        raise TlsError("the private key does not belong to the client certificate")
    if not encrypted:
        passphrase = secrets.token_urlsafe()
        encryption = BestAvailableEncryption(passphrase.encode())
        private_key = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption).decode()
    with _on_disk(certificate) as certificate_file, _on_disk(private_key) as key_file:
        try:
            # A callable, so that OpenSSL never asks at a terminal.
            context.load_cert_chain(certificate_file, key_file, lambda: passphrase or "")
        except ssl.SSLError as error:
            raise TlsError(f"OpenSSL does not take the client certificate and its key ({error.reason})") from None


@contextmanager
def _on_disk(text: str) -> Iterator[str]:
    """Put a text where only this process may read it: OpenSSL takes files alone. A key is always encrypted there."""
    descriptor, path = tempfile.mkstemp()
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        yield path
    finally:
        os.unlink(path)  # noqa: PTH108


def certificate_facts(pem: str) -> CertificateFacts:
    """Read what a certificate says of itself.

    Parameters
    ----------
    pem
        The certificate's text; of several, the first counts.

    Returns
    -------
    CertificateFacts
        Its common name, and from when until when it is valid.

    Raises
    ------
    TlsError
        The text is no PEM certificate.
    """
    certificate = _certificates(pem, "client certificate")[0]
    return CertificateFacts(
        _common_name(certificate), certificate.not_valid_before_utc, certificate.not_valid_after_utc
    )


def check_ca_bundle(pem: str) -> list[str]:
    """Check a CA bundle: the root CA of each certificate in it is there as well, in whichever order.

    Parameters
    ----------
    pem
        The bundle's text. NHS England's hold several sub CAs and their roots (docs/mesh-protocol.md, "Certificates").

    Returns
    -------
    list[str]
        The names in it, in its order.

    Raises
    ------
    TlsError
        It is not so; the message says what to do.
    """
    bundle = _certificates(pem, "CA bundle")
    for certificate in bundle:
        # Up, from issuer to issuer; there are no more steps than certificates.
        top = certificate
        for _ in bundle:
            top = next((each for each in bundle if _issued(each, top)), top)
        if top.issuer != top.subject:
            name = _common_name(certificate)
            raise TlsError(f"the CA bundle lacks the root CA of {name}; put that root CA's certificate into it as well")
    return [_common_name(certificate) for certificate in bundle]


def _issued(issuer: Certificate, certificate: Certificate) -> bool:
    """Tell whether a certificate was issued by another, or by itself: a name alone may be that of several CAs."""
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

    if issuer.subject != certificate.issuer:
        return False
    try:
        certificate.verify_directly_issued_by(issuer)
    except InvalidSignature:
        return False
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return True  # signed in a way that only OpenSSL knows
    return True


def _certificates(pem: str, what: str) -> list[Certificate]:
    from cryptography.x509 import load_pem_x509_certificates

    try:
        return load_pem_x509_certificates(pem.encode())
    except ValueError:
        raise TlsError(f"the {what} is not in PEM format (-----BEGIN CERTIFICATE-----)") from None


def _pem(certificate: Certificate) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM).decode()


def _common_name(certificate: Certificate) -> str:
    from cryptography.x509.oid import NameOID

    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else certificate.subject.rfc4514_string()
