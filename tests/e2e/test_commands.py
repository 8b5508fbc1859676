"""The ``mesh`` command in processes of its own, on a stack that ``mesh local up`` has running.

The tests share the stack and run in any order. One that counts exports has a programme to itself.
"""

from __future__ import annotations

import filecmp
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import boto3
import pytest

from local import certificates
from local.certificates import Certificates
from tests.e2e.forks import Forks
from tests.faults.nhs_mesh.proxy import FORWARD, LOSE_ANSWER, Proxy, answer
from tests.usecases.rows import row, upload_of, uuid_of
from vaccinations.model.programmes import URIS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from local.sandbox import Sandbox

MESH = Path(sys.executable).parent / "mesh"
PROJECT = Path(__file__).parents[2]
ENVIRONMENT = PROJECT / ".local" / "environment"

type Done = subprocess.CompletedProcess[str]


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MESH_", "DPS_"))}


@pytest.fixture(scope="module")
def up() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [MESH, "local", "up"],
        cwd=PROJECT,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not ENVIRONMENT.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "mesh local up wrote no environment file"
        time.sleep(0.1)
    yield process
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0, out
    assert re.search(r"page\W+http://127\.0\.0\.1:[0-9]+/", out), out
    assert "nothing is left running" in out
    assert not ENVIRONMENT.exists()


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    with Forks(clean_environment() | {"COLUMNS": "200"}, PROJECT, tmp_path_factory.mktemp("forks")) as running:
        yield running


@pytest.fixture
def mesh(up: subprocess.Popen[str], forks: Forks) -> Callable[..., Done]:
    return forks.run


def json_of(done: Done) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def environment_of_stack() -> dict[str, str]:
    lines = ENVIRONMENT.read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if not line.startswith("#"))


def outputs() -> dict[str, str]:
    [stack] = in_aws("cloudformation").describe_stacks(StackName="local")["Stacks"]
    return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}


def another_stack(name: str, **changed: str) -> dict[str, str]:
    """Create a stack with the outputs of the one that is up, but for some; return what makes it the commands'."""
    told = {key: {"Value": value} for key, value in (outputs() | changed).items()}
    topic = {"Topic": {"Type": "AWS::SNS::Topic"}}
    template = json.dumps({"Resources": topic, "Outputs": told})
    in_aws("cloudformation").create_stack(StackName=name, TemplateBody=template)
    return environment_of_stack() | {"MESH_STACK": name}


#: Why somebody does what no schedule does.
BECAUSE = ("--reason", "the test wants it")
#: What every command says first.
SAID = "Working on the stack on this machine\n"


DPS = {"MESH_MAILBOX": "X26ABC3", "MESH_PASSWORD": "password"}


def test_a_reader_that_has_seen_enough_is_no_failure(up: subprocess.Popen[str]) -> None:
    for command in ("exports", "uploads --json", "audit"):
        line = f"set -o pipefail; {MESH} {command} | head -c 1"
        done = subprocess.run(
            ["/bin/bash", "-c", line], cwd=PROJECT, env=clean_environment(), capture_output=True, text=True, check=False
        )
        assert (done.returncode, "Traceback" in done.stderr, "pipe" in done.stderr) == (0, False, False), done.stderr


