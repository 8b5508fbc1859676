"""Promises about which deployment a command works on, and that finding it leaves no trace."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from mesh_cli.deployment import NoDeployment, find_deployment
from vaccinations.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VARIABLES = {
    "DPS_EXPORTS_TABLE": "exports",
    "VACCINATION_RECORDS_TABLE": "records",
    "UPLOADS_QUEUE": "https://queue",
    "BUCKET": "bucket",
    "MESH_SECRET": "mesh",
    "MESH_JOBS_PARAMETER": "/mesh_jobs",
    "MESH_BASE_URL": "https://localhost",
    "DPS_MAILBOX": "X26ABC3",
    "DPS_SUPPLIER_ODS_CODE": "V0V8L",
}
AWS = {
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    "AWS_ACCESS_KEY_ID": "local",
    "AWS_SECRET_ACCESS_KEY": "local",
    "AWS_SESSION_TOKEN": "local",
    "AWS_DEFAULT_REGION": "eu-west-2",
}


@pytest.fixture(autouse=True)
def _environment_stays() -> Iterator[None]:
    def environment() -> dict[str, str]:
        return {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}

    before = environment()
    yield
    assert environment() == before


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder two storeys below the one where a local stack is up."""
    (tmp_path / ".local").mkdir()
    lines = ["# process 1", *(f"{name}={value}" for name, value in {**VARIABLES, **AWS}.items())]
    (tmp_path / ".local" / "environment").write_text("\n".join(lines))
    below = tmp_path / "one" / "two"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    return below


def test_the_environment_names_a_stack() -> None:
    found = find_deployment(None, VARIABLES)
    assert (found.where, found.settings.bucket) == ("the environment's stack", "bucket")


def test_the_local_stack_is_found_from_any_folder_of_the_project_and_reached_with_its_own_credentials(
    folder: Path,
) -> None:
    found = find_deployment(None, {"AWS_ACCESS_KEY_ID": "somebody's", "BUCKET": "another"})
    assert (found.where, found.settings.bucket) == ("the stack on this machine", "bucket")
    assert found.clients.s3.meta.endpoint_url == AWS["AWS_ENDPOINT_URL"]


def test_the_environment_comes_before_the_local_stack(folder: Path) -> None:
    assert find_deployment(None, {**VARIABLES, "BUCKET": "another"}).settings.bucket == "another"


def test_without_any_the_message_says_how_to_name_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NoDeployment, match="mesh local up\nor name a deployed one with: --stack NAME"):
        find_deployment(None, {})


def test_a_stack_with_a_setting_missing_says_which() -> None:
    with pytest.raises(SettingsError, match="DPS_MAILBOX"):
        find_deployment(None, {**VARIABLES, "DPS_MAILBOX": ""})
