"""Collect: every hour, bring what has come into the own mailbox to safety, and hear what DPS answers.

Each message is streamed to S3 with what MESH says of it, and acknowledged only then: it leaves the mailbox once it is
in the bucket. Messages of every workflow are kept, so that the mailbox can serve other purposes too. MESH's own
reports are Track's.

A message whose file name is that of an answer of DPS is read once it is in the bucket. What it says of the file goes
to the ledger; each row that it refuses is looked up in the batches that were sent, and the record's refusal goes to
the register, and to a file for those who uploaded it.

The order of effects is what makes it safe to die anywhere and be run again: body, then its facts (which say that the
body is there), the records' refusals, the ledger, and last the acknowledgement. What was noted before stays as it is.
"""

from __future__ import annotations

import csv
import sqlite3
import tempfile
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from nhs_mesh import Corrupted, Expired, NotFound, Unauthorised
from vaccinations.aws.ledger import PROCESSING, Processing, Status
from vaccinations.aws.register import Entry, Refused
from vaccinations.formats.acknowledgements import (
    AnswerName,
    Kind,
    Outcome,
    Refusal,
    UnreadableAnswer,
    holds_after,
    read_bus_ack,
    read_inf_ack,
)
from vaccinations.formats.dps_columns import local_id_of
from vaccinations.telemetry import count, gauge, logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from nhs_mesh import MeshClient, Message
    from vaccinations.aws.bucket import Archive
    from vaccinations.aws.ledger import DPSExport, Ledger
    from vaccinations.aws.register import Register

__all__ = ["Collect"]

#: A message is begun only while so many seconds of the function's time are left.
SECONDS_FOR_A_MESSAGE = 60.0
#: Of acknowledged exports, those of so many days are looked at for answers that have not come.
DAYS_TO_ANSWER = 30
#: Of what DPS says of a row, so much is told the uploader; the answer has all of it.
_LONGEST_TEXT = 1_000
_REFUSALS_HEADER = ("line", "column", "what is wrong", "what would be right")
#: What is kept of a message beside its body.
_FACTS = (
    "message_id",
    "sender",
    "recipient",
    "workflow_id",
    "filename",
    "local_id",
    "subject",
    "content_type",
    "checksum",
)


