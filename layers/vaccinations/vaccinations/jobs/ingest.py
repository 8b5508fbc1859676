"""Ingest: take an upload in, check every row, remember what was seen, queue what DPS has not got yet.

The order of effects is what makes it safe to die anywhere and be run again:

1. every row is checked and compared with the register, without writing anything;
2. the batch objects (one a programme), the rejects file and the intake go to S3, complete;
3. the register notes the intake: from here on the batch objects are a write-ahead log;
4. the records are registered; each batch is attached to its programme's open export, in one transaction;
5. the receipt is written, and the intake is finished.

Dying before 3 leaves nothing that anybody refers to; dying after 3 leaves an unfinished intake, which the repeated
event, or the next upload, whichever comes first, finishes before it looks at the register. The queue hands over one
upload at a time.
"""

from __future__ import annotations

import csv
import re
import sqlite3
import tempfile
from collections import Counter, defaultdict
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import batched
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from zoneinfo import ZoneInfo

import orjson
from isal import igzip

from vaccinations.aws.bucket import INCOMING, BatchGone, UploadGone
from vaccinations.aws.register import WITHDRAWN, Entry
from vaccinations.formats.dps_columns import RowsWriter, batch_line, render_row
from vaccinations.formats.requests import read_resend
from vaccinations.formats.upload_csv import read_csv
from vaccinations.formats.upload_jsonl import read_jsonl
from vaccinations.model.programmes import PROGRAMMES
from vaccinations.model.record import Problem, Row, UnreadableUpload
from vaccinations.prefetch import ahead
from vaccinations.telemetry import count, logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from vaccinations.aws.bucket import Archive
    from vaccinations.aws.ledger import Ledger
    from vaccinations.aws.register import Register

__all__ = ["Ingest"]

_LONDON = ZoneInfo("Europe/London")
_ODS_CODE = re.compile(r"[A-Z0-9]{3,10}", re.IGNORECASE)
_ROWS_AT_ONCE = 1000
_REJECTS_HEADER = ("line", "column", "what is wrong", "what would be right")
#: So many rejected rows are listed one by one; the rest of an upload that bad is only counted.
_MOST_REJECTS = 10_000


