"""Whatever happens in whatever order, DPS has on file what was last uploaded, by upload time, by the owner.

The interleavings of `tests.machine`, with processes that die, on moto's server and on DynamoDB Local.
tests/usecases/test_interleavings.py plays many more in memory.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.machine.interleaving import play
from tests.machine.processes import ProcessStage

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from local.sandbox import Sandbox
    from tests.faults.stage import Stage

#: How many interleavings each engine is put through, and of how many happenings.
INTERLEAVINGS = int(os.environ.get("INTERLEAVINGS_OF_PROCESSES", "20"))
STEPS = 10
#: In how many tests, so that several processes share them.
SHARDS = 4


@pytest.fixture(params=["moto", "DynamoDB Local"])
def dynamodb(request: pytest.FixtureRequest, aws: Callable[[str], Any]) -> Any:
    return aws("dynamodb") if request.param == "moto" else request.getfixturevalue("dynamodb_local")


@pytest.mark.parametrize("shard", range(SHARDS))
def test_whatever_happens_in_whatever_order_dps_has_what_the_owner_uploaded_last(
    begin: Callable[..., AbstractContextManager[Stage]],
    sandbox: Sandbox,
    shard: int,
    record_property: Callable[[str, object], None],
) -> None:
    seeds = range(shard, INTERLEAVINGS, SHARDS)
    for seed in seeds:
        with begin(part_bytes=40 if seed % 2 else None) as world, sandbox.client("X26ABC3") as receiver:
            play(ProcessStage(world, receiver), seed, steps=STEPS)
    record_property("interleavings run", len(seeds))
