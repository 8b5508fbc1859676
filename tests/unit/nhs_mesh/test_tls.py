"""Keys, certificates and CA bundles that cannot work are refused at once, with a text that says why."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import permutations
from pathlib import Path

import mesh_client
import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from local import certificates
from nhs_mesh import (
    CertificateExpired,
    ConfigurationError,
    Credentials,
    MeshClient,
    TlsError,
    certificate_facts,
    check_ca_bundle,
    ssl_context,
)

NOBODY_LISTENS = "https://localhost:1"
PASSPHRASE = "a pass phrase, with a £"


@dataclass(frozen=True)
class Given:
    certificate: str
    private_key: str
    passphrase: str | None
    ca_bundle: str


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Given:
    one = certificates.make(tmp_path_factory.mktemp("one"))
    return Given(one.certificate, one.private_key, one.passphrase, one.ca_bundle)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Given:
    one = certificates.make(tmp_path_factory.mktemp("other"))
    return Given(one.certificate, one.private_key, one.passphrase, one.ca_bundle)


def connect(given: Given, url: str = NOBODY_LISTENS, *, verify: bool = True) -> MeshClient:
    """Make a client; no request is made, since nobody listens there."""
    client = MeshClient(
        url,
        Credentials("X26ABC1", "password", "TestKey"),
        certificate=given.certificate,
        private_key=given.private_key,
        passphrase=given.passphrase,
        ca_bundle=given.ca_bundle,
        verify=verify,
    )
    client.close()
    return client


def key_as(given: Given, form: PrivateFormat, passphrase: str | None) -> Given:
    assert given.passphrase
    key = load_pem_private_key(given.private_key.encode(), given.passphrase.encode())
    encryption = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    return replace(given, private_key=key.private_bytes(Encoding.PEM, form, encryption).decode(), passphrase=passphrase)


def certificates_of(bundle: str) -> list[str]:
    return re.findall(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n", bundle, re.DOTALL)


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
@pytest.mark.parametrize("passphrase", [PASSPHRASE, None])
def test_keys_of_either_form_are_taken_encrypted_or_not(
    made: Given, form: PrivateFormat, passphrase: str | None
) -> None:
    connect(key_as(made, form, passphrase))


def test_a_passphrase_that_is_not_needed_does_no_harm(made: Given) -> None:
    connect(replace(key_as(made, PrivateFormat.PKCS8, None), passphrase="not needed"))


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_a_wrong_passphrase_is_named(made: Given, form: PrivateFormat) -> None:
    given = replace(key_as(made, form, PASSPHRASE), passphrase="another")
    with pytest.raises(TlsError, match="passphrase is wrong") as raised:
        connect(given)
    assert "another" not in str(raised.value)


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
@pytest.mark.parametrize("nothing", [None, ""])
def test_a_missing_passphrase_is_named(made: Given, form: PrivateFormat, nothing: str | None) -> None:
    with pytest.raises(TlsError, match="encrypted and no passphrase was given"):
        connect(replace(key_as(made, form, PASSPHRASE), passphrase=nothing))


def test_a_key_of_another_certificate_is_named(made: Given, other: Given) -> None:
    with pytest.raises(TlsError, match="does not belong to the client certificate"):
        connect(replace(made, private_key=other.private_key, passphrase=other.passphrase))


def context_at(given: Given, now: datetime) -> None:
    """Make the TLS context alone, as if it were another time."""
    parts = {name: getattr(given, name) for name in ("certificate", "private_key", "passphrase", "ca_bundle")}
    ssl_context(**parts, now=now)


def test_an_expired_certificate_says_when_it_expired_and_what_to_do(made: Given) -> None:
    end = certificate_facts(made.certificate).not_after
    context_at(made, end - timedelta(seconds=1))
    with pytest.raises(CertificateExpired, match=f"expired on {end:%Y-%m-%d}; ask NHS England"):
        context_at(made, end)


def test_a_certificate_that_expires_while_the_client_is_in_use_is_told_before_anything_is_sent(
    made: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = connect(made)
    end = certificate_facts(made.certificate).not_after
    monkeypatch.setattr("nhs_mesh.transport._now", lambda: end)
    with pytest.raises(CertificateExpired, match=f"expired on {end:%Y-%m-%d}"):
        client.handshake()


def test_a_certificate_of_the_future_points_at_the_clock(made: Given) -> None:
    begin = certificate_facts(made.certificate).not_before
    context_at(made, begin)
    with pytest.raises(TlsError, match=r"not valid before .* check the clock"):
        context_at(made, begin - timedelta(seconds=1))


def test_a_bundle_may_have_any_order_and_several_chains(made: Given, other: Given) -> None:
    first, second = certificates_of(made.ca_bundle), certificates_of(other.ca_bundle)
    for bundle in permutations([*first, *second]):
        assert len(check_ca_bundle("".join(bundle))) == 4
    connect(replace(made, ca_bundle="".join([*reversed(first), *second])))


@pytest.mark.parametrize("name", ["int", "dep", "live"])
def test_the_bundles_that_nhs_england_ships_are_taken(made: Given, name: str) -> None:
    bundle = (Path(mesh_client.__file__).parent / f"nhs-{name}-ca-bundle.pem").read_text()
    assert len(check_ca_bundle(bundle)) == 4
    connect(replace(made, ca_bundle=bundle))


@pytest.mark.parametrize("name", ["int", "dep", "live"])
def test_a_bundle_of_nhs_england_that_lacks_one_of_its_roots_is_refused(made: Given, name: str) -> None:
    four = certificates_of((Path(mesh_client.__file__).parent / f"nhs-{name}-ca-bundle.pem").read_text())
    for lacking in (1, 3):
        rest = [each for number, each in enumerate(four) if number != lacking]
        with pytest.raises(TlsError, match="lacks the root CA of NHS "):
            connect(replace(made, ca_bundle="".join(rest)))


def test_a_bundle_without_the_root_says_so(made: Given) -> None:
    _, sub = certificates_of(made.ca_bundle)
    with pytest.raises(TlsError, match="lacks the root CA"):
        connect(replace(made, ca_bundle=sub))


def test_notes_between_the_certificates_of_a_bundle_do_no_harm(made: Given) -> None:
    root, sub = certificates_of(made.ca_bundle)
    bundle = f"# NHS root, “the first”\n{root}\nsubject=CN = Sub\n{sub}".replace("\n", "\r\n")
    assert check_ca_bundle(bundle) == ["OU=Root CA,O=MESH sandbox", "OU=Sub CA,O=MESH sandbox"]
    connect(replace(made, ca_bundle=bundle))


@pytest.mark.parametrize(
    "rubbish",
    [
        "",
        "rubbish",
        "-----BEGIN CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n",
        "-----BEGIN EC PRIVATE KEY-----\n£\n-----END EC PRIVATE KEY-----\n",
        "-----BEGIN PRIVATE KEY-----\nMC4=\n-----END PRIVATE KEY-----\n",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    ],
)
@pytest.mark.parametrize(
    ("field", "name"),
    [("certificate", "client certificate"), ("private_key", "private key"), ("ca_bundle", "CA bundle")],
)
def test_rubbish_is_named_by_what_it_should_have_been(made: Given, rubbish: str, field: str, name: str) -> None:
    changes = {field: rubbish}
    with pytest.raises(TlsError, match=name) as raised:
        connect(replace(made, **changes))
    assert made.private_key not in str(raised.value)


@pytest.mark.parametrize(
    "host",
    [
        "msg.intspineservices.nhs.uk",
        "MSG.intspineservices.NHS.UK",
        "msg.intspineservices.nhs.uk.",
        "mesh-sync.spineservices.nhs.uk:443",
        "nhs.uk",
        "msg.intspineservices.nhs。uk",
        "someone@msg.intspineservices.nhs.uk",
    ],
)
def test_verification_cannot_be_switched_off_for_the_nhs(made: Given, host: str) -> None:
    with pytest.raises(ConfigurationError):
        connect(made, f"https://{host}", verify=False)


def test_verification_may_be_switched_off_for_a_sandbox(made: Given) -> None:
    connect(replace(made, ca_bundle=""), "https://localhost:8700", verify=False)
    connect(replace(made, ca_bundle=""), "https://not-nhs.uk.example", verify=False)


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost",
        "localhost:8700",
        "",
        "https://",
        "https://localhost/messageexchange",
        "https://localhost?x=1",
        "https://someone:secret@localhost",
        "https://localhost:port",
        "https://[::1",
    ],
)
def test_an_address_that_cannot_be_mesh_is_refused(made: Given, url: str) -> None:
    with pytest.raises(ConfigurationError, match="https://host") as raised:
        connect(made, url)
    assert "secret" not in str(raised.value)


def test_an_address_may_end_in_a_slash(made: Given) -> None:
    connect(made, f"{NOBODY_LISTENS}/")


def test_a_certificate_tells_its_days_left(made: Given) -> None:
    facts = certificate_facts(made.certificate)
    assert facts.common_name == "x26abc1.x26.api.mesh-client.nhs.uk"
    assert facts.days_left(facts.not_after - timedelta(days=30, hours=1)) == 30
    assert facts.days_left(facts.not_after + timedelta(hours=1)) < 0


def test_no_key_is_left_on_the_disk(made: Given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    connect(made)
    assert not list(tmp_path.iterdir())


def test_no_private_key_touches_the_disk_unencrypted(made: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = key_as(made, PrivateFormat.PKCS8, None)
    assert "ENCRYPTED" not in bare.private_key
    on_disk = []
    unlink = os.unlink

    def read_before(path: str) -> None:
        on_disk.append(Path(path).read_text())
        unlink(path)

    monkeypatch.setattr(os, "unlink", read_before)
    connect(bare)
    keys = [text for text in on_disk if "PRIVATE KEY" in text]
    assert len(keys) == 1
    assert "ENCRYPTED" in keys[0]
