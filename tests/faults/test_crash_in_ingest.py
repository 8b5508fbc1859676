"""Whatever point Ingest dies at, the next scheduled invocations bring every record to DPS once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults.crashes import (
    EVERYTHING,
    ONCE,
    SHARDS,
    Scenario,
    an_upload_to_ingest_twice,
    an_upload_with_a_bit_of_everything,
    dies_everywhere,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.crashes import Begin

SCENARIOS = {
    "ingest": Scenario(an_upload_with_a_bit_of_everything, "ingest", EVERYTHING),
    "ingest-overtaken": Scenario(an_upload_to_ingest_twice, "ingest", ONCE, overtaken=True),
}


@pytest.mark.parametrize("shard", range(SHARDS))
@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_wherever_ingest_dies_every_record_arrives_once(
    begin: Begin, scenario: Scenario, shard: int, record_property: Callable[[str, object], None]
) -> None:
    record_property("crash points tried", dies_everywhere(begin, scenario, shard))
