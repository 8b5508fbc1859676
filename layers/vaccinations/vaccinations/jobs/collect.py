"""Collect: every hour, bring what came into the mailbox to the bucket, and hear what DPS answers.

Each message is streamed to the bucket with what MESH says of it, and acknowledged only then: it leaves the mailbox
once it is safe. Messages of every workflow are kept, so that the mailbox can serve other purposes too. MESH's own
reports are Track's. A message that came in chunks is kept chunk by chunk first, so that the next run goes on with one
that is too large for a run.

A message whose file name is that of an answer of DPS is read once it is in the bucket. What it says of the file goes
to the ledger. Each row that it refuses is looked up in the batches that were sent; the record's refusal goes to the
register, and to a file for the team that uploaded it. A `new` that is a duplicate says that DPS has the record, not
with which content: a request has it sent again, as `update`. BusAcks come as CSV and as JSON, which say the same:
whichever comes first counts.

The order of effects makes it safe to die anywhere and be run again: body, then its facts (which say that the body is
there), the records' refusals, the request, the ledger, and last the acknowledgement. What was noted before stays as it
is. Whoever has written the ledger tells the teams whose rows were refused, as best we can.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections import Counter
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from nhs_mesh import Corrupted, Expired, NotFound, Unauthorised
from vaccinations.formats.acknowledgements import (
    AnswerName,
    Kind,
    RefusedRow,
    UnreadableAnswer,
    fields_at_fault,
    read_bus_ack,
    read_inf_ack,
)
from vaccinations.formats.batches import entry_of
from vaccinations.formats.dps_columns import local_id_of
from vaccinations.formats.rejects import RejectsWriter, to_do_about_refused
from vaccinations.model import lifecycle
from vaccinations.model.entry import Entry, Refusal
from vaccinations.model.export import Processing, Status
from vaccinations.model.lifecycle import ImpossibleMove
from vaccinations.model.outcome import Action, OnFile, Outcome
from vaccinations.model.problems import Problem
from vaccinations.model.uploaders import uploader_of
from vaccinations.ports import MessageGone
from vaccinations.results import Answer, CollectedMessage, CollectRun, RowsRefused
from vaccinations.telemetry import count, gauge, logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from nhs_mesh import Message
    from vaccinations.model.export import Arrival, DPSExport
    from vaccinations.ports import Bucket, Ledger, Mesh, Register
    from vaccinations.results import ForTeam, StoredIntake

__all__ = ["Collect"]

#: A message is begun only while so many seconds of the function's time are left.
SECONDS_FOR_A_MESSAGE = 60.0
#: Of acknowledged exports, those of so many days are looked at for answers that have not come.
DAYS_TO_ANSWER = 30
#: DynamoDB puts a table back to a moment of the last 35 days; what came since is heard again, and a little more.
DAYS_TO_HEAR_AGAIN = 37
#: Of what DPS says of a row, so much is told the uploader; the answer has all of it.
_LONGEST_TEXT = 1_000
#: What is kept of a message beside its body.
_FACTS = (
    *("message_id", "sender", "recipient", "workflow_id", "filename", "local_id", "subject"),
    *("content_type", "checksum"),
)
_CHANGES_NOTHING = {"unmatched", "unreadable", "contradiction", "about another arrival"}


class _OutOfTime(Exception):
    """The next run goes on with the message."""


@dataclass(frozen=True, slots=True)
class Collect:
    """The use case, on its ports.

    Attributes
    ----------
    seconds_left
        Tells how many seconds the function may still run.
    answers_from
        The mailbox that DPS's answers come from; empty where that is not known.
    clock
        Tells the time, with its offset.
    tell
        Tells a team which of its rows were refused; it never raises.
    """

    bucket: Bucket
    ledger: Ledger
    register: Register
    mesh: Mesh
    seconds_left: Callable[[], float]
    answers_from: str = ""
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    tell: Callable[[ForTeam], None] = lambda _: None

    def run(self) -> CollectRun:
        """Do one run.

        Raises
        ------
        nhs_mesh.Unauthorised
            MESH does not let us in: nothing can be collected at all.
        """
        try:
            return self._run()
        finally:
            self._measure()  # whether or not MESH answers

    def again(self) -> CollectRun:
        """Hear once more what DPS has answered in the last weeks, from the bucket.

        For the time after the tables were put back to an earlier moment. What is known already changes nothing.
        """
        heard: list[CollectedMessage] = []
        left = 0
        for facts in self.bucket.messages(self.clock() - timedelta(days=DAYS_TO_HEAR_AGAIN)):
            if self.seconds_left() < SECONDS_FOR_A_MESSAGE:
                logger.info("time is running out; begin again")
                left += 1
                break
            try:
                answer = self._hear(facts)
            except MessageGone:
                logger.info("message is no longer kept", extra={"message_id": facts["message_id"]})
            except Exception as error:  # noqa: BLE001 - one message's trouble never stops the others
                left += 1
                logger.exception("message cannot be heard now", extra={"message_id": facts["message_id"]})
                count("CollectErrors", error=type(error).__name__)
            else:
                heard += [_collected(facts, answer)] if answer else []
        return CollectRun(status="incomplete" if left else "ok", messages=tuple(heard), left=left)

    def _run(self) -> CollectRun:
        collected: list[CollectedMessage] = []
        left = 0
        for message_id in list(self.mesh.inbox()):
            if self.seconds_left() < SECONDS_FOR_A_MESSAGE:
                logger.info("time is running out; the next run goes on")
                left += 1
                break
            try:
                message = self._collect(message_id)
            except Unauthorised:
                raise
            except (NotFound, Expired):
                logger.info("message has gone from the inbox", extra={"message_id": message_id})
            except _OutOfTime:
                logger.info("time is running out; the next run goes on", extra={"message_id": message_id})
                left += 1
                break
            except Exception as error:  # noqa: BLE001 - one message's trouble never stops the others
                left += 1
                logger.exception("message cannot be collected now", extra={"message_id": message_id})
                count("CollectErrors", error=type(error).__name__)
            else:
                collected += [message] if message else []
        return CollectRun(status="incomplete" if left else "ok", messages=tuple(collected), left=left)

    def _collect(self, message_id: str) -> CollectedMessage | None:
        """Bring a message to the bucket, apply what it says, and let MESH remove it; None where it is a report."""
        facts = self._keep(message_id)
        if facts is None:
            return None
        answer = self._hear(facts)
        self.mesh.acknowledge(message_id)
        count("MessagesCollected")
        return _collected(facts, answer)

    def _keep(self, message_id: str) -> dict[str, Any] | None:
        """Bring a message to the bucket, unless it is there already; return its facts, or None for a report."""
        with self.mesh.download(message_id) as message:
            if message.is_report:
                return None
            if facts := self.bucket.message(message.workflow_id, message_id):
                return facts
            facts = self._facts(message)
            chunks = message.chunks
            try:
                if chunks == 1:
                    facts["key"] = self.bucket.put_message(message.workflow_id, message_id, message, facts)
            except Corrupted as error:
                facts |= {"problem": str(error), "content_encoding": message.content_encoding}
        if chunks > 1:
            try:
                facts["key"] = self._keep_chunks(facts, chunks)
            except Corrupted as error:
                facts |= {"problem": str(error), "content_encoding": message.content_encoding}
        if "problem" in facts:
            # What cannot be unzipped is kept as it came over the wire.
            facts["key"] = self._keep_chunks(facts, chunks, decode=False)
            logger.warning("message cannot be read; it is kept as it is", extra={"message_id": message_id})
            count("MessagesUnreadable")
        self.bucket.put_message_facts(facts["workflow_id"], message_id, facts)
        logger.info("message collected", extra={"message_id": message_id})
        return facts

    def _keep_chunks(self, facts: dict[str, Any], chunks: int, *, decode: bool = True) -> str:
        """Bring those chunks of a message to the bucket that are not there, and put them together; return its key.

        Raises
        ------
        _OutOfTime
            Some are left for the next run.
        """
        workflow_id, message_id = facts["workflow_id"], facts["message_id"]
        names = [f"{number}{'' if decode else '-as-it-came'}" for number in range(1, chunks + 1)]
        for number, name in enumerate(names, start=1):
            if self.bucket.has_chunk(workflow_id, message_id, name):
                continue
            if self.seconds_left() < SECONDS_FOR_A_MESSAGE:
                raise _OutOfTime
            with self.mesh.download(message_id, chunk=number, decode=decode) as chunk:
                self.bucket.put_chunk(workflow_id, message_id, name, chunk)
        return self.bucket.join_chunks(workflow_id, message_id, names, facts)

    def _facts(self, message: Message) -> dict[str, Any]:
        return {name: getattr(message, name) or "" for name in _FACTS} | {"collected_at": self._now()}

    # -- what DPS answers

    def _hear(self, facts: dict[str, Any]) -> Answer | None:
        """Apply what an answer says; return that, or None where the message is no answer, or is not read."""
        name = AnswerName.of(facts["filename"])
        if name is None or "problem" in facts:
            return None
        if self.answers_from and facts["sender"] != self.answers_from:
            count("AnswersUnmatched")
            answer = Answer(kind=str(name.kind), outcome="unmatched", problem="another mailbox than DPS's has sent it")
        else:
            answer = self._apply(name, facts["key"])
        extra = {
            "message_id": facts["message_id"],
            "kind": answer.kind,
            "outcome": answer.outcome,
            "export_id": answer.export_id,
            "attempt": answer.attempt,
            "code": answer.code,
            "processed": answer.processed,
            "refused": answer.refused,
            "not_believed": answer.not_believed,
        }
        if answer.outcome in _CHANGES_NOTHING:
            logger.warning("an answer of DPS changes nothing; it is kept", extra=extra | {"problem": answer.problem})
        else:
            logger.info("DPS has answered", extra=extra)
        return answer

    def _apply(self, name: AnswerName, key: str) -> Answer:
        """Apply an answer to the attempt that it is about."""
        found = self.ledger.find(name.stem)
        if found is None:
            count("AnswersUnmatched")
            return Answer(kind=str(name.kind), outcome="unmatched")
        export, attempt = found
        answer = Answer(kind=str(name.kind), outcome="", export_id=export.export_id, attempt=attempt)
        try:
            with closing(self.bucket.open_message(key)) as body:
                if name.kind is Kind.INF_ACK:
                    return self._apply_inf_ack(answer, export, attempt, body)
                return self._apply_bus_ack(answer, export, attempt, key, body)
        except UnreadableAnswer as unreadable:
            count("MessagesUnreadable")
            return replace(answer, outcome="unreadable", problem=str(unreadable))

    def _apply_inf_ack(self, answer: Answer, export: DPSExport, attempt: int, body: BinaryIO) -> Answer:
        """Note whether DPS has received a file as a whole, or refused it."""
        inf_ack = read_inf_ack(body)
        to = Processing.RECEIVED if inf_ack.received else Processing.REFUSED
        if nothing := self._changes_nothing(export, attempt, to, inf_ack.arrival):
            if nothing == "known already" and export.attempts[attempt - 1].arrival is None:
                self.ledger.change(export, lambda current: lifecycle.note_arrival(current, attempt, inf_ack.arrival))
            return replace(answer, outcome=nothing)
        self._note(export, attempt, to, arrival=inf_ack.arrival, refusal=inf_ack.code)
        if inf_ack.received:
            count("ExportsReceived", programme=export.programme)
        else:
            count("ExportsRefused", programme=export.programme)
            refused = self.ledger.get(export.programme, export.number)
            extra = {
                "export_id": export.export_id,
                "message_id": export.message_id,
                "code": inf_ack.code,
                "behind_it": [e.export_id for e in lifecycle.behind(refused, self.ledger.exports(export.programme))],
                **export.names[attempt - 1].told(),
            }
            logger.error("DPS has refused the export's file as a whole", extra=extra)
        return replace(answer, outcome=str(to), code=inf_ack.code)

    def _apply_bus_ack(self, answer: Answer, export: DPSExport, attempt: int, key: str, body: BinaryIO) -> Answer:
        """Note which of an export's rows DPS refused."""
        if nothing := self._changes_nothing(export, attempt, Processing.PROCESSED):
            return replace(answer, outcome=nothing)
        duplicates = f"{export.export_id}-{attempt}-duplicates.resend"
        tally, for_teams = self._note_refusals(export, read_bus_ack(body), key, duplicates)
        refused, not_believed = tally["refused"], tally["not believed"]
        # What became of a row of which DPS says something that cannot be believed is not known.
        processed = export.records - refused - tally["another record"]
        if self._note(export, attempt, Processing.PROCESSED, rows_processed=processed, rows_refused=refused):
            for told in for_teams:
                self.tell(told)
        count("ExportsProcessed", programme=export.programme)
        count("RecordsProcessed", processed, programme=export.programme)
        count("RecordsRefused", refused, programme=export.programme)
        if not_believed:
            extra = {"export_id": export.export_id, "rows": not_believed}
            logger.error("DPS answers rows that are not in the file", extra=extra)
            count("RowsNotBelieved", not_believed)
        if other := tally[Outcome.OTHER]:
            extra = {"export_id": export.export_id, "rows": other}
            logger.error("DPS has refused rows for a reason that is not known", extra=extra)
            count("RefusalsNotUnderstood", other)
        outcome = str(Processing.PROCESSED)
        return replace(answer, outcome=outcome, processed=processed, refused=refused, not_believed=not_believed)

    def _changes_nothing(self, export: DPSExport, attempt: int, to: Processing, arrival: Arrival | None = None) -> str:
        """Tell why an answer changes nothing that counts now; empty where it does.

        An answer to an earlier attempt is noted with that one.
        """
        nothing = lifecycle.changes_nothing(export.attempts[attempt - 1], to, arrival)
        if attempt != len(export.attempts):
            if not nothing:
                self._note(export, attempt, to, arrival=arrival)
            return "about an earlier attempt"
        if nothing == "contradiction":
            count("AnswersContradicting")
        return nothing

    def _note(self, export: DPSExport, attempt: int, to: Processing, **facts: Any) -> bool:
        """Write what DPS has made of an attempt's file to the ledger; tell whether that is new there."""
        now = self.clock()
        try:
            self.ledger.change(export, lambda current: lifecycle.hear(current, attempt, to, now, **facts))
        except ImpossibleMove:
            logger.info("another run has heard this before", extra={"export_id": export.export_id})
            return False
        return True

    # -- rows that DPS refused

    def _note_refusals(
        self, export: DPSExport, answered: Iterable[RefusedRow], key: str, duplicates: str
    ) -> tuple[Counter[str], list[RowsRefused]]:
        """Note each refused record in the register, and in a file for its uploader.

        Return how much of what was found, and what teams are to be told.

        Parameters
        ----------
        duplicates
            The name of the request that has duplicates sent again.
        """
        tally: Counter[str] = Counter()
        for_teams: list[RowsRefused] = []
        with (
            tempfile.TemporaryDirectory() as directory,
            _RefusedRows(Path(directory) / "refused.db", answered) as refused,
            (Path(directory) / "duplicates").open("w+b") as to_send_again,
        ):
            files: dict[str, Path] = {}
            found = self._found(export, refused, tally)
            # Rows that a request repeated are told to those who uploaded them.
            uploads: dict[str, StoredIntake] = {}
            rows: Counter[str] = Counter()
            for batch_id, of_batch in groupby(found, key=lambda each: each[0].stated_in.batch_id):
                if batch_id not in files:
                    files[batch_id] = Path(directory) / f"{len(files)}.csv"
                    uploads[batch_id] = self.bucket.intake(batch_id)
                refusals = self._refusals(
                    export, of_batch, key, files[batch_id], to_send_again, uploads[batch_id], rows
                )
                self.register.hear(refusals)
            for batch_id, file in files.items():
                if file.exists():
                    upload = uploads[batch_id].upload
                    told_in = self.bucket.put_refusals(upload, batch_id, export.export_id, file)
                    if organisation := uploader_of(upload):
                        told = _refused(export, batch_id, organisation, rows[batch_id], told_in, self._now())
                        for_teams.append(told)
            if to_send_again.tell():
                to_send_again.seek(0)
                self.bucket.put_request(duplicates, to_send_again)
        return tally, for_teams

    def _found(
        self, export: DPSExport, refused: Iterable[RefusedRow], tally: Counter[str]
    ) -> Iterator[tuple[Entry, RefusedRow]]:
        """Find the refused statements in the batches that were sent."""
        waiting = iter(refused)
        row = next(waiting, None)
        number = 0
        for batch_id in export.batches:
            if row is None:
                return
            with closing(self.bucket.batch_lines(export.programme, batch_id)) as lines:
                for number, line in enumerate(lines, number + 1):  # noqa: B020 - rows are counted over all batches
                    while row and row.row < number:
                        tally["not believed"] += 1
                        row = next(waiting, None)
                    if row is None:
                        return
                    of_row: list[RefusedRow] = []
                    while row and row.row == number:
                        of_row.append(row)
                        row = next(waiting, None)
                    if of_row:
                        entry = entry_of(line, batch_id)
                        believed = [each for each in of_row if each.local_id == local_id_of(entry.record_id).lower()]
                        tally["another record"] += not believed
                        tally["not believed"] += len(of_row) - len(believed)
                        for each in believed:
                            tally[_kind(entry, each)] += 1
                            tally[Outcome.of(each.text)] += 1
                            yield entry, each
        tally["not believed"] += (row is not None) + sum(1 for _ in waiting)

    def _refusals(
        self,
        export: DPSExport,
        rows: Iterable[tuple[Entry, RefusedRow]],
        answer: str,
        file: Path,
        duplicates: BinaryIO,
        stored: StoredIntake,
        told: Counter[str],
    ) -> Iterator[Entry]:
        """Add refusals to a file for their uploader, or to the duplicates; yield what the register is to note of each.

        A duplicate is no fault of an uploader's, and a withdrawal of what DPS does not have is done.

        Parameters
        ----------
        stored
            The upload in which the rows were stated.
        told
            Counts, by batch id, the rows that uploaders are told of.
        """
        at = self._now()
        columns = _columns_of(stored.upload)
        with ExitStack() as stack:
            writer = None
            for entry, row in rows:
                outcome = Outcome.of(row.text)
                kind = _kind(entry, row)
                if kind == "gone":
                    yield replace(entry, on_file=OnFile.NO)
                    continue
                if kind == "duplicate":
                    duplicates.write(f"{entry.record_id}\n".encode())
                else:
                    if writer is None:
                        begun = file.exists()
                        opened = stack.enter_context(file.open("a", encoding="utf-8", newline=""))
                        to_do = to_do_about_refused(datetime.fromisoformat(stored.receipt.uploaded_at))
                        writer = RejectsWriter(opened, None if begun else to_do, stored.columns)
                    text = "".join(c if c.isprintable() else " " for c in row.text[:_LONGEST_TEXT])
                    what = f"DPS refused it ({outcome}): {text}"
                    writer.write(entry.stated_in.line, (Problem(columns(row.text), what, outcome.fix),))
                    told[entry.stated_in.batch_id] += 1
                yield replace(entry, refusal=Refusal(outcome, at, export.export_id, row.row, answer))

    # -- how long answers take

    def _measure(self) -> None:
        """Say how long the oldest file that DPS has picked up has waited for its answer.

        Where DPS answers nothing at all, nothing is waited for: only what was picked up after the first file that it
        did answer counts.
        """
        now = self.clock()
        picked_up = [
            (export.attempts[-1].acknowledged_at, export.processing)
            for export in self.ledger.by_status(Status.ACKNOWLEDGED, now - timedelta(days=DAYS_TO_ANSWER))
        ]
        first = min((at for at, processing in picked_up if at and processing), default=now)
        ended = {Processing.PROCESSED, Processing.REFUSED}
        waiting = (at for at, processing in picked_up if at and at >= first and processing not in ended)
        gauge("OldestUnprocessedHours", (now - min(waiting, default=now)) / timedelta(hours=1))

    def _now(self) -> str:
        return self.clock().astimezone(UTC).isoformat(timespec="seconds")


