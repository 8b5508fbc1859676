"""Promises of the dashboard's table of exports, in memory."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest

from local.stack import PROJECT
from nhs_mesh import Refused
from tests.usecases.rows import row, upload_of
from vaccinations.jobs.status import StatusPage, processing_in_words
from vaccinations.model import lifecycle
from vaccinations.model.export import Attempt, DPSExport, Failure, Processing, Status
from vaccinations.model.programmes import PROGRAMMES

if TYPE_CHECKING:
    from tests.usecases.memory import MemoryMesh
    from tests.usecases.world import World

pytestmark = [
    pytest.mark.parametrize("world", ["memory"], indirect=True),
    pytest.mark.parametrize("clock", ["noon", "00:30 BST"], indirect=True),
]
HEADER = [
    *("export", "programme", "records", "file and message id", "delivery", "DPS", "sealed", "sent", "picked up"),
    "attempt",
]


class Table(HTMLParser):
    """What a browser makes of a table: the header, the rows, which of them are for a person, which cells numbers."""

    def __init__(self, page: str, kind: str = "exports") -> None:
        super().__init__()
        _, table, page = page.partition(f'<table class="{kind}">')
        assert table, kind
        page = page.partition("</table>")[0]
        self.header: list[str] = []
        self.rows: list[dict[str, str]] = []
        self.bold: list[str] = []
        self.numbers: list[set[str]] = []
        self._cells: list[str] = []
        self._into: list[str] | None = None
        self._person = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag == "tr":
            self._cells, self._person = [], ("class", "person") in attrs
            self.numbers.append(set())
        if tag in {"th", "td"}:
            self._into = self.header if tag == "th" else self._cells
            self._into.append("")
            if ("class", "number") in attrs:
                self.numbers[-1].add(self.header[len(self._cells) - 1])

    def handle_data(self, data: str) -> None:
        if self._into:
            self._into[-1] += data

    def handle_endtag(self, tag: str) -> None:
        if tag in {"th", "td"}:
            self._into = None
        if tag == "tr" and self._cells:
            self.rows.append(dict(zip(self.header, self._cells, strict=True)))
            if self._person:
                self.bold.append(self._cells[0])


def show(world: World, **event: Any) -> str:
    return StatusPage(world.ledger, world.clock).show(event)


def table(world: World, **event: Any) -> Table:
    return Table(show(world, **event))


def london(moment: datetime | None) -> str:
    """Write a moment as the page does; the tests' summer begins and ends with June."""
    assert moment
    return f"{moment + timedelta(hours=moment.month in {6, 7}):%a %d %b %H:%M}"


def test_an_export_that_gathers_records_was_neither_sealed_nor_sent(world: World) -> None:
    world.upload(upload_of(row(1), row(2)))
    shown = table(world)
    assert shown.header == HEADER
    assert shown.rows == [
        dict(zip(HEADER, ["hpv-1", "HPV", "2", "", "open", "", "", "", "", ""], strict=True)),
    ]
    assert shown.bold == []
    assert shown.numbers[-1] == {"records"}


def test_an_export_that_dps_has_processed_says_when_in_londons_time_and_how_much(world: World) -> None:
    world.upload(upload_of(row(1), row(2)))
    world.export()
    sent = world.clock()
    world.acknowledge()
    world.clock.forward(hours=2)
    world.track()
    export = world.ledger.get("hpv", 1)
    answered = {"rows_processed": 1, "rows_refused": 1}
    world.ledger.change(export, lambda e: lifecycle.hear(e, 1, Processing.PROCESSED, world.clock(), **answered))
    shown = table(world)
    [cells] = shown.rows
    assert cells == {
        "export": "hpv-1",
        "programme": "HPV",
        "records": "2",
        "file and message id": "\n".join([*export.names[0], export.message_id]),
        "delivery": "acknowledged",
        "DPS": "processed 1 of 2",
        "sealed": london(sent),
        "sent": london(sent),
        "picked up": london(sent + timedelta(hours=2)),
        "attempt": "1",
    }
    assert shown.bold == []
    assert shown.numbers[-1] == {"records", "attempt"}


def night(world: World) -> list[dict[str, str]]:
    return Table(show(world), "night").rows