def test_a_day_at_the_command_line(mesh: Callable[..., Done], tmp_path: Path) -> None:
    assert json_of(mesh("validate-mailbox", "--json"))["mailbox"] == "X26ABC1"

    file = tmp_path / "monday.csv"
    file.write_text(upload_of(row(1), row(2).replace(",,", ",9990000018,", 1), row(3, "Td/IPV")))
    receipt = json_of(mesh("upload", str(file), "--organisation", "R1L", "--json"))
    assert receipt["accepted"] == {"hpv": {"new": 2}, "td_ipv": {"new": 1}}

    planned = json_of(mesh("dps-export", "--dry-run", "--json"))
    would = {e["export_id"]: e["would"] for e in planned["exports"]}
    assert (would["hpv-1"], would["td_ipv-1"]) == ("seal and send", "seal and send")

    sent = json_of(mesh("dps-export", "--programme", "hpv", "--json"))
    [export] = sent["exports"]
    assert (export["export_id"], export["status"], export["records"]) == ("hpv-1", "accepted", 2)

    listed = {e["export_id"]: e["status"] for e in json_of(mesh("exports", "--json"))}
    assert (listed["hpv-1"], listed["td_ipv-1"]) == ("accepted", "open")

    inbox = json_of(mesh("check-inbox", "--json", **DPS))
    assert inbox["messages"].count(export["message_id"]) == 1

    message = mesh("get-message", export["message_id"], **DPS)
    assert message.stdout.startswith('"NHS_NUMBER"|"PERSON_FORENAME"|')
    assert uuid_of(1) in message.stdout
    assert mesh("export", "fetch", "hpv-1").stdout == message.stdout

    acknowledged = mesh("ack-message", export["message_id"], **DPS)
    assert acknowledged.stdout == f"Message {export['message_id']} acknowledged\n"
    tracked = {e["export_id"]: e["status"] for e in json_of(mesh("track", "--json"))["exports"]}
    assert tracked["hpv-1"] == "acknowledged"

    by_id = json_of(mesh("record", "find", uuid_of(2), "--json"))
    [statement] = by_id[0]["statements"]
    assert (statement["export_id"], statement["action"], statement["line"]) == ("hpv-1", "new", 3)
    [by_row] = json_of(mesh("record", "find", "R1L/monday.csv:3", "--json"))
    assert by_row == by_id[0] | {"asked_row": "was accepted"}
    nobody = mesh("record", "find", "--nhs-number", given="9990000026\n")
    assert (nobody.returncode, nobody.stdout, "9990000026" in nobody.stderr) == (1, "", False)
    assert json_of(mesh("record", "find", "--nhs-number", "--json", given="9990000018\n")) == by_id
    shown = mesh("export", "show", "hpv-1")
    assert "acknowledged" in shown.stdout


