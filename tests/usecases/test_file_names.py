"""A file's name in the ledger and its name on MESH: people see both, and find an export by either."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import typer

from mesh_cli.exports import exports_table, find_export
from mesh_cli.output import data
from tests.usecases.rows import row, upload_of
from vaccinations.formats.dps_names import FilenameStyle

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.usecases.world import World


@pytest.mark.parametrize("change", [str, str.upper, str.lower, lambda name: name.removesuffix(".csv")])
@pytest.mark.parametrize("which", ["filename", "mesh_filename"])
def test_an_export_is_found_by_either_name_of_any_attempt(
    world: World, which: str, change: Callable[[str], str]
) -> None:
    ledger: Any = world.ledger
    world.upload(upload_of(row(1)))
    world.recipient = "X26NOBODY"
    world.next_night()
    world.next_night()
    for attempt in ledger.get("hpv", 1).attempts:
        assert find_export(ledger, change(getattr(attempt, which))).batches == ledger.get("hpv", 1).batches
    assert find_export(ledger, "hpv-1").export_id == "hpv-1"


@pytest.mark.parametrize("name", ["hpv-2", "Vaccinations-HPV-1999-01-01.csv", "nonsense", ""])
def test_a_name_that_no_export_bears_is_said_to_be_none(world: World, name: str) -> None:
    ledger: Any = world.ledger
    world.upload(upload_of(row(1)))
    world.next_night()
    with pytest.raises(typer.BadParameter, match="see `mesh exports`"):
        find_export(ledger, name)


@pytest.mark.parametrize("style", FilenameStyle)
def test_the_list_of_exports_shows_both_names_where_they_differ(
    world: World, style: FilenameStyle, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.style = style
    world.upload(upload_of(row(1)))
    world.next_night()
    monkeypatch.setattr(data, "width", 100)
    with data.capture() as shown:
        data.print(exports_table(list(world.ledger.exports("hpv"))))
    attempt = world.attempt()
    assert attempt.filename in shown.get()
    assert attempt.mesh_filename in shown.get()
    assert len(re.findall(r"\.csv", shown.get())) == len(attempt.file_names)


def test_what_is_told_of_an_export_has_both_names(world: World, logged: Callable[[], str]) -> None:
    world.upload(upload_of(row(1)))
    run = world.next_night()
    world.acknowledge()
    tracked = world.track()
    attempt = world.attempt()
    assert attempt.filename != attempt.mesh_filename
    for told in (*run.exports, *tracked.exports):
        assert (told.filename, told.mesh_filename) == (attempt.filename, attempt.mesh_filename)
    lines = [line for line in logged().splitlines() if '"export_id":"hpv-1"' in line and "attached" not in line]
    assert lines
    for line in lines:
        assert f'"file":"{attempt.filename}"' in line
        assert f'"mesh_file":"{attempt.mesh_filename}"' in line