def test_the_page_begins_with_how_far_the_records_of_last_night_got_by_programme(world: World) -> None:
    world.upload(upload_of(row(1), row(2), row(3), row(4, "Flu")))
    world.export()
    columns = ["programme", "sent", "accepted", "picked up", "processed", "refused"]

    def verdict() -> list[list[str]]:
        rows = night(world)
        assert [list(cells) for cells in rows] == [columns] * len(rows)
        return sorted(list(cells.values()) for cells in rows)

    assert verdict() == [["Flu", "1", "1", "0", "0", "0"], ["HPV", "3", "3", "0", "0", "0"]]
    world.acknowledge()
    world.track()
    export = world.ledger.get("hpv", 1)
    answered = {"rows_processed": 2, "rows_refused": 1}
    world.ledger.change(export, lambda e: lifecycle.hear(e, 1, Processing.PROCESSED, world.clock(), **answered))
    assert verdict() == [["Flu", "1", "1", "1", "0", "0"], ["HPV", "3", "3", "3", "2", "1"]]
    assert show(world).index('class="night"') < show(world).index('class="exports"')
    world.clock.forward(hours=24)
    assert "<p>In the last 24 hours no export was sealed.</p>" in show(world)


def test_a_file_that_mesh_or_dps_refused_is_part_of_the_verdict(world: World, clock: Any) -> None:
    mesh: MemoryMesh = world.client._mesh
    world.upload(upload_of(row(1), row(2)))
    mesh.fail("send", Refused(417, code="12", description="Unregistered"))
    world.export()
    assert list(night(world)[0].values()) == ["HPV", "2", "0", "0", "0", "0"]
    export = made(clock(), number=2, sent_at=clock(), acknowledged_at=clock(), processing=Processing.REFUSED)
    export = replace(export, status=Status.ACKNOWLEDGED, sealed_at=clock(), accepted_at=clock())
    world.ledger._store(export)  # type: ignore[attr-defined]
    assert list(night(world)[0].values()) == ["HPV", "9", "7", "7", "0", "7"]


def test_what_needs_a_person_comes_next_and_leads_to_the_runbook(world: World) -> None:
    world.upload(upload_of(row(1)))
    world.export()
    assert "<p>No export needs a person.</p>" in show(world)
    world.clock.forward(days=3, seconds=1)
    runbook = "https://example.org/operations.md"
    said = 'hpv-1: ask DPS why nobody picks it up (<a href="https://example.org/operations.md#export-unacknowledged">'
    assert said in show(world, runbook=runbook)
    assert "picks it up (export-unacknowledged)</li>" in show(world)
    for nothing in ("docs/operations.md", "javascript:alert(1)", 5):
        assert "<a " not in show(world, runbook=nothing)
    assert '"onclick' not in show(world, runbook='https://example.org/"onclick="alert(1)')


@pytest.mark.parametrize(
    "about",
    [
        {"status": Status.ACCEPTED},
        {"status": Status.FAILED},
        {"status": Status.UNCLEAR},
        {"status": Status.ACKNOWLEDGED, "processing": Processing.REFUSED},
    ],
    ids=["accepted", "failed", "unclear", "refused"],
)
def test_each_export_that_needs_a_person_has_its_section_of_the_runbook(world: World, about: dict[str, Any]) -> None:
    export = made(world.clock() - timedelta(days=4), **about)
    export = replace(export, attempts=tuple(replace(export.attempts[0], number=n) for n in range(1, 6)))
    world.ledger._store(export)  # type: ignore[attr-defined]
    [section] = re.findall(r"\(([a-z-]+)\)</li>", show(world))
    assert f"\n### {section}\n" in (PROJECT / "docs" / "operations.md").read_text()


def test_an_export_that_mesh_refused_says_why_and_who_goes_on(world: World, clock: Any) -> None:
    mesh: MemoryMesh = world.client._mesh
    world.upload(upload_of(row(1)))
    for _ in range(5):
        mesh.fail("send", Refused(417, code="12", description="Unregistered <to> address"))
        world.next_night()
    shown = table(world)
    [cells] = shown.rows
    assert cells["delivery"] == (
        "failed: 12 Unregistered <to> address \u2014 tried 5 times; put the cause right, then mesh export resend hpv-1"
    )
    assert (cells["attempt"], cells["sent"], cells["picked up"]) == ("5", "", "")
    assert shown.bold == ["hpv-1"]


def test_what_was_wrong_before_is_not_said_once_dps_has_picked_the_file_up(world: World) -> None:
    export = made(error=Failure("14", "Not collected"), status=Status.ACKNOWLEDGED)
    world.ledger._store(export)  # type: ignore[attr-defined]
    assert table(world).rows[0]["delivery"] == "acknowledged"
    world.ledger._store(replace(export, status=Status.UNDELIVERED))  # type: ignore[attr-defined]
    assert table(world).rows[0]["delivery"] == "undelivered: 14 Not collected"


