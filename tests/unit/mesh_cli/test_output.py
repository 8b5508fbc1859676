"""Promises about what commands print for people: no id is broken, and colours say what is asked of whom."""

from __future__ import annotations

import io
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from local.stack import PROJECT
from mesh_cli import output
from mesh_cli.exports import coloured_status, exports_table, status_screen
from mesh_cli.intake import uploads_table
from mesh_cli.output import Table, counted
from tests.unit.mesh_cli.night import exports, ids_of, uploads
from vaccinations.jobs.status import StatusPage, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.text import Text

#: What makes each table, its rows, and what stands in it at 80 columns.
TABLES: dict[str, tuple[Callable[..., Table], list[Any], list[str]]] = {
    "exports": (exports_table, exports(), ["export", "status", "records", "DPS", "changed"]),
    "uploads": (uploads_table, uploads(), ["upload", "status", "rejected"]),
}


def shown(table: Table | Text, width: int = 0) -> list[str]:
    """Return the lines that a terminal of that width shows, or a pipe."""
    into = io.StringIO()
    console = type(output.data)(file=into, force_terminal=width > 0, no_color=True, width=width or 80, highlight=False)
    console.print(table)
    return into.getvalue().replace("\x1b[1m", "").replace("\x1b[0m", "").replace("\x1b[2m", "").splitlines()


def test_a_terminal_obeys_nothing_that_stands_in_a_files_name() -> None:
    into = io.StringIO()
    name = "\x1b]0;owned\x07\x1b[2J[red]a.csv\u202e"
    Console(file=into, force_terminal=True, width=200).print(Table("Uploads", ["upload"], [[name]]))
    assert r"\x1b]0;owned\x07\x1b[2J[red]a.csv\u202e" in into.getvalue()
    assert "\x1b]" not in into.getvalue()


@pytest.mark.parametrize("which", TABLES)
def test_at_80_columns_a_table_has_its_first_columns_and_breaks_none_of_its_ids(which: str) -> None:
    make, rows, columns = TABLES[which]
    lines = shown(make(rows), 80)
    assert max(map(len, lines)) <= 80
    assert [column for column in columns if column not in lines[1]] == []
    here = {one for one in ids_of(*rows) if any(one in line for line in lines)}
    assert {row.export_id if which == "exports" else row["upload"].removeprefix("incoming/") for row in rows} <= here


@pytest.mark.parametrize("which", TABLES)
@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 120, 160, 300])
def test_at_no_width_is_an_id_broken(which: str, width: int) -> None:
    make, rows, _ = TABLES[which]
    lines = shown(make(rows), width)
    for one in ids_of(*rows):
        whole = any(one in line for line in lines)
        begun = any(line.rstrip().endswith(one[:cut]) for line in lines for cut in range(len(one) // 2, len(one)))
        assert whole or not begun, one


def test_a_terminal_that_has_no_room_for_the_first_columns_gets_a_card_for_each_row() -> None:
    lines = shown(uploads_table(uploads()), 40)
    assert "upload    R1L/monday.csv" in lines
    assert f"batch id  {1:032x}" in lines
    assert lines.count("") == len(uploads()) - 1


@pytest.mark.parametrize("which", TABLES)
def test_in_a_pipe_each_row_is_a_line_with_all_that_there_is(which: str) -> None:
    make, rows, _ = TABLES[which]
    lines = shown(make(rows))
    assert len(lines) == len(rows) + 3
    assert [one for one in ids_of(*rows) if not any(one in line for line in lines)] == []
    assert shown(make(rows, wide=True), 80) == lines


def test_prose_is_wrapped_at_its_spaces() -> None:
    lines = shown(Table("", ["id", "why"], [["hpv-17", "one two three " * 8]], prose=["why"]), 40)
    assert len(lines) > 4
    assert all(word in {"one", "two", "three"} for line in lines[3:] for word in line.split())


@pytest.mark.parametrize(
    ("export_id", "style"),
    [
        ("menacwy-1043", "blue"),
        ("hpv-1042", "bold red"),
        ("flu-311", "bold red"),
        ("td_ipv-97", "yellow"),
        ("mmr-12", "green"),
        ("mmrv-3", "blue"),
        ("mmrv-2", "yellow"),
        ("menacwy-1042", "bold red"),
    ],
)
def test_a_state_has_the_colour_of_what_it_asks_of_a_person(export_id: str, style: str) -> None:
    [export] = [export for export in exports() if export.export_id == export_id]
    assert coloured_status(export).style == style


def verdict() -> Verdict:
    """Return the verdict on the bad night, as the dashboard has it."""
    night: Any = SimpleNamespace(latest=lambda key, _: [e for e in exports() if e.programme == key])
    return StatusPage(night).verdict()


@pytest.mark.parametrize("width", [80, 120])
def test_the_verdict_of_a_bad_night_is_on_one_screen_with_what_to_do(width: int) -> None:
    lines = [line for part in status_screen(verdict(), 1, enabled=False) for line in shown(part, width)]
    assert lines[0] == "6 things need a person."
    assert (len(lines) <= 30, max(map(len, lines)) <= width) == (True, True)
    text = " ".join(" ".join(lines).split())
    for said in ("hpv-1042", "flu-311", "menacwy-1042", "mesh uploads --status parked", "mesh jobs enable"):
        assert said.split()[0] in text, said
    assert next(each.split() for each in lines if each.startswith("Td/IPV"))[-2:] == ["408", "4"]


def test_the_verdict_names_sections_of_the_runbook_that_there_are() -> None:
    page = (PROJECT / "docs" / "operations.md").read_text()
    table = list(status_screen(verdict(), 1, enabled=False))[2]
    assert isinstance(table, Table)
    sections = {line.split()[-1] for line in shown(table)[3:]}
    assert len(sections) == 6
    assert [section for section in sections if f"### {section}\n" not in page] == []


def test_a_good_night_is_said_to_be_one() -> None:
    night = verdict()
    good = replace(night, people=[], night=[replace(each, refused=0) for each in night.night])
    [first, *_] = status_screen(good, 0, enabled=True)
    assert shown(first, 80) == ["No export of last night needs a person, and DPS has refused no record."]


def test_records_that_dps_refused_need_a_person_though_no_export_does() -> None:
    lines = [line for part in status_screen(replace(verdict(), people=[]), 0, enabled=True) for line in shown(part, 80)]
    assert lines[0] == "1 thing needs a person."
    assert "see: mesh refused" in " ".join(lines)


def test_one_is_singular() -> None:
    assert [counted(number, "record") for number in (0, 1, 2)] == ["0 records", "1 record", "2 records"]
