"""Commands that have a function of the stack do the work: what they say of it, however that ends.

The functions are the built ones; the test is the stack's own process, so that it can change what they are told.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from local.stack import PROJECT, LocalCloud
from tests.e2e.forks import Forks
from tests.faults.nhs_mesh.proxy import LOSE_ANSWER, Proxy
from tests.usecases.rows import row, upload_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

type Done = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    with LocalCloud() as running:
        yield running


@pytest.fixture(scope="module")
def mesh(cloud: LocalCloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Done]]:
    """Run a command with nothing but where the stack is."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MESH_"))}
    environment |= cloud.environment_of_commands() | {"COLUMNS": "200"}
    with Forks(environment, PROJECT, tmp_path_factory.mktemp("forks")) as forks:
        yield forks.run


@pytest.fixture(scope="module")
def keyless(cloud: LocalCloud) -> str:
    """The same stack for somebody who may not read its secret."""
    told = {key: {"Value": value} for key, value in (cloud.outputs | {"MeshSecretArn": "out-of-reach"}).items()}
    template = json.dumps({"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}, "Outputs": told})
    cloud.client("cloudformation").create_stack(StackName="keyless", TemplateBody=template)
    return "keyless"


@pytest.fixture
def jobs_off(mesh: Callable[..., Done]) -> Iterator[None]:
    assert mesh("jobs", "disable").returncode == 0
    yield
    assert mesh("jobs", "enable").returncode == 0


def upload(mesh: Callable[..., Done], folder: Path, *rows: str) -> None:
    file = folder / "upload.csv"
    file.write_text(upload_of(*rows))
    done = mesh("upload", str(file), "--organisation", "R1L")
    assert done.returncode == 0, done.stderr


def json_of(done: Done) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_an_operator_without_a_key_has_the_functions_do_their_work(
    mesh: Callable[..., Done], keyless: str, cloud: LocalCloud, tmp_path: Path
) -> None:
    def as_operator(*arguments: str) -> Any:
        return json_of(mesh("--stack", keyless, *arguments, "--json"))

    inbox = mesh("--stack", keyless, "check-inbox")
    assert (inbox.returncode, inbox.stdout) == (1, "")
    assert "may these credentials read it?" in inbox.stderr
    assert as_operator("validate-mailbox")["mailbox"] == "X26ABC1"
    upload(mesh, tmp_path, row(1))
    [export] = as_operator("dps-export", "-p", "hpv")["exports"]
    assert export["status"] == "accepted"
    assert "cannot be asked now" in as_operator("export", "show", export["export_id"])["tracking"]["status"]
    assert as_operator("track")["status"] == "ok"
    assert as_operator("collect")["status"] == "ok"
    assert as_operator("reconcile")["status"] == "ok"
    assert f"DPS export ({export['export_id']}) for programme (hpv) sent" in cloud.logs()["ExportFunction"]


@pytest.mark.parametrize(
    "command", [("validate-mailbox",), ("dps-export",), ("track",), ("collect",), ("dps-export", "--dry-run")]
)
def test_a_job_that_is_switched_off_does_nothing_for_a_person_either(
    mesh: Callable[..., Done], jobs_off: None, command: tuple[str, ...]
) -> None:
    done = mesh(*command)
    assert (done.returncode, done.stdout) == (1, "")
    assert "did nothing, for mesh_jobs is off. Switch it on with: mesh jobs enable" in done.stderr
    as_json = mesh(*command, "--json")
    assert (as_json.returncode, json.loads(as_json.stdout)) == (1, {"status": "skipped"})


def test_a_function_that_failed_is_told_in_two_lines_with_the_request_id_of_its_log(
    mesh: Callable[..., Done], cloud: LocalCloud
) -> None:
    cloud.emulator.configure("ReconcileFunction", BUCKET="no-such-bucket")
    try:
        done = mesh("reconcile")
    finally:
        cloud.emulator.configure("ReconcileFunction", BUCKET=cloud.outputs["BucketName"])
    assert (done.returncode, done.stdout) == (1, "")
    where, failed, hint = done.stderr.splitlines()
    assert where == "Working on the stack local in eu-west-2"
    assert failed.startswith("error: Reconcile failed: NoSuchBucket: ")
    [request_id] = re.findall(r"\(request id ([0-9a-f-]{36})\)$", failed)
    assert f"RequestId: {request_id}" in cloud.logs()["ReconcileFunction"]
    assert "log" in hint


def test_what_mesh_refuses_a_function_ends_with_3_as_it_does_for_the_mailbox(
    mesh: Callable[..., Done], cloud: LocalCloud
) -> None:
    manager, name = cloud.client("secretsmanager"), cloud.outputs["MeshSecretArn"]
    secret = manager.get_secret_value(SecretId=name)["SecretString"]
    manager.put_secret_value(SecretId=name, SecretString=json.dumps(json.loads(secret) | {"password": "opensesame"}))
    cloud.emulator.kill("ValidateFunction")
    try:
        done = mesh("validate-mailbox")
    finally:
        manager.put_secret_value(SecretId=name, SecretString=secret)
        cloud.emulator.kill("ValidateFunction")
    assert (done.returncode, done.stdout) == (3, "")
    assert "Validate failed: Unauthorised: " in done.stderr
    assert "opensesame" not in done.stderr


def test_only_what_went_wrong_is_sent_again(mesh: Callable[..., Done], cloud: LocalCloud, tmp_path: Path) -> None:
    upload(mesh, tmp_path, row(70, "MenACWY"))
    cloud.emulator.configure("ExportFunction", DPS_MAILBOX="NOSUCHBOX")
    try:
        refused = mesh("dps-export", "-p", "menacwy", "--json")
    finally:
        cloud.emulator.configure("ExportFunction", DPS_MAILBOX=cloud.outputs["DpsMailbox"])
    assert refused.returncode == 3
    [export] = json.loads(refused.stdout)["exports"]
    assert (export["status"], export["error_code"]) == ("failed", "12")
    assert "12 Unregistered to address" in mesh("export", "show", export["export_id"]).stdout
    [again] = json_of(mesh("export", "resend", export["export_id"], "--json"))["exports"]
    assert (again["export_id"], again["status"]) == (export["export_id"], "accepted")
    once_more = mesh("export", "resend", export["export_id"])
    assert (once_more.returncode, once_more.stdout) == (1, "")
    assert "is accepted: only what failed" in once_more.stderr


def test_an_export_whose_answer_is_lost_ends_with_4(
    mesh: Callable[..., Done], cloud: LocalCloud, tmp_path: Path
) -> None:
    upload(mesh, tmp_path, row(80, "MMR").replace("Priorix", "ProQuad"))
    with Proxy(cloud.sandbox) as proxy:
        proxy.script = [LOSE_ANSWER]
        cloud.emulator.configure("ExportFunction", MESH_BASE_URL=proxy.base_url)
        try:
            done = mesh("dps-export", "-p", "mmrv")
        finally:
            cloud.emulator.configure("ExportFunction", MESH_BASE_URL=cloud.sandbox.base_url)
    assert done.returncode == 4
    assert "pending" in done.stdout
    assert "outcome-unknown" in done.stderr
