"""Commands about one vaccination record: its whole history, from whatever is known of it."""

from __future__ import annotations

import io
import re
import sys
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mesh_cli.options import Json, deployment
from mesh_cli.output import Table, data, fraction, print_json, talk
from vaccinations.aws.bucket import INCOMING
from vaccinations.formats.batches import entry_of
from vaccinations.formats.rejects import read_rejects
from vaccinations.model.export import Processing
from vaccinations.model.outcome import OnFile
from vaccinations.model.problems import UnreadableUpload
from vaccinations.model.programmes import PROGRAMMES
from vaccinations.model.row import Faulty, Nobody
from vaccinations.ports import BatchGone, IntakeGone, UploadGone
from vaccinations.prefetch import prefetch
from vaccinations.results import Receipt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from vaccinations.aws.bucket import Bucket
    from vaccinations.model.entry import Entry, Place
    from vaccinations.model.export import DPSExport
    from vaccinations.ports import Ledger, Register
    from vaccinations.results import AnyReceipt, StoredIntake
    from vaccinations.wiring import Wiring

record = typer.Typer(
    help="One vaccination record.\n\nFor example: mesh record find 3d4345ee-88f1-4bc3-b6a2-4e495933a2fb",
    no_args_is_help=True,
)

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_ROW = re.compile(r"(?P<upload>.+/.+|[0-9a-f]{32}):(?P<line>[1-9][0-9]{0,8})")
#: So many batches are read at once.
_AT_ONCE = 8
_NOTHING_QUEUED = "queued nothing: it said what was known already, or something newer was known"


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One statement about a record, and what became of it. Nothing personal is in it.

    Attributes
    ----------
    upload, line, uploaded_at
        Where it came from, and when S3 stored that.
    action
        How it goes to DPS: ``new``, ``update`` or ``delete``.
    batch_id
        The batch that holds it.
    sent_again_by
        The request that repeats a statement made before; empty where it is none.
    export_id, status
        The export, and what has become of that; empty where it is in none.
    file, mesh_file, message_id, sent_at, picked_up_at
        The file, as the ledger calls it and as MESH does; MESH's id of it; when MESH had it, and when DPS fetched it.
    dps
        What DPS made of it, or why it never hears of it.
    answered_at, row
        When DPS's refusal was heard, and the row of the file that it is about.
    refusals
        The file that tells the uploader what DPS refused, where the statement is in it.
    """

    upload: str
    line: int
    uploaded_at: str
    action: str
    batch_id: str
    sent_again_by: str = ""
    export_id: str = ""
    status: str = ""
    file: str = ""
    mesh_file: str = ""
    message_id: str = ""
    sent_at: str = ""
    picked_up_at: str = ""
    dps: str = ""
    answered_at: str = ""
    row: int | None = None
    refusals: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """All that is known of a record.

    Attributes
    ----------
    record
        Its identifier; empty where a row could not be read.
    owner
        Whose it is; empty where it was never ingested.
    on_file
        What is known of whether DPS has it on file, in words; empty where it was never ingested.
    statements
        The oldest first, as far as they are kept.
    asked_row
        What became of the row that was asked about.
    """

    record: str
    programme: str = ""
    owner: str = ""
    on_file: str = ""
    statements: tuple[Statement, ...] = ()
    asked_row: str = ""


@dataclass(frozen=True, slots=True)
class History:
    """Tells records' stories, from the register, the batches, the exports and what uploaders were told.

    The register knows a record's last statement and the one before. The line of a batch that holds a statement names
    the batch of the one before that, and so on.
    """

    bucket: Bucket
    register: Register
    ledger: Ledger

    def of_row(self, upload: str, line: int) -> Story:
        """Tell the story of the record that a row of an upload is about.

        Parameters
        ----------
        upload
            ``R1L/monday.csv``: the version that was ingested last; or a batch id.

        Raises
        ------
        typer.BadParameter
            There is no such row, or it cannot be read any more.
        """
        receipt = self._receipt(upload)
        if not isinstance(receipt, Receipt):
            raise _no_row(f"this upload was {receipt.status}; see: mesh receipt {upload}")
        rejected = [f"{column}: {what}; {fix}" for column, what, fix in self._rejects(receipt, line)]
        asked = f"was rejected: {' / '.join(rejected)}" if rejected else ""
        record_id = self._record_in(receipt, line)
        if record_id is None:
            return Story(record="", asked_row=asked or "names no record")
        story = self.of_record(record_id)
        here = (receipt.upload, line, receipt.uploaded_at)
        if not asked and not any((each.upload, each.line, each.uploaded_at) == here for each in story.statements):
            asked = _NOTHING_QUEUED
        return replace(story, asked_row=asked or "was accepted")

    def of_record(self, record_id: str) -> Story:
        """Tell a record's story; without statements where it was never ingested."""
        known = self.register.get([record_id]).get(record_id)
        unsent = self.register.unsent()
        counts = known and known.counting(unsent)
        found = self._statements(record_id, known, unsent)
        told = sorted((self._tell(entry, unsent) for entry in found), key=lambda one: one[0])
        return Story(
            record=record_id,
            programme=known.programme if known else "",
            owner=known.owner if known else "",
            on_file=self._on_file(counts) if known else "",
            statements=tuple(statement for _, statement in told),
        )

    def _on_file(self, entry: Entry | None) -> str:
        """Say whether DPS has a record on file, as far as its answers tell: of what was only sent nobody knows yet."""
        if entry is None or entry.unstated:
            return str(OnFile.NO)
        if entry.refusal:
            return "yes, as it was before" if entry.on_file is OnFile.YES else str(entry.on_file)
        intake = self.register.intake(entry.batch_id)
        if intake and not intake.sends:
            return "yes, another system has sent it"
        number = intake.attached.get(entry.programme) if intake else None
        export = self.ledger.get(entry.programme, number) if number else None
        if export and export.processing is Processing.PROCESSED:
            return "no, deleted" if entry.withdrawn else str(OnFile.YES)
        return f"not known yet: DPS has not processed {'its deletion' if entry.withdrawn else 'the last statement'}"

    def with_nhs_number(self, number: str, done: Callable[[float], object]) -> list[str]:
        """Find the records of which any statement bears an NHS number, by reading every batch; memory stays flat.

        Parameters
        ----------
        done
            Is told how much was read, from 0 to 1.
        """
        mark = f'"nhs_number":"{number}"'.encode()  # in JSON's text no quote stands within a value

        def read(batch: tuple[str, str]) -> set[str]:
            with suppress(BatchGone), closing(self.bucket.batch_lines(*batch)) as lines:
                return {entry_of(line, batch[1]).record_id for line in lines if mark in line}
            return set()

        batches = [(programme, batch_id) for programme in PROGRAMMES for batch_id in self.bucket.batches(programme)]
        found: set[str] = set()
        for count, records in enumerate(prefetch(read, batches, depth=_AT_ONCE), start=1):
            found |= records
            done(count / len(batches))
        return sorted(found)

    def _statements(self, record_id: str, known: Entry | None, unsent: frozenset[tuple[str, str]]) -> Iterable[Entry]:
        """Find each statement about a record: what the register knows, and what the batches hold."""
        heard = [entry for entry in (known, known and known.before) if entry and entry.batch_id]
        found: dict[Place, Entry] = {entry.statement: entry for entry in heard}
        waiting = {*unsent, *((entry.programme, entry.batch_id) for entry in heard if not entry.unstated)}
        read: set[tuple[str, str]] = set()
        while waiting:
            batch = waiting.pop()
            read.add(batch)
            with suppress(BatchGone):
                for entry in self._in_batch(batch, record_id):
                    found.setdefault(entry.statement, entry)
                    if (before := entry.before) and before.batch_id:
                        found.setdefault(before.statement, before)
                        waiting |= {(before.programme, before.batch_id)} - read if not before.unstated else set()
        return found.values()

    def _in_batch(self, batch: tuple[str, str], record_id: str) -> Iterator[Entry]:
        with closing(self.bucket.batch_lines(*batch)) as lines:
            for line in lines:
                if record_id.encode() in line and (entry := entry_of(line, batch[1])).record_id == record_id:
                    yield entry

    def _tell(self, entry: Entry, unsent: frozenset[tuple[str, str]]) -> tuple[tuple[str, str, int], Statement]:
        """Tell of one statement, after what it is sorted by."""
        stated, made = self._stored(entry.stated_in.batch_id), self._stored(entry.batch_id)
        facts: dict[str, Any] = {
            "upload": stated.upload if stated else "no longer known",
            "line": entry.stated_in.line,
            "uploaded_at": stated.receipt.uploaded_at if stated else "",
            "action": "" if entry.unstated else str(entry.action),
            "batch_id": entry.batch_id,
            "sent_again_by": made.upload if made and entry.origin else "",
        }
        intake = self.register.intake(entry.batch_id)
        number = intake.attached.get(entry.programme) if intake else None
        if entry.unstated:
            facts["dps"] = "withdrawn before it was ever stated: DPS is not told"
        elif (entry.programme, entry.batch_id) in unsent:
            facts["dps"] = "never sent: its upload was parked"
        elif intake and not intake.sends:
            facts["dps"] = "sent by another system before"
        elif number is None:
            facts["dps"] = "in no export yet"
        else:
            facts |= self._way(entry, self.ledger.get(entry.programme, number), stated)
        at = made.receipt.uploaded_at if made else entry.stated_at.partition(" ")[0]
        return (at, entry.stated_at, entry.line), Statement(**facts)

    def _way(self, entry: Entry, export: DPSExport, stated: StoredIntake | None) -> dict[str, Any]:
        """Tell in which export a statement went, and what DPS made of it."""
        facts: dict[str, Any] = {"export_id": export.export_id, "status": str(export.status)}
        if attempt := export.attempt:
            facts |= {
                "file": attempt.filename,
                "mesh_file": attempt.mesh_filename,
                "message_id": attempt.message_id,
                "sent_at": attempt.sent_at.isoformat() if attempt.sent_at else "",
                "picked_up_at": attempt.acknowledged_at.isoformat() if attempt.acknowledged_at else "",
            }
        told = self._told(entry, export, stated)
        refusals = next((key for key in told if any(self._rows(key, entry.stated_in.line))), "")
        if why := entry.refusal:
            facts |= {"dps": f"refused: {why.outcome}", "answered_at": why.at, "row": why.row, "refusals": refusals}
        elif refusals:
            facts |= {"dps": "refused", "refusals": refusals}
        elif export.processing is Processing.PROCESSED:
            # That an earlier statement was refused is known from what its uploader was told, which ends some day.
            known = told or not export.attempts[-1].rows_refused or self._is_last(entry)
            facts["dps"] = "processed" if known else "processed or refused: no longer known which"
        elif export.processing:
            facts["dps"] = f"file {export.processing}"
        else:
            facts["dps"] = "file not answered" if attempt and attempt.sent_at else "not sent yet"
        return facts

    def _told(self, entry: Entry, export: DPSExport, stated: StoredIntake | None) -> list[str]:
        """Name the file that told a statement's uploader what DPS refused of an export, where it is still there."""
        keys = self.bucket.refusals(stated.upload, entry.stated_in.batch_id) if stated else []
        return [key for key in keys if key.endswith(f"-refused-{export.export_id}.csv")]

    def _is_last(self, entry: Entry) -> bool:
        """Tell whether a statement is its record's last, of which the register knows whether DPS refused it."""
        known = self.register.get([entry.record_id]).get(entry.record_id)
        return known is not None and known.statement == entry.statement

    def _rows(self, key: str, line: int) -> Iterator[list[str]]:
        """Read what a rejects file, or a file of refusals, says of a line."""
        with closing(self.bucket.open_rejects(key)) as body:
            for found, problems in read_rejects(io.TextIOWrapper(body, "utf-8", newline="")):
                if found == line:
                    yield from ([each.column, each.what, each.fix] for each in problems)

    def _rejects(self, receipt: Receipt, line: int) -> list[list[str]]:
        return [*self._rows(receipt.rejects, line)] if receipt.rejects else []

    def _receipt(self, upload: str) -> AnyReceipt:
        if "/" not in upload:
            stored = self._stored(upload)
            if stored is None:
                raise _no_row("there is no such batch; see: mesh uploads")
            return stored.receipt
        if found := self.bucket.latest_receipt(upload):
            return found[0]
        raise _no_row("there is no receipt of this upload; see: mesh uploads")

    def _record_in(self, receipt: Receipt, line: int) -> str | None:
        """Return the record that a row of an upload is about; None where it names none that could be read."""
        from vaccinations.jobs.ingest import rows_of

        try:
            upload = self.bucket.open_upload(receipt.upload, receipt.version)
            with closing(upload.body):
                for row in rows_of(upload):
                    if row.line == line:
                        return None if isinstance(row, Faulty | Nobody) else row.record_id
        except UploadGone:
            raise _no_row("this upload is no longer kept; give the record's identifier") from None
        except UnreadableUpload as error:
            raise _no_row(f"{error.reason}; give the record's identifier") from None
        raise _no_row(f"no row of this upload begins at line {line}; the first line is 1")

    def _stored(self, batch_id: str) -> StoredIntake | None:
        try:
            return self.bucket.intake(batch_id)
        except IntakeGone:
            return None