def test_dps_is_played_and_answers_over_mesh(mesh: Callable[..., Done], tmp_path: Path) -> None:
    def sent_and_picked_up(*rows: str, refuse: str = "") -> Any:
        upload = tmp_path / "mmr.csv"
        upload.write_text(upload_of(*rows))
        assert mesh("upload", str(upload), "--organisation", "R1L").returncode == 0
        [export] = json_of(mesh("dps-export", "-p", "mmr", "--json"))["exports"]
        files = json_of(mesh("local", "dps", "--json", *(["--refuse", refuse] if refuse else [])))
        return next(file for file in files if file["message_id"] == export["message_id"])

    first = sent_and_picked_up(row(90, "MMR"), row(91, "MMR"), refuse=f"{uuid_of(91).upper()}=No permissions")
    assert (first["problem"], first["processed"]) == (None, 1)
    assert first["refused"] == [{"row": 2, "record": uuid_of(91), "outcome": "No permissions"}]
    assert [name.split("_")[-2] for name in first["answers"]] == ["InfAck", "BusAck", "BusAck"]
    inbox = json_of(mesh("check-inbox", "--json", "--workflow", "dps export ack"))["messages"]
    answer = json.loads(mesh("get-message", inbox[-1]).stdout)
    assert (answer["summary"]["succeeded"], answer["summary"]["failed"]) == (1, 1)

    # It remembers what it processed and what it refused.
    second = sent_and_picked_up(row(90, "MMR", batch="XY1"), row(91, "MMR", batch="XY1"))
    assert second["processed"] == 1
    assert f"does not exist. ID: {URIS['vaccination_record']}#{uuid_of(91)}" in second["refused"][0]["outcome"]
    assert mesh("local", "dps").stderr == "Nothing has arrived for DPS.\n"
    assert mesh("local", "dps", "--refuse", "no reason").returncode == 2

    # What it says is collected, listed and fixed.
    answers = [message["answer"] for message in json_of(mesh("collect", "--json"))["messages"]]
    outcomes = [answer["outcome"] for answer in answers if answer and answer["export_id"] in {"mmr-1", "mmr-2"}]
    assert (outcomes.count("received"), outcomes.count("processed")) == (2, 2)
    listed = json_of(mesh("exports", "-p", "mmr", "--json"))
    facts = ("processing", "rows_processed", "rows_refused")
    assert [[e["attempts"][0][fact] for fact in facts] for e in listed] == [["processed", 1, 1]] * 2
    assert [e["status"] for e in listed] == ["accepted"] * 2
    assert "processed 1 of 2" in mesh("exports", "-p", "mmr").stdout
    for name in ("mmr-1", first["filename"], listed[-1]["attempts"][0]["filename"].upper()):
        assert "processed 1 of 2" in mesh("export", "show", name).stdout
    assert listed[-1]["attempts"][0]["arrival"]["header_id"] in mesh("export", "show", "mmr-1").stdout
    [refused] = json_of(mesh("refused", "--programme", "mmr", "--json"))
    facts = ("record", "class", "upload", "line", "export", "row")
    assert [refused[fact] for fact in facts] == [uuid_of(91), "unknown", "incoming/R1L/mmr.csv", 3, "mmr-2", 2]
    assert "text" not in refused
    [explained] = json_of(mesh("refused", "-p", "mmr", "--text", "--json"))
    assert explained["text"] == second["refused"][0]["outcome"]
    assert json_of(mesh("refused", "--since", "2199-01-01", "--json")) == []
    assert uuid_of(91) in mesh("refused", COLUMNS="200").stdout
    [story] = json_of(mesh("record", "find", uuid_of(91), "--json"))
    assert [(one["export_id"], one["dps"]) for one in story["statements"]] == [
        ("mmr-1", "refused: other"),
        ("mmr-2", "refused: unknown"),
    ]
    assert story["on_file"] == "no"
    [processed] = json_of(mesh("record", "find", uuid_of(90), "--json"))
    assert {one["dps"] for one in processed["statements"]} == {"processed"}
    told = json_of(mesh("receipt", "R1L/mmr.csv", "--json"))
    assert [key.rpartition("-refused-")[2] for key in told["refused_by_dps"]] == ["mmr-2.csv"]

    assert mesh("record", "resend", uuid_of(90), *BECAUSE).returncode == 1
    assert json_of(mesh("refused", "resend", "--class", "invalid", *BECAUSE, "--yes", "--json")) == []
    asked = mesh("refused", "resend", "--class", "unknown", *BECAUSE)
    assert (asked.returncode, "Send 1 record of" in asked.stderr) == (1, True)
    receipt = json_of(mesh("refused", "resend", "--class", "unknown", *BECAUSE, "-p", "mmr", "--yes", "--json"))
    assert receipt["accepted"] == {"mmr": {"new": 1}}
    assert mesh("record", "resend", uuid_of(91), *BECAUSE).returncode == 1  # it is on its way
    assert mesh("dps-export", "-p", "mmr").returncode == 0
    assert [one["processed"] for one in json_of(mesh("local", "dps", "--json"))] == [1]
    assert "BusAck about mmr-3: processed: 1 processed, 0 refused" in mesh("collect").stderr
    assert mesh("refused", "-p", "mmr").stderr == f"{SAID}DPS has refused no record as it was sent last.\n"

    # A file that it refuses as a whole is requeued by a person.
    file = tmp_path / "mmr.csv"
    file.write_text(upload_of(row(92, "MMR")))
    assert mesh("upload", str(file), "--organisation", "R1L").returncode == 0
    assert mesh("dps-export", "-p", "mmr").returncode == 0
    [refused] = json_of(mesh("local", "dps", "--refuse-files", "wrong headers", "--clear", "mmr", "--json"))
    assert (refused["problem"], refused["status"]) == ("wrong headers", "bad name")
    assert mesh("collect").returncode == 0
    later = tmp_path / "later.csv"
    later.write_text(upload_of(row(94, "MMR")))
    assert mesh("upload", str(later), "--organisation", "R1L").returncode == 0
    assert mesh("dps-export", "-p", "mmr").returncode == 0
    told = mesh("export", "show", "mmr-4", COLUMNS="200").stdout
    assert "then mesh export resend mmr-4" in told
    assert re.search(r"may wait behind it +mmr-5", told)
    asked = mesh("export", "resend", refused["filename"], *BECAUSE, "--json")
    assert "DPS may move no later file of MMR until it has cleared this one: mmr-5" in asked.stderr
    receipt = json_of(asked)
    assert (receipt["upload"], receipt["accepted"]) == ("requests/mmr-4.requeue", {"mmr": {"new": 1}})
    assert json_of(mesh("receipt", "requests/mmr-4.requeue", "--json"))["batch_id"] == receipt["batch_id"]
    shown = json_of(mesh("export", "show", "mmr-4", "--json"))
    assert (shown["status"], shown["request"]) == ("requeued", "requests/mmr-4.requeue")
    assert mesh("export", "resend", "mmr-4", *BECAUSE).returncode == 1
    [story] = json_of(mesh("record", "find", uuid_of(92), "--json"))
    told = [(one["upload"], one["sent_again_by"], one["status"]) for one in story["statements"]]
    assert told == [
        ("incoming/R1L/mmr.csv", "", "requeued"),
        ("incoming/R1L/mmr.csv", "requests/mmr-4.requeue", "open"),
    ]
    assert mesh("dps-export", "-p", "mmr").returncode == 0
    assert [one["processed"] for one in json_of(mesh("local", "dps", "--json"))] == [1, 1]

    # What another system has sent before is not sent again.
    file.write_text(upload_of(row(93, "MMR")))
    receipt = json_of(mesh("already-sent", str(file), "--organisation", "R1L", *BECAUSE, "--json"))
    assert (receipt["accepted"], receipt["exports"]) == ({"mmr": {"new": 1}}, {})
    assert json_of(mesh("dps-export", "-p", "mmr", "--json"))["exports"] == []


