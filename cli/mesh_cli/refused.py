"""Commands about what DPS refused: listing it, and sending again what only needs that."""

from __future__ import annotations

from collections import defaultdict
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from mesh_cli.acting import Reason, acting
from mesh_cli.exports import PANEL, Programme, known_programme
from mesh_cli.intake import request
from mesh_cli.options import Json, Limit, Since, Wide, deployment
from mesh_cli.output import Table, counted, data, print_json, talk
from mesh_cli.records import record
from vaccinations.aws.bucket import INCOMING
from vaccinations.formats.acknowledgements import read_bus_ack
from vaccinations.model.outcome import Outcome
from vaccinations.model.programmes import PROGRAMMES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from mesh_cli.deployment import Deployment
    from vaccinations.aws.bucket import Bucket
    from vaccinations.aws.register import Register
    from vaccinations.model.entry import Entry, Refusal
    from vaccinations.model.export import Asked
    from vaccinations.model.outcome import OnFile

refused = typer.Typer(invoke_without_command=True)

Class = Annotated[Outcome | None, typer.Option("--class", "-c", help="Only those refused for this class of reason.")]
Wait = Annotated[int, typer.Option(help="How long to wait for the receipt, in seconds; 0 does not wait.", min=0)]


def add_to(app: typer.Typer) -> None:
    """Add these commands to the app."""
    app.add_typer(refused, name="refused", rich_help_panel=PANEL)


@refused.callback()
def list_refused(
    context: typer.Context,
    programme: Programme = None,
    outcome: Class = None,
    since: Since = None,
    text: Annotated[
        bool, typer.Option("--text", help="Also what DPS said, read from its answer. It may be personal.")
    ] = False,
    limit: Limit = None,
    view: Wide = None,
    as_json: Json = False,
) -> None:
    """List the records whose last version DPS refused, longest ago first: where each came from, and the class of why.

    A record leaves the list when it is corrected, withdrawn or sent again.

    For example: mesh refused -p hpv --class invalid --text
    """
    if context.invoked_subcommand:
        return
    wiring = deployment(context).wiring
    with talk.status("Reading the register"):
        found = [*islice(find_refused(wiring.register(), known_programme(programme), outcome, since), limit)]
        rows = tell_refused(wiring.bucket(), found, text=text)
    if as_json:
        print_json([_document(row) for row in rows])
    elif rows:
        show_refused(rows, wide=bool(view))
        talk.print(f"{counted(len(rows), 'record')}. What is of class unknown is fixed with:")
        talk.print("mesh refused resend -c unknown --reason …")
    else:
        talk.print("DPS has refused no record as it was sent last.")


@refused.command("resend")
def resend_refused(
    context: typer.Context,
    outcome: Annotated[Outcome, typer.Option("--class", "-c", help="Those refused for this class of reason.")],
    reason: Reason,
    programme: Programme = None,
    since: Since = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    wait: Wait = 300,
    as_json: Json = False,
) -> None:
    """Send records again that DPS refused, as they are: as `new` where they are not on file at DPS, else as before.

    They go through the queue, like uploads, and out with the next export.

    For example: mesh refused resend --class unknown --reason "DPS has put it right"
    """
    works_on = deployment(context)
    with talk.status("Reading the register"):
        found = [*find_refused(works_on.wiring.register(), known_programme(programme), outcome, since)]
    if not found:
        talk.print(f"DPS has refused no record of class {outcome}.")
        if as_json:
            print_json([])
        return
    if not yes:
        typer.confirm(
            f"Send {counted(len(found), 'record')} of class {outcome} again from {works_on.where}?",
            abort=True,
            err=True,
        )
    with acting(works_on, "refused resend", f"{counted(len(found), 'record')} of class {outcome}", reason) as asked:
        _resend(works_on, found, asked, wait, as_json=as_json)


@record.command("resend")
def resend_record(
    context: typer.Context,
    record_id: Annotated[UUID, typer.Argument(metavar="UUID", help="The record's identifier.")],
    reason: Reason,
    wait: Wait = 300,
    as_json: Json = False,
) -> None:
    """Send a record again that DPS refused, as it is: as `new` where it is not on file at DPS, else as before.

    For example: mesh record resend 3d4345ee-88f1-4bc3-b6a2-4e495933a2fb --reason "DPS has put it right"
    """
    works_on = deployment(context)
    register = works_on.wiring.register()
    known = register.get([str(record_id)]).get(str(record_id))
    entry = known and known.counting(register.unsent())
    if entry is None or entry.refusal is None:
        why = "was never ingested" if entry is None else "was not refused by DPS as it was sent last"
        talk.print(f"{record_id} {why}: there is nothing to send again.")
        raise typer.Exit(1)
    with acting(works_on, "record resend", str(record_id), reason) as asked:
        _resend(works_on, [entry], asked, wait, as_json=as_json)


