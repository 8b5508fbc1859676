"""Promises about which stack a command works on, and that finding it leaves no trace."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError
from typer.testing import CliRunner

from mesh_cli.deployment import EXPORTED, FUNCTIONS, OUTPUTS, NoDeployment, find_deployment
from mesh_cli.main import app
from vaccinations.aws.clients import Clients

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: What a stack's outputs are, by its name, where it is there.
OF_A_STACK = {key: f"{key} of {{stack}}" for key in (*OUTPUTS.values(), *FUNCTIONS.values(), *EXPORTED.values())} | {
    "MeshDisableSslVerification": "false",
    "DpsFilenameStyle": "batch-v5",
    "DpsSupplierOdsCode": "V0V8L",
}
LOCAL = {
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    "AWS_ENDPOINT_URL_LAMBDA": "http://127.0.0.1:10",
    "AWS_ACCESS_KEY_ID": "local",
    "AWS_SECRET_ACCESS_KEY": "local",
    "AWS_SESSION_TOKEN": "local",
    "AWS_DEFAULT_REGION": "eu-west-2",
    "MESH_STACK": "local",
}
SAMCONFIG = """
version = 0.1
[default.global.parameters]
region = "eu-west-1"
[default.deploy.parameters]
stack_name = "mine"
[production.global.parameters]
region = "eu-west-3"
[production.deploy.parameters]
stack_name = "theirs"
"""


class CloudFormation:
    """Knows every stack but one called ``nowhere``; ``bare`` is no stack of this project."""

    def describe_stacks(self, StackName: str) -> Any:  # noqa: N803 - boto3's name
        if StackName == "nowhere":
            raise ClientError({"Error": {"Code": "ValidationError", "Message": "no such stack"}}, "DescribeStacks")
        outputs = {} if StackName == "bare" else OF_A_STACK
        told = [{"OutputKey": key, "OutputValue": value.format(stack=StackName)} for key, value in outputs.items()]
        return {"Stacks": [{"Outputs": told}]}


@pytest.fixture(autouse=True)
def _environment_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    def environment() -> dict[str, str]:
        return {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}

    monkeypatch.setattr(Clients, "stacks", CloudFormation())
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    before = environment()
    yield
    assert environment() == before


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose folder is two storeys above this one."""
    (tmp_path / "samconfig.toml").write_text(SAMCONFIG)
    below = tmp_path / "one" / "two"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    return tmp_path


def up(project: Path) -> None:
    """Let a stack be up on this machine."""
    (project / ".local").mkdir()
    lines = ["# process 1", *(f"{name}={value}" for name, value in LOCAL.items())]
    (project / ".local" / "environment").write_text("\n".join(lines))


def test_the_local_stack_is_found_from_any_folder_of_the_project_and_reached_with_its_own_credentials(
    project: Path,
) -> None:
    up(project)
    found = find_deployment(None, {"AWS_ACCESS_KEY_ID": "somebody's", "AWS_REGION": "eu-north-1"})
    assert (found.where, found.settings.bucket) == ("the stack on this machine", "BucketName of local")
    assert found.functions["export"] == "ExportFunctionName of local"
    assert found.clients.s3.meta.endpoint_url == LOCAL["AWS_ENDPOINT_URL"]
    assert found.clients.functions.meta.endpoint_url == LOCAL["AWS_ENDPOINT_URL_LAMBDA"]
    assert found.clients.s3.meta.region_name == "eu-west-2"


def test_a_stack_that_is_named_comes_before_the_local_one_and_the_local_one_before_the_developers_own(
    project: Path,
) -> None:
    assert find_deployment(None, {}).where == "the stack mine in eu-west-1"
    up(project)
    assert find_deployment(None, {}).where == "the stack on this machine"
    assert find_deployment("theirs", {}).where == "the stack theirs in eu-west-3"


def test_the_region_is_the_environments_then_the_profiles_then_samconfigs(project: Path) -> None:
    both = {"AWS_REGION": "eu-north-1", "AWS_DEFAULT_REGION": "eu-south-1"}
    assert find_deployment("theirs", both).where == "the stack theirs in eu-north-1"
    assert find_deployment("theirs", {"AWS_DEFAULT_REGION": "eu-south-1"}).where == "the stack theirs in eu-south-1"
    (project / "config").write_text("[default]\nregion = eu-central-1\n")
    assert find_deployment("theirs", {}).where == "the stack theirs in eu-central-1"
    (project / "config").unlink()
    assert find_deployment("theirs", {}).where == "the stack theirs in eu-west-3"
    assert find_deployment("another", {}).clients.s3.meta.region_name == "eu-west-1"


def test_without_a_region_the_message_asks_for_one() -> None:
    with pytest.raises(NoDeployment, match="in which region is the stack 'theirs'"):
        find_deployment("theirs", {})


def test_without_any_stack_the_message_says_how_to_name_one() -> None:
    with pytest.raises(NoDeployment, match="mesh local up\nor name a deployed one with: --stack NAME"):
        find_deployment(None, {})


def test_a_stack_that_cannot_be_read_or_is_another_projects_is_said(project: Path) -> None:
    with pytest.raises(NoDeployment, match=r"the stack nowhere in .+ is not there"):
        find_deployment("nowhere", {})
    with pytest.raises(NoDeployment, match="'bare' is not one of this project: it lacks the outputs DpsExportsTable"):
        find_deployment("bare", {})
    (project / "samconfig.toml").write_text(SAMCONFIG.replace("mine", "nowhere"))
    with pytest.raises(NoDeployment, match=r"samconfig.toml names it. Name another with: --stack NAME"):
        find_deployment(None, {})


def test_another_mailbox_may_be_looked_into(project: Path) -> None:
    found = find_deployment("theirs", {"MESH_MAILBOX": "X26ABC3", "MESH_PASSWORD": "password"})
    assert found.wiring._instead == {"mailbox": "X26ABC3", "password": "password"}


def test_the_variables_of_the_runbook_are_the_stacks_outputs_and_what_leads_there(project: Path) -> None:
    theirs = find_deployment("theirs", {}).variables
    assert (theirs["BUCKET"], theirs["DEAD_LETTER_QUEUE_URL"]) == (
        "BucketName of theirs",
        "UploadsDeadLetterQueueUrl of theirs",
    )
    assert (theirs["MESH_STACK"], theirs["AWS_REGION"]) == ("theirs", "eu-west-3")
    up(project)
    assert LOCAL.items() <= find_deployment(None, {"AWS_REGION": "eu-north-1"}).variables.items()
    assert "BucketName of local" in find_deployment(None, {}).variables.values()


def test_the_variables_are_printed_for_a_shell_to_read(project: Path) -> None:
    up(project)
    printed = CliRunner().invoke(app, ["stack", "--export"]).stdout
    asked = ["/bin/sh", "-c", f'{printed}printf "%s|" "$BUCKET" "$MESH_STACK" "$UNDELIVERED_QUEUE_URL"']
    read = subprocess.run(asked, capture_output=True, text=True, check=True, env={})
    assert read.stdout == "BucketName of local|local|UndeliveredQueueUrl of local|"
    assert all(line.startswith("export ") for line in printed.splitlines())
