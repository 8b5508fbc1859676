"""Uploads, exports, tracks, deaths and lost answers in any order: each record's story arrives as it was told.

Hypothesis makes up the interleavings. A small model says what DPS must hear of each record; a person's part, such as
redriving a dead letter, is played at the end. Every interleaving is run on moto's server and on DynamoDB Local.
"""

from __future__ import annotations

import os
from collections import defaultdict
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from tests.faults.stage import DISLIKED
from tests.faults.victim import SIDES, Death
from tests.usecases.rows import row, uuid_of
from vaccinations.formats.dps_names import FilenameStyle, file_names
from vaccinations.jobs.ingest import MOST_TRIES
from vaccinations.model import export as model
from vaccinations.model.export import Status
from vaccinations.model.lifecycle import MAX_ATTEMPTS, MOVES
from vaccinations.model.outcome import Outcome
from vaccinations.model.programmes import PROGRAMMES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager

    from local.dps import VaccinationFile
    from tests.faults.stage import Sent, Stage
    from vaccinations.model.export import DPSExport
    from vaccinations.model.programmes import Programme

#: How many interleavings each engine is put through, the same ones each time; another number looks further.
INTERLEAVINGS = int(os.environ.get("INTERLEAVINGS", "10"))

#: What an upload says of a record: its number, and the vaccine's batch or nothing where it is withdrawn. Only of the
#: last two is anything ever said that DPS refuses; of the others each row is known beforehand.
ROWS = st.lists(
    st.one_of(
        st.tuples(st.integers(0, 5), st.sampled_from(["AB1234", "CD5678", ""])),
        st.tuples(st.integers(6, 7), st.sampled_from([DISLIKED, DISLIKED, "AB1234", ""])),
    ),
    min_size=1,
    max_size=6,
)
#: Where an invocation dies, if it does.
ANYWHERE = st.builds(Death, st.sampled_from(range(1, 31)), st.sampled_from(["before", "after"]))
DEATHS = st.one_of(
    st.none(),
    ANYWHERE,
    st.builds(Death, st.sampled_from([1, 2, 3]), st.sampled_from(SIDES), st.just("mesh POST")),
)

#: In which forms DPS's BusAck comes.
ANSWERS = st.sampled_from([("csv", "json"), ("csv",)])

#: How much time has passed.
PERIODS = st.sampled_from([{"minutes": 5}, {"hours": 2}, {"days": 1}])

HAPPENINGS = st.sampled_from(
    [
        *("upload",) * 4,
        *("export",) * 4,
        *("export resumes", "ingest", "track", "time passes") * 2,
        *("upload under two names", "upload again", "event again", "dead letter", "export out of time"),
        *("MESH refuses", "MESH answers in vain", "MESH loses a file", "DPS collects"),
        *("DPS answers", "DPS answers", "DPS answers", "DPS answers again", "collect"),
    ]
)

#: The records of which something may be said that DPS refuses.
DOUBTFUL = {uuid_of(6), uuid_of(7)}

type Rows = tuple[tuple[int, str], ...]


def names(programme: Programme) -> Any:
    return file_names(programme, FilenameStyle.GUIDE)


def programme_of(n: int) -> str:
    return "HPV" if n in {0, 1, 2, 3, 6} else "MenACWY"


def said(rows: Rows) -> list[str]:
    return [row(n, programme_of(n), vaccinated="Y" if batch else "N", batch=batch or "AB1234") for n, batch in rows]


def told(uploads: list[tuple[int, Rows]]) -> dict[str, list[Sent]]:
    """Tell what DPS must hear of uploads, by programme.

    They are given in the order in which they were ingested, each with its place in the order in which they were made: a
    record changes only as later ones say.
    """
    heard = defaultdict(list)
    known: dict[int, tuple[str, str]] = {}
    newest: dict[int, int] = {}
    for place, rows in uploads:
        for n, batch in rows:
            now, last = known.get(n, ("", ""))
            if place < newest.get(n, 0):
                continue
            newest[n] = place
            if batch == now:
                continue
            action = "delete" if not batch else "update" if n in known else "new"
            known[n] = (batch, batch or last)
            if uuid_of(n) not in DOUBTFUL:
                heard[programme_of(n).lower()].append((uuid_of(n), action, batch or last))
    return dict(heard)