@dataclass(frozen=True, slots=True)
class Ingest:
    """The use case, over the rooms it works with.

    Attributes
    ----------
    clock
        Tells the time, with its offset; for tests.
    """

    archive: Archive
    register: Register
    ledger: Ledger
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    def take_in(self, key: str, version: str) -> dict[str, Any]:
        """Take one upload in, wherever an earlier try at it stopped; return its receipt.

        Parameters
        ----------
        key, version
            The object under ``incoming/`` and its version id, empty in a bucket without versions.

        Returns
        -------
        dict
            ``{"status": "taken in" | "rejected", "batch_id", "rows", "accepted": {programme: {action: n}},
            "unchanged", "skipped", "rejected", "rejects", "exports": {programme: export id}, ...}``; for an upload
            that was rejected as a whole ``reason`` and ``mend`` in place of the counts.
        """
        batch_id = self.archive.batch_id(key, version)
        logger.append_keys(batch_id=batch_id)
        intake = self.register.intake(batch_id)
        if intake and intake.finished:
            logger.info("upload was taken in before; nothing to do")
            receipt: dict[str, Any] = self.archive.intake(batch_id)["receipt"]
            return {**receipt, "exports": _export_ids(intake.attached)}
        for unfinished in self.register.unfinished():
            if unfinished != batch_id:
                logger.info("finishing an earlier upload first", extra={"unfinished": unfinished})
                self._complete(unfinished)
        if intake is None:
            try:
                self._read(key, version, batch_id)
            except UnreadableUpload as unreadable:
                return self._reject(key, batch_id, unreadable)
        return self._complete(batch_id)

    def _reject(self, key: str, batch_id: str, unreadable: UnreadableUpload) -> dict[str, Any]:
        receipt = {
            "status": "rejected",
            "batch_id": batch_id,
            "upload": key,
            "reason": unreadable.reason,
            "mend": unreadable.mend,
            "completed_at": self._now(),
        }
        self.archive.put_receipt(key, batch_id, receipt)
        count("UploadsRejected")
        logger.warning("upload rejected as a whole", extra={"reason": unreadable.reason})
        return receipt

    def _read(self, key: str, version: str, batch_id: str) -> None:
        """Check every row and leave the batches, the rejects file and the intake behind (steps 1 to 3)."""
        organisation_code, reader, columns = _reader(key)
        try:
            upload = self.archive.open_upload(key, version)
        except UploadGone:
            raise UnreadableUpload("the file is not there any more", "upload it again") from None
        with ExitStack() as stack:
            stack.enter_context(closing(upload.body))
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            reading = stack.enter_context(_Reading(self.archive, batch_id, directory, upload.uploaded_at, columns))
            today = upload.uploaded_at.astimezone(_LONDON).date()
            rows = reader(upload.body, organisation_code=organisation_code, today=today)
            with _Seen(directory / "seen.db") as seen:
                # What the register knows of the next rows is fetched while these are decided.
                chunks = stack.enter_context(closing(ahead(self._look_up, batched(rows, _ROWS_AT_ONCE), depth=1)))
                for chunk, ids, registered in chunks:
                    known = registered | seen.get(ids)
                    reading.look_back(chunk, known)
                    for row in chunk:
                        reading.decide(row, known)
                    seen.put(known[i] for i in ids if i in known and known[i].batch_id == batch_id)
            reading.close()
            for programme, batch in reading.batches.items():
                self.archive.put_batch(programme, batch_id, batch.lines, batch.rows)
            rejects = self.archive.put_rejects(key, batch_id, reading.rejects) if reading.rejected else None
        receipt = {
            "status": "taken in",
            "batch_id": batch_id,
            "upload": key,
            "version": version,
            "uploaded_at": upload.uploaded_at.astimezone(UTC).isoformat(timespec="seconds"),
            "rows": reading.rows,
            "accepted": {programme: dict(batch.actions) for programme, batch in reading.batches.items()},
            "unchanged": reading.unchanged,
            "skipped": reading.skipped,
            "rejected": reading.rejected,
            "rejects": rejects,
        }
        self.archive.put_intake(batch_id, {"upload": key, "version": version, "receipt": receipt})
        self.register.begin(batch_id, {p: batch.actions.total() for p, batch in reading.batches.items()})

    def _look_up(self, rows: Sequence[Row]) -> tuple[Sequence[Row], set[str], dict[str, Entry]]:
        """Return rows, their records' ids and what the register knows of these."""
        ids = {row.record_id for row in rows if row.record_id and not row.problems}
        return rows, ids, self.register.get(ids)

    def _complete(self, batch_id: str) -> dict[str, Any]:
        """Register, attach and give the receipt of an upload whose batches are complete (steps 4 and 5)."""
        intake = self.register.intake(batch_id)
        if intake is None:
            raise LookupError(f"intake {batch_id} is listed as unfinished but is not there")
        attached = dict(intake.attached)
        for programme, rows in intake.batches.items():
            if programme in attached:
                continue
            lines = self.archive.batch_lines(programme, batch_id)
            for chunk in batched((Entry.of_line(line, batch_id) for line in lines), _ROWS_AT_ONCE):
                self.register.put(chunk)
            attaching = partial(self.register.attaching, batch_id, programme)
            number = self.ledger.attach(programme, batch_id, rows, attaching)
            if number:
                attached[programme] = number
                logger.info(
                    "batch attached",
                    extra={"export_id": f"{programme}-{number}", "records": rows, "programme": programme},
                )
        document = self.archive.intake(batch_id)
        receipt: dict[str, Any] = {
            **document["receipt"],
            "exports": _export_ids(attached),
            "completed_at": self._now(),
        }
        self.archive.put_receipt(document["upload"], batch_id, receipt)
        self.register.finish(batch_id)
        _report(receipt)
        return receipt

    def _now(self) -> str:
        return self.clock().astimezone(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, slots=True)