def test_tables_go_to_stdout_and_talk_to_stderr(mesh: Callable[..., Done]) -> None:
    done = mesh("check-inbox", "--workflow", "nothing of the kind")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"{SAID}The inbox of X26ABC1 is empty.\n"


def test_a_file_that_cannot_be_read_ends_with_1_and_the_reason(mesh: Callable[..., Done], tmp_path: Path) -> None:
    file = tmp_path / "empty.csv"
    file.write_bytes(b"")
    done = mesh("upload", str(file), "--organisation", "R1L")
    assert done.returncode == 1
    assert "Rejected" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["dps-export", "--programme", "polio"], "is not one of: flu, hpv"),
        (["export", "show", "hpv"], "no export id"),
        (["export", "show", "hpv-99"], "there is no export hpv-99"),
        (["no-such-command"], "No such command"),
        (["upload", "no-such-file.csv", "--organisation", "R1L"], "does not exist"),
    ],
)
def test_wrong_use_ends_with_2_and_says_what_is_wrong(
    mesh: Callable[..., Done], arguments: list[str], says: str
) -> None:
    done = mesh(*arguments, COLUMNS="200")
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr


def test_what_mesh_refuses_ends_with_3(mesh: Callable[..., Done]) -> None:
    unknown = mesh("get-message", "0123456789ABCDEF0123456789ABCDEF")
    assert (unknown.returncode, unknown.stdout) == (3, "")
    wrong = mesh("check-inbox", MESH_PASSWORD="opensesame")
    assert wrong.returncode == 3
    assert "password" in wrong.stderr
    assert "opensesame" not in wrong.stderr