def reachable(before: DPSExport, after: DPSExport) -> bool:
    """Tell whether one state may follow another: within an attempt, or over the attempts in between."""
    again = len(after.attempts) > len(before.attempts)
    moves = {
        (move.origin, move.to)
        for move in MOVES
        if again or not (isinstance(move.to, model.Phase) and isinstance(move.origin, Status))
    }
    found = {before.state}
    while more := {to for start, to in moves if start in found} - found:
        found |= more
    return after.state in found and after.attempts[: len(before.attempts) - 1] == before.attempts[:-1]


class Interleaving(RuleBasedStateMachine):
    """One history, and the model of it."""

    def __init__(self, begin: Callable[..., AbstractContextManager[Stage]], ran: list[int]) -> None:
        super().__init__()
        self._begin = begin
        self._ran = ran
        self._stack = ExitStack()
        self.stage: Stage
        self.uploads: list[Rows] = []
        self.ingested: list[int] = []
        """Which uploads, in the order in which they were ingested."""
        self.queued: list[int] = []
        """The events of which uploads went into the queue, in that order; those ingested may still be there."""
        self.dead_letters: list[int] = []
        self.lost_of: set[str] = set()
        """Programmes of which MESH lost a file: those may come to DPS in another order."""
        self.exports: dict[str, DPSExport] = {}
        self.unanswered: list[VaccinationFile] = []
        self.answers: list[str] = []
        """The ids of the messages with which DPS has answered."""

    @initialize(part_bytes=st.sampled_from([None, 40]), rows=ROWS)
    def fresh(self, part_bytes: int | None, rows: list[tuple[int, str]]) -> None:
        self.stage = self._stack.enter_context(self._begin(part_bytes=part_bytes))
        self._upload(rows)

    # One rule: of several, Hypothesis would leave some out of each interleaving, and most would then hold nothing.
    @rule(data=st.data(), happening=HAPPENINGS)
    def something_happens(self, data: st.DataObject, happening: str) -> None:  # noqa: C901 - a list of cases
        draw = data.draw
        note(happening)
        match happening:
            case "upload":
                self._upload(draw(ROWS))
                self._run("ingest", draw(DEATHS))
            case "upload under two names":
                rows = draw(ROWS)
                self._upload(rows)
                self._upload(rows)
            case "upload again":
                self._upload(draw(st.sampled_from(self.uploads)))
            case "event again":
                self._announce(draw(st.integers(0, len(self.uploads) - 1)))
            case "dead letter":
                self._dead_letter()
            case "ingest" | "track" | "collect":
                self._run(happening, draw(DEATHS))
            case "export":
                self._run("export", draw(DEATHS))
            case "export resumes":
                self._run("export", draw(DEATHS), resume_only=True)
            case "export out of time":
                self._run("export", None, seconds_left=[900.0] * draw(st.integers(1, 4)) + [1.0] * 20)
            case "MESH refuses":
                self._run("export", None, settings=self.stage.settings_with(DPS_MAILBOX="NOBODY"))
            case "MESH answers in vain":
                self._run("export", Death(draw(st.sampled_from([1, 2, 3])), "lost", "mesh"))
            case "MESH loses a file":
                waiting = [e for e in self.exports.values() if e.status is Status.ACCEPTED and self._uncollected(e)]
                if waiting:
                    lost = draw(st.sampled_from(waiting))
                    self.stage.lose(lost.message_id)
                    self.lost_of.add(lost.programme)
            case "DPS collects":
                self.unanswered += self.stage.collect()
            case "DPS answers":
                self._run("export", None)
                self.the_ledger_moves_only_as_its_table_says()
                self.unanswered += self.stage.collect()
                while self.unanswered:
                    self.answers += self.stage.dps.answer(self.unanswered.pop(0), draw(ANSWERS))
                self._run("collect", draw(ANYWHERE))
            case "DPS answers again":
                for file in self.stage.dps.files[-2:]:
                    self.answers += self.stage.dps.answer(file)
            case "time passes":
                self.stage.clock.forward(**draw(PERIODS))

    def _upload(self, rows: Iterable[tuple[int, str]]) -> None:
        self.uploads.append(tuple(rows))
        self.queued.append(len(self.uploads) - 1)
        self.stage.put(f"{len(self.uploads)}.csv", *said(tuple(rows)))

    def _dead_letter(self) -> None:
        """Let the next upload die into the dead-letter queue, as far as it has got."""
        if messages := self.stage.sqs.receive_message(QueueUrl=self.stage.queue).get("Messages"):
            body = messages[0]["Body"]
            which = next(n for n, upload in enumerate(self.stage.uploads) if f'"{upload["key"]}"' in body)
            self.dead_letters.append(which)
            self.queued.remove(which)
            self.stage.sqs.delete_message(QueueUrl=self.stage.queue, ReceiptHandle=messages[0]["ReceiptHandle"])

    def _uncollected(self, export: DPSExport) -> bool:
        return export.message_id not in self.stage.files and export.message_id not in self.stage.lost

    def _run(self, use_case: str, death: Death | None, **options: Any) -> None:
        if use_case == "ingest" and any(self._tries(batch_id) == MOST_TRIES - 1 for batch_id in self._unfinished()):
            death = None  # else it would be parked: tests/usecases/test_parked.py is about that
        ran = self.stage.run(use_case, death, **options)
        note(f"{use_case}: {len(ran.points)} points, {'killed' if ran.killed else ran.answer}")
        for n in self.queued:
            if n not in self.ingested and self.stage.register.intake(
                self.stage.bucket.batch_id(**self.stage.uploads[n])
            ):
                self.ingested.append(n)

    def _unfinished(self) -> list[str]:
        return self.stage.register.unfinished()

    def _tries(self, batch_id: str) -> int:
        intake = self.stage.register.intake(batch_id)
        return intake.tries if intake else 0

    def _announce(self, n: int) -> None:
        self.queued.append(n)
        self.stage.announce(n)

    # -- what must hold at any time

    @invariant()
    def the_ledger_moves_only_as_its_table_says(self) -> None:
        if not hasattr(self, "stage"):
            return
        for programme in PROGRAMMES:
            for export in self.stage.ledger.exports(programme):
                before = self.exports.get(export.export_id)
                if before:
                    assert reachable(before, export), (before, export)
                    assert before.status is Status.OPEN or before.records == export.records
                self.exports[export.export_id] = export

    @invariant()
    def no_export_is_delivered_twice(self) -> None:
        if not hasattr(self, "stage"):
            return
        known = {*(e.message_id for e in self.exports.values())}
        for message_id in self.stage.files:
            earlier = [attempt.message_id for e in self.exports.values() for attempt in e.attempts[:-1]]
            assert message_id not in earlier, "it was collected, and sent again nevertheless"
            unaware = [e for e in self.exports.values() if e.status is Status.PENDING and not e.message_id]
            assert message_id in known or unaware

    # -- the end

    def teardown(self) -> None:
        if hasattr(self, "stage"):
            with self._stack:
                self._everything_drains()
        self._ran.append(1)

    def _everything_drains(self) -> None:
        stage = self.stage
        self._run("ingest", None)
        for which in self.dead_letters:
            self._announce(which)
            self._run("ingest", None)
        self._everything_is_sent()
        self._everything_is_answered()
        assert sorted(self.ingested) == list(range(len(self.uploads)))
        self._what_is_unknown_is_sent_again()
        self._dps_heard_what_was_told()
        self._what_was_last_said_is_on_file()
        assert stage.register.unfinished() == []
        for upload in stage.uploads:
            assert stage.receipt(upload)["status"] == "ingested"

    def _everything_is_sent(self) -> None:
        stage = self.stage
        for _ in range(12):
            stage.clock.forward(days=1)
            self._run("export", None)
            self.the_ledger_moves_only_as_its_table_says()
            for export in list(self.exports.values()):
                assert export.status is not Status.UNCLEAR
                if export.status in {Status.FAILED, Status.UNDELIVERED} and export.attempt >= MAX_ATTEMPTS:
                    # What `mesh export resend` does.
                    stage.ledger.retry(
                        export,
                        file_names(
                            PROGRAMMES[export.programme], stage.settings.filename_style, stage.settings.ods_code
                        ),
                    )
            self.unanswered += stage.collect()
            self._run("track", None)
            self.the_ledger_moves_only_as_its_table_says()
            self.no_export_is_delivered_twice()
            if all(e.status is Status.ACKNOWLEDGED for e in self.exports.values()):
                break
        assert {e.status for e in self.exports.values()} <= {Status.ACKNOWLEDGED}
        assert {e.message_id for e in self.exports.values()} == set(stage.files)

    def _what_is_unknown_is_sent_again(self) -> None:
        """Do what `mesh refused resend --class unknown` does."""
        unknown = [
            entry.record_id
            for programme in ("hpv", "menacwy")
            for entry in self.stage.register.refused(programme)
            if entry.refusal and entry.refusal.outcome is Outcome.UNKNOWN and not entry.withdrawn
        ]
        if unknown:
            self.stage.put("unknown.resend", *unknown)
            self._run("ingest", None)
            self._everything_is_sent()
            self._everything_is_answered()

    def _everything_is_answered(self) -> None:
        while self.unanswered:
            self.answers += self.stage.dps.answer(self.unanswered.pop(0))
        self._run("collect", None)
        assert self.stage.collected() == sorted(self.answers)

    def _dps_heard_what_was_told(self) -> None:
        """Compare what arrived with what was told of the records of which DPS takes whatever is said."""
        stage = self.stage
        expected = told([(n, self.uploads[n]) for n in self.ingested])
        for programme in ("hpv", "menacwy"):
            mine = [e for e in self.exports.values() if e.programme == programme]
            for export in mine:
                assert len(stage.files[export.message_id]) == export.records
            order = sorted(mine, key=lambda e: e.number)
            arrived = [sent for e in order for sent in stage.files[e.message_id] if sent[0] not in DOUBTFUL]
            assert arrived == expected.get(programme, [])
            if programme not in self.lost_of:
                assert order == sorted(mine, key=lambda e: list(stage.files).index(e.message_id))
        assert not [file.name for file in stage.dps.files if file.problem]

    def _what_was_last_said_is_on_file(self) -> None:
        """No `new` twice, no `update` before its `new`; in the end what was uploaded last is on file, or refused.

        Where MESH lost a file, its rows come after those of a later one: of those programmes it need not be so.
        """
        refused = [judged for file in self.stage.dps.files for judged in file.refused]
        last = {n: batch for rows in self.uploads for n, batch in rows}
        for n, batch in last.items():
            why = [judged.refused for judged in refused if judged.row["UNIQUE_ID"] == uuid_of(n)]
            assert not [text for text in why if "duplicated" in text]
            deleted, on_file = self.stage.on_file(uuid_of(n)) or (True, "")
            # A withdrawal bears the columns of the last statement, which DPS may have refused.
            assert deleted or on_file != DISLIKED
            if programme_of(n).lower() in self.lost_of:
                continue
            assert uuid_of(n) in DOUBTFUL or not why
            if batch != DISLIKED:
                assert ("" if deleted else on_file) == batch
            entry = self.stage.register.get([uuid_of(n)]).get(uuid_of(n))
            if entry and batch:
                assert bool(entry.refusal) is (batch == DISLIKED), "what was said last is known to be refused"


@pytest.fixture(params=["moto", "DynamoDB Local"])
def dynamodb(request: pytest.FixtureRequest, aws: Callable[[str], Any]) -> Any:
    return aws("dynamodb") if request.param == "moto" else request.getfixturevalue("dynamodb_local")


def test_whatever_happens_in_whatever_order_each_record_arrives_once(
    begin: Callable[..., AbstractContextManager[Stage]], record_property: Callable[[str, object], None]
) -> None:
    ran: list[int] = []
    run_state_machine_as_test(
        lambda: Interleaving(begin, ran),  # type: ignore[arg-type] # a factory serves as well
        settings=settings(
            max_examples=INTERLEAVINGS,
            stateful_step_count=25,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
    record_property("interleavings run", len(ran))