class _Columns:
    """What an uploader calls the columns that are checked here."""

    time: str
    programme: str
    withdrawn: str
    withdrawal: str


_CSV = _Columns("TIME_OF_VACCINATION", "PROGRAMME", "VACCINATED", "VACCINATED = No")
_JSONL = _Columns("vaccinated_at", "programme", "deleted", '"deleted": true')
#: A record to be sent again is named and nothing else.
_RESEND = _Columns("", "", "", "")


def _reader(key: str) -> tuple[str, Callable[..., Iterator[Row]], _Columns]:
    """Tell from an object's key whose upload it is and how it is read.

    Raises
    ------
    UnreadableUpload
        The key is not ``incoming/{ODS code}/{name}``, or the name does not end as one of the kinds does.
    """
    organisation_code, _, name = key.removeprefix(INCOMING).partition("/")
    if not name or not _ODS_CODE.fullmatch(organisation_code):
        raise UnreadableUpload(
            "the folder does not tell whose upload this is",
            "upload it as incoming/{ODS code}/{name}, for example incoming/R1A/monday.csv",
        )
    if name.lower().endswith(".csv"):
        return organisation_code.upper(), read_csv, _CSV
    if name.lower().endswith((".jsonl", ".jsonl.gz")):
        return organisation_code.upper(), read_jsonl, _JSONL
    if name.lower().endswith(".resend"):
        return organisation_code.upper(), read_resend, _RESEND
    raise UnreadableUpload(
        "the name does not tell what kind of file this is", "give it a name ending in .csv or .jsonl"
    )


def _export_ids(attached: Any) -> dict[str, str]:
    return {programme: f"{programme}-{number}" for programme, number in attached.items()}


def _report(receipt: dict[str, Any]) -> None:
    accepted = {programme: sum(actions.values()) for programme, actions in receipt["accepted"].items()}
    counts = {name: receipt[name] for name in ("rows", "unchanged", "skipped", "rejected")}
    logger.info("upload taken in", extra={"accepted": accepted, "exports": receipt["exports"], **counts})
    count("Uploads")
    count("RowsTakenIn", sum(accepted.values()))
    count("RowsUnchanged", receipt["unchanged"])
    count("RowsRejected", receipt["rejected"])


