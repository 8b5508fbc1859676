"""Commands for onboarding: the secret, the private key and its certificate request, the CA bundle."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from botocore.exceptions import ClientError

from mesh_cli.acting import Reason, Why, acting
from mesh_cli.options import Json, deployment
from mesh_cli.output import Table, data, print_json, talk
from nhs_mesh import MeshError, TlsError, certificate_facts, check_ca_bundle
from vaccinations.aws.parameters import SECRET_FIELDS, SecretIncomplete

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mypy_boto3_secretsmanager import SecretsManagerClient

    from vaccinations.wiring import Wiring

PANEL = "Setup"
KEY_BITS = 4096
#: NHS certificates are asked for by this name; the mailbox id and the ODS code come before it.
DOMAIN = "api.mesh-client.nhs.uk"
DAYS_TO_WORRY = 30

secret = typer.Typer(help="The MESH secret: fill it, check it.\n\nFor example: mesh secret check", no_args_is_help=True)
ca_bundle = typer.Typer(
    help="The CA bundle: NHS root CAs and their sub CAs.\n\nFor example: mesh ca-bundle check ca-bundle.pem",
    no_args_is_help=True,
)

File = typer.Option(exists=True, dir_okay=False, readable=True, metavar="FILE")


def add_to(app: typer.Typer) -> None:
    """Add these commands to the app."""
    app.add_typer(secret, name="secret", rich_help_panel=PANEL)
    app.add_typer(ca_bundle, name="ca-bundle", rich_help_panel=PANEL)
    app.command("csr", rich_help_panel=PANEL)(csr)
    app.command("jobs", rich_help_panel=PANEL)(jobs)
    app.command("stack", rich_help_panel=PANEL)(stack)


def stack(
    context: typer.Context,
    export: Annotated[
        bool, typer.Option("--export", help="Print `export NAME=value` lines with the variables of the runbook.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show the stack's outputs: where everything is. Nothing secret is among them.

    The commands of the runbook (docs/operations.md) find it after: eval "$(mesh stack --export)"

    For example: mesh stack --export
    """
    if export and as_json:
        raise typer.BadParameter("give one of --export and --json")
    works_on = deployment(context)
    if export:
        lines = [f"export {name}={shlex.quote(value)}" for name, value in works_on.variables.items()]
        sys.stdout.write("\n".join(lines) + "\n")
    elif as_json:
        print_json(works_on.outputs)
    else:
        data.print(Table("The stack", ["output", "value"], sorted(works_on.outputs.items())))


class Switch(StrEnum):
    """What the mesh_jobs flag is switched to."""

    ENABLE = "enable"
    DISABLE = "disable"


def jobs(
    context: typer.Context,
    switch: Annotated[Switch | None, typer.Argument(help="Say nothing to see how it is.", show_default=False)] = None,
    reason: Why = None,
    as_json: Json = False,
) -> None:
    """Show or switch the mesh_jobs flag. While it is disabled the jobs do nothing, and say so; uploads are ingested.

    For example: mesh jobs disable --reason "the tables are restored"
    """
    works_on = deployment(context)
    name, parameters = works_on.settings.mesh_jobs_parameter, works_on.clients.parameters
    before = "enabled" if works_on.wiring.jobs_enabled() else "disabled"
    after = before if switch is None else f"{switch}d"
    if switch is not None and not reason:
        raise typer.BadParameter("say why the jobs are switched", param_hint="--reason")
    if after != before:
        with acting(works_on, f"jobs {switch}", reason=reason):
            parameters.put_parameter(Name=name, Value=after, Type="String", Overwrite=True)
    if as_json:
        print_json({"mesh_jobs": after, "was": before})
    else:
        data.print(f"mesh_jobs is {after}" if after == before else f"mesh_jobs is {after}; it was {before}")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool
    detail: str