def test_without_a_deployment_the_command_says_how_to_get_one(tmp_path: Path) -> None:
    done = subprocess.run(
        [MESH, "exports"],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "mesh local up" in done.stderr
    assert "--stack NAME" in done.stderr


def test_a_file_is_sent_tracked_and_found_by_its_local_id(mesh: Callable[..., Done], tmp_path: Path) -> None:
    file = tmp_path / "letter.txt"
    file.write_text("Dear DPS,\n" * 1000)
    sent = json_of(mesh("send-file", "X26ABC3", str(file), "--workflow", "letters", "--local-id", "letter-1", "--json"))
    assert (sent["parts"], sent["local_id"]) == (1, "letter-1")
    tracked = json_of(mesh("track-message", sent["message_id"], "--json"))
    assert (tracked["status"], tracked["filename"], tracked["workflow_id"]) == ("accepted", "letter.txt", "letters")
    assert json_of(mesh("track-message", "letter-1", "--local", "--json"))["message_id"] == sent["message_id"]
    copy = tmp_path / "copy.txt"
    assert mesh("get-message", sent["message_id"], "-o", str(copy), **DPS).stdout == ""
    assert copy.read_text() == file.read_text()
    assert json_of(mesh("check-inbox", "--workflow", "letters", "--json", **DPS))["messages"] == [sent["message_id"]]
    assert mesh("ack-message", sent["message_id"], **DPS).returncode == 0


def test_a_file_to_nobody_is_refused_with_the_code_of_mesh(mesh: Callable[..., Done], tmp_path: Path) -> None:
    file = tmp_path / "letter.txt"
    file.write_text("Dear nobody")
    done = mesh("send-file", "NOSUCHBOX", str(file))
    assert (done.returncode, done.stdout) == (3, "")
    assert "12 Unregistered to address" in done.stderr


def test_mailboxes_of_an_organisation_are_looked_up(mesh: Callable[..., Done]) -> None:
    assert json_of(mesh("lookup", "X27", "dps export", "--json")) == []


def test_the_receipt_of_an_upload_can_be_asked_for_later(mesh: Callable[..., Done], tmp_path: Path) -> None:
    file = tmp_path / "later.csv"
    file.write_text(upload_of(row(50, "MenACWY"), row(51, "MenACWY").replace("SW1A 1AA", "nonsense")))
    shown = mesh("upload", str(file), "--organisation", "R1L")
    assert shown.returncode == 0
    assert "1 accepted" in shown.stdout
    assert "PERSON_POSTCODE" in shown.stdout
    receipt = json_of(mesh("receipt", "R1L/later.csv", "--json"))
    assert (receipt["accepted"], receipt["rejected"]) == ({"menacwy": {"new": 1}}, 1)
    done = mesh("upload", str(file), "--organisation", "X26", "--json")
    assert done.returncode == 1, "no row was accepted"
    own = json.loads(done.stdout)
    assert (own["upload"], own["rejected"]) == ("incoming/X26/later.csv", 2), "it is R1L's record"
    missing = mesh("receipt", "R1L/never.csv")
    assert (missing.returncode, missing.stdout) == (1, "")
    assert "There is no upload R1L/never.csv" in missing.stderr


def in_aws(service: str) -> Any:
    variables = environment_of_stack()
    session = boto3.Session(
        variables["AWS_ACCESS_KEY_ID"],
        variables["AWS_SECRET_ACCESS_KEY"],
        variables["AWS_SESSION_TOKEN"],
        variables["AWS_DEFAULT_REGION"],
    )
    return session.client(service, endpoint_url=variables["AWS_ENDPOINT_URL"])  # type: ignore[call-overload]


def an_intake_that_cannot_be_completed(receipt: dict[str, Any], batch_id: str) -> None:
    """Leave an upload behind as three runs do that could not complete it."""
    there = outputs()
    stored = {"upload": receipt["upload"], "version": receipt["version"], "receipt": receipt | {"batch_id": batch_id}}
    in_aws("s3").put_object(
        Bucket=there["BucketName"], Key=f"batches/{batch_id}.json", Body=json.dumps(stored).encode()
    )
    batches = {"batches": {"M": {"td_ipv": {"N": "1"}}}, "attached": {"M": {}}, "finished": {"BOOL": False}}
    batches["sends"] = {"BOOL": True}
    for item in (
        {"record_id": {"S": f"batch#{batch_id}"}, "tries": {"SS": ["1", "2", "3"]}, **batches},
        {"record_id": {"S": "unfinished"}, "batch_ids": {"SS": [batch_id]}},
    ):
        in_aws("dynamodb").put_item(TableName=there["VaccinationRecordsTableName"], Item=item)


def test_uploads_are_listed_and_a_parked_one_is_retried_or_abandoned(mesh: Callable[..., Done], tmp_path: Path) -> None:
    file = tmp_path / "stuck.csv"
    file.write_text(upload_of(row(71, "Td/IPV")))
    receipt = json_of(mesh("upload", str(file), "--organisation", "R9Z", "--json"))
    nonsense = tmp_path / "nonsense.csv"
    nonsense.write_bytes(b"\0\1\2")
    for batch_id in ("a" * 32, "b" * 32):
        an_intake_that_cannot_be_completed(receipt, batch_id)
        assert mesh("upload", str(nonsense), "--organisation", "R9Z").returncode == 1
    listed = json_of(mesh("uploads", "-O", "R9Z", "--json"))
    assert {(one["upload"], one["status"]) for one in listed} == {
        ("incoming/R9Z/stuck.csv", "ingested"),
        ("incoming/R9Z/nonsense.csv", "rejected"),
    }
    rejected = json_of(mesh("uploads", "-O", "R9Z", "--status", "rejected", "--json"))
    assert {one["status"] for one in rejected} == {"rejected"}
    assert json_of(mesh("uploads", "-O", "R9Z", "--since", "2199-01-01", "--json")) == []
    parked = json_of(mesh("uploads", "--status", "parked", "--json"))
    assert [(one["upload"], one["status"]) for one in parked] == [("incoming/R9Z/stuck.csv", "parked")] * 2
    assert "a" * 32 in mesh("uploads", "--status", "parked", COLUMNS="200").stdout

    both = mesh("uploads", "retry", "R9Z/stuck.csv", "--reason", "the table is back", COLUMNS="200")
    assert both.returncode == 2
    assert "give the batch id" in both.stderr
    retried = json_of(mesh("uploads", "retry", "a" * 32, "--reason", "the table is back", "--json"))
    assert (retried["status"], retried["unchanged"]) == ("ingested", 1)
    ended = json_of(mesh("uploads", "abandon", "R9Z/stuck.csv", "--reason", "not needed", "--json"))
    assert (ended["status"], ended["reason"], ended["batch_id"]) == ("abandoned", "not needed", "b" * 32)
    assert json_of(mesh("uploads", "--status", "parked", "--json")) == []
    none = mesh("uploads", "retry", "R9Z/stuck.csv", "--reason", "again", COLUMNS="200")
    assert none.returncode == 2
    assert "no such upload is parked" in none.stderr


def test_an_upload_whose_event_never_arrived_is_found_and_ingested(mesh: Callable[..., Done]) -> None:
    bucket, s3 = outputs()["BucketName"], in_aws("s3")
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={})
    s3.put_object(Bucket=bucket, Key="incoming/R9Y/lost.csv", Body=b"")
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={"EventBridgeConfiguration": {}})
    assert json_of(mesh("uploads", "-O", "R9Y", "--json"))[0]["status"] == "waiting"
    assert json_of(mesh("reconcile", "--json"))["queued"] == 0
    found = json_of(mesh("reconcile", "--minutes", "0", "--dry-run", "--json"))
    assert "incoming/R9Y/lost.csv" in [upload["upload"] for upload in found["uploads"]]
    assert "incoming/R9Y/lost.csv" in mesh("reconcile", "--minutes", "0", COLUMNS="200").stdout
    restored = json_of(mesh("reconcile", "--restored", "--dry-run", "--json"))
    assert (restored["status"], restored["exports"], restored["passed_over"]) == ("ok", [], {})
    assert json_of(mesh("collect", "--again", "--json"))["status"] == "ok"
    deadline = time.monotonic() + 30
    while mesh("receipt", "R9Y/lost.csv").stdout == "":
        assert time.monotonic() < deadline
    assert "Rejected" in mesh("receipt", "R9Y/lost.csv").stdout


