"""The dashboard's table of recent exports, as the built function writes it and a browser shows it."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from local.dps import Dps
from local.stack import RECEIVER, LocalCloud
from tests.chromium import see
from tests.receiver import disease_of
from tests.usecases.memory import MemoryLedger, MemoryRegister
from tests.usecases.rows import row, upload_of, uuid_of
from vaccinations.aws.ledger import Ledger
from vaccinations.jobs.status import StatusPage
from vaccinations.model.export import Failure, Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vaccinations.model.export import DPSExport

#: What somebody might try to inject.
HOSTILE = "<script>alert('owned')</script><img src='http://127.0.0.1:9/x.png' onerror=\"alert('owned')\">"


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    with LocalCloud() as running:
        tell(running)
        yield running


def tell(cloud: LocalCloud) -> None:
    """Bring exports into all the states that there are."""

    def upload(name: str, *rows: str) -> None:
        key = f"incoming/R1L/{name}"
        cloud.client("s3").put_object(Bucket=cloud.outputs["BucketName"], Key=key, Body=upload_of(*rows).encode())
        cloud.drain()

    upload("monday.csv", row(1), row(2), row(3), row(4, "Flu"), row(5, "MenACWY"), row(6, "MMR"))
    cloud.invoke("ExportFunction")
    with cloud.sandbox.client(RECEIVER) as receiver:
        left = ledger_of(cloud).get("menacwy", 1).message_id
        dps = Dps(
            receiver, refuse=lambda found: "Validation errors: lotNumber" if found["UNIQUE_ID"] == uuid_of(3) else None
        )
        for file in dps.pick_up(leave={left}):
            dps.answer(file)
    cloud.invoke("TrackFunction")
    cloud.invoke("CollectFunction")
    upload("tuesday.csv", row(7), row(8))
    description = "MESH knows several messages by the local id mmr-1-1"
    change(cloud, "mmr", status=Status.UNCLEAR, error=Failure("not-unique", description))
    change(cloud, "menacwy", sent_at=datetime(2026, 1, 12, 19, tzinfo=UTC))


def ledger_of(cloud: LocalCloud) -> Ledger:
    return Ledger(cloud.client("dynamodb"), cloud.outputs["DpsExportsTableName"])


def change(cloud: LocalCloud, programme: str, status: Status | None = None, **of_attempt: Any) -> None:
    """Change a programme's first export and its attempt by hand."""

    def how(export: DPSExport) -> DPSExport:
        [attempt] = export.attempts
        return replace(export, status=status or export.status, attempts=(replace(attempt, **of_attempt),))

    ledger = ledger_of(cloud)
    ledger.change(ledger.get(programme, 1), how)


def test_a_person_sees_what_became_of_the_exports_and_which_need_a_person(
    cloud: LocalCloud, chromium: None, tmp_path: Path
) -> None:
    screenshot = Path(os.environ.get("SCREENSHOT") or tmp_path / "status.png").resolve()
    seen = see(cloud.invoke("StatusFunction", {"widgetContext": {"theme": "light"}}), screenshot)
    rows = {cells[0]: dict(zip(seen["header"], cells, strict=True)) for cells in seen["rows"]}
    assert next(iter(rows)) == "hpv-2"
    assert sorted(rows) == ["flu-1", "hpv-1", "hpv-2", "menacwy-1", "mmr-1"]
    assert (rows["hpv-2"]["delivery"], rows["hpv-2"]["sent"], rows["hpv-2"]["file and message id"]) == ("open", "", "")
    hpv = rows["hpv-1"]
    assert (hpv["programme"], hpv["records"], hpv["delivery"], hpv["attempt"]) == ("HPV", "3", "acknowledged", "1")
    assert hpv["DPS"] == "processed 2 of 3"
    assert re.fullmatch(r"[A-Z][a-z]{2} \d\d [A-Z][a-z]{2} \d\d:\d\d", hpv["picked up"])
    file, mesh_file, message_id = hpv["file and message id"].split("\n")
    assert file.startswith("Vaccinations-HPV-")
    assert disease_of(mesh_file) == "HPV"
    assert re.fullmatch("[0-9A-F]{32}", message_id)
    assert seen["night"] == [
        ["Flu", "1", "1", "1", "1", "0"],
        ["HPV", "3", "3", "3", "2", "1"],
        ["MenACWY", "1", "1", "0", "0", "0"],
        ["MMR", "1", "1", "1", "1", "0"],
    ]
    assert sorted(seen["bold"]) == ["menacwy-1", "mmr-1"]
    assert rows["menacwy-1"]["delivery"] == "accepted \u2014 ask DPS why nobody picks it up"
    assert rows["mmr-1"]["delivery"].endswith("ask MESH whether it arrived, then mesh export resend mmr-1")
    assert screenshot.read_bytes().startswith(b"\x89PNG")


def test_what_came_from_outside_is_shown_as_text_and_nothing_of_it_runs(
    cloud: LocalCloud, chromium: None, tmp_path: Path
) -> None:
    change(cloud, "mmr", error=Failure("not-unique", HOSTILE))
    seen = see(cloud.invoke("StatusFunction"), tmp_path / "shot.png")
    assert HOSTILE in seen["text"]
    assert seen["said"] == []
    assert [url for url in seen["asked"] if not url.startswith("about:")] == []


def test_the_widget_says_what_it_is_and_which_parameter_is_wrong(cloud: LocalCloud) -> None:
    assert cloud.invoke("StatusFunction", {"describe": True}).startswith("## Last night")
    shown = cloud.invoke("StatusFunction", {"limit": 2})
    assert shown.partition('<table class="exports">')[2].count("<tr") == 3
    assert cloud.invoke("StatusFunction", {"programme": "<b>"}) == (
        "<p>Unknown parameter: programme. There are two: limit, runbook.</p>"
    )
    for wrong in (0, 101, "20", True, None):
        assert "whole number from 1 to 100" in cloud.invoke("StatusFunction", {"limit": wrong})


def test_without_exports_it_says_so() -> None:
    ledger = MemoryLedger(MemoryRegister(), lambda: datetime.now(UTC))
    assert StatusPage(ledger).show({}) == "<p>There are no exports yet.</p>"