@record.command("find")
def find(
    context: typer.Context,
    which: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RECORD]",
            help="The record's identifier, or a row: R1L/monday.csv:12 (of the version ingested last) or BATCH_ID:12.",
            show_default=False,
        ),
    ] = None,
    nhs_number: Annotated[
        bool,
        typer.Option(
            "--nhs-number",
            help="Find the records that bear an NHS number, which is asked for without echo, or read from stdin. "
            "It is not logged and not printed. Every batch that is kept is read.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Tell a record's whole history: each upload that stated it, each export it went in and how, what DPS made of it.

    Rows that queued nothing are known by their upload only: ask for R1L/monday.csv:12. Rejected, such a row says why.
    With --nhs-number all batches of all programmes are fetched and read, eight at a time and in flat memory. That takes
    about as long as it takes to fetch them: seconds for some hundred thousand records, minutes for tens of millions.

    For example: mesh record find R1L/monday.csv:12
    """
    asked = [*(which or ())]
    row = _ROW.fullmatch(asked[0]) if len(asked) == 1 else None
    if nhs_number == bool(asked) or (asked and not row and not (len(asked) == 1 and _UUID.fullmatch(asked[0]))):
        # What was given is not repeated: it may be an NHS number.
        raise typer.BadParameter(
            "give a record's identifier, a row such as R1L/monday.csv:12, or --nhs-number and the number on stdin",
            param_hint="RECORD",
        )
    number = _asked_number() if nhs_number else ""
    wiring = deployment(context).wiring
    history = History(wiring.bucket(), wiring.register(), wiring.ledger())
    if number:
        stories = [history.of_record(record_id) for record_id in _with_number(history, number)]
    elif row:
        stories = [history.of_row(row["upload"], int(row["line"]))]
    else:
        stories = [history.of_record(asked[0].lower())]
    if as_json:
        print_json([asdict(story) for story in stories])
    else:
        for story in stories:
            _show(story, wiring)
    if not any(story.statements for story in stories):
        talk.print("No record bears this NHS number." if number else "Nothing of it was ever ingested as a record.")
        raise typer.Exit(1)


def _asked_number() -> str:
    """Read an NHS number from stdin, or ask for it on a terminal; a fault of it is told without it."""
    from vaccinations.model.record import checked_nhs_number

    said = typer.prompt("NHS number", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.readline()
    try:
        return checked_nhs_number(said.replace("-", ""))
    except ValueError as error:
        raise typer.BadParameter(f"what was given {error}", param_hint="--nhs-number") from None


def _with_number(history: History, number: str) -> list[str]:
    progress, task = fraction("Reading the batches")
    with progress:
        return history.with_nhs_number(number, lambda done: progress.update(task, completed=done))


def _show(story: Story, wiring: Wiring) -> None:
    if story.asked_row:
        data.print(f"The row {story.asked_row}", markup=False)
    if not story.statements:
        return
    name = PROGRAMMES[story.programme].name if story.programme else "no programme"
    title = f"{story.record} ({name}, of {story.owner}), oldest first"
    columns = ["upload", "line", "uploaded", "action", "export", "status", "DPS"]
    rows = [
        [s.upload.removeprefix(INCOMING), s.line, s.uploaded_at, s.action, s.export_id, s.status, s.dps]
        for s in story.statements
    ]
    data.print(Table(title, columns, rows, prose=["DPS"], rank=["status", "uploaded"]))
    last = story.statements[-1]
    facts = {
        **asdict(last),
        "refusals": f"s3://{wiring.settings.bucket}/{last.refusals}" if last.refusals else "",
        "on_file_at_dps": story.on_file,
    }
    shown = [[name.replace("_", " "), str(value)] for name, value in facts.items() if value]
    data.print(Table("The last statement", ["what", "value"], shown, prose=["value"]))


def _no_row(why: str) -> typer.BadParameter:
    return typer.BadParameter(why, param_hint="RECORD")