def test_a_programme_is_started_afresh_only_when_asked_twice(mesh: Callable[..., Done], tmp_path: Path) -> None:
    file = tmp_path / "flu.csv"
    file.write_text(upload_of(row(60, "Flu"), row(61, "Flu")))
    assert mesh("upload", str(file), "--organisation", "R1L").returncode == 0
    assert json_of(mesh("dps-export", "-p", "flu", "--json"))["exports"][0]["export_id"] == "flu-1"
    asked = mesh("export", "reset", "flu", *BECAUSE)
    assert asked.returncode == 1
    assert [e["export_id"] for e in json_of(mesh("exports", "-p", "flu", "--json"))] == ["flu-1"]
    assert json_of(mesh("export", "reset", "flu", *BECAUSE, "--yes", "--json"))["open"] == "flu-2"
    again = json_of(mesh("dps-export", "-p", "flu", "--json"))["exports"]
    assert [(e["export_id"], e["records"]) for e in again] == [("flu-2", 2)]


def test_exports_of_production_are_never_forgotten(mesh: Callable[..., Done]) -> None:
    production = another_stack("production", MeshBaseUrl="https://mesh-sync.spineservices.nhs.uk")
    done = mesh("export", "reset", "flu", *BECAUSE, "--yes", **production)
    assert (done.returncode, done.stdout) == (1, "")
    assert "production" in done.stderr


