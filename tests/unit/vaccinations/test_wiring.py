"""Promises about how things are put together."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

import nhs_mesh
from vaccinations.aws import parameters
from vaccinations.results import RowsRefused
from vaccinations.settings import READS, Settings
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


@pytest.mark.parametrize("job", ["ingest", "collect"])
@pytest.mark.parametrize("bus", ["teams", ""])
def test_teams_are_told_on_the_bus_where_there_is_one(secrets: Secrets, job: str, bus: str) -> None:
    put: list[Any] = []

    def put_events(Entries: Any) -> Any:  # noqa: N803 - boto3's own name
        put.extend(Entries)
        return {"FailedEntryCount": 0}

    environ = MESH | dict.fromkeys(READS[job], "something") | {"EVENT_BUS": bus, "UPLOADERS": "{}"}
    environ |= {"MESH_DISABLE_SSL_VERIFICATION": "false"}
    stores = dict.fromkeys(("s3", "dynamodb"))
    clients = cast("Any", SimpleNamespace(secrets=secrets, events=SimpleNamespace(put_events=put_events), **stores))
    wired = Wiring(Settings.of(job, environ), clients)
    use_case = wired.ingest() if job == "ingest" else wired.collect(lambda: 900.0)
    told = {"organisation": "R1L", "batch_id": "b1", "export_id": "hpv-1", "programme": "hpv", "rows": 2}
    use_case.tell(RowsRefused(**told, refusals="receipts/1", refused_at="", summary="two"))  # type: ignore[arg-type]
    assert [(e["EventBusName"], e["DetailType"]) for e in put] == [("teams", "Rows refused by DPS")] * bool(bus)