@secret.command("check")
def check(context: typer.Context, as_json: Json = False) -> None:
    """Check everything about the secret: fields, key and certificate, CA bundle, days left, and that MESH answers.

    For example: mesh secret check
    """
    checks = list(_checks(deployment(context).wiring))
    ok = all(one.ok for one in checks)
    if as_json:
        print_json({"ok": ok, "checks": [{"check": c.name, "ok": c.ok, "detail": c.detail} for c in checks]})
    else:
        rows = [[one.name, "ok" if one.ok else "FAILED", one.detail] for one in checks]
        data.print(Table("MESH secret", ["check", "", "detail"], rows))
    if not ok:
        raise typer.Exit(1)


def _checks(wiring: Wiring) -> Iterator[Check]:
    try:
        secret = wiring.secret()
    except SecretIncomplete as error:
        yield Check("every field present", ok=False, detail=str(error))
        return
    yield Check("every field present", ok=True, detail=", ".join(SECRET_FIELDS))
    yield _bundle(secret.ca_bundle)
    try:
        facts = certificate_facts(secret.certificate)
    except MeshError as error:
        yield Check("certificate", ok=False, detail=str(error))
        return
    days = facts.days_left(datetime.now(UTC))
    yield Check("certificate", ok=days > 0, detail=f"{facts.common_name}, until {facts.not_after:%Y-%m-%d}")
    enough = days > DAYS_TO_WORRY
    yield Check("days left", ok=enough, detail=f"{days}" if enough else f"{days}: ask for a new certificate now")
    try:
        client = wiring.mesh()
    except MeshError as error:
        yield Check("key fits certificate", ok=False, detail=str(error))
        return
    yield Check("key fits certificate", ok=True, detail="and the passphrase opens it")
    try:
        client.handshake()
    except MeshError as error:
        yield Check("mailbox answers", ok=False, detail=str(error))
        return
    yield Check("mailbox answers", ok=True, detail=f"{client.mailbox} at {wiring.settings.mesh_base_url}")


def _bundle(pem: str) -> Check:
    try:
        subjects = check_ca_bundle(pem)
    except MeshError as error:
        return Check("CA bundle", ok=False, detail=str(error))
    return Check("CA bundle", ok=True, detail=", ".join(subjects))


@ca_bundle.command("check")
def check_bundle(
    file: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, readable=True, metavar="FILE", help="PEM file to check.")
    ],
    as_json: Json = False,
) -> None:
    """Check that a CA bundle has the root CA of each certificate in it.

    For example: mesh ca-bundle check ca-bundle.pem
    """
    found = _bundle(_text(file))
    if as_json:
        print_json({"ok": found.ok, "detail": found.detail})
    else:
        (data if found.ok else talk).print(f"{'ok' if found.ok else 'FAILED'}: {found.detail}", markup=False)
    if not found.ok:
        raise typer.Exit(1)


@secret.command("put")
def put(
    context: typer.Context,
    reason: Reason,
    mailbox: Annotated[str | None, typer.Option(help="Mailbox id.", metavar="ID")] = None,
    password_file: Annotated[Path | None, File] = None,
    shared_key_file: Annotated[Path | None, File] = None,
    private_key: Annotated[Path | None, File] = None,
    passphrase_file: Annotated[Path | None, File] = None,
    certificate: Annotated[Path | None, File] = None,
    bundle: Annotated[Path | None, typer.Option("--ca-bundle", exists=True, dir_okay=False, metavar="FILE")] = None,
    ask: Annotated[bool, typer.Option(help="Ask for secret words that no file gives.")] = True,
    as_json: Json = False,
) -> None:
    """Fill the stack's MESH secret, or change some of it: what is not given stays as it is.

    Password, shared key and passphrase are read from files or asked for, never taken from the command line, where
    other users of the machine and the shell's history would see them.

    For example: mesh secret put --reason "the first" --private-key private_key.pem --certificate certificate.pem
    """
    works_on = deployment(context)
    name, client = works_on.settings.mesh_secret, works_on.clients.secrets
    before = _present(client, name)
    may_read = before is not None
    fields = dict(before or {})
    given = {
        "mailbox": mailbox,
        "password": _given(password_file),
        "shared_key": _given(shared_key_file),
        "private_key": _given(private_key),
        "private_key_passphrase": _given(passphrase_file),
        "certificate": _given(certificate),
        "ca_bundle": _given(bundle),
    }
    if given["ca_bundle"]:
        check_ca_bundle(given["ca_bundle"])
    fields |= {field: value for field, value in given.items() if value}
    if ask:
        for word in ("mailbox", "password", "shared_key", "private_key_passphrase"):
            if not fields.get(word):
                fields[word] = typer.prompt(word.replace("_", " ").capitalize(), hide_input=word != "mailbox", err=True)
    missing = [field for field in SECRET_FIELDS if not fields.get(field)]
    if missing and not may_read:
        raise typer.BadParameter(f"you may write the secret and not read it, so give all of it: {', '.join(missing)}")
    changed = [field for field, value in fields.items() if value != (before or {}).get(field)]
    with acting(works_on, "secret put", ", ".join(changed), reason):
        client.put_secret_value(SecretId=name, SecretString=json.dumps(fields))
    if as_json:
        print_json({"secret": name, "missing": missing})
        return
    talk.print(f"Written. {'Still missing: ' + ', '.join(missing) if missing else 'Now: mesh secret check'}")