def test_a_record_that_was_never_ingested_is_not_found(mesh: Callable[..., Done]) -> None:
    done = mesh("record", "find", uuid_of(999))
    assert (done.returncode, done.stdout) == (1, "")
    assert "was ever ingested" in done.stderr


def test_the_secret_is_checked_line_by_line_and_can_be_changed(mesh: Callable[..., Done], tmp_path: Path) -> None:
    checks = json_of(mesh("secret", "check", "--json"))
    assert checks["ok"] is True
    assert [c["check"] for c in checks["checks"]] == [
        "every field present",
        "CA bundle",
        "certificate",
        "days left",
        "key fits certificate",
        "mailbox answers",
    ]
    for name, text, ok in (("wrong", "not the password", False), ("right", "password", True)):
        file = tmp_path / name
        file.write_text(text)
        put = mesh("secret", "put", *BECAUSE, "--password-file", str(file), "--no-ask", "--json")
        assert json_of(put)["missing"] == []
        done = mesh("secret", "check", "--json")
        assert json.loads(done.stdout)["ok"] is ok
        assert done.returncode == (0 if ok else 1)
        assert "not the password" not in done.stdout + done.stderr


def test_a_ca_bundle_without_its_root_is_not_written_into_the_secret(mesh: Callable[..., Done], tmp_path: Path) -> None:
    one, two = (certificates.make(tmp_path).ca_bundle for _ in range(2))
    end = "-----END CERTIFICATE-----\n"
    bundle = tmp_path / "bundle.pem"
    bundle.write_text(one + two.split(end)[1] + end)
    done = mesh("secret", "put", *BECAUSE, "--ca-bundle", str(bundle), "--no-ask")
    assert (done.returncode, done.stdout) == (2, "")
    assert "lacks the root CA" in done.stderr
    assert json_of(mesh("secret", "check", "--json"))["ok"] is True


def test_the_jobs_are_switched_off_and_on(mesh: Callable[..., Done]) -> None:
    assert json_of(mesh("jobs", "disable", *BECAUSE, "--json")) == {"mesh_jobs": "disabled", "was": "enabled"}
    try:
        assert json_of(mesh("invoke", "export")) == {"status": "skipped"}
    finally:
        done = mesh("jobs", "enable", *BECAUSE)
    assert done.stdout == "mesh_jobs is enabled; it was disabled\n"
    assert mesh("jobs").stdout == "mesh_jobs is enabled\n"


def test_a_built_function_is_invoked_with_an_event(mesh: Callable[..., Done]) -> None:
    done = mesh("invoke", "validate", "-e", str(PROJECT / "events" / "validate.json"))
    assert json_of(done)["status"] == "ok"
    assert "mailbox validated" in done.stderr
    dry = json_of(mesh("invoke", "ExportFunction", "-e", str(PROJECT / "events" / "export-dry-run.json")))
    assert dry["status"] == "dry run"
    unknown = mesh("invoke", "nothing")
    assert unknown.returncode == 2
    assert "export, track" in unknown.stderr


def test_a_function_that_refuses_its_event_says_which_key(mesh: Callable[..., Done], tmp_path: Path) -> None:
    event = tmp_path / "event.json"
    event.write_text('{"programm": "hpv"}')
    done = mesh("invoke", "export", "-e", str(event))
    assert (done.returncode, done.stdout) == (2, "")
    assert "unknown key 'programm' in the event" in done.stderr


def test_help_lists_the_commands_in_their_groups(mesh: Callable[..., Done]) -> None:
    shown = mesh("--help", COLUMNS="100").stdout
    positions = [shown.index(group) for group in ("Mailbox ─", "Exports ─", "Intake ─", "Setup ─", "Local ─")]
    assert positions == sorted(positions)
    for command in (
        *("validate-mailbox", "check-inbox", "get-message", "ack-message", "send-file", "track-message", "lookup"),
        *("dps-export", "track", "collect", "exports", "export", "record", "sample", "upload", "receipt", "uploads"),
        *("reconcile", "secret", "csr", "ca-bundle", "jobs", "audit", "local", "demo", "invoke"),
    ):
        assert f" {command} " in shown


