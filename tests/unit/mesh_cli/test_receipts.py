"""What the command shows of a receipt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mesh_cli.intake import show_receipt
from vaccinations.model.assumed import Assumed
from vaccinations.results import Receipt

if TYPE_CHECKING:
    import pytest

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