def _collected(facts: dict[str, Any], answer: Answer | None) -> CollectedMessage:
    return CollectedMessage(
        message_id=facts["message_id"],
        workflow_id=facts["workflow_id"],
        filename=facts["filename"],
        key=facts["key"],
        answer=answer,
    )


def _kind(entry: Entry, row: RefusedRow) -> str:
    """Tell whether an answered row was refused, or has come to its aim all the same.

    A `new` is a duplicate where the record is on file already, and a `delete` has nothing to do where it is gone.
    """
    match entry.action, Outcome.of(row.text):
        case Action.NEW, Outcome.DUPLICATE:
            return "duplicate"
        case Action.DELETE, Outcome.UNKNOWN:
            return "gone"
    return "refused"


def _refused(export: DPSExport, batch_id: str, organisation: str, rows: int, refusals: str, now: str) -> RowsRefused:
    """Make what a team is told of rows that DPS refused."""
    place = f"receipts/{organisation}/(name of your file)/{batch_id}-refused-{export.export_id}.csv"
    counted = f"{rows} {'row' if rows == 1 else 'rows'}"
    return RowsRefused(
        organisation=organisation,
        batch_id=batch_id,
        export_id=export.export_id,
        programme=export.programme,
        rows=rows,
        refusals=refusals,
        refused_at=now,
        summary=f"DPS refused {counted} of your upload. Which, why, and what to do: {place}",
    )


