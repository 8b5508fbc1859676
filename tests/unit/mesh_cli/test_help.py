"""Promises about help and completion: each page has an example that works, and the pages are in docs/commands.md."""

from __future__ import annotations

import re
import shlex
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from local.stack import PROJECT
from mesh_cli import exports
from mesh_cli.main import app
from mesh_cli.options import EXIT_CODES
from tests.commands import PAGE, commands, help_of, page
from tests.unit.mesh_cli.night import exports as of_a_bad_night

COMMANDS = dict(commands())


def test_the_page_of_commands_is_what_the_command_says() -> None:
    assert PAGE.read_text() == page(), "make it anew with: make schemas"


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_each_page_of_help_has_an_example_of_a_command_that_there_is(words: tuple[str, ...]) -> None:
    shown = re.sub(r"\s+", " ", re.sub(r"[\u2500-\u257f]", " ", help_of(*words)))
    found = re.search(r"For example: mesh ([^\u256d]+?) (?:Arguments|Options|Commands)", f"{shown} Options")
    assert found, shown
    line = shlex.split(found[1])
    command = COMMANDS[()]
    while line and line[0] in getattr(command, "commands", {}):
        command = command.commands[line.pop(0)]
    if words:
        assert command is COMMANDS[words] or command in COMMANDS[words].commands.values()
    known = {option for parameter in command.params for option in parameter.opts}
    assert [word for word in line if word.startswith("-") and word not in known] == []


def test_the_exit_codes_are_told_once() -> None:
    told = " ".join(PAGE.read_text().split())
    assert [code for code in EXIT_CODES if f"{code} " not in told] == []
    pages = [PROJECT / "README.md", *(PROJECT / "docs").glob("*.md")]
    assert [each.name for each in pages if re.search(r"2 wrong\s+use", each.read_text())] == ["commands.md"]


@pytest.fixture(autouse=True)
def _in_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)


def complete(*words: str) -> list[str]:
    """Return what the shell is told when the last word is completed."""
    asked = {"_MESH_COMPLETE": "complete_bash", "COMP_WORDS": shlex.join(["mesh", *words])}
    return CliRunner().invoke(app, env={**asked, "COMP_CWORD": str(len(words))}, prog_name="mesh").output.split()


def test_programmes_functions_and_events_are_completed() -> None:
    assert complete("exports", "-p", "mm") == ["mmr", "mmrv"]
    assert complete("export", "reset", "men") == ["menacwy"]
    assert complete("invoke", "re") == ["reconcile"]
    assert complete("invoke", "export", "-e", "events/export-d") == ["events/export-dry-run.json"]


def test_export_ids_are_completed_and_nothing_is_where_the_stack_cannot_be_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def latest(programme: str, _: int) -> Any:
        return [export for export in of_a_bad_night() if export.programme == programme]

    wiring = SimpleNamespace(ledger=lambda: SimpleNamespace(latest=latest))
    with monkeypatch.context() as there:
        there.setattr(exports, "find_deployment", lambda *_: SimpleNamespace(wiring=wiring))
        assert complete("export", "show", "mena") == ["menacwy-1043", "menacwy-1042"]
        assert complete("export", "show", "menacwy-1042") == ["menacwy-1042"]

    def unreachable(*_: Any) -> None:
        raise OSError

    monkeypatch.setattr(exports, "find_deployment", unreachable)
    assert complete("export", "show", "hp") == []
