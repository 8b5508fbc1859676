"""What the command shows of a receipt."""

from __future__ import annotations

import io
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from mesh_cli import intake
from mesh_cli.intake import show_receipt
from mesh_cli.main import app
from vaccinations.formats.rejects import RejectsWriter
from vaccinations.model.assumed import Assumed
from vaccinations.model.problems import Problem
from vaccinations.results import Receipt, RejectedUpload

if TYPE_CHECKING:
    from pathlib import Path

    from vaccinations.results import AnyReceipt

RECEIPT = Receipt(
    batch_id="b",
    upload="incoming/R1L/monday.csv",
    version="1",
    uploaded_at="2026-11-24T12:00:00+00:00",
    rows=30,
    accepted={"hpv": {"new": 29, "update": 1}},
    overtaken=0,
    unchanged=0,
    skipped=0,
    rejected=0,
    rejects=None,
    assumed={Assumed.TIME: 30, Assumed.POSTCODE: 1},
    assumed_in={Assumed.TIME: [2, 3], Assumed.POSTCODE: [7]},
    contradictions=1,
    contradicting=[[4, 9]],
    exports={"hpv": "hpv-1"},
    completed_at="2026-11-24T12:00:01+00:00",
)


def test_what_was_assumed_and_which_rows_contradict_each_other_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    nowhere: Any = None
    show_receipt(RECEIPT, nowhere)
    told = " ".join(capsys.readouterr().out.split())
    assert "no time is stated: midnight" in told
    assert "2, 3 and more" in told
    assert "ZZ99 3WZ" in told
    assert "line 9 contradicts line 4" in told


def bucket_with(rejects: str) -> Any:
    return SimpleNamespace(bucket="theirs", open_rejects=lambda _: io.BytesIO(rejects.encode()))


def test_what_is_allowed_is_said_once_however_many_rows_have_the_fault(capsys: pytest.CaptureFixture[str]) -> None:
    allowed = "one of: Flu, HPV, MenACWY"
    file = io.StringIO()
    writer = RejectsWriter(file, "What to do: put them right.", {})
    for line in range(2, 32):
        nameless = [Problem("PERSON_SURNAME", "is missing", "the family name")] if line == 7 else []
        writer.write(line, [Problem("PROGRAMME", "is not known", allowed), *nameless])
    receipt = replace(RECEIPT, rejected=30, rejects="rejected/R1L/monday.csv/b.csv")
    show_receipt(receipt, bucket_with(file.getvalue()))
    told = " ".join(capsys.readouterr().out.split())
    assert told.count(allowed) == 1
    assert "30 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and more" in told
    assert "the family name 1 7" in told
    assert told.endswith("s3://theirs/rejected/R1L/monday.csv/b.csv")


REJECTED = RejectedUpload(
    batch_id="b",
    upload="incoming/R1L/monday.csv",
    version="1",
    reason="the file is empty",
    fix="a header and rows",
    completed_at="2026-11-24T12:00:01+00:00",
)
NOTHING = replace(RECEIPT, accepted={}, exports={}, assumed={}, contradicting=[], rows=3)


@pytest.mark.parametrize(
    ("receipt", "code"),
    [
        pytest.param(RECEIPT, 0, id="rows were accepted"),
        pytest.param(replace(RECEIPT, rejected=1), 0, id="a row was rejected, others accepted"),
        pytest.param(replace(NOTHING, unchanged=3), 0, id="all was known"),
        pytest.param(replace(NOTHING, unchanged=2, rejected=1), 0, id="a row was rejected, the others known"),
        pytest.param(replace(NOTHING, skipped=3), 0, id="nobody was vaccinated"),
        pytest.param(replace(NOTHING, rejected=3), 1, id="every row was rejected"),
        pytest.param(replace(NOTHING, skipped=1, rejected=2), 1, id="every vaccination was rejected"),
        pytest.param(replace(NOTHING, rows=0), 1, id="there is no row"),
        pytest.param(REJECTED, 1, id="the file was rejected"),
    ],
)
def test_an_upload_of_which_nothing_is_accepted_ends_with_1(
    receipt: AnyReceipt, code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bucket = SimpleNamespace(put_upload=lambda *_: ("incoming/R1L/monday.csv", "1"))
    works_on = SimpleNamespace(wiring=SimpleNamespace(bucket=lambda: bucket))
    monkeypatch.setattr(intake, "deployment", lambda _: works_on)
    monkeypatch.setattr(intake, "wait_for_receipt", lambda *_: receipt)
    file = tmp_path / "monday.csv"
    file.write_text("a")
    assert CliRunner().invoke(app, ["upload", str(file), "-O", "R1L"]).exit_code == code
