"""The installed ``mesh`` command as a process, on a stack that ``mesh local up`` has running."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.dps.world import row, upload_of, uuid_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MESH = Path(sys.executable).parent / "mesh"
PROJECT = Path(__file__).parents[2]
ENVIRONMENT = PROJECT / ".local" / "environment"
pytestmark = pytest.mark.xdist_group("commands")

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
    assert "nothing is left running" in out
    assert not ENVIRONMENT.exists()


@pytest.fixture
def mesh(up: subprocess.Popen[str]) -> Callable[..., Done]:
    def run(*arguments: str, **environment: str) -> Done:
        return subprocess.run(
            [MESH, *arguments],
            cwd=PROJECT,
            env=clean_environment() | environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


def json_of(done: Done) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


DPS = {"MESH_MAILBOX": "X26ABC3", "MESH_PASSWORD": "password"}


def test_a_day_at_the_command_line(mesh: Callable[..., Done], tmp_path: Path) -> None:
    assert json_of(mesh("validate-mailbox", "--json"))["mailbox"] == "X26ABC1"

    file = tmp_path / "monday.csv"
    file.write_text(upload_of(row(1), row(2), row(3, "MenACWY")))
    receipt = json_of(mesh("upload", str(file), "--organisation", "R1L", "--json"))
    assert receipt["accepted"] == {"hpv": {"new": 2}, "menacwy": {"new": 1}}

    planned = json_of(mesh("dps-export", "--dry-run", "--json"))
    assert [e["would"] for e in planned["exports"]] == ["seal and send"] * 2

    sent = json_of(mesh("dps-export", "--programme", "hpv", "--json"))
    [export] = sent["exports"]
    assert (export["export_id"], export["status"], export["records"]) == ("hpv-1", "accepted", 2)

    listed = json_of(mesh("exports", "--json"))
    assert {(e["export_id"], e["status"]) for e in listed} == {("hpv-1", "accepted"), ("menacwy-1", "open")}

    inbox = json_of(mesh("check-inbox", "--json", **DPS))
    assert inbox["messages"] == [export["message_id"]]

    message = mesh("get-message", export["message_id"], **DPS)
    assert message.stdout.startswith('"NHS_NUMBER"|"PERSON_FORENAME"|')
    assert uuid_of(1) in message.stdout
    assert mesh("export", "fetch", "hpv-1").stdout == message.stdout

    acknowledged = mesh("ack-message", export["message_id"], **DPS)
    assert acknowledged.stdout == f"Message {export['message_id']} acknowledged\n"
    assert json_of(mesh("track", "--json"))["exports"][0]["status"] == "acknowledged"

    found = json_of(mesh("record", "find", uuid_of(2), "--json"))
    assert (found["export"], found["action"], found["line"]) == ("hpv-1", "new", 3)
    shown = mesh("export", "show", "hpv-1")
    assert "acknowledged" in shown.stdout


def test_tables_go_to_stdout_and_talk_to_stderr(mesh: Callable[..., Done]) -> None:
    done = mesh("check-inbox")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "The inbox of X26ABC1 is empty.\n"


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