def test_a_deployed_stack_is_found_by_its_outputs(mesh: Callable[..., Done], tmp_path: Path) -> None:
    aws = {name: value for name, value in environment_of_stack().items() if name.startswith("AWS_")}
    found = mesh("--stack", "local", "exports", "--json", **aws)
    assert json_of(found) == json_of(mesh("exports", "--json"))
    assert found.stderr == "Working on the stack local in eu-west-2\n"
    missing = mesh("--stack", "nowhere", "exports", **aws)
    assert (missing.returncode, missing.stdout) == (2, "")
    assert "the stack nowhere in" in missing.stderr
    assert "is not there" in missing.stderr


@pytest.fixture
def proxy(up: subprocess.Popen[str]) -> Iterator[Proxy]:
    """A breaking proxy before the sandbox of the stack that is up."""
    there = outputs()
    secret = json.loads(in_aws("secretsmanager").get_secret_value(SecretId=there["MeshSecretArn"])["SecretString"])
    [folder] = (PROJECT / ".local").glob(f"cloud-{up.pid}-*/sandbox")
    certificates = Certificates(
        ca_file=folder / "ca.pem",
        server_certificate_file=folder / "server.pem",
        server_key_file=folder / "server-key.pem",
        ca_bundle=secret["ca_bundle"],
        certificate=secret["certificate"],
        private_key=secret["private_key"],
        passphrase=secret["private_key_passphrase"],
    )
    sandbox = SimpleNamespace(base_url=there["MeshBaseUrl"], certificates=certificates)
    with Proxy(cast("Sandbox", sandbox)) as running:
        yield running


def test_a_send_whose_answer_is_lost_ends_with_4_and_says_how_to_find_out(
    mesh: Callable[..., Done], proxy: Proxy, tmp_path: Path
) -> None:
    file = tmp_path / "letter.txt"
    file.write_text("Did this arrive?")
    proxy.script = [LOSE_ANSWER]
    through = another_stack("breaking", MeshBaseUrl=proxy.base_url)
    done = mesh("send-file", "X26ABC3", str(file), "--local-id", "letter-4", **through)
    assert (done.returncode, done.stdout) == (4, "")
    assert "mesh track-message letter-4 --local" in " ".join(done.stderr.split())
    assert json_of(mesh("track-message", "letter-4", "--local", "--json"))["status"] == "accepted"


def test_a_large_file_that_got_stuck_goes_on_and_both_sides_can_be_followed(
    mesh: Callable[..., Done], proxy: Proxy, tmp_path: Path
) -> None:
    file, copy = tmp_path / "a scan.bin", tmp_path / "copy.bin"
    with file.open("wb") as body:
        body.seek(100_000_000)  # one byte more than fits into one part
        body.write(b"!")
    through = another_stack("breaking-too", MeshBaseUrl=proxy.base_url)
    proxy.script = [FORWARD, *[answer(503, Retry_After="400")] * 5]
    command = ["send-file", "X26ABC3", str(file), "--workflow", "letters", "--no-compress"]
    stuck = mesh(*command, "--local-id", "letter-5", **through)
    assert (stuck.returncode, stuck.stdout) == (1, "")
    assert "Part 2 of 2 did not arrive" in stuck.stderr
    *_, said = (line for line in stuck.stderr.splitlines() if "--resume" in line)
    assert said.startswith(f"mesh --stack breaking-too send-file X26ABC3 '{file}' --resume ")
    assert json_of(mesh("track-message", "letter-5", "--local", "--json"))["status"] == "uploading"

    place = said.partition("--resume ")[2]
    other = tmp_path / "other.bin"
    other.write_bytes(b"another file")
    wrong = mesh("send-file", "X26ABC3", str(other), "--resume", place)
    assert (wrong.returncode, "not the one that MESH has the first parts of" in wrong.stderr) == (2, True)
    sent = json_of(mesh(*command, "--resume", place, "--json"))
    assert sent["parts"] == 2
    assert json_of(mesh("track-message", sent["message_id"], "--json"))["status"] == "accepted"

    assert json_of(mesh("get-message", sent["message_id"], "--json", **DPS))["chunks"] == 2
    assert mesh("get-message", sent["message_id"], "-o", str(copy), **DPS).returncode == 0
    assert filecmp.cmp(file, copy, shallow=False)
    assert mesh("ack-message", sent["message_id"], **DPS).returncode == 0
    assert json_of(mesh("track-message", sent["message_id"], "--json"))["status"] == "acknowledged"
