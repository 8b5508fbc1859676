"""Whatever point Collect dies at, each message is kept and each answer of DPS is applied, once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults.crashes import CORRECTED, SHARDS, Scenario, a_file_that_is_answered, dies_everywhere
from tests.usecases.rows import row, uuid_of
from vaccinations.model.export import Processing
from vaccinations.model.outcome import OnFile

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.crashes import Begin
    from tests.faults.stage import Stage

ANSWERED = Scenario(
    a_file_that_is_answered,
    "collect",
    CORRECTED,
    refused=(uuid_of(2), uuid_of(3)),
    corrections=(row(2, batch="XY9999"), row(1, batch="XY9999")),
)


def heard(stage: Stage) -> None:
    """Compare what we know of DPS's answers with what it answered."""
    assert len(stage.collected()) == 2
    export = stage.ledger.get("hpv", 1)
    attempt = export.attempts[-1]
    assert (attempt.processing, attempt.rows_processed, attempt.rows_refused) == (Processing.PROCESSED, 1, 2)
    assert [line.split(",")[0] for line in stage.refusals()] == ["3", "4"]
    [left] = stage.register.refused("hpv")
    assert (left.record_id, left.on_file) == (uuid_of(3), OnFile.NO)


@pytest.mark.parametrize("shard", range(SHARDS))
def test_wherever_collect_dies_every_answer_is_applied_once(
    begin: Begin, shard: int, record_property: Callable[[str, object], None]
) -> None:
    record_property("crash points tried", dies_everywhere(begin, ANSWERED, shard, heard))
