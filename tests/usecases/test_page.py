"""Promises of the page on last night and what needs a person, in Chromium: two weeks as they can happen, in memory."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from local.dps import Dps
from nhs_mesh import Refused
from tests.chromium import see
from tests.receiver import disease_of
from tests.usecases.rows import row, upload_of
from vaccinations.jobs.status import ShownUpload, StatusPage, page
from vaccinations.model.export import Failure
from vaccinations.results import Receipt

if TYPE_CHECKING:
    from tests.usecases.memory import MemoryMesh
    from tests.usecases.world import World

pytestmark = [
    pytest.mark.parametrize("world", ["memory"], indirect=True),
    pytest.mark.parametrize("clock", ["noon"], indirect=True),
]
#: What somebody might try to inject.
HOSTILE = "<script>alert('owned')</script><img src='http://127.0.0.1:9/x.png' onerror=\"alert('owned')\">"
RUNBOOK = "https://example.org/docs/operations.md"
INVALID = "Validation errors: contained[?(@.resourceType=='Patient')].name[0].given does not do"


def two_weeks(world: World) -> None:
    """Let two weeks go by, the last of whose nights is a bad one.

    MESH refuses flu five nights in a row; of MenACWY a file of four nights ago is left in the mailbox.
    """
    mesh: MemoryMesh = world.client._mesh
    refused: set[str] = set()
    dps = Dps(
        world.receiver, refuse=lambda found: INVALID if found["UNIQUE_ID"] in refused else None, clock=world.clock
    )
    number = 0
    for night in range(14):
        rows = []
        for programme, records in (("HPV", 9 + night * 7 % 11), ("Flu", 4 + night % 3), ("MMR", night % 4)):
            for _ in range(records):
                number += 1
                rows.append(row(number, programme))
                if number % 23 == 0:
                    refused.add(rows[-1].partition(",")[0])
        number += 1
        rows += [row(number, "MenACWY")] if night == 9 else []
        rows += [row(number).replace("SW1A 1AA", "nonsense")] if night % 5 == 3 else []
        world.upload(upload_of(*rows), f"night-{night + 1}.csv")
        if night > 8:
            mesh.fail("send", Refused(417, code="12", description="Unregistered to address"))
        world.export()
        world.clock.forward(minutes=30)
        left = world.ledger.get("menacwy", 1).message_id if night > 8 else ""
        for file in dps.pick_up(leave={left}):
            dps.answer(file)
        world.track()
        world.collect()
        if night < 13:
            world.clock.forward(hours=23, minutes=30)
    world.upload(upload_of(row(number + 1), row(number + 2)), "tomorrow.csv")


def uploads(world: World) -> list[ShownUpload]:
    """Return the last three uploads as the page is given them."""
    shown = []
    for uploaded in reversed(world.uploads[-3:]):
        receipt = world.stores.bucket.receipt(uploaded[0], world.bucket.batch_id(*uploaded))
        assert isinstance(receipt, Receipt)
        accepted = sum(sum(actions.values()) for actions in receipt.accepted.values())
        shown.append(
            ShownUpload(
                name=receipt.upload.removeprefix("incoming/"),
                status=receipt.status,
                uploaded_at=datetime.fromisoformat(receipt.uploaded_at),
                rows=receipt.rows,
                accepted=accepted,
                rejected=receipt.rejected,
                files=[("receipt", f"/receipts/{receipt.batch_id}"), *([("rejects", "/r")] if receipt.rejects else [])],
            )
        )
    return shown


def shown(world: World, given: list[ShownUpload] | None = None, **event: Any) -> str:
    return page(StatusPage(world.ledger, world.clock).show(event), given or [], world.clock())


def test_a_person_sees_at_a_glance_what_became_of_two_weeks_and_what_to_do(
    world: World, chromium: None, tmp_path: Path
) -> None:
    screenshot = Path(os.environ.get("SCREENSHOT") or tmp_path / "status.png").resolve()
    two_weeks(world)
    seen = see(shown(world, uploads(world), runbook=RUNBOOK, limit=12), screenshot)
    rows = {cells[0]: dict(zip(seen["header"], cells, strict=True)) for cells in seen["rows"]}
    # What needs a person is on top, with what to do and a link to the runbook.
    assert next(iter(rows)) == "hpv-15"
    assert "menacwy-1" in seen["bold"]
    lines = seen["text"].splitlines()
    [todo] = [line for line in lines if line.startswith("menacwy-1: ")]
    assert todo == "menacwy-1: ask DPS why nobody picks it up (export-unacknowledged)"
    assert any(line.startswith("flu-10: tried 5 times; put the cause right") for line in lines)
    assert lines.index(todo) < lines.index("Records of the last 24 hours")
    assert f"{RUNBOOK}#export-failed" in seen["links"]
    # The verdict, and a bar for each of 14 nights.
    night = {cells[0]: cells[1:] for cells in seen["night"]}
    assert night["MMR"] == ["1", "1", "1", "1", "0"]
    nights = {cells[0]: cells[1:] for cells in seen["nights"]}
    assert {len(bars) for bars in nights.values()} == {14}
    assert sum("refused" in bar for bar in nights["HPV"]) > 1
    assert any(line.startswith("Last night ") for line in lines)
    assert disease_of(rows["hpv-14"]["file and message id"].split("\n")[1]) == "HPV"
    # Uploads, with counts and links to what became of them.
    assert [cells[0] for cells in seen["uploads"]] == ["R1L/tomorrow.csv", "R1L/night-14.csv", "R1L/night-13.csv"]
    assert seen["uploads"][1][3:6] == ["19", "18", "1"]
    assert seen["uploads"][1][6].split("\n")[0].startswith("receipt")
    # It can be read at 900 pixels and on paper, by keyboard, and by a screen reader.
    assert seen["narrow"] <= 900
    assert seen["paper"] <= 718
    assert seen["focused"] == [[link, True] for link in seen["links"]]
    assert seen["faults"] == []
    assert seen["asked"] == []
    assert screenshot.read_bytes().startswith(b"\x89PNG")


def test_what_came_from_outside_is_shown_as_text_and_nothing_of_it_runs(
    world: World, chromium: None, tmp_path: Path
) -> None:
    two_weeks(world)
    export = world.ledger.get("flu", 10)
    attempts = (*export.attempts[:-1], replace(export.attempts[-1], error=Failure(HOSTILE, HOSTILE)))
    world.ledger.change(export, lambda current: replace(current, attempts=attempts))
    [upload, *_] = uploads(world)
    hostile = replace(
        upload, name=HOSTILE, status=HOSTILE, files=[(HOSTILE, "/receipts/'\"><script>alert(1)</script>")]
    )
    seen = see(shown(world, [hostile]), tmp_path / "shot.png")
    assert HOSTILE in seen["text"]
    assert seen["uploads"][0][0] == HOSTILE
    assert seen["said"] == []
    assert [url for url in seen["asked"] if not url.startswith("about:")] == []


class Words(HTMLParser):
    """What a screen reader says of each bar: the texts of the cells of a programme's row."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.feed(html.partition('<table class="nights">')[2].partition("</table>")[0])

    def handle_starttag(self, tag: str, _: Any) -> None:
        if tag == "tr":
            self.rows.append([])
        if tag in {"th", "td"}:
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


def test_a_night_goes_on_after_midnight_and_each_bar_says_in_words_what_it_shows(world: World) -> None:
    world.clock.forward(hours=7)  # 19:00
    world.upload(upload_of(row(1), row(2)))
    world.export()
    world.clock.forward(hours=6)  # 01:00 of the same night
    world.upload(upload_of(row(3)), "late.csv")
    world.export()
    header, hpv = Words(shown(world)).rows
    evening = f"{world.clock() - timedelta(hours=12):%a%d}"
    assert (header[-1], hpv[0], hpv[-1]) == (evening, "HPV", "3 sent, 0 processed")
    assert hpv[1:-1] == ["none"] * 13
    world.clock.forward(days=14)
    assert '<table class="nights">' not in shown(world)


def test_the_page_without_anything_says_so(world: World) -> None:
    html = shown(world)
    assert "There are no exports yet." in html
    assert "There are no uploads yet." in html
    assert html.startswith('<!DOCTYPE html><html lang="en-GB">')
