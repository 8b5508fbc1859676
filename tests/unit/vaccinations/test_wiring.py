"""Promises about how things are put together."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

import nhs_mesh
from vaccinations.aws import parameters
from vaccinations.settings import Settings
from vaccinations.wiring import Wiring

MESH = {"MESH_BASE_URL": "https://localhost", "MESH_SECRET": "mesh", "MESH_JOBS_PARAMETER": "/mesh_jobs"}
SETTINGS = Settings.of("validate", MESH)


class Secrets:
    """A Secrets Manager whose secret is rotated at will."""

    def __init__(self) -> None:
        self.password = "first"

    def get_secret_value(self, **_: Any) -> dict[str, str]:
        secret = dict.fromkeys(parameters.SECRET_FIELDS, "something") | {"password": self.password}
        return {"SecretString": json.dumps(secret)}


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> Secrets:
    """Let every read of the secret be a new one, and a MESH client be what it was given."""
    monkeypatch.setattr(parameters, "SECRET_MAX_AGE", 0)
    monkeypatch.setattr(
        nhs_mesh, "MeshClient", lambda _, credentials, **_options: SimpleNamespace(opened_by=credentials)
    )
    return Secrets()


def wiring(secrets: Secrets, **instead: str) -> Wiring:
    return Wiring(SETTINGS, cast("Any", SimpleNamespace(secrets=secrets)), instead=instead)


def test_the_mesh_client_and_its_connections_outlive_an_invocation(secrets: Secrets) -> None:
    wired = wiring(secrets)
    assert wired.mesh() is wired.mesh()


def test_a_rotated_password_makes_another_client(secrets: Secrets) -> None:
    wired = wiring(secrets)
    before = wired.mesh()
    secrets.password = "second"
    after = cast("Any", wired.mesh())
    assert after is not before
    assert after.opened_by.password == "second"


def test_a_developer_looks_into_another_mailbox_with_the_other_fields_of_the_secret(secrets: Secrets) -> None:
    opened_by = cast("Any", wiring(secrets, mailbox="X26ABC3", password="password").mesh()).opened_by
    assert (opened_by.mailbox, opened_by.password, opened_by.shared_key) == ("X26ABC3", "password", "something")
    assert wiring(secrets, mailbox="X26ABC3").secret().mailbox == "something"
