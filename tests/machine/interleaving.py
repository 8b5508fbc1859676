"""One interleaving: what happens, in an order that follows from a seed, and what must hold during it and in the end."""

from __future__ import annotations

from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from local.dps import FileStatus, identifier
from tests.machine.dps import UNHANDLED, Mood, is_disliked
from tests.machine.interruptions import Interruption
from tests.machine.truth import RECORDS, STRANGER, SUCCESSOR, SUPPLIER, TEAM, Truth, Upload, body_of
from vaccinations.formats.requests import ALREADY_SENT, REQUESTS, requeue_name
from vaccinations.jobs.ingest import OlderParked
from vaccinations.model import lifecycle
from vaccinations.model.export import Phase, Processing, Status
from vaccinations.model.lifecycle import MOVES
from vaccinations.model.outcome import OnFile, Outcome
from vaccinations.model.programmes import URIS
from vaccinations.ports import IntakeGone
from vaccinations.results import ParkedUpload, Receipt

if TYPE_CHECKING:
    from collections.abc import Iterable

    from local.dps import VaccinationFile
    from tests.machine.interruptions import Invocation
    from tests.machine.stage import Message, Stage
    from tests.machine.truth import Record
    from vaccinations.model.entry import Entry
    from vaccinations.model.export import DPSExport

__all__ = ["HAPPENINGS", "STEPS", "Interleaving", "play"]

#: How many things happen in an interleaving, before its end.
STEPS = 28
#: So often a message is handed over before it is a dead letter (template.yaml).
_MOST_RECEIVES = 3
#: About how many calls an invocation makes.
_CALLS = {"ingest": 26, "export": 14, "track": 8, "collect": 14, "reconcile": 6}
_KEYS = ("hpv", "menacwy")


@dataclass
class _Queued:
    message: Message
    receives: int = 0


def reachable(before: DPSExport, after: DPSExport) -> bool:
    """Tell whether one state may follow another: within an attempt, or over the attempts in between."""
    again = len(after.attempts) > len(before.attempts)
    moves = {
        (move.origin, move.to)
        for move in MOVES
        if again or not (isinstance(move.to, Phase) and isinstance(move.origin, Status))
    }
    found = {before.state}
    while more := {to for start, to in moves if start in found} - found:
        found |= more
    return after.state in found and len(after.attempts) >= len(before.attempts)