def find_refused(
    register: Register, programme: str | None = None, outcome: Outcome | None = None, since: datetime | None = None
) -> Iterator[Entry]:
    """Find the records whose last version DPS refused."""
    after = since.replace(tzinfo=UTC).isoformat(timespec="seconds") if since else ""
    for key in [programme] if programme else PROGRAMMES:
        for entry in register.refused(key, after):
            if entry.refusal and outcome in {None, entry.refusal.outcome}:
                yield entry


@dataclass(frozen=True, slots=True)
class RefusedRecord:
    """A record that DPS refused as it was sent last, with what its uploader needs.

    Attributes
    ----------
    upload, line
        The upload that it came in, and its line.
    refusal
        DPS's refusal.
    on_file
        Whether the record is on file at DPS: yes, no or unknown.
    text
        What DPS said, where that is wanted. It may be personal.
    """

    record: str
    programme: str
    action: str
    upload: str
    line: int
    refusal: Refusal
    on_file: OnFile
    text: str | None = None


def tell_refused(bucket: Bucket, found: Iterable[Entry], *, text: bool) -> list[RefusedRecord]:
    """Tell of each refused record what its uploader needs, with what DPS said only where that is wanted."""
    upload = _uploads(bucket)
    records = [
        RefusedRecord(
            record=entry.record_id,
            programme=entry.programme,
            action=str(entry.action),
            upload=upload(entry.stated_in.batch_id),
            line=entry.stated_in.line,
            refusal=entry.refusal,
            on_file=entry.on_file,
        )
        for entry in found
        if entry.refusal
    ]
    if not text:
        return records
    said = _texts(bucket, [record.refusal for record in records])
    return [replace(one, text=said.get((one.refusal.answer, one.refusal.row), "")) for one in records]


def show_refused(records: list[RefusedRecord], *, wide: bool = False) -> None:
    """Show refused records as a table."""
    columns: dict[str, Callable[[RefusedRecord], Any]] = {
        "record": lambda one: one.record,
        "upload": lambda one: one.upload.removeprefix(INCOMING),
        "line": lambda one: one.line,
        "class": lambda one: one.refusal.outcome,
        "export": lambda one: one.refusal.export_id,
        "row": lambda one: one.refusal.row,
    }
    columns["answered"] = lambda one: one.refusal.at
    if any(one.text is not None for one in records):
        columns["text"] = lambda one: one.text
    rows = [[tell(one) for tell in columns.values()] for one in records]
    rank = ["answered", "row", "export", "line"]
    data.print(Table("Refused by DPS", list(columns), rows, prose=["text"], rank=rank, wide=wide))


def _document(one: RefusedRecord) -> dict[str, Any]:
    shown = {
        "record": one.record,
        "programme": one.programme,
        "action": one.action,
        "upload": one.upload,
        "line": one.line,
        "class": str(one.refusal.outcome),
        "export": one.refusal.export_id,
        "row": one.refusal.row,
        "answered": one.refusal.at,
        "answer": one.refusal.answer,
        "on_file": one.on_file,
    }
    return shown if one.text is None else {**shown, "text": one.text}


def _uploads(bucket: Bucket) -> Callable[[str], str]:
    """Make what tells the upload that a batch came from, asking for each once."""
    return cache(lambda batch_id: bucket.intake(batch_id).upload)


def _texts(bucket: Bucket, refusals: Iterable[Refusal]) -> dict[tuple[str, int], str]:
    """Read what DPS said of rows, each answer once; by answer and row."""
    wanted: defaultdict[str, set[int]] = defaultdict(set)
    for refusal in refusals:
        wanted[refusal.answer].add(refusal.row)
    texts: dict[tuple[str, int], str] = {}
    for answer, rows in wanted.items():
        with closing(bucket.open_message(answer)) as body:
            texts |= {(answer, refused.row): refused.text for refused in read_bus_ack(body) if refused.row in rows}
    return texts


def _resend(works_on: Deployment, entries: Iterable[Entry], asked: Asked, wait: int, *, as_json: bool) -> None:
    """Request that records are sent again, and show the receipt."""
    named = "".join(f"{entry.record_id}\n" for entry in entries)
    request(works_on, f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}.resend", named.encode(), asked, wait, as_json=as_json)