@dataclass(frozen=True, slots=True)
class Collect:
    """The use case, over the rooms it works with.

    Attributes
    ----------
    seconds_left
        Tells how many seconds the function may still run.
    clock
        Tells the time, with its offset; for tests.
    """

    archive: Archive
    ledger: Ledger
    register: Register
    client: MeshClient
    seconds_left: Callable[[], float]
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    def run(self) -> dict[str, Any]:
        """Do one run.

        Returns
        -------
        dict
            ``{"status": "ok", "messages": [{"message_id", "workflow_id", "filename", "key", "answer"}], "left": n}``:
            what was collected, and where it is; for an answer of DPS ``{"kind", "export_id", "attempt", "outcome"}``,
            with the counts ``taken`` and ``refused`` where it tells of rows, else None. The status is ``incomplete``
            where messages had to be left for the next run.

        Raises
        ------
        nhs_mesh.Unauthorised
            MESH does not let us in: nothing can be collected at all.
        """
        try:
            return self._run()
        finally:
            self._measure()  # whether or not MESH answers

    def _run(self) -> dict[str, Any]:
        collected: list[dict[str, Any]] = []
        left = 0
        for message_id in list(self.client.inbox()):
            if self.seconds_left() < SECONDS_FOR_A_MESSAGE:
                logger.info("time is running out; the next run goes on")
                left += 1
                break
            try:
                facts = self._keep(message_id)
                if facts is None:
                    continue
                answer = self._hear(facts)
                self.client.acknowledge(message_id)
            except Unauthorised:
                raise
            except (NotFound, Expired):
                logger.info("message has gone from the inbox", extra={"message_id": message_id})
            except Exception as error:  # noqa: BLE001 - one message's trouble never stops the others
                left += 1
                logger.exception("message cannot be collected now", extra={"message_id": message_id})
                count("CollectErrors", error=type(error).__name__)
            else:
                count("MessagesCollected")
                told = {name: facts[name] for name in ("message_id", "workflow_id", "filename", "key")}
                collected.append(told | {"answer": answer})
        return {"status": "incomplete" if left else "ok", "messages": collected, "left": left}

    def _keep(self, message_id: str) -> dict[str, Any] | None:
        """Bring a message to safety, unless it is there already; return its facts, or None where it is a report."""
        with self.client.download(message_id) as message:
            if message.is_report:
                return None
            if facts := self.archive.message(message.workflow_id, message_id):
                return facts
            facts = self._facts(message)
            try:
                facts["key"] = self.archive.put_message(message.workflow_id, message_id, message, facts)
            except Corrupted as error:
                facts |= {"problem": str(error), "content_encoding": message.content_encoding}
        if "problem" in facts:
            # What cannot be unzipped is kept as it came over the wire.
            with self.client.download(message_id, decode=False) as message:
                facts["key"] = self.archive.put_message(message.workflow_id, message_id, message, facts)
            logger.warning("message cannot be read; it is kept as it is", extra={"message_id": message_id})
            count("MessagesUnreadable")
        self.archive.put_message_facts(facts["workflow_id"], message_id, facts)
        logger.info("message collected", extra={"message_id": message_id})
        return facts

    def _facts(self, message: Message) -> dict[str, Any]:
        return {name: getattr(message, name) or "" for name in _FACTS} | {"collected_at": self._now()}

    # -- what DPS answers

    def _hear(self, facts: dict[str, Any]) -> dict[str, Any] | None:
        """Apply what an answer says; return that, or None where the message is no answer."""
        name = AnswerName.of(facts["filename"])
        if name is None or "problem" in facts:
            return None
        answer: dict[str, Any] = {"kind": str(name.kind), "export_id": None, "attempt": None, "outcome": "unmatched"}
        if found := self.ledger.find(name.stem):
            export, attempt = found
            answer |= {"export_id": export.export_id, "attempt": attempt}
            try:
                with closing(self.archive.open_message(facts["key"])) as body:
                    answer |= self._apply(export, attempt, name, facts["key"], body)
            except UnreadableAnswer as unreadable:
                answer |= {"outcome": "unreadable", "problem": str(unreadable)}
                count("MessagesUnreadable")
        else:
            count("AnswersUnmatched")
        extra = answer | {"message_id": facts["message_id"]}
        if answer["outcome"] in {"unmatched", "unreadable", "contradiction"}:
            logger.warning("an answer of DPS changes nothing; it is kept", extra=extra)
        else:
            logger.info("DPS has answered", extra=extra)
        return answer

    def _apply(self, export: DPSExport, attempt: int, name: AnswerName, key: str, body: Any) -> dict[str, Any]:
        """Apply an answer to an attempt at an export; return its outcome and, where it is about rows, their counts."""
        code = ""
        if name.kind is Kind.BUS_ACK:
            to = Processing.PROCESSED
        else:
            inf_ack = read_inf_ack(body)
            to, code = (Processing.RECEIVED if inf_ack.taken else Processing.REFUSED), inf_ack.code
        if attempt != export.attempt:
            self.ledger.answered_earlier(export, attempt, to)
            return {"outcome": "about an earlier attempt"}
        if (export.processing, to) not in PROCESSING:
            return {"outcome": _again(export.processing, to)}
        if to is Processing.PROCESSED:
            return self._process(export, read_bus_ack(body, is_json=name.is_json), key)
        if to is Processing.REFUSED:
            self.ledger.refuse(export, code)
            count("ExportsRefused", programme=export.programme)
            extra = {"export_id": export.export_id, "message_id": export.message_id, "code": code}
            logger.error("DPS has refused the export's file as a whole", extra=extra)
        else:
            self.ledger.receive(export)
            count("ExportsReceived", programme=export.programme)
        return {"outcome": str(to)} | ({"code": code} if code else {})

    def _process(self, export: DPSExport, answered: Iterable[Refusal], key: str) -> dict[str, Any]:
        """Note which of an export's records DPS refused, tell those who uploaded them, and move the ledger."""
        with (
            tempfile.TemporaryDirectory() as directory,
            _Refusals(Path(directory) / "refusals.db", answered) as refusals,
        ):
            tally: Counter[str] = Counter()
            found = self._found(export, refusals, tally)
            for batch_id, of_batch in groupby(found, key=itemgetter(0)):
                file = Path(directory) / "refused.csv"
                rows = ((entry, refusal) for _, entry, refusal in of_batch)
                self.register.refuse(self._noted(export, rows, key, file))
                self.archive.put_refusals(self.archive.intake(batch_id)["upload"], batch_id, export.export_id, file)
        refused = tally["refused"]
        taken = export.records - refused
        self.ledger.process(export, taken=taken, refused=refused)
        count("ExportsProcessed", programme=export.programme)
        count("RecordsTaken", taken, programme=export.programme)
        count("RecordsRefused", refused, programme=export.programme)
        if tally["not believed"]:
            extra = {"export_id": export.export_id, "rows": tally["not believed"]}
            logger.error("DPS answers rows that are not in the file", extra=extra)
            count("RowsNotBelieved", tally["not believed"])
        counts = {"taken": taken, "refused": refused, "not_believed": tally["not believed"]}
        return {"outcome": str(Processing.PROCESSED)} | counts

    def _found(
        self, export: DPSExport, refusals: Iterable[Refusal], tally: Counter[str]
    ) -> Iterator[tuple[str, Entry, Refusal]]:
        """Find the refused versions in the batches that were sent, with the batch each is in; count what is found."""
        waiting = iter(refusals)
        refusal = next(waiting, None)
        number = 0
        for batch_id in export.batches:
            if refusal is None:
                return
            with closing(self.archive.batch_lines(export.programme, batch_id)) as lines:
                for number, line in enumerate(lines, number + 1):  # noqa: B020 - rows are counted over all batches
                    while refusal and refusal.row < number:
                        tally["not believed"] += 1
                        refusal = next(waiting, None)
                    if refusal is None:
                        return
                    if refusal.row == number:
                        entry = Entry.of_line(line, batch_id)
                        if refusal.local_id.lower() != local_id_of(entry.record_id).lower():
                            tally["not believed"] += 1
                        elif Outcome.of(refusal.text) is Outcome.DUPLICATE:
                            tally["duplicate"] += 1
                        else:
                            tally["refused"] += 1
                            yield batch_id, entry, refusal
                        refusal = next(waiting, None)
        tally["not believed"] += (refusal is not None) + sum(1 for _ in waiting)

    def _noted(
        self, export: DPSExport, rows: Iterable[tuple[Entry, Refusal]], answer: str, file: Path
    ) -> Iterator[Entry]:
        """Write the refusals of a batch to a file for its uploader, and yield what the register is to note of each."""
        at = self._now()
        with file.open("w", encoding="utf-8", newline="") as opened:
            writer = csv.writer(opened)
            writer.writerow(_REFUSALS_HEADER)
            for entry, refusal in rows:
                outcome = Outcome.of(refusal.text)
                text = "".join(c if c.isprintable() else " " for c in refusal.text[:_LONGEST_TEXT])
                writer.writerow((entry.line, "", f"DPS refused it ({outcome}): {text}", outcome.mend))
                yield replace(
                    entry,
                    held=entry.held and holds_after(entry.action, outcome),
                    refused=Refused(outcome, at, export.export_id, refusal.row, answer),
                )

    def _measure(self) -> None:
        """Say how long the oldest file that DPS has picked up has waited for its answer.

        Where DPS answers nothing at all, nothing is waited for: only what was picked up after the first file that it
        did answer counts.
        """
        now = self.clock()
        picked_up = [
            (export.acknowledged_at, export.processing)
            for export in self.ledger.by_status(Status.ACKNOWLEDGED, now - timedelta(days=DAYS_TO_ANSWER))
            if export.acknowledged_at
        ]
        first = min((at for at, processing in picked_up if processing), default=now)
        ended = {Processing.PROCESSED, Processing.REFUSED}
        oldest = min((at for at, processing in picked_up if at >= first and processing not in ended), default=now)
        gauge("OldestUnprocessedHours", (now - oldest) / timedelta(hours=1))

    def _now(self) -> str:
        return self.clock().astimezone(UTC).isoformat(timespec="seconds")


def _again(known: Processing | None, heard: Processing) -> str:
    """Tell whether an answer that changes nothing says again what is known, or contradicts it."""
    if (known is Processing.REFUSED) is (heard is Processing.REFUSED):
        return "known already"
    count("AnswersContradicting")
    return "contradiction"


class _Refusals:
    """The rows that an answer refuses, in the order of the file: on disk, since an answer may refuse a million."""

    def __init__(self, path: Path, answered: Iterable[Refusal]) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        try:
            self._db.execute("PRAGMA journal_mode = OFF")
            self._db.execute("PRAGMA synchronous = OFF")
            self._db.execute("CREATE TABLE refusals (row INTEGER PRIMARY KEY, local_id, text)")
            self._db.execute("BEGIN")
            self._db.executemany(
                "INSERT OR REPLACE INTO refusals VALUES (?, ?, ?)",
                ((refusal.row, refusal.local_id, refusal.text[:_LONGEST_TEXT]) for refusal in answered),
            )
            self._db.execute("COMMIT")
        except BaseException:
            self._db.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def __iter__(self) -> Iterator[Refusal]:
        return (Refusal(*row) for row in self._db.execute("SELECT * FROM refusals ORDER BY row"))