def _present(client: SecretsManagerClient, name: str) -> dict[str, str] | None:
    """Return what is in the secret; None where the caller may write it and not read it, as a secret keeper may."""
    try:
        found = json.loads(client.get_secret_value(SecretId=name).get("SecretString") or "{}")
    except ClientError as error:
        match error.response["Error"]["Code"]:
            case "ResourceNotFoundException":  # a new stack's secret has no version
                return {}
            case "AccessDeniedException":
                return None
        raise
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _given(file: Path | None) -> str | None:
    return _text(file) if file else None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        raise TlsError(
            f"{file} is not text. Keys and certificates must be in PEM format (-----BEGIN CERTIFICATE-----), not DER. "
            f"Convert a certificate with: openssl x509 -inform der -in {shlex.quote(str(file))}"
        ) from None


def csr(
    mailbox: Annotated[str, typer.Option(help="Mailbox id, as MESH gave it.", metavar="ID")],
    ods_code: Annotated[str, typer.Option(help="ODS code of the organisation.", metavar="ODS")],
    directory: Annotated[
        Path, typer.Option("--directory", "-d", help="Where the two files go.", file_okay=False)
    ] = Path(),
    passphrase_file: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, readable=True, help="Read the passphrase here instead of asking."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over files that are there.")] = False,
    as_json: Json = False,
) -> None:
    """Make a private key and a certificate request for it (private_key.pem and request.csr).

    For example: mesh csr --mailbox X26ABC1 --ods-code R1L
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.x509.oid import NameOID

    for name, value in (("--mailbox", mailbox), ("--ods-code", ods_code)):
        if not re.fullmatch(r"[A-Za-z0-9]{3,20}", value):
            raise typer.BadParameter("letters and digits only", param_hint=name)
    key_file, request_file = directory / "private_key.pem", directory / "request.csr"
    for file in (key_file, request_file):
        if file.exists() and not force:
            raise typer.BadParameter(f"{file} is there already; --force writes over it", param_hint="--directory")
    passphrase = _given(passphrase_file) or typer.prompt(
        "Passphrase", hide_input=True, confirmation_prompt=True, err=True
    )
    common_name = f"{mailbox}.{ods_code}.{DOMAIN}".lower()
    key = rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(passphrase.encode()),
    )
    directory.mkdir(parents=True, exist_ok=True)
    _write(key_file, pem)
    _write(request_file, request.public_bytes(serialization.Encoding.PEM))
    if as_json:
        print_json({"private_key": str(key_file), "request": str(request_file), "common_name": common_name})
        return
    data.print(f"{key_file}: private key, encrypted with the passphrase", soft_wrap=True)
    data.print(f"{request_file}: certificate request for {common_name}", soft_wrap=True)
    talk.print(
        "Next: send request.csr (never the key) to NHS England's ITOC support, with the application's name, the "
        "mailbox id, the environment and the common name above. When the certificate has come, fill the secret: "
        "mesh secret put --reason … --private-key private_key.pem --certificate … --ca-bundle …"
    )


def _write(file: Path, content: bytes) -> None:
    """Write a file that only its owner may read, from its first byte on."""
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as target:
        target.write(content)
