"""Commands for onboarding that need no stack: the key, its certificate request, the CA bundle."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from local import certificates

MESH = Path(sys.executable).parent / "mesh"


def mesh(*arguments: str | Path, given: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([MESH, *arguments], input=given, capture_output=True, text=True, timeout=60, check=False)


def test_a_key_and_its_request_are_made_as_the_nhs_asks_for_them(tmp_path: Path) -> None:
    passphrase = tmp_path / "passphrase"
    passphrase.write_text("correct horse battery\n")
    done = mesh("csr", "--mailbox", "X26OT001", "--ods-code", "N1G3B", "-d", tmp_path, "--passphrase-file", passphrase)
    assert done.returncode == 0, done.stderr
    request = x509.load_pem_x509_csr((tmp_path / "request.csr").read_bytes())
    assert request.subject.rfc4514_string() == "CN=x26ot001.n1g3b.api.mesh-client.nhs.uk"
    key_file = tmp_path / "private_key.pem"
    assert key_file.stat().st_mode & 0o777 == 0o600
    assert b"ENCRYPTED PRIVATE KEY" in key_file.read_bytes()
    key = load_pem_private_key(key_file.read_bytes(), b"correct horse battery")
    assert key.public_key() == request.public_key()
    assert "never the key" in done.stderr
    assert "correct horse" not in done.stdout + done.stderr


def test_a_key_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "private_key.pem").write_text("precious")
    passphrase = tmp_path / "passphrase"
    passphrase.write_text("correct horse battery")
    done = mesh("csr", "--mailbox", "X26OT001", "--ods-code", "N1G3B", "-d", tmp_path, "--passphrase-file", passphrase)
    assert done.returncode == 2
    assert (tmp_path / "private_key.pem").read_text() == "precious"


def test_the_passphrase_is_asked_for_twice(tmp_path: Path) -> None:
    typed = "correct horse battery\nmistyped\ncorrect horse battery\ncorrect horse battery\n"
    done = mesh("csr", "--mailbox", "X26OT001", "--ods-code", "N1G3B", "-d", tmp_path, given=typed)
    assert done.returncode == 0, done.stderr
    assert load_pem_private_key((tmp_path / "private_key.pem").read_bytes(), b"correct horse battery")


@pytest.mark.parametrize(("order", "ok"), [((0, 1), True), ((1, 0), True), ((1,), False), ((0,), True)])
def test_a_ca_bundle_is_checked_for_its_roots_in_any_order(tmp_path: Path, order: tuple[int, ...], ok: bool) -> None:
    end = "-----END CERTIFICATE-----\n"
    made = [text + end for text in certificates.make(tmp_path).ca_bundle.split(end)[:2]]
    bundle = tmp_path / "bundle.pem"
    bundle.write_text("".join(made[position] for position in order))
    done = mesh("ca-bundle", "check", bundle, "--json")
    assert done.returncode == (0 if ok else 1)
    assert json.loads(done.stdout)["ok"] is ok
    if not ok:
        assert "root CA" in json.loads(done.stdout)["detail"]


def test_rubbish_is_no_ca_bundle(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_text("hello")
    done = mesh("ca-bundle", "check", bundle)
    assert (done.returncode, done.stdout) == (1, "")
    assert "PEM" in done.stderr


def test_a_certificate_that_is_not_in_pem_format_is_told_as_such(tmp_path: Path) -> None:
    made = x509.load_pem_x509_certificate(certificates.make(tmp_path).certificate.encode())
    file = tmp_path / "a bundle.der"
    file.write_bytes(made.public_bytes(Encoding.DER))
    done = mesh("ca-bundle", "check", file)
    assert (done.returncode, done.stdout) == (2, "")
    assert "PEM" in done.stderr
    assert "Traceback" not in done.stderr
