"""Promises about filling the secret and switching the jobs, on services that answer from memory as AWS does."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError
from typer.testing import CliRunner

from mesh_cli import setup
from mesh_cli.main import app
from vaccinations.aws.parameters import SECRET_FIELDS, jobs_enabled

if TYPE_CHECKING:
    from pathlib import Path


class Secrets:
    """A Secrets Manager with one secret: filled with a text, without a version, or not readable by the caller."""

    def __init__(self, text: str | None = None, *, refuses: str = "ResourceNotFoundException") -> None:
        self.text = text
        self.refuses = refuses

    def get_secret_value(self, **_: Any) -> dict[str, str]:
        if self.text is None:
            raise ClientError({"Error": {"Code": self.refuses}}, "GetSecretValue")
        return {"SecretString": self.text}

    def put_secret_value(self, *, SecretString: str, **_: str) -> None:  # noqa: N803 - as boto3 has it
        self.text = SecretString


class Parameters:
    """A Parameter Store, empty as in a new stack."""

    def __init__(self) -> None:
        self.made: dict[str, str] = {}

    def get_parameter(self, *, Name: str) -> dict[str, Any]:  # noqa: N803
        if Name not in self.made:
            raise ClientError({"Error": {"Code": "ParameterNotFound"}}, "GetParameter")
        return {"Parameter": {"Value": self.made[Name]}}

    def put_parameter(self, *, Name: str, Value: str, Type: str, Overwrite: bool) -> None:  # noqa: N803
        assert Type == "String", "Parameter Store asks for it where the parameter is new"
        assert Overwrite
        self.made[Name] = Value


class Stack:
    """A deployment of which a command needs the secret and the flag."""

    def __init__(self, secrets: Secrets) -> None:
        identity = SimpleNamespace(get_caller_identity=lambda: {"Arn": "arn:aws:iam::123456789012:user/jo"})
        self.settings = SimpleNamespace(mesh_secret="mesh", mesh_jobs_parameter="/stack/mesh_jobs", event_bus="")
        self.clients = SimpleNamespace(secrets=secrets, parameters=Parameters(), identity=identity)
        self.wiring = SimpleNamespace(
            jobs_enabled=lambda: jobs_enabled(self.clients.parameters, "/stack/mesh_jobs"),
            bucket=lambda: SimpleNamespace(put_act=lambda _: None),
        )


def run(monkeypatch: pytest.MonkeyPatch, secrets: Secrets, *words: str) -> Any:
    stack = Stack(secrets)
    monkeypatch.setattr(setup, "deployment", lambda _: stack)
    return [CliRunner().invoke(app, command.split()) for command in words]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Files with words, by option, without the CA bundle, which is checked."""
    options = {
        "--password-file": "password",
        "--shared-key-file": "shared_key",
        "--private-key": "private_key",
        "--passphrase-file": "private_key_passphrase",
        "--certificate": "certificate",
    }
    for field in options.values():
        (tmp_path / field).write_text(f"the {field}")
    return {option: f"{option} {tmp_path / field}" for option, field in options.items()}


def test_the_secret_of_a_new_stack_which_has_no_version_yet_can_be_filled(
    monkeypatch: pytest.MonkeyPatch, files: dict[str, str]
) -> None:
    secrets = Secrets()
    [done] = run(monkeypatch, secrets, f"secret put --reason x --mailbox X26ABC1 {files['--password-file']} --no-ask")
    assert done.exit_code == 0, done.output
    assert json.loads(secrets.text or "") == {"mailbox": "X26ABC1", "password": "the password"}


def test_a_secret_keeper_who_may_not_read_the_secret_has_to_give_all_of_it(
    monkeypatch: pytest.MonkeyPatch, files: dict[str, str]
) -> None:
    secrets = Secrets(refuses="AccessDeniedException")
    [refused] = run(
        monkeypatch, secrets, f"secret put --reason x --mailbox X26ABC1 {files['--password-file']} --no-ask"
    )
    assert refused.exit_code == 2
    assert "ca_bundle" in refused.output
    assert secrets.text is None, "half a secret would have taken the place of a whole one"

    monkeypatch.setattr(setup, "check_ca_bundle", lambda _: None)
    whole = " ".join([*files.values(), f"--ca-bundle {files['--certificate'].split()[1]}"])
    [done] = run(monkeypatch, secrets, f"secret put --reason x --mailbox X26ABC1 {whole} --no-ask")
    assert done.exit_code == 0, done.output
    assert set(json.loads(secrets.text or "")) == set(SECRET_FIELDS)


def test_the_flag_of_a_new_stack_is_off_and_comes_to_be_when_somebody_switches_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown, on, again = run(monkeypatch, Secrets(), "jobs", "jobs enable --reason onboarded", "jobs")
    assert shown.stdout == "mesh_jobs is disabled\n"
    assert on.stdout == "mesh_jobs is enabled; it was disabled\n"
    assert again.stdout == "mesh_jobs is enabled\n"
