"""The spool: what one pass over an upload leaves in files, however many rows it has.

A batch for each programme, as lines and as rows of the DPS file; the rejects file; what the upload has said of each
record so far; and the last statements of records that rows only name or change.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

import orjson
from isal import igzip

from vaccinations.formats.batches import entry_document, entry_from
from vaccinations.formats.dps_columns import render_row
from vaccinations.formats.dps_parts import RowsWriter
from vaccinations.formats.rejects import RejectsWriter, to_do_about_rejected
from vaccinations.jobs.statements import Statements
from vaccinations.model.entry import Entry, Place
from vaccinations.model.outcome import Action, OnFile
from vaccinations.model.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime
    from pathlib import Path

__all__ = ["MOST_REJECTS", "Batch", "Seen", "Spool"]

#: So many rejected rows are listed one by one; the rest of an upload that bad is only counted.
MOST_REJECTS = 10_000


class Spool:
    """The files of one pass over an upload. Leaving the ``with`` block closes them.

    Parameters
    ----------
    directory
        Where the files are put; the caller removes it.
    uploaded_at
        When S3 stored the upload.
    columns
        What it calls columns, where that is not as we do; known once its header was read.

    Attributes
    ----------
    batches
        The batch of each programme of which a row was accepted.
    rejected
        How many rows were rejected.
    rejects
        The rejects file; it is there once a row was rejected.
    seen
        What the upload has said so far.
    statements
        The lines of this upload's batches so far, and of earlier ones that were looked at.
    """

    def __init__(self, directory: Path, uploaded_at: datetime, columns: Mapping[str, str]) -> None:
        self.batches: dict[str, Batch] = {}
        self.rejected = 0
        self.rejects = directory / "rejects.csv"
        self.seen = Seen(directory / "seen.db")
        self.statements = Statements(directory / "statements")
        self._directory = directory
        self._uploaded_at = uploaded_at
        self._columns = columns
        self._open = ExitStack()
        self._writer: RejectsWriter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self.seen.close()
        self.statements.close()

    def close(self) -> None:
        """Complete the batches and the rejects file."""
        for batch in self.batches.values():
            batch.close()
        self._open.close()

    def add(self, entry: Entry, line: bytes) -> None:
        """Add an accepted row to the batch of its programme, as a batch line."""
        batch = self.batches.get(entry.programme)
        if batch is None:
            batch = self.batches[entry.programme] = Batch(self._directory, entry.programme)
        batch.add(line, entry.action)
        self.statements.add((entry.programme, entry.batch_id), (line,))

    def reject(self, line: int, problems: Iterable[Problem]) -> None:
        """Add what is wrong with the row of a line to the rejects file, as long as that lists rows."""
        if self._writer is None:
            file = self._open.enter_context(self.rejects.open("w", encoding="utf-8", newline=""))
            self._writer = RejectsWriter(file, to_do_about_rejected(self._uploaded_at), self._columns)
        self.rejected += 1
        if self.rejected <= MOST_REJECTS:
            self._writer.write(line, problems)
        elif self.rejected == MOST_REJECTS + 1:
            what = f"only the first {MOST_REJECTS} rejected rows are listed; the receipt counts them all"
            self._writer.write(line, (Problem("", what, "put these right and upload the file again"),))


class Batch:
    """The accepted rows of one programme in two files: batch lines, and rows of the DPS file.

    Attributes
    ----------
    lines, rows
        Where the files are.
    actions
        How many rows there are of each action.
    """

    def __init__(self, directory: Path, programme: str) -> None:
        self.lines = directory / f"{programme}.jsonl.gz"
        self.rows = directory / f"{programme}.csv.gz"
        self.actions: Counter[str] = Counter()
        self._lines = igzip.open(self.lines, "wb", compresslevel=1)
        self._rows_file = self.rows.open("wb")
        self._rows = RowsWriter(self._rows_file)

    def add(self, line: bytes, action: Action) -> None:
        """Add a batch line, and the row that it makes."""
        self._lines.write(line)
        self._rows.write(render_row(line))
        self.actions[action.value] += 1

    def close(self) -> None:
        """Complete the files."""
        self._lines.close()
        if not self._rows_file.closed:
            self._rows.finish()
            self._rows_file.close()


class Seen:
    """What an upload has said so far, by record id: on disk, since an upload may hold a million rows."""

    def __init__(self, path: Path) -> None:
        # Nobody needs the file once this process has ended.
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute(
            "CREATE TABLE seen "
            "(record_id TEXT PRIMARY KEY, programme, digest, action, batch_id, line, owner, owned_since, stated_at, "
            "on_file, before, new_in, origin, said_in) WITHOUT ROWID"
        )

    def get(self, record_ids: Iterable[str]) -> tuple[dict[str, Entry], dict[str, int]]:
        """Return what was said of these records, and in which lines; the others are left out."""
        query = "SELECT seen.* FROM json_each(?) JOIN seen ON record_id = value"
        rows = self._db.execute(query, (orjson.dumps([*record_ids]).decode(),)).fetchall()
        return {row[0]: _entry(row) for row in rows}, {row[0]: row[-1] for row in rows}

    def said_again(self, batch_id: str) -> Iterator[Entry]:
        """Iterate over what was said of records of which an upload queues nothing: unchanged, or skipped."""
        yield from map(
            _entry, self._db.execute("SELECT * FROM seen WHERE batch_id <> ? OR programme = ''", (batch_id,))
        )

    def put(self, said: Iterable[tuple[Entry, int]]) -> None:
        """Note what was said last of records, and in which lines."""
        self._db.execute("BEGIN")
        self._db.executemany(
            "INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (_row(entry, line) for entry, line in said),
        )
        self._db.execute("COMMIT")

    def close(self) -> None:
        """Close the file."""
        self._db.close()


type _Row = tuple[Any, ...]


def _row(entry: Entry, said_in: int) -> _Row:
    return (
        entry.record_id,
        entry.programme,
        entry.digest,
        entry.action.value,
        entry.batch_id,
        entry.line,
        entry.owner,
        entry.owned_since,
        entry.stated_at,
        entry.on_file.value,
        orjson.dumps(entry_document(entry.before)) if entry.before else None,
        orjson.dumps([*entry.new_in]) if entry.new_in else None,
        orjson.dumps([*entry.origin]) if entry.origin else None,
        said_in,
    )


def _entry(row: _Row) -> Entry:
    record_id, programme, digest, action, batch_id, line, owner, since, stated_at, *others = row
    on_file, before, new_in, origin, _ = others
    return Entry(
        record_id,
        programme,
        digest,
        Action(action),
        batch_id,
        line,
        owner,
        since,
        stated_at,
        OnFile(on_file),
        before=entry_from(orjson.loads(before), record_id) if before else None,
        new_in=Place(*orjson.loads(new_in)) if new_in else None,
        origin=Place(*orjson.loads(origin)) if origin else None,
    )
