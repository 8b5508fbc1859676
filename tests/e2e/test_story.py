"""The nightly story, told once and looked at from several sides; docs/demo.md is its transcript.

With TRANSCRIPT=write in the environment the page is written anew: ``make transcripts``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import date
from typing import Any

import pytest

from local.sample import sample_upload
from local.stack import PROJECT
from tests.pages import normal
from tests.receiver import disease_of

PAGE = PROJECT / "docs" / "demo.md"
#: What stands above the transcript.
BEGINNING = """\
# The demo

What `make demo` prints in a terminal of 100 columns. The demo runs each of these commands, and this page is made by it
(`make transcripts`); ids and times are those of one run. Nobody in it exists.
"""

#: `mesh`, which keeps the functions' logs before it takes the stack down.
KEEPING_LOGS = """
import json, pathlib, sys
from local import stack
from mesh_cli.main import main

class Kept(stack.LocalCloud):
    def __exit__(self, *error):
        self.invoke("StatusFunction")
        logs.write_text(json.dumps(self.logs()))
        super().__exit__(*error)

logs, stack.LocalCloud = pathlib.Path(sys.argv.pop()), Kept
main()
"""


@dataclass(frozen=True)
class Demo:
    """How `mesh demo --json` ended, and what it printed."""

    exit_code: int
    document: dict[str, Any]

    @property
    def steps(self) -> list[dict[str, Any]]:
        return list(self.document["steps"])


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Demo, dict[str, str]]:
    """Have the command tell the story once; give the telling and every function's log."""
    logs = tmp_path_factory.mktemp("story") / "logs.json"
    command = [sys.executable, "-c", KEEPING_LOGS, "demo", "--json", str(logs)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.stdout, done.stderr
    return Demo(done.returncode, json.loads(done.stdout)), json.loads(logs.read_text())


def step(demo: Demo, title: str) -> Any:
    return next(step["result"] for step in demo.steps if step["step"].startswith(title))


def test_every_step_of_the_story_holds(told: tuple[Demo, dict[str, str]]) -> None:
    demo, _ = told
    assert [step["step"] for step in demo.steps if not step["ok"]] == []


def printed(demo: Demo, title: str) -> str:
    of_step = next(step["commands"] for step in demo.steps if step["step"].startswith(title))
    return "".join(command["printed"] for command in of_step)


def test_the_page_of_the_demo_is_what_its_commands_print(told: tuple[Demo, dict[str, str]]) -> None:
    demo, _ = told
    anew = BEGINNING
    for number, step in enumerate(demo.steps, start=1):
        said = "".join(f"$ {each['command']}\n{each['printed']}" for each in step["commands"])
        anew += f"\n## {number}. {step['step']}\n\n```console\n{said}```\n"
    if os.environ.get("TRANSCRIPT") == "write":
        PAGE.write_text(anew)
    assert normal(anew).splitlines() == normal(PAGE.read_text()).splitlines(), "make it anew with: make transcripts"


def test_the_mailbox_is_validated(told: tuple[Demo, dict[str, str]]) -> None:
    demo, _ = told
    assert "Mailbox X26ABC1 validated" in printed(demo, "Validate")


def test_every_programme_got_its_own_file(told: tuple[Demo, dict[str, str]]) -> None:
    demo, _ = told
    programmes = [export["programme"] for export in step(demo, "Night falls")]
    assert sorted(programmes) == ["flu", "hpv", "menacwy", "mmr", "mmrv", "td_ipv"]


def test_each_sent_export_is_logged_as_the_guide_shows_it(told: tuple[Demo, dict[str, str]]) -> None:
    demo, logs = told
    for export in step(demo, "Night falls"):
        line = (
            f"DPS export ({export['export_id']}) for programme ({export['programme']}) sent: "
            f'202 - {{"message_id":"{export["message_id"]}"}}'
        )
        assert json.dumps(line) in logs["ExportFunction"]
    assert "No vaccination records to export for programme flu" in logs["ExportFunction"]


def test_dps_processes_312_of_314_records_and_says_why_it_refuses_two(told: tuple[Demo, dict[str, str]]) -> None:
    demo, _ = told
    assert step(demo, "Collect") == {"processed": 312, "refused": 2}
    reasons = list(step(demo, "What DPS refused").values())
    assert (len(reasons), all(reason.startswith("Validation errors") for reason in reasons)) == (2, True)
    assert all(reason in printed(demo, "DPS picks the files up") for reason in reasons)


def test_the_files_of_other_systems_are_taken_as_they_come(told: tuple[Demo, dict[str, str]]) -> None:
    demo, _ = told
    receipts = [step["result"] for step in demo.steps if step["step"].startswith("A file as it comes from")]
    assert [receipt["upload"].rpartition("/")[2] for receipt in receipts] == [
        "systmone.csv",
        "offline.csv",
        "semicolons.csv",
    ]
    assert [receipt["rejected"] for receipt in receipts] == [0, 0, 0]
    assert all(receipt["assumed"] for receipt in receipts)


def test_dps_gets_files_under_names_that_it_takes(told: tuple[Demo, dict[str, str]]) -> None:
    demo, _ = told
    files = step(demo, "Night falls")
    assert {disease_of(file["mesh_filename"]) for file in files} == {"3IN1", "FLU", "HPV", "MENACWY", "MMR", "MMRV"}


def test_no_personal_value_is_in_any_functions_log(told: tuple[Demo, dict[str, str]]) -> None:
    _, logs = told
    speaking = {"ValidateFunction", "IngestFunction", "ExportFunction", "TrackFunction", "CollectFunction"}
    assert set(logs) == speaking | {"ReconcileFunction", "StatusFunction"}
    assert all("function_request_id" in logs[function] for function in speaking)
    everything = "\n".join(logs.values()).casefold()
    personal = sample_upload(date(2026, 1, 1)).personal_values  # the same people on any day
    assert len(personal) > 500
    assert [value for value in personal if value.casefold() in everything] == []


def test_no_secret_is_in_any_functions_log(told: tuple[Demo, dict[str, str]]) -> None:
    _, logs = told
    everything = "\n".join(logs.values())
    for secret in ("TestKey", "NHSMESH ", "PRIVATE KEY", "BEGIN CERTIFICATE"):
        assert secret not in everything


def test_the_demo_as_a_command_prints_one_json_document_and_nothing_else_on_stdout(
    told: tuple[Demo, dict[str, str]],
) -> None:
    demo, _ = told
    assert demo.exit_code == 0
    assert demo.document["ok"] is True
    assert all(command["printed"] or "sample" in command["command"] for s in demo.steps for command in s["commands"])