@dataclass
class Interleaving:
    """A history, and the model of it.

    Attributes
    ----------
    tally
        Counts what happened.
    told
        What happened, in words, for whoever looks for the cause of a failure.
    """

    stage: Stage
    tally: Counter[str] = field(default_factory=Counter)
    told: list[str] = field(default_factory=list)
    truth: Truth = field(default_factory=Truth)
    queue: deque[_Queued] = field(default_factory=deque)
    dead: list[Message] = field(default_factory=list)
    late: list[Message] = field(default_factory=list)
    """Events that are still to come."""
    frozen: list[Invocation] = field(default_factory=list)
    unanswered: list[VaccinationFile] = field(default_factory=list)
    exports: dict[str, DPSExport] = field(default_factory=dict)
    excused: set[str] = field(default_factory=set)
    """The records of which DPS may hear a `new` though it has them, by id."""
    doubtful: set[str] = field(default_factory=set)
    """The records which DPS may lack though it was sent them, by id: it refused a row of theirs, or lost a file."""
    snapshot: object = None
    contents: int = 0
    heard: int = 0
    """How much of what DPS heard was looked at."""
    ages: dict[str, int] = field(default_factory=dict)
    """How old what DPS heard last of each record is."""

    # -- what happens

    def happen(self, random: Random) -> None:
        """Let one thing happen."""
        name = random.choices([*HAPPENINGS], [*HAPPENINGS.values()])[0]
        self.told.append(name)
        self.tally[name] += 1
        getattr(self, name.replace(" ", "_").lower())(random)
        self._the_ledger_moves_only_as_its_table_says()

    def upload(self, random: Random) -> None:
        self._upload(random)
        if random.random() < 0.5:
            self.ingest(random)

    def _upload(self, random: Random) -> None:
        folder = random.choices([TEAM, SUCCESSOR, SUPPLIER, STRANGER], [5, 2, 3, 2])[0]
        rows, said = [], []
        for _ in range(random.choice([1, 2, 3, 4, 5, 12])):
            record = random.choice(RECORDS)
            if record.home != folder and random.random() < 0.5:
                continue
            code = random.choice([TEAM, STRANGER]) if folder == SUPPLIER else folder
            if random.random() < 0.05 and folder != SUPPLIER:
                code = SUPPLIER  # nobody may
            what = self._something_to_say(random, record)
            rows.append((record.number, what, code))
            if folder == SUPPLIER or code == folder:
                said.append((record, what))
        if not rows:
            return
        last = self.truth.uploads[-1] if self.truth.uploads else None
        key = f"incoming/{folder}/{len(self.truth.uploads)}.csv"
        again = last and last.key.startswith(f"incoming/{folder}/") and random.random() < 0.3
        if again and last:
            key = last.key
            self.tally["two versions of one key"] += 1
        if not again or random.random() < 0.5:
            self.stage.clock.forward(seconds=1)
        version = self.stage.store(key, body_of(rows))
        self.truth.uploads.append(Upload(folder, key, version, said, len(rows)))
        self.told.append(f"  {key} {version}: {rows}")
        self._events(random)

    def _something_to_say(self, random: Random, record: Record) -> str:
        chance = random.random()
        earlier = sorted(self.truth.earlier(record))
        if earlier and chance < 0.3:
            return random.choice([*earlier, *sorted(self.truth.last(record))])
        if chance < 0.45:
            return ""
        self.contents += 1
        return f"V{self.contents:04}{'X' if random.random() < 0.15 else ''}"

    def _effective(self, record: Record) -> Entry | None:
        """Return what the register knows of a record, where what is never sent does not count."""
        entry = self.stage.register.get([record.record_id]).get(record.record_id)
        never = entry and (entry.programme, entry.batch_id) in self.stage.register.unsent()
        return entry.before if entry and never else entry

    def _events(self, random: Random) -> None:
        """Let the events of uploads come: in any order, twice, or never."""
        for message in self.stage.announced():
            chance = random.random()
            if chance < 0.1:
                self.tally["events lost"] += 1
                self.told.append("  its event is lost")
                continue
            if chance < 0.25:
                self.tally["events late"] += 1
                self.told.append("  its event is late")
                self.late.append(message)
                continue
            if chance < 0.3:
                self.tally["events twice"] += 1
                self.queue.append(_Queued(message))
            if chance < 0.5 and len(self.queue) > 1:  # nothing overtakes a message that was handed over
                self.tally["events out of order"] += 1
                self.queue.insert(random.randrange(1, len(self.queue)), _Queued(message))
            else:
                self.queue.append(_Queued(message))

    def already_sent(self, random: Random) -> None:
        """Let a record that nobody has uploaded be on file from another system, and a list say so, as at a cut-over."""
        said = {about for upload in self.truth.uploads for about, _ in upload.said}
        if not (others := [record for record in RECORDS if record not in said]):
            return
        record = random.choice(others)
        self.contents += 1
        what = f"V{self.contents:04}"
        row = {"UNIQUE_ID": record.record_id, "UNIQUE_ID_URI": URIS["vaccination_record"], "BATCH_NUMBER": what}
        self.stage.dps.take(row)
        key = f"{ALREADY_SENT}{record.home}/{self.contents}.csv"
        self.stage.clock.forward(seconds=1)
        version = self.stage.store(
            key, body_of([(record.number, what, TEAM if record.home == SUPPLIER else record.home)])
        )
        self.told.append(f"  {key}: {record.number} {what}")
        # What was sent before is older than whatever is uploaded here.
        self.truth.uploads.insert(0, Upload(record.home, key, version, [(record, what)], 1))
        self.ages = {record_id: age + 1 for record_id, age in self.ages.items()} | {record.record_id: 0}
        self._take_announced()
        self._drain_queue()

    def ingest(self, random: Random) -> None:
        for _ in range(random.randint(1, 3)):
            if not self._ingest(self._interruption(random, "ingest")):
                break

    def _ingest(self, interruption: Interruption | None = None) -> bool:
        """Handle the first message of the queue; tell whether that was to an end."""
        if not self.queue:
            return False
        first = self.queue[0]
        first.receives += 1
        ran = self._run("ingest", interruption, message=first.message)
        if ran.how == "ended":
            self.queue.remove(first)
            return True
        if first.receives == _MOST_RECEIVES:
            self.queue.remove(first)
            self._dies_into_the_dead_letter_queue(first)
        return False

    def _dies_into_the_dead_letter_queue(self, queued: _Queued) -> None:
        self.tally["dead letters"] += 1
        self.told.append("  its message is a dead letter")
        self.dead.append(queued.message)

    def late_event(self, random: Random) -> None:
        if self.late:
            self.queue.append(_Queued(self.late.pop(random.randrange(len(self.late)))))
            self.ingest(random)

    def ingest_freezes(self, random: Random) -> None:
        """Let one freeze where it registers records, and others go on."""
        self._upload(random)
        after = Interruption(
            "freezes", random.randint(1, 3), after=True, among=random.choice(["register.put", "bucket.put"])
        )
        if self._ingest(after) or not self.frozen:
            return
        for _ in range(random.randint(0, 3)):
            self._ingest()
        if random.random() < 0.5:
            self._upload(random)
            self._drain_queue()
        if random.random() < 0.5:
            self.thaw(random)

    def export_freezes(self, random: Random) -> None:
        """Let one freeze where it writes or has sent something, and another go on when its lease is over."""
        self.stage.clock.forward(hours=12)
        self._run("export", Interruption("freezes", random.randint(2, 6), after=True, among="ledger.change"))
        self.stage.clock.forward(hours=2)
        self._run("export", self._interruption(random, "export"), resume_only=random.random() < 0.5)
        if random.random() < 0.5:
            self.thaw(random)

    def dead_letter(self, _: Random) -> None:
        if self.queue:
            self._dies_into_the_dead_letter_queue(self.queue.popleft())

    def redrive(self, random: Random) -> None:
        if self.dead:
            message = self.dead.pop(random.randrange(len(self.dead)))
            self.queue.append(_Queued(message))
            self.tally["dead letters redriven"] += 1
            self.ingest(random)

    def stuck_intake(self, random: Random) -> None:
        """Let one call of those that complete an intake fail at each of three tries."""
        self._upload(random)
        among = random.choice(["register.put", "ledger.attach", "bucket.put_receipt", "register.finish"])
        call = random.choice([1, 1, 2])
        for _ in range(len(self.queue) + 2):
            how = random.choice(["fails", "fails", "dies", "loses the answer"])
            self._ingest(Interruption(how, call, among=among))

    def person_looks_at_parked(self, random: Random) -> None:
        for batch_id in self.stage.register.parked():
            what = random.choice(["retry", "retry", "abandon"])
            self.queue.append(_Queued((what, batch_id)))
            self.tally[f"parked: {what}"] += 1
            if what == "abandon":
                self._abandoned(batch_id)
        self.ingest(random)

    def _abandoned(self, batch_id: str) -> None:
        intake = self.stage.register.intake(batch_id)
        with suppress(IntakeGone):
            stored = self.stage.bucket.intake(batch_id)
            for upload in self.truth.uploads:
                if (upload.key, upload.version) == (stored.upload, stored.version):
                    # After a restore, what it had said without anything being sent is known no more.
                    attached = intake.attached if intake and not self.tally["tables restored"] else ()
                    upload.abandoned = frozenset(_KEYS) - {*attached}

    def reconcile(self, random: Random) -> None:
        self.stage.clock.forward(minutes=61)
        self._run("reconcile", self._interruption(random, "reconcile"))
        self._take_announced()

    def _take_announced(self) -> None:
        for message in self.stage.announced():
            self.tally["queued again"] += 1
            self.queue.append(_Queued(message))

    def night(self, random: Random) -> None:
        self.stage.clock.forward(hours=random.choice([12, 24]))
        self._run("export", self._interruption(random, "export"))

    def export_resumes(self, random: Random) -> None:
        self.stage.clock.forward(hours=random.choice([0, 1, 2]))
        self._run("export", self._interruption(random, "export"), resume_only=True)

    def export_out_of_time(self, random: Random) -> None:
        self._run("export", None, seconds_left=[900.0] * random.randint(1, 4) + [1.0] * 30)

    def mesh_refuses(self, _: Random) -> None:
        self._run("export", None, recipient="NOBODY")

    def mesh_answers_in_vain(self, random: Random) -> None:
        self.stage.clock.forward(hours=12)
        how = random.choice(["loses the answer", "fails"])
        self._run("export", Interruption(how, random.randint(1, 3), among=random.choice(["mesh", "mesh.send"])))

    def dps_picks_up(self, random: Random) -> None:
        bad = random.random() < 0.7

        def fails_at() -> bool | None:
            return random.random() < 0.5 if random.random() < 0.3 else None

        self.stage.dps.mood = Mood(
            refuses_file=lambda: bad and random.random() < 0.15,
            fails=lambda: bad and random.random() < 0.15,
            crashes=lambda: bad and random.random() < 0.05,
            fails_at=fails_at if bad else (lambda: None),
            twice=lambda: bad and random.random() < 0.2,
        )
        self._pick_up()
        self.stage.dps.mood = Mood()
        if random.random() < 0.6:
            self.dps_answers(random)

    def dps_clears(self, _: Random) -> None:
        """Let DPS's operators clear what has failed: what waited behind that has its turn, or waited too long."""
        for vaccine_type in ("HPV", "MENACWY"):
            for file in self.stage.dps.clear(vaccine_type):
                self.tally[f"files that waited: {file.status}"] += 1
                self.told.append(f"  DPS: {file.name} {file.status} {[self._row(j.row, j.refused) for j in file.rows]}")
                if file.status is FileStatus.DROPPED:
                    self._dps_may_lack_anything()
                else:
                    self.unanswered.append(file)
        self._dps_hears_nothing_it_may_not()

    def dps_answers(self, random: Random) -> None:
        random.shuffle(self.unanswered)
        for _ in range(random.randint(1, 3)):
            if self.unanswered:
                self.stage.dps.answer(self.unanswered.pop(), random.choice([("csv",), ("csv", "json")]))
        if random.random() < 0.6:
            self.collect(random)

    def dps_answers_again(self, _: Random) -> None:
        answered = [file for file in self.stage.dps.files if file not in self.unanswered]
        for file in answered[-2:]:
            self.stage.dps.answer(file)

    def track(self, random: Random) -> None:
        self._run("track", self._interruption(random, "track"))

    def collect(self, random: Random) -> None:
        self._run("collect", self._interruption(random, "collect"))

    def time_passes(self, random: Random) -> None:
        self.stage.clock.forward(**random.choice([{"minutes": 5}, {"hours": 2}, {"days": 1}]))

    def file_expires(self, random: Random) -> None:
        if waiting := self._waiting():
            lost = waiting[0] if random.random() < 0.7 else random.choice(waiting)
            self.tally["files expired"] += 1
            self.stage.lose(lost)
            self._dps_may_lack_anything()

    def _waiting(self) -> list[str]:
        """Return the messages that wait for DPS."""
        return [message_id for message_id in self.stage.under_way() if message_id not in self.stage.lost]

    def thaw(self, random: Random) -> None:
        if self.frozen:
            self._thaw(self.frozen.pop(random.randrange(len(self.frozen))))

    def _thaw(self, invocation: Invocation) -> None:
        invocation.thaw()
        self.told.append(f"  it goes on, and {invocation.how} {invocation.error or ''}")

    def _dps_may_lack_anything(self) -> None:
        self.doubtful |= {record.record_id for record in RECORDS}

    def person_sends_again(self, random: Random) -> None:
        self._person_sends_exports_again()
        if random.random() < 0.5:
            self._person_sends_records_again()
        if random.random() < 0.5:
            self.ingest(random)

    def backup(self, _: Random) -> None:
        self.snapshot = self.stage.snapshot()

    def restore(self, random: Random) -> None:
        """Put the tables back to an earlier moment, and do what is written down for that."""
        if self.snapshot is None:
            self.backup(random)
            return
        # Nothing runs while the tables are put back, and nobody who was frozen then goes on.
        for invocation in self.frozen:
            invocation.kill()
        self.frozen.clear()
        self.queue.clear()
        self.late.clear()
        self.dead.clear()
        self.stage.restore(self.snapshot)
        self.exports.clear()
        for upload in self.truth.uploads:
            if upload.abandoned:  # what of it was in an export, too, may be in none now (docs/reliability.md)
                upload.abandoned = frozenset(_KEYS)
        self.excused |= {record.record_id for record in RECORDS}
        self._dps_may_lack_anything()
        self.tally["tables restored"] += 1
        while True:
            interruption = self._interruption(random, "reconcile")
            if interruption and interruption.how == "freezes":
                interruption = None
            if self._run("reconcile", interruption, restored=True).how == "ended":
                break
        self._take_announced()
        self._run("collect", None, again=True)
        self._take_announced()
        if any(upload.key.startswith(ALREADY_SENT) for upload in self.truth.uploads):
            self._drain_queue()  # a list of what was already sent comes before uploads of its records

    # -- invocations

    def _interruption(self, random: Random, use_case: str) -> Interruption | None:
        if random.random() < 0.55:
            return None
        how = random.choices(["dies", "fails", "loses the answer", "freezes"], [4, 2, 3, 3])[0]
        among = "mesh" if how == "loses the answer" and use_case == "export" and random.random() < 0.5 else ""
        most = 3 if among else _CALLS[use_case]
        return Interruption(how, random.randint(1, most), after=random.random() < 0.5, among=among)

    def _run(self, use_case: str, interruption: Interruption | None = None, **options: Any) -> Invocation:
        ran = self.stage.run(use_case, interruption, **options)
        self.tally[use_case] += 1
        if ran.calls.done and interruption:
            self.tally[f"it {interruption.how}"] += 1
        self.told.append(f"  {use_case} {options or ''} {interruption or ''}: {ran.how} {ran.error or ''}")
        if ran.how == "frozen":
            ran.about = options.get("message")
            self.frozen.append(ran)
        if isinstance(ran.error, OlderParked):
            self.tally["an older upload is parked"] += 1
        elif ran.error and not ran.calls.done:
            raise AssertionError(f"{use_case} raised without a cause") from ran.error
        if use_case != "reconcile":
            self._take_announced()
        return ran

    def _pick_up(self) -> None:
        picked_up = self.stage.dps.pick_up(leave=self.stage.lost)
        self.unanswered += [file for file in picked_up if file.status is not FileStatus.WAITING]
        for file in picked_up:
            if file.problem or file.status is FileStatus.FAILED:
                self.tally["files refused as a whole" if file.problem else "files at which DPS crashed"] += 1
                self._dps_may_lack_anything()
                self.excused |= {judged.row["UNIQUE_ID"] for judged in file.rows}
            self.told.append(f"  DPS: {file.name} {file.problem} {[self._row(j.row, j.refused) for j in file.rows]}")
        self._dps_hears_nothing_it_may_not()

    @staticmethod
    def _row(row: dict[str, str], refused: str) -> str:
        number = next(r.number for r in RECORDS if r.record_id == row["UNIQUE_ID"])
        return f"{number} {row['ACTION_FLAG']} {row['BATCH_NUMBER']} {refused[:12]}"

    # -- what must hold at any time

    def _the_ledger_moves_only_as_its_table_says(self) -> None:
        for programme in _KEYS:
            for export in self.stage.ledger.exports(programme):
                before = self.exports.get(export.export_id)
                if before and before.revision != export.revision:
                    assert reachable(before, export), (before, export)
                    assert before.status is Status.OPEN or before.records == export.records
                self.exports[export.export_id] = export

    def _dps_hears_nothing_it_may_not(self) -> None:
        """No `new` of a record that DPS has; nothing older over anything newer."""
        heard = self.stage.dps.heard
        by_id = {record.record_id: record for record in RECORDS}
        for row in heard[self.heard :]:
            record = by_id[row.record_id]
            if "duplicated" in row.refused:
                self.tally["duplicates"] += 1
                assert row.record_id in self.excused, f"a new of record {record.number}, which DPS has"
            if "does not exist" in row.refused:
                self.tally["unknown to DPS"] += 1
                assert row.record_id in self.doubtful, f"an {row.action} of record {record.number}, which DPS never had"
            elif row.refused:
                self.doubtful.add(row.record_id)
            if row.refused == UNHANDLED:
                self.tally["unhandled errors"] += 1
                self.excused.add(row.record_id)
            if row.stored:
                last = self.ages.get(row.record_id, -1)
                if last < 0 and self.truth.is_said_by_others(record, row.said):
                    self.tally["statements of others"] += 1  # perhaps nothing of the owner's is ingested yet
                    continue
                if len(self.truth.owners(record)) > 1:
                    self.tally["statements about what was abandoned"] += 1  # perhaps its next owner's
                    continue
                age = next((age for age in self.truth.ages(record, row.said) if age >= last), None)
                assert age is not None, f"record {record.number}: {row.said or 'withdrawn'} comes after what is newer"
                self.ages[row.record_id] = age
        self.heard = len(heard)

    # -- the end

    def end(self) -> None:
        """Let everything that was begun come to its end, and people do their part; then compare."""
        self.told.append("the end")
        while self.frozen:
            self._thaw(self.frozen.pop())
        for _ in range(15):
            self.told.append("the next day")
            self._day()
            self._the_ledger_moves_only_as_its_table_says()
            if self._is_quiet():
                break
        self._everything_is_finished()
        self._every_upload_has_its_receipt()
        self._what_was_last_said_is_on_file()

    def _day(self) -> None:
        stage = self.stage
        stage.clock.forward(hours=2)
        self._run("reconcile")
        self._take_announced()
        self._drain()
        stage.clock.forward(hours=22)
        self._run("export")
        self._person_sends_exports_again()
        self._pick_up()
        self.dps_clears(Random())
        self._run("track")
        self._drain()
        while self.unanswered:
            stage.dps.answer(self.unanswered.pop())
        self._run("collect")
        self._person_sends_records_again()
        self._drain()

    def _drain(self) -> None:
        """Let the queue be emptied, parked uploads be retried and then dead letters redriven."""
        for _ in range(10):
            self._drain_queue()
            self.queue += [_Queued(("retry", batch_id)) for batch_id in self._parked_oldest_first()]
            self._drain_queue()
            self.queue += [_Queued(message) for message in (*self.late, *self.dead)]
            self.late.clear()
            self.dead.clear()
            self._drain_queue()
            if not self.stage.register.parked() and not self.dead:
                return
        raise AssertionError("uploads stay parked")

    def _parked_oldest_first(self) -> list[str]:
        def uploaded_at(batch_id: str) -> str:
            try:
                return self.stage.bucket.intake(batch_id).receipt.uploaded_at
            except IntakeGone:
                return ""

        return sorted(self.stage.register.parked(), key=uploaded_at)

    def _drain_queue(self) -> None:
        while self.queue:
            waits = self.tally["an older upload is parked"]
            ended = self._ingest()
            assert ended or self.tally["an older upload is parked"] > waits, "an ingest does not end for no reason"

    def _person_sends_exports_again(self) -> None:
        """Do what `mesh export resend` does, for each that waits for it, and each that DPS says it has lost."""
        lost = {
            file.message_id
            for file in self.stage.dps.files
            if file.status is FileStatus.DROPPED or (file.status is FileStatus.FAILED and not file.problem)
        }
        for programme in _KEYS:
            for export in list(self.stage.ledger.exports(programme)):
                assert export.status is not Status.UNCLEAR
                if export.message_id in lost and export.status is Status.ACKNOWLEDGED:
                    self._request(requeue_name(export.export_id), b"")
                    continue
                if lifecycle.waits_for(export) is not lifecycle.Who.PERSON:
                    continue
                if lifecycle.Event.REQUEUE in [move.event for move in lifecycle.possible(export)]:
                    self._request(requeue_name(export.export_id), b"")
                else:
                    self.stage.retry_export(export, lifecycle.resend)

    def _person_sends_records_again(self) -> None:
        """Do what `mesh refused resend` does, for what DPS calls unknown and what it failed at."""
        again = [
            entry.record_id
            for programme in _KEYS
            for entry in self.stage.register.refused(programme)
            if entry.refusal
            and entry.refusal.outcome in {Outcome.UNKNOWN, Outcome.UNHANDLED, Outcome.OTHER}
            and not (entry.withdrawn and entry.on_file is OnFile.NO)
        ]
        if again:
            self.tally["records sent again"] += len(again)
            self._request(f"{len(self.told)}.resend", "\n".join(again).encode())

    def _request(self, name: str, body: bytes) -> None:
        self.tally["requests of a person"] += 1
        self.stage.clock.forward(seconds=1)
        self.stage.store(f"{REQUESTS}{name}", body)
        self.told.append(f"  a person requests {name}")
        self._take_announced()

    def _is_quiet(self) -> bool:
        ended = all(
            (export.status, export.processing) == (Status.ACKNOWLEDGED, Processing.PROCESSED)
            or export.status is Status.REQUEUED
            for export in self.exports.values()
        )
        return ended and not self.queue and not self.unanswered and not self._waiting()

    def _everything_is_finished(self) -> None:
        register = self.stage.register
        assert register.unfinished() == []
        assert register.parked() == []
        assert self.stage.left_in_inbox() == 0
        files = {file.message_id: file for file in self.stage.dps.files}
        for export in self.exports.values():
            if export.status is Status.REQUEUED:
                self.tally["exports requeued"] += 1
                continue
            assert export.status is Status.ACKNOWLEDGED, export
            assert export.processing is Processing.PROCESSED, export
            file = files[export.message_id]
            assert len(file.rows) == export.records, export
            attempt = export.attempts[-1]
            assert (attempt.rows_processed or 0) + (attempt.rows_refused or 0) == export.records
        sent = [attempt.message_id for e in self.exports.values() for attempt in e.attempts]
        assert {file.message_id for file in self.stage.dps.files} <= {*sent}, (
            "DPS has a file that the ledger does not know"
        )

    def _every_upload_has_its_receipt(self) -> None:
        bucket = self.stage.bucket
        for upload in self.truth.uploads:
            batch_id = bucket.batch_id(upload.key, upload.version)
            receipt = bucket.receipt(upload.key, batch_id)
            sent: set[str] = set()
            while isinstance(receipt, ParkedUpload) and receipt.status == "retried":
                sent |= {*receipt.exports}
                receipt = bucket.receipt(upload.key, receipt.retried_as or "")
            if isinstance(receipt, ParkedUpload):
                assert receipt.status == "abandoned", receipt
                known = self.stage.register.intake(batch_id)
                upload.unsaid = frozenset(_KEYS) - sent - {*(receipt.exports if known else ())}
                continue
            assert isinstance(receipt, Receipt), upload
            counts = sum(sum(actions.values()) for actions in receipt.accepted.values())
            others = receipt.unchanged + receipt.overtaken + receipt.skipped + receipt.rejected
            assert (receipt.rows, counts + others) == (upload.rows, upload.rows), receipt
            assert receipt.completed_at

    def _what_was_last_said_is_on_file(self) -> None:
        for record in RECORDS:
            last = self.truth.last(record)
            now = self._on_file(record)
            entry = self._effective(record)
            disliked = {said for said in last if is_disliked(said)}
            if disliked and entry and entry.refusal:
                assert now not in disliked
                assert now in self.truth.earlier(record) | {""}
                self.tally["last statements refused"] += 1
                continue
            assert now in last - disliked, f"record {record.number}: DPS has {now!r}, and last said was {last}"

    def _on_file(self, record: Record) -> str:
        """Tell what DPS has of a record: the vaccine's batch number, or nothing."""
        row = {"UNIQUE_ID_URI": URIS["vaccination_record"], "UNIQUE_ID": record.record_id}
        found = self.stage.dps.on_file.get(identifier(row))
        return found.row["BATCH_NUMBER"] if found and not found.deleted else ""

    def close(self) -> None:
        """Leave nobody frozen behind."""
        while self.frozen:
            self.frozen.pop().kill()


