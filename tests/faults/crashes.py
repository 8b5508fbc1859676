"""What it takes to show that whatever point a process dies at, every record comes to DPS once.

The points are not written down anywhere: each scenario is first run to its end, and every HTTP request that it makes
to AWS and MESH is a point. Then, for each gap between two of them, everything begins anew, the process is killed
there, and what arrives in DPS's mailbox in the end is compared with what was uploaded.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from local.dps import RecordOnFile, identifier
from tests.faults.stage import DISLIKED
from tests.faults.victim import Death
from tests.usecases.rows import row, uuid_of
from vaccinations.model.export import Status
from vaccinations.model.programmes import URIS

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from tests.faults.stage import Sent, Stage

    type Begin = Callable[..., AbstractContextManager[Stage]]

#: In how many tests the points of a scenario are tried.
SHARDS = 4
#: What the points begin with that have no effect.
READS = (
    *(f"s3 {call}" for call in ("GetObject", "HeadObject", "ListObject")),
    *(f"dynamodb {call}" for call in ("GetItem", "BatchGetItem", "Query")),
    "sqs ReceiveMessage",
    "mesh GET",
)
#: The points that a worker has found so far, by the scenario's id.
_POINTS: dict[int, tuple[str, ...]] = {}


@dataclass(frozen=True)
class Scenario:
    """What is there before, which invocation dies, and what DPS must have heard in the end."""

    prepare: Callable[[Stage], None]
    use_case: str
    expected: dict[str, list[Sent]]
    part_bytes: int | None = None
    refused: tuple[str, ...] = ()
    """Of which records DPS refuses a row, in the order of the rows."""
    corrections: tuple[str, ...] = ()
    """What is uploaded once DPS's answers have been heard."""
    overtaken: bool = False
    """Whether the message dies into the dead-letter queue and another upload comes before it is redriven."""


MONDAY = (row(1), row(2), row(3), row(4, "MenACWY"))
TUESDAY = (
    row(1, batch="XY9999"),
    row(2, vaccinated="N"),
    row(3),
    row(5),
    row(6, "MenACWY"),
    row(7).replace("SW1A 1AA", "nonsense"),
    row(8, vaccinated="N"),
)
SECOND_THOUGHTS = (row(5, batch="XY9999"), row(6, "MenACWY", vaccinated="N"))


def an_upload_with_a_bit_of_everything(stage: Stage) -> None:
    an_upload_to_ingest_twice(stage, SECOND_THOUGHTS)


def an_upload_to_ingest_twice(stage: Stage, more: tuple[str, ...] = ()) -> None:
    stage.put("monday.csv", *MONDAY)
    stage.run("ingest")
    stage.run("export")
    stage.put("tuesday.csv", *TUESDAY, *more)


def two_files_to_send(stage: Stage) -> None:
    stage.put("monday.csv", row(1), row(2), row(4, "MenACWY"))
    stage.put("corrected.csv", row(1, batch="XY9999"), row(3))
    stage.run("ingest")


def a_file_of_several_parts(stage: Stage) -> None:
    stage.put("monday.csv", *(row(n) for n in range(4)))
    stage.run("ingest")


def one_picked_up_and_one_reported(stage: Stage) -> None:
    two_files_to_send(stage)
    stage.run("export")
    stage.lose(stage.ledger.get("menacwy", 1).message_id)
    stage.collect()


def a_lost_file_to_requeue(stage: Stage) -> None:
    """DPS has refused the correction of a record that it never got; Track has asked for the rest."""
    stage.put("monday.csv", row(1), row(2), row(3))
    stage.run("ingest")
    stage.run("export")
    lost = stage.ledger.get("hpv", 1).message_id
    stage.lose(lost)
    stage.put("tuesday.csv", row(1, batch="XY9999"), row(3, vaccinated="N"))
    stage.run("ingest")
    stage.clock.forward(days=1)
    stage.run("export")
    stage.collect()
    stage.run("track")


def a_duplicate_that_is_answered(stage: Stage) -> None:
    """DPS has the first record from another system, with other content."""
    stage.put("monday.csv", row(1), row(2))
    stage.run("ingest")
    stage.run("export")
    old = {"UNIQUE_ID": uuid_of(1), "UNIQUE_ID_URI": URIS["vaccination_record"], "BATCH_NUMBER": "OLD001"}
    stage.dps.on_file[identifier(old)] = RecordOnFile(old, deleted=False)
    [file] = stage.collect()
    stage.run("track")
    stage.dps.answer(file, ("csv",))


def uploads_whose_events_were_lost(stage: Stage) -> None:
    stage.put("monday.csv", row(1), row(2), row(4, "MenACWY"), announced=False)
    stage.put("corrected.csv", row(1, batch="XY9999"), row(3), announced=False)


def a_file_that_is_answered(stage: Stage) -> None:
    stage.put("monday.csv", row(1), row(2, batch=DISLIKED), row(3, batch=DISLIKED))
    stage.run("ingest")
    stage.run("export")
    [file] = stage.collect()
    stage.run("track")
    stage.dps.answer(file, ("csv",))


def sent(*records: tuple[int, str] | tuple[int, str, str]) -> list[Sent]:
    return [(uuid_of(n), action, *(batch or ["AB1234"])) for n, action, *batch in records]  # type: ignore[misc]