@dataclass(slots=True)
class _Reading:
    """What one pass over an upload has found so far, spooled to files."""

    archive: Archive
    batch_id: str
    directory: Path
    uploaded_at: datetime
    columns: _Columns
    rows: int = 0
    unchanged: int = 0
    skipped: int = 0
    rejected: int = 0
    batches: dict[str, _Batch] = field(default_factory=dict)
    rejects: Path = field(init=False)
    _open: ExitStack = field(default_factory=ExitStack)
    #: Batch lines by record id: of what was just taken in, and of what `look_back` found.
    _last_known: dict[str, bytes] = field(default_factory=dict)
    _rejects: Any = None

    def __post_init__(self) -> None:
        self.rejects = self.directory / "rejects.csv"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Complete the files."""
        for batch in self.batches.values():
            batch.close()
        self._open.close()

    def look_back(self, rows: Iterable[Row], known: Mapping[str, Entry]) -> None:
        """Find the records behind rows that only name one: each batch is read once, however many it holds.

        Raises
        ------
        LookupError
            A batch lacks a record that the register knows.
        """
        self._last_known.clear()
        wanted: defaultdict[tuple[str, str], dict[str, int]] = defaultdict(dict)
        for row in rows:
            entry = known.get(row.record_id or "")
            if entry and row.record is None and not (row.problems or (row.withdrawn and entry.withdrawn)):
                wanted[entry.programme, entry.batch_id][entry.record_id] = entry.line
        for (programme, batch_id), places in wanted.items():
            with suppress(BatchGone), self._batch(programme, batch_id) as lines:
                for line in lines:
                    record = orjson.loads(line)
                    if places.get(record["uuid"]) == record["line"]:
                        self._last_known[record["uuid"]] = line
                        del places[record["uuid"]]
                        if not places:
                            break
                else:
                    raise LookupError(f"batch {batch_id} of {programme} lacks a record that the register knows")

    def decide(self, row: Row, known: dict[str, Entry]) -> None:
        """Decide what becomes of a row, and remember that in ``known``.

        ============================  ==============================================
        unknown                       ``new``
        same digest as known          unchanged: not sent again
        another digest                ``update``; ``new`` where DPS refused to hold it
        withdrawn, known              ``delete``, with the columns as last known
        withdrawn, not known          skipped: DPS never had it
        known under another programme rejected
        to be sent again              `_resend`
        ============================  ==============================================
        """
        self.rows += 1
        entry = known.get(row.record_id or "")
        problems = row.problems or self._conflicts(row, entry)
        if problems or row.record_id is None:
            self._reject(row, problems)
        elif row.record is None and not row.withdrawn:
            self._resend(row, entry, known)
        elif row.record is None:
            if entry is None:
                self.skipped += 1
            elif entry.withdrawn:
                self.unchanged += 1
            else:
                self._withdraw(row, entry, known)
        else:
            digest = row.record.stated_digest()
            if entry and entry.digest == digest:
                self.unchanged += 1
                return
            action = "update" if entry and entry.held else "new"
            line = batch_line(
                row.record,
                action=action,
                line=row.line,
                recorded_on=self.uploaded_at.astimezone(_LONDON).date(),
                digest=digest,
            )
            entry = Entry(row.record_id, row.record.programme, digest, action, self.batch_id, row.line)
            self._add(entry, line, known)

    def _withdraw(self, row: Row, entry: Entry, known: dict[str, Entry]) -> None:
        line = self._last_known.get(entry.record_id)
        if line is None:
            what = "this record was taken in so long ago that it is no longer kept, so it cannot be withdrawn"
            self._reject(
                row, [Problem(self.columns.withdrawn, what, "upload the vaccination once more, then withdraw it")]
            )
            return
        # DPS is told even where it is not known to hold the record: that does no harm.
        self._repeat(line, known, action="delete", line=row.line, digest=WITHDRAWN, held=entry.held)

    def _resend(self, row: Row, entry: Entry | None, known: dict[str, Entry]) -> None:
        """Send a record that DPS refused as it was last known: as what DPS would take."""
        if entry and entry.batch_id == self.batch_id:
            self.unchanged += 1  # it is named twice
            return
        line = self._last_known.get(row.record_id or "")
        if entry is None:
            problem = Problem("", "is of no record that was taken in", "the identifier of a record that DPS refused")
        elif entry.refused is None:
            problem = Problem("", "DPS has not refused this record as it was sent last", "leave it out")
        elif entry.withdrawn and not entry.held:
            problem = Problem("", "this record was withdrawn, and DPS does not hold it", "leave it out")
        elif line is None:
            problem = Problem("", "what was sent is no longer kept", "upload the vaccination once more")
        else:
            action = "delete" if entry.withdrawn else "update" if entry.held else "new"
            self._repeat(line, known, action=action, line=row.line, held=True)
            return
        self._reject(row, [problem])

    def _repeat(self, last_known: bytes, known: dict[str, Entry], **changes: Any) -> None:
        """Take a record in as it was last known, but for what is given."""
        record = orjson.loads(last_known) | changes
        if record["held"]:
            del record["held"]  # as most are
        line = orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
        self._add(Entry.of_line(line, self.batch_id), line, known)

    def _conflicts(self, row: Row, entry: Entry | None) -> tuple[Problem, ...]:
        """Find what only the register and the clock can tell is wrong with a row."""
        record = row.record
        if record is None:
            return ()
        problems = []
        given_at = record.vaccinated_at
        if (given_at if given_at.tzinfo else given_at.replace(tzinfo=_LONDON)) > self.uploaded_at:
            problems.append(Problem(self.columns.time, "is later than the upload", "the time the vaccine was given"))
        if entry and entry.programme != record.programme:
            name = PROGRAMMES[entry.programme].name
            problems.append(
                Problem(
                    self.columns.programme,
                    f"this record was taken in under {name} before",
                    f"withdraw it there (upload it under {name} with {self.columns.withdrawal}), "
                    "then upload it with a UUID of its own",
                )
            )
        return tuple(problems)

    def _add(self, entry: Entry, line: bytes, known: dict[str, Entry]) -> None:
        batch = self.batches.get(entry.programme)
        if batch is None:
            batch = self.batches[entry.programme] = _Batch(self.directory, entry.programme)
        batch.add(line, entry.action)
        known[entry.record_id] = entry
        self._last_known[entry.record_id] = line

    def _reject(self, row: Row, problems: Iterable[Problem]) -> None:
        if self._rejects is None:
            file = self.rejects.open("w", encoding="utf-8", newline="")
            self._rejects = csv.writer(self._open.enter_context(file))
            self._rejects.writerow(_REJECTS_HEADER)
        self.rejected += 1
        if self.rejected > _MOST_REJECTS:
            if self.rejected == _MOST_REJECTS + 1:
                what = f"only the first {_MOST_REJECTS} rejected rows are listed; the receipt counts them all"
                self._rejects.writerow((row.line, "", what, "put these right and upload the file again"))
            return
        for problem in problems:
            self._rejects.writerow((row.line, problem.column, problem.what, problem.mend))

    @contextmanager
    def _batch(self, programme: str, batch_id: str) -> Iterator[Iterable[bytes]]:
        """Read a batch: an earlier one, or the one that is being written."""
        if batch_id != self.batch_id:
            with closing(self.archive.batch_lines(programme, batch_id)) as lines:
                yield lines
            return
        with self.batches[programme].written_lines() as lines:
            yield lines


class _Batch:
    """The records of one programme, as they are found, in two files: batch lines, and rows of the DPS file.

    Attributes
    ----------
    lines, rows
        Where the files are.
    actions
        How many records there are of each action.
    """

    def __init__(self, directory: Path, programme: str) -> None:
        self.lines = directory / f"{programme}.jsonl.gz"
        self.rows = directory / f"{programme}.csv.gz"
        self.actions: Counter[str] = Counter()
        self._lines = igzip.open(self.lines, "wb", compresslevel=1)
        self._rows_file = self.rows.open("wb")
        self._rows = RowsWriter(self._rows_file)

    def add(self, line: bytes, action: str) -> None:
        self._lines.write(line)
        self._rows.write(render_row(line))
        self.actions[action] += 1

    @contextmanager
    def written_lines(self) -> Iterator[Iterable[bytes]]:
        """Open the lines written so far."""
        # A member of the gzip file ends here and the next begins.
        self._lines.close()
        with igzip.open(self.lines, "rb") as lines:
            yield lines
        self._lines = igzip.open(self.lines, "ab", compresslevel=1)

    def close(self) -> None:
        self._lines.close()
        self._rows.finish()
        self._rows_file.close()


class _Seen:
    """What an upload has said so far, by record id: on disk, since an upload may hold a million rows."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute(
            "CREATE TABLE seen "
            "(record_id TEXT PRIMARY KEY, programme, digest, action, batch_id, line, held) WITHOUT ROWID"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def get(self, record_ids: Iterable[str]) -> dict[str, Entry]:
        query = "SELECT seen.* FROM json_each(?) JOIN seen ON record_id = value"
        rows = self._db.execute(query, (orjson.dumps([*record_ids]).decode(),))
        return {
            record_id: Entry(record_id, programme, digest, action, batch_id, line, bool(held))
            for record_id, programme, digest, action, batch_id, line, held in rows
        }

    def put(self, entries: Iterable[Entry]) -> None:
        self._db.execute("BEGIN")
        self._db.executemany(
            "INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?, ?, ?, ?)",
            ((e.record_id, e.programme, e.digest, e.action, e.batch_id, e.line, e.held) for e in entries),
        )
        self._db.execute("COMMIT")