#: What may happen, each with how often it does.
HAPPENINGS = {
    "upload": 9,
    "ingest": 4,
    "late event": 3,
    "ingest freezes": 2,
    "export freezes": 1,
    "dead letter": 1,
    "redrive": 1,
    "stuck intake": 2,
    "person looks at parked": 2,
    "reconcile": 1,
    "night": 5,
    "export resumes": 2,
    "export out of time": 1,
    "MESH refuses": 1,
    "MESH answers in vain": 1,
    "file expires": 3,
    "person sends again": 2,
    "DPS picks up": 4,
    "DPS answers": 2,
    "DPS answers again": 1,
    "DPS clears": 1,
    "already sent": 1,
    "track": 2,
    "collect": 1,
    "time passes": 1,
    "backup": 1,
    "restore": 1,
    "thaw": 2,
}


def play(stage: Stage, seed: int, *, left_out: Iterable[int] = (), steps: int = STEPS) -> Interleaving:
    """Play the interleaving of a seed to its end; what does not hold is an AssertionError that tells what happened.

    Parameters
    ----------
    left_out
        Which of the things that happen are left out: the others are the same nevertheless, as far as they can be.
    """
    playing = Interleaving(stage)
    try:
        for step in range(steps):
            if step not in left_out:
                playing.told.append(f"{step}:")
                playing.happen(Random(f"{seed} {step}"))
        playing.end()
    except Exception as error:
        error.add_note("\n".join([f"seed {seed}, left out: {sorted(left_out)}", *playing.told]))
        raise
    finally:
        playing.close()
    return playing
