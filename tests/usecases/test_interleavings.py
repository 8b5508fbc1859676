"""Whatever happens in whatever order, DPS has on file what was last uploaded, by upload time, by the owner."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.conftest import OF_INTERLEAVINGS, TOTALS
from tests.machine.interleaving import play
from tests.machine.stage import MemoryStage, in_small_pieces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: How many interleavings are played; ``make interleavings`` plays more.
INTERLEAVINGS = int(os.environ.get("INTERLEAVINGS", "300"))
#: In how many tests, so that several processes share them.
SHARDS = 10


@pytest.fixture(autouse=True)
def _in_small_pieces() -> Iterator[None]:
    with in_small_pieces():
        yield


@pytest.mark.parametrize("shard", range(SHARDS))
def test_whatever_happens_in_whatever_order_dps_has_what_the_owner_uploaded_last(
    shard: int, record_property: Callable[[str, object], None]
) -> None:
    tally: Counter[str] = Counter()
    for seed in range(shard, INTERLEAVINGS, SHARDS):
        tally += play(MemoryStage(), seed).tally
        tally["interleavings run"] += 1
    for name, times in tally.items():
        record_property(name if name in TOTALS else f"{OF_INTERLEAVINGS}{name}", times)