EVERYTHING = {
    "hpv": sent(
        (1, "new"),
        (2, "new"),
        (3, "new"),
        (1, "update", "XY9999"),
        (2, "delete"),
        (5, "new"),
        (5, "update", "XY9999"),
    ),
    "menacwy": sent((4, "new"), (6, "new"), (6, "delete")),
}
ONCE = {"hpv": EVERYTHING["hpv"][:-1], "menacwy": EVERYTHING["menacwy"][:-1]}
TWO = {"hpv": sent((1, "new"), (2, "new"), (1, "update", "XY9999"), (3, "new")), "menacwy": sent((4, "new"))}
CORRECTED = {
    "hpv": sent((1, "new"), (2, "new", DISLIKED), (3, "new", DISLIKED), (2, "new", "XY9999"), (1, "update", "XY9999"))
}
REQUEUED = {
    "hpv": sent((1, "update", "XY9999"), (3, "delete"), (1, "new", "XY9999"), (2, "new")),
}
HEALED = {"hpv": sent((1, "new"), (2, "new"), (1, "update"), (5, "new"))}
FOUR = {"hpv": sent(*((n, "new") for n in range(4)))}


def life_goes_on(stage: Stage, scenario: Scenario) -> None:
    """Run the next scheduled invocations, as AWS would: until the next night, and what follows it."""
    if scenario.overtaken:
        stage.sqs.purge_queue(QueueUrl=stage.queue)
        stage.put("tuesday-again.csv", *TUESDAY)
        stage.run("ingest")
        stage.announce(1)
    if scenario.use_case == "reconcile":
        stage.run("reconcile")
    stage.run("ingest")
    if scenario.use_case in {"export", "track"}:
        # A lease outlives the run that died with it.
        stage.run("track")
        stage.run("export", resume_only=True)
    stage.clock.forward(hours=2)
    stage.run("export", resume_only=True)
    stage.collect()
    stage.run("track")
    stage.run("ingest")
    if scenario.corrections:
        stage.run("collect")
        stage.put("corrected.csv", *scenario.corrections)
        stage.run("ingest")
    stage.clock.forward(days=1)
    stage.run("export")
    stage.collect()
    stage.run("track")


def check(stage: Stage, scenario: Scenario) -> None:
    """Compare what arrived with what was uploaded, and the ledger with both."""
    arrived: defaultdict[str, list[Sent]] = defaultdict(list)
    exports = {e.message_id: e for programme in ("hpv", "menacwy") for e in stage.ledger.exports(programme)}
    lost = {message_id for message_id, export in exports.items() if export.status is Status.REQUEUED}
    assert lost == stage.lost, "what was lost is requeued, and nothing else"
    assert set(exports) == set(stage.files) | lost, "each export is one message, and each message an export"
    for message_id, rows in stage.files.items():
        assert exports[message_id].status is Status.ACKNOWLEDGED
        assert exports[message_id].records == len(rows)
        arrived[exports[message_id].programme] += rows
    assert dict(arrived) == scenario.expected
    assert not any(file.problem for file in stage.dps.files)
    refused = [judged.row["UNIQUE_ID"] for file in stage.dps.files for judged in file.refused]
    assert refused == list(scenario.refused), "DPS takes every row but those it was to refuse"
    assert stage.register.unfinished() == []
    for upload in stage.uploads:
        receipt = stage.receipt(upload)
        counts = sum(sum(actions.values()) for actions in receipt["accepted"].values())
        others = ("unchanged", "overtaken", "skipped", "rejected")
        assert receipt["rows"] == counts + sum(receipt[other] for other in others)
        assert set(receipt["exports"]) == set(receipt["accepted"])


def deaths(points: tuple[str, ...]) -> list[Death]:
    """List every way to die: before each effect, after the last, and in the middle of each part that goes to MESH.

    After one point is before the next: nothing happens in between that anybody else could see. Nor does where something
    is only read, so to die before that is to die before the next effect.
    """
    return [
        *(Death(number, "before") for number, point in enumerate(points, start=1) if not point.startswith(READS)),
        *(Death(number, "during") for number, point in enumerate(points, start=1) if point.startswith("mesh POST")),
        Death(len(points), "after"),
    ]


def dies_everywhere(
    begin: Begin, scenario: Scenario, shard: int, also: Callable[[Stage], None] = lambda _: None
) -> int:
    """Die at each point, in this shard of them; return at how many.

    Parameters
    ----------
    also
        Asserts what else must hold in the end.

    Raises
    ------
    AssertionError
        What DPS heard is not what it should have, or the ledger is not what DPS heard; a note says where it died.
    """
    if id(scenario) not in _POINTS:
        with begin(part_bytes=scenario.part_bytes) as stage:
            scenario.prepare(stage)
            _POINTS[id(scenario)] = stage.run(scenario.use_case).points
            life_goes_on(stage, scenario)
            check(stage, scenario)
            also(stage)
    points = _POINTS[id(scenario)]
    every = deaths(points)
    assert len(every) > 1, "it has effects"
    mine = every[shard::SHARDS]
    for death in mine:
        with begin(part_bytes=scenario.part_bytes) as stage:
            scenario.prepare(stage)
            ran = stage.run(scenario.use_case, death)
            try:
                assert ran.killed, "it did not come to this point"
                life_goes_on(stage, scenario)
                check(stage, scenario)
                also(stage)
            except AssertionError as error:
                error.add_note(f"It died {death.side} point {death.point}: {points[death.point - 1]}")
                raise
    return len(mine)
