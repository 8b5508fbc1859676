"""Ingest an upload: check every row, remember what it says, queue what DPS has to be told.

The order of effects is what makes it safe to die anywhere and be run again:

1. every row is checked and decided on (`vaccinations.model.decide`), without writing anything to a store;
2. the batch objects (one a programme), the rejects file and the intake go to the bucket, complete;
3. the register notes the intake: from here on the batch objects are a write-ahead log;
4. the records are registered; each batch is attached to its programme's open export, in one transaction;
5. the receipt is written, and the intake is finished.

Dying before 3 leaves nothing that anybody refers to; dying after 3 leaves an unfinished intake, which the repeated
event, or the next upload, whichever comes first, finishes before it looks at the register. The queue hands over one
upload at a time.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import batched
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from vaccinations.formats.batches import batch_line, entry_of, repeat_line
from vaccinations.formats.requests import read_resend
from vaccinations.formats.upload_csv import read_csv
from vaccinations.formats.upload_jsonl import read_jsonl
from vaccinations.jobs.spool import Spool
from vaccinations.model.decide import Columns, Known, Queue, Reject, Skip, Unchanged, UploadFacts, decide
from vaccinations.model.london import day_in_london
from vaccinations.model.problems import UnreadableUpload
from vaccinations.model.programmes import is_ods_code
from vaccinations.model.row import Faulty, Row, SendAgain, Vaccinated, Withdrawn
from vaccinations.ports import BatchGone, UploadGone
from vaccinations.prefetch import prefetch
from vaccinations.results import Receipt, RejectedUpload, StoredIntake
from vaccinations.telemetry import count, logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from vaccinations.model.entry import Entry, Intake
    from vaccinations.ports import Bucket, Ledger, Register, Upload

__all__ = ["Ingest"]

_INCOMING = "incoming/"
_ROWS_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Ingest:
    """The use case, over its stores.

    Attributes
    ----------
    clock
        Tells the time, with its offset; for tests.
    """

    bucket: Bucket
    register: Register
    ledger: Ledger
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    def ingest(self, key: str, version: str) -> Receipt | RejectedUpload:
        """Ingest one upload, wherever an earlier try at it stopped; return its receipt.

        Parameters
        ----------
        key, version
            The object under ``incoming/`` and its version id, empty in a bucket without versions.
        """
        batch_id = self.bucket.batch_id(key, version)
        logger.append_keys(batch_id=batch_id)
        intake = self.register.intake(batch_id)
        if intake and intake.finished:
            logger.info("the upload was ingested before; nothing to do")
            return self.bucket.intake(batch_id).receipt
        self._complete_others(batch_id)
        if intake is None:
            try:
                self._read(key, version, batch_id)
            except UnreadableUpload as unreadable:
                return self._reject(key, version, batch_id, unreadable)
        return self._complete(batch_id)

    # -- steps 1 to 3

    def _read(self, key: str, version: str, batch_id: str) -> None:
        """Decide on every row; leave the batches, the rejects file and the intake behind.

        Raises
        ------
        UnreadableUpload
            Nothing of it can be ingested, and nothing is left behind.
        """
        source = _source(key)
        with ExitStack() as stack:
            upload = self._open(key, version)
            stack.enter_context(closing(upload.body))
            spool = stack.enter_context(Spool(Path(stack.enter_context(tempfile.TemporaryDirectory()))))
            pass_ = _Pass(self.bucket, spool, UploadFacts(batch_id, upload.uploaded_at, source.columns))
            self._decide(source.rows(upload), pass_)
            spool.close()
            rejects = self._store(key, batch_id, spool)
        receipt = pass_.receipt(upload, rejects)
        self.bucket.put_intake(batch_id, StoredIntake(upload=key, version=version, receipt=receipt))
        self.register.begin(batch_id, {p: batch.actions.total() for p, batch in spool.batches.items()})

    def _open(self, key: str, version: str) -> Upload:
        try:
            return self.bucket.open_upload(key, version)
        except UploadGone:
            raise UnreadableUpload("the file is not there any more", "upload it again") from None

    def _decide(self, rows: Iterator[Row], pass_: _Pass) -> None:
        """Decide on rows, while the register is asked for what it knows of the next ones."""
        chunks = prefetch(self._look_up, batched(rows, _ROWS_AT_ONCE), depth=1)
        with closing(chunks):
            for chunk, registered in chunks:
                pass_.decide(chunk, registered)

    def _look_up(self, rows: Sequence[Row]) -> tuple[Sequence[Row], dict[str, Entry]]:
        """Return rows, and what the register knows of their records."""
        return rows, self.register.get({row.record_id for row in rows if not isinstance(row, Faulty)})

    def _store(self, key: str, batch_id: str, spool: Spool) -> str | None:
        """Store what a pass has left in files; return the key of the rejects file, where there is one."""
        for programme, batch in spool.batches.items():
            self.bucket.put_batch(programme, batch_id, batch.lines, batch.rows)
        return self.bucket.put_rejects(key, batch_id, spool.rejects) if spool.rejected else None

    # -- steps 4 and 5

    def _complete_others(self, batch_id: str) -> None:
        """Complete the uploads that came before and were left unfinished."""
        for unfinished in self.register.unfinished():
            if unfinished != batch_id:
                logger.info("completing an earlier upload first", extra={"unfinished": unfinished})
                self._complete(unfinished)

    def _complete(self, batch_id: str) -> Receipt:
        """Register, attach and give the receipt of an upload whose batches are complete."""
        intake = self._intake(batch_id)
        for programme, records in intake.batches.items():
            if programme not in intake.attached:
                self._register(programme, batch_id)
                self._attach(programme, batch_id, records)
        stored = self.bucket.intake(batch_id)
        attached = self._intake(batch_id).attached
        receipt = replace(
            stored.receipt,
            exports={programme: f"{programme}-{number}" for programme, number in attached.items()},
            completed_at=self._now(),
        )
        self.bucket.put_intake(batch_id, replace(stored, receipt=receipt))
        self.bucket.put_receipt(stored.upload, batch_id, receipt)
        self.register.finish(batch_id)
        _tell(receipt)
        return receipt

    def _intake(self, batch_id: str) -> Intake:
        intake = self.register.intake(batch_id)
        if intake is None:
            raise LookupError(f"the intake of {batch_id} is not there")
        return intake

    def _register(self, programme: str, batch_id: str) -> None:
        with closing(self.bucket.batch_lines(programme, batch_id)) as lines:
            for chunk in batched((entry_of(line, batch_id) for line in lines), _ROWS_AT_ONCE):
                self.register.put(chunk)

    def _attach(self, programme: str, batch_id: str, records: int) -> None:
        number = self.ledger.attach(programme, batch_id, records)
        if number is not None:
            extra = {"export_id": f"{programme}-{number}", "records": records, "programme": programme}
            logger.info("batch attached", extra=extra)

    # -- receipts

    def _reject(self, key: str, version: str, batch_id: str, unreadable: UnreadableUpload) -> RejectedUpload:
        receipt = RejectedUpload(
            batch_id=batch_id,
            upload=key,
            version=version,
            reason=unreadable.reason,
            fix=unreadable.fix,
            completed_at=self._now(),
        )
        self.bucket.put_receipt(key, batch_id, receipt)
        count("UploadsRejected")
        logger.warning("upload rejected as a whole", extra={"reason": unreadable.reason})
        return receipt

    def _now(self) -> str:
        return _stamp(self.clock())


def _stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds")


def _tell(receipt: Receipt) -> None:
    """Log and count what became of an upload."""
    accepted = {programme: sum(actions.values()) for programme, actions in receipt.accepted.items()}
    extra = {
        "accepted": accepted,
        "exports": receipt.exports,
        "rows": receipt.rows,
        "unchanged": receipt.unchanged,
        "skipped": receipt.skipped,
        "rejected": receipt.rejected,
    }
    logger.info("upload ingested", extra=extra)
    count("Uploads")
    count("RowsAccepted", sum(accepted.values()))
    count("RowsUnchanged", receipt.unchanged)
    count("RowsRejected", receipt.rejected)


# -- whose upload it is, and how it is read


@dataclass(frozen=True, slots=True)
class _Source:
    """Whose upload it is, how it is read, and what the uploader calls the columns."""

    organisation_code: str
    read: Callable[..., Iterator[Row]]
    columns: Columns

    def rows(self, upload: Upload) -> Iterator[Row]:
        """Read the rows of an upload."""
        today = day_in_london(upload.uploaded_at)
        return self.read(upload.body, organisation_code=self.organisation_code, today=today)


#: By what a name ends in: how such an upload is read, and what its columns are called.
_KINDS: Mapping[str, tuple[Callable[..., Iterator[Row]], Columns]] = {
    ".csv": (read_csv, Columns("TIME_OF_VACCINATION", "PROGRAMME", "VACCINATED", "VACCINATED = No")),
    ".jsonl": (read_jsonl, Columns("vaccinated_at", "programme", "deleted", '"deleted": true')),
    ".jsonl.gz": (read_jsonl, Columns("vaccinated_at", "programme", "deleted", '"deleted": true')),
    # A record to be sent again is named and nothing else.
    ".resend": (read_resend, Columns("", "", "", "")),
}


def _source(key: str) -> _Source:
    """Tell from an object's key whose upload it is and how it is read.

    Raises
    ------
    UnreadableUpload
        The key is not ``incoming/{ODS code}/{name}``, or the name does not end as one of the kinds does.
    """
    organisation_code, _, name = key.removeprefix(_INCOMING).partition("/")
    if not name or not is_ods_code(organisation_code):
        raise UnreadableUpload(
            "the folder does not tell whose upload this is",
            "upload it as incoming/{ODS code}/{name}, for example incoming/R1A/monday.csv",
        )
    for ending, (read, columns) in _KINDS.items():
        if name.lower().endswith(ending):
            return _Source(organisation_code.upper(), read, columns)
    raise UnreadableUpload(
        "the name does not tell what kind of file this is", "give it a name ending in .csv or .jsonl"
    )


# -- one pass over the rows


@dataclass(slots=True)
class _Pass:
    """One pass over an upload: decides on its rows, spools what is accepted or rejected, and counts.

    Attributes
    ----------
    known
        What is known of the records of the rows at hand, as the upload changes it.
    last
        Batch lines of their last statements, as far as they are at hand.
    """

    bucket: Bucket
    spool: Spool
    upload: UploadFacts
    rows: int = 0
    unchanged: int = 0
    skipped: int = 0
    known: dict[str, Entry] = field(default_factory=dict)
    last: dict[str, bytes] = field(default_factory=dict)

    def decide(self, rows: Sequence[Row], registered: Mapping[str, Entry]) -> None:
        """Decide on rows, of whose records the register knows what is given.

        Raises
        ------
        LookupError
            A batch lacks a record that the register knows.
        """
        ids = {row.record_id for row in rows if not isinstance(row, Faulty)}
        self.known = {**registered, **self.spool.seen.get(ids)}
        self.last.clear()
        self._look_back(rows)
        for row in rows:
            self._decide(row)
        self.spool.seen.put(entry for entry in self.known.values() if entry.batch_id == self.upload.batch_id)

    def _decide(self, row: Row) -> None:
        self.rows += 1
        match decide(row, self._known(row), self.upload):
            case Queue(entry):
                self._queue(row, entry)
            case Unchanged():
                self.unchanged += 1
            case Skip():
                self.skipped += 1
            case Reject(problems):
                self.spool.reject(row.line, problems)

    def _known(self, row: Row) -> Known | None:
        entry = None if isinstance(row, Faulty) else self.known.get(row.record_id)
        return Known(entry, kept=entry.record_id in self.last) if entry else None

    def _queue(self, row: Row, entry: Entry) -> None:
        if isinstance(row, Vaccinated):
            recorded_on = day_in_london(self.upload.uploaded_at)
            line = batch_line(
                row.record, action=entry.action, line=row.line, recorded_on=recorded_on, digest=entry.digest
            )
        else:
            last = self.last[entry.record_id]
            line = repeat_line(last, action=entry.action, line=row.line, on_file=entry.on_file, digest=entry.digest)
        self.spool.add(entry, line)
        self.known[entry.record_id] = entry
        self.last[entry.record_id] = line

    def _look_back(self, rows: Iterable[Row]) -> None:
        """Find the last statements of records that rows only name: each batch is read once, however many it holds."""
        wanted: defaultdict[tuple[str, str], dict[str, int]] = defaultdict(dict)
        for row in rows:
            if isinstance(row, Withdrawn | SendAgain) and (entry := self.known.get(row.record_id)):
                decision = decide(row, Known(entry, kept=True), self.upload)
                if isinstance(decision, Queue) and decision.repeats:
                    wanted[entry.programme, entry.batch_id][entry.record_id] = entry.line
        for (programme, batch_id), places in wanted.items():
            with suppress(BatchGone), self._lines(programme, batch_id) as lines:
                self._find(lines, places)

    def _find(self, lines: Iterable[bytes], places: dict[str, int]) -> None:
        """Find the batch lines of records, of which it is given from which line of their upload they came."""
        for line in lines:
            record = orjson.loads(line)
            if places.get(record["uuid"]) == record["line"]:
                self.last[record["uuid"]] = line
                del places[record["uuid"]]
                if not places:
                    return
        raise LookupError("a batch lacks a record that the register knows")

    @contextmanager
    def _lines(self, programme: str, batch_id: str) -> Iterator[Iterable[bytes]]:
        """Open a batch: an earlier one, or the one that is being written."""
        if batch_id == self.upload.batch_id:
            with self.spool.batches[programme].written_lines() as lines:
                yield lines
        else:
            with closing(self.bucket.batch_lines(programme, batch_id)) as stored:
                yield stored

    def receipt(self, upload: Upload, rejects: str | None) -> Receipt:
        """Make the upload's receipt, but for what comes after."""
        return Receipt(
            batch_id=self.upload.batch_id,
            upload=upload.key,
            version=upload.version,
            uploaded_at=_stamp(upload.uploaded_at),
            rows=self.rows,
            accepted={programme: dict(batch.actions) for programme, batch in self.spool.batches.items()},
            unchanged=self.unchanged,
            skipped=self.skipped,
            rejected=self.spool.rejected,
            rejects=rejects,
            exports={},
            completed_at="",
        )
