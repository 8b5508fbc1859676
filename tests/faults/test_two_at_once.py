"""Invocations that really run at the same time, each in a process of its own: every record arrives once.

The ledger is DynamoDB Local, whose conditional writes are as atomic as DynamoDB's. (Moto's are not: two threads of its
server may both pass a condition.)
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tests.faults.crashes import FOUR, TWO, Scenario, check, life_goes_on
from tests.faults.victim import Victim
from tests.usecases.rows import row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from local.sandbox import Sandbox
    from tests.faults.stage import Stage

#: How often each is tried: who comes first is a matter of chance.
TIMES = 4


@pytest.fixture(scope="module")
def crew(endpoint: str, sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Victim]]:
    """Processes that each do one invocation at a time."""
    with ExitStack() as stack:
        yield [stack.enter_context(Victim(endpoint, sandbox, tmp_path_factory.mktemp("crew"))) for _ in range(3)]


@pytest.fixture
def dynamodb(dynamodb_local: Any) -> Any:
    return dynamodb_local


@pytest.fixture
def at_once(crew: list[Victim]) -> Callable[..., list[Any]]:
    """Run invocations at the same time; return what each answered."""

    def run(stage: Stage, *use_cases: str) -> list[Any]:
        with ThreadPoolExecutor(len(use_cases)) as threads:
            pairs = zip(use_cases, crew, strict=False)
            runs = [threads.submit(stage.run, use_case, victim=victim) for use_case, victim in pairs]
            return [run.result().answer for run in runs]

    return run


@pytest.mark.parametrize("time", range(TIMES))
def test_exports_that_overlap_send_each_file_once(
    begin: Callable[..., AbstractContextManager[Stage]], at_once: Callable[..., list[Any]], time: int
) -> None:
    with begin(part_bytes=None if time % 2 else 200) as stage:
        stage.put("monday.csv", *(row(n) for n in range(4)))
        stage.run("ingest")
        at_once(stage, "export", "export", "export")
        (export,) = stage.ledger.exports("hpv")
        assert (export.status, len(export.attempts)) == ("accepted", 1)
        finish(stage, FOUR)


@pytest.mark.parametrize("time", range(TIMES))
def test_an_upload_during_an_export_and_a_track_is_in_this_file_or_the_next(
    begin: Callable[..., AbstractContextManager[Stage]], at_once: Callable[..., list[Any]], time: int
) -> None:
    with begin() as stage:
        stage.put("monday.csv", row(1), row(2), row(4, "MenACWY"))
        stage.run("ingest")
        if time % 2:
            stage.run("export")
            stage.collect()
        stage.put("corrected.csv", row(1, batch="XY9999"), row(3))
        at_once(stage, "ingest", "export", "track")
        finish(stage, TWO)


@pytest.mark.parametrize("time", range(TIMES))
def test_one_file_under_two_names_during_an_export_arrives_once(
    begin: Callable[..., AbstractContextManager[Stage]], at_once: Callable[..., list[Any]], time: int
) -> None:
    with begin() as stage:
        stage.put("first.csv", row(0))
        stage.run("ingest")
        for name in ("monday.csv", "monday (1).csv"):
            stage.put(name, *(row(n) for n in range(1, 4)))
        answers = at_once(stage, "ingest", "export", "export")
        receipts = [receipt for receipt in answers[0] if receipt["rows"] == 3]
        assert [receipt["unchanged"] for receipt in receipts] == [0, 3]
        finish(stage, FOUR)


def finish(stage: Stage, expected: dict[str, list[Any]]) -> None:
    """Let the next scheduled invocations run, then compare what arrived with what was uploaded."""
    scenario = Scenario(lambda _: None, "", expected)
    life_goes_on(stage, scenario)
    check(stage, scenario)
