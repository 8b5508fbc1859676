"""Whatever point Export or Track dies at, the next scheduled invocations bring every record to DPS once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults.crashes import (
    FOUR,
    SHARDS,
    TWO,
    Scenario,
    a_file_of_several_parts,
    dies_everywhere,
    one_picked_up_and_one_reported,
    two_files_to_send,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.crashes import Begin

SCENARIOS = {
    "export": Scenario(two_files_to_send, "export", TWO),
    "export-in-parts": Scenario(a_file_of_several_parts, "export", FOUR, part_bytes=200),
    "track": Scenario(one_picked_up_and_one_reported, "track", TWO),
}


@pytest.mark.parametrize("shard", range(SHARDS))
@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_wherever_export_or_track_dies_every_record_arrives_once(
    begin: Begin, scenario: Scenario, shard: int, record_property: Callable[[str, object], None]
) -> None:
    record_property("crash points tried", dies_everywhere(begin, scenario, shard))
