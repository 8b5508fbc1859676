"""Commands that have a function of the stack do the work: what they say of it, however that ends.

The functions are the built ones; the test is the stack's own process, so that it can change what they are told.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from local.stack import PROJECT, LocalCloud
from tests.e2e.forks import Forks
from tests.faults.nhs_mesh.proxy import LOSE_ANSWER, Proxy
from tests.schemas import FOLDER
from tests.usecases.rows import row, upload_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

#: Whose credentials the commands have, as moto tells.
ME = "arn:aws:sts::123456789012:user/moto"

ACT = json.loads((FOLDER / "person-acted.schema.json").read_text())

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
    assert mesh("jobs", "disable", "--reason", "MESH is being moved").returncode == 0
    yield
    assert mesh("jobs", "enable", "--reason", "MESH is back").returncode == 0


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
    assert (inbox.returncode, inbox.stdout) == (2, "")
    assert "the MESH secret lacks mailbox, password" in inbox.stderr
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
    [again] = json_of(mesh("export", "resend", export["export_id"], "--reason", "the mailbox was wrong", "--json"))[
        "exports"
    ]
    assert (again["export_id"], again["status"]) == (export["export_id"], "accepted")
    asked = json_of(mesh("export", "show", export["export_id"], "--json"))["attempts"][1]["asked"]
    assert asked == {"by": ME, "reason": "the mailbox was wrong"}
    said = [line for line in cloud.logs()["ExportFunction"].splitlines() if "export to be sent again" in line]
    assert [(json.loads(line)["asked_by"], json.loads(line)["asked_because"]) for line in said] == [
        (ME, "the mailbox was wrong")
    ]
    once_more = mesh("export", "resend", export["export_id"], "--reason", "again")
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


@pytest.fixture
def heard(cloud: LocalCloud) -> Iterator[Callable[[], list[Any]]]:
    """Listen to the bus as another system would; return the details of what was heard since."""
    events, sqs = cloud.client("events"), cloud.client("sqs")
    queue = sqs.create_queue(QueueName="acts")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    events.put_rule(Name="acts", EventPattern=json.dumps({"detail-type": ["Person acted"]}))
    events.put_targets(Rule="acts", Targets=[{"Id": "queue", "Arn": arn}])

    def since() -> list[Any]:
        found = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", [])
        return [json.loads(message["Body"])["detail"] for message in found]

    yield since
    events.remove_targets(Rule="acts", Ids=["queue"])
    events.delete_rule(Name="acts")


def test_who_did_what_and_why_is_listed_and_published(
    mesh: Callable[..., Done], heard: Callable[[], list[Any]], tmp_path: Path
) -> None:
    time.sleep(1)  # what was done before is of an earlier second
    begun = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}"
    assert mesh("jobs", "disable", "--reason", "the mailbox moves").returncode == 0
    assert mesh("track").returncode == 1
    assert mesh("jobs", "enable", "--reason", "the mailbox has moved").returncode == 0
    assert mesh("dps-export", "-p", "flu", "--reason", "the night was missed").returncode == 0
    assert mesh("dps-export", "--dry-run").returncode == 0
    assert mesh("jobs").returncode == 0
    password = tmp_path / "password"
    password.write_text("password")
    assert mesh("secret", "put", "--password-file", str(password), "--no-ask", "--reason", "a trial").returncode == 0
    acts = json_of(mesh("audit", "--since", begun, "--json"))
    assert [(act["what"], act["about"], act["reason"], act["outcome"]) for act in reversed(acts)] == [
        ("jobs disable", "", "the mailbox moves", "done"),
        ("track", "", "", "failed"),
        ("jobs enable", "", "the mailbox has moved", "done"),
        ("dps-export", "flu", "the night was missed", "done"),
        ("secret put", "", "a trial", "done"),
    ]
    assert {act["by"] for act in acts} == {ME}
    assert json_of(mesh("audit", "--since", begun, "--limit", "1", "--json")) == acts[:1]
    assert json_of(mesh("audit", "--since", "2199-01-01", "--json")) == []
    assert "the night was missed" in mesh("audit").stdout
    told = heard()
    for act in told:
        jsonschema.validate(act, ACT)
    assert sorted(act["act_id"] for act in told) == sorted(2 * [act["act_id"] for act in acts])
    assert {act["outcome"] for act in told} == {"", "done", "failed"}


def test_nothing_is_done_where_it_cannot_be_noted(mesh: Callable[..., Done], cloud: LocalCloud) -> None:
    told = {key: {"Value": value} for key, value in (cloud.outputs | {"BucketName": "no-such-bucket"}).items()}
    template = json.dumps({"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}, "Outputs": told})
    cloud.client("cloudformation").create_stack(StackName="noteless", TemplateBody=template)
    done = mesh("--stack", "noteless", "jobs", "disable", "--reason", "unseen")
    assert (done.returncode, done.stdout) == (1, "")
    assert mesh("jobs").stdout == "mesh_jobs is enabled\n"


@pytest.mark.parametrize(
    "reason", ["", " ", "about 999 000 0018", "9990000018", "99-9000-0018", "999.000.0018 x", "two\nlines", "x" * 151]
)
def test_a_reason_that_is_none_or_may_name_a_child_is_refused(mesh: Callable[..., Done], reason: str) -> None:
    done = mesh("jobs", "disable", "--reason", reason)
    assert (done.returncode, done.stdout) == (2, "")
    assert "999 000 0018" not in done.stderr
    assert mesh("jobs").stdout == "mesh_jobs is enabled\n"


def test_what_no_schedule_does_is_not_done_without_a_reason(mesh: Callable[..., Done]) -> None:
    for command in (
        ("export", "resend", "hpv-1"),
        ("export", "reset", "flu", "--yes"),
        ("record", "resend", "496e37d8-d1ab-4e12-a3a3-9c2e136a0504"),
        ("refused", "resend", "--class", "unknown", "--yes"),
        ("uploads", "retry", "R1L/monday.csv"),
        ("uploads", "abandon", "R1L/monday.csv"),
        ("jobs", "disable"),
        ("secret", "put", "--no-ask"),
    ):
        done = mesh(*command)
        assert (done.returncode, done.stdout) == (2, ""), command
        assert "--reason" in done.stderr
