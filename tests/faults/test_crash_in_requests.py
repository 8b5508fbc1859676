"""Whatever point a run dies at that requeues, heals a duplicate or finds a lost event, DPS hears what was last said."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults.crashes import (
    HEALED,
    REQUEUED,
    SHARDS,
    TWO,
    Scenario,
    a_duplicate_that_is_answered,
    a_lost_file_to_requeue,
    dies_everywhere,
    uploads_whose_events_were_lost,
)
from tests.usecases.rows import row, uuid_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.crashes import Begin

#: Of the lost record's correction DPS says that it does not know the record; so it does of a withdrawal of one.
_UNKNOWN = (uuid_of(1), uuid_of(3))
SCENARIOS = {
    "requeue": Scenario(a_lost_file_to_requeue, "ingest", REQUEUED, refused=_UNKNOWN),
    "duplicate": Scenario(
        a_duplicate_that_is_answered, "collect", HEALED, refused=(uuid_of(1),), corrections=(row(5),)
    ),
    "lost event": Scenario(uploads_whose_events_were_lost, "reconcile", TWO),
}


@pytest.mark.parametrize("shard", range(SHARDS))
@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_wherever_a_run_for_requests_dies_dps_hears_what_was_last_said(
    begin: Begin, scenario: Scenario, shard: int, record_property: Callable[[str, object], None]
) -> None:
    record_property("crash points tried", dies_everywhere(begin, scenario, shard))