def _columns_of(upload: str) -> Callable[[str], str]:
    """Make what names the columns that DPS finds something wrong with, as an upload calls them."""
    place = 0 if upload.lower().endswith((".jsonl", ".jsonl.gz")) else 1
    return lambda text: ", ".join(names[place] for names in fields_at_fault(text))


class _RefusedRows:
    """The rows that an answer refuses, in the order of the file: on disk, since an answer may refuse a million."""

    def __init__(self, path: Path, answered: Iterable[RefusedRow]) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        try:
            self._db.execute("PRAGMA journal_mode = OFF")
            self._db.execute("PRAGMA synchronous = OFF")
            self._db.execute("CREATE TABLE refused (row, local_id, text, PRIMARY KEY (row, local_id)) WITHOUT ROWID")
            self._db.execute("BEGIN")
            self._db.executemany(
                "INSERT OR REPLACE INTO refused VALUES (?, ?, ?)",
                ((row.row, row.local_id.lower(), row.text[:_LONGEST_TEXT]) for row in answered),
            )
            self._db.execute("COMMIT")
        except BaseException:
            self._db.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def __iter__(self) -> Iterator[RefusedRow]:
        return (RefusedRow(*row) for row in self._db.execute("SELECT * FROM refused ORDER BY row, local_id"))