def test_a_file_that_nobody_picks_up_is_shown_to_a_person(world: World) -> None:
    world.upload(upload_of(row(1)))
    world.export()
    assert (table(world).bold, table(world).rows[0]["delivery"]) == ([], "accepted")
    world.clock.forward(days=3, seconds=1)
    shown = table(world)
    assert (shown.bold, shown.rows[0]["delivery"]) == (["hpv-1"], "accepted \u2014 ask DPS why nobody picks it up")


def made(created: datetime | None = None, number: int = 1, **about: Any) -> DPSExport:
    """Make an export with one attempt."""
    begun = created or datetime(2026, 11, 23, 19, tzinfo=UTC)
    status = about.pop("status", Status.ACCEPTED)
    attempt = Attempt(number=1, filename="a.csv", mesh_filename="a.csv", begun_at=begun, **about)
    return DPSExport(
        programme="hpv",
        number=number,
        status=status,
        records=7,
        created_at=begun,
        updated_at=begun,
        attempts=(attempt,),
    )


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({}, ""),
        ({"processing": Processing.RECEIVED}, "received"),
        ({"processing": Processing.PROCESSED, "rows_processed": 5}, "processed 5 of 7"),
        ({"processing": Processing.REFUSED, "refusal": "10001/10002"}, "refused the file (10001/10002)"),
    ],
    ids=["not answered", "received", "processed", "refused"],
)
def test_what_dps_made_of_a_file_is_said_in_words(world: World, about: dict[str, Any], words: str) -> None:
    assert processing_in_words(made(**about)) == words


def test_of_an_export_without_an_attempt_dps_knows_nothing(world: World) -> None:
    assert processing_in_words(replace(made(), attempts=())) == ""


def test_the_newest_exports_of_all_programmes_come_first_and_no_more_than_asked_for(world: World) -> None:
    for n, programme in enumerate(["MMR", "HPV", "Flu", "HPV"]):
        world.upload(upload_of(row(n, programme)), name=f"{n}.csv")
        world.export()
        world.clock.forward(hours=1)
    assert [cells["export"] for cells in table(world).rows] == ["hpv-2", "flu-1", "hpv-1", "mmr-1"]
    assert [cells["export"] for cells in table(world, limit=2).rows] == ["hpv-2", "flu-1"]
    assert [cells["export"] for cells in table(world, limit=1).rows] == ["hpv-2"]


def test_twenty_exports_are_shown_unless_another_number_is_asked_for(world: World) -> None:
    begun = datetime(2026, 11, 23, 19, tzinfo=UTC)
    for n in range(1, 103):
        world.ledger._store(made(begun + timedelta(hours=n), number=n))  # type: ignore[attr-defined]
    assert [cells["export"] for cells in table(world).rows] == [f"hpv-{n}" for n in range(102, 82, -1)]
    assert len(table(world, limit=100).rows) == 100


@pytest.mark.parametrize("wrong", [0, 101, "20", True, None, 1.0])
def test_a_number_of_exports_that_cannot_be_shown_is_answered_with_what_can(world: World, wrong: object) -> None:
    assert show(world, limit=wrong) == "<p>The parameter limit must be a whole number from 1 to 100.</p>"


def test_a_parameter_that_there_is_not_is_named(world: World) -> None:
    assert show(world, **{"<b>": 1, "programme": "hpv", "limit": 5}) == (
        "<p>Unknown parameter: &lt;b&gt;, programme. There are two: limit, runbook.</p>"
    )


def test_what_cloudwatch_sends_along_is_no_parameter(world: World) -> None:
    assert show(world, widgetContext={"theme": "light"}, describe=False) == "<p>There are no exports yet.</p>"


def test_the_widget_says_what_it_is(world: World) -> None:
    said = show(world, describe=True, programme="hpv")
    assert said.startswith("## Last night, and what needs a person\n")
    assert "| `limit` | how many exports to show, 1 to 100; 20 where it is left out |" in said


def test_what_came_from_outside_is_text_and_the_page_has_no_script(world: World) -> None:
    hostile = Failure("<script>", '<img src=x onerror="alert(1)">')
    world.ledger._store(made(error=hostile, message_id="<b>"))  # type: ignore[attr-defined]
    page = show(world)
    assert "<script" not in page
    assert "<img" not in page
    assert Table(page).rows[0]["delivery"].startswith(f"accepted: {hostile.code} {hostile.description}")
    assert page.startswith("<style>.night,")
    assert page.endswith("</td></tr></tbody></table>")


def test_every_programme_is_shown_by_its_name(world: World) -> None:
    world.upload(upload_of(row(1, "Td/IPV")))
    assert table(world).rows[0]["programme"] == PROGRAMMES["td_ipv"].name == "Td/IPV"
