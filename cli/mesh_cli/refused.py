"""Commands about what DPS refused: listing it, and sending again what only needs that."""

from __future__ import annotations

import shlex
from collections import defaultdict
from contextlib import closing
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from mesh_cli.exports import PANEL, WIDE, Programme, known_programme, record
from mesh_cli.intake import put_upload, show_receipt, wait_for_receipt
from mesh_cli.options import Json, deployment
from mesh_cli.output import data, print_json, table, talk
from vaccinations.aws.bucket import INCOMING
from vaccinations.formats.acknowledgements import Outcome, read_bus_ack
from vaccinations.model.programmes import PROGRAMMES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from vaccinations.aws.register import Entry
    from vaccinations.settings import Settings

refused = typer.Typer(help="Records that DPS refused: list them, or send them again.", invoke_without_command=True)

Class = Annotated[Outcome | None, typer.Option("--class", "-c", help="Only those refused for this class of reason.")]
Since = Annotated[
    datetime | None,
    typer.Option("--since", help="Only answers heard since then (UTC).", formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]),
]
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
    as_json: Json = False,
) -> None:
    """List the records whose last version DPS refused, longest ago first: where each came from, and the class of why.

    A record leaves the list when it is corrected, withdrawn or sent again.
    """
    if context.invoked_subcommand:
        return
    settings = deployment()
    with talk.status("Reading the register"):
        rows = tell_refused(settings, [*find_refused(settings, known_programme(programme), outcome, since)], text=text)
    if as_json:
        print_json(rows)
    elif rows:
        show_refused(rows)
        talk.print(f"{len(rows)} records. Those of class unknown are put right with: mesh refused resend -c unknown")
    else:
        talk.print("DPS has refused no record as it was sent last.")


@refused.command("resend")
def resend_refused(
    outcome: Annotated[Outcome, typer.Option("--class", "-c", help="Those refused for this class of reason.")],
    programme: Programme = None,
    since: Since = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    wait: Wait = 300,
    as_json: Json = False,
) -> None:
    """Send records again that DPS refused, as they are: as `new` where DPS does not hold them, else as before.

    They go through the queue, as uploads in the names of the organisations that uploaded them, and out with the next
    export.
    """
    settings = deployment()
    with talk.status("Reading the register"):
        found = [*find_refused(settings, known_programme(programme), outcome, since)]
    if not found:
        talk.print(f"DPS has refused no record of class {outcome}.")
        if as_json:
            print_json([])
        return
    if not yes:
        typer.confirm(f"Send {len(found)} records of class {outcome} again?", abort=True, err=True)
    _resend(settings, found, wait, as_json=as_json)


@record.command("resend")
def resend_record(
    record_id: Annotated[UUID, typer.Argument(metavar="UUID", help="The record's identifier.")],
    wait: Wait = 300,
    as_json: Json = False,
) -> None:
    """Send a record again that DPS refused, as it is: as `new` where DPS does not hold it, else as before."""
    settings = deployment()
    entry = settings.register().get([str(record_id)]).get(str(record_id))
    if entry is None or entry.refused is None:
        why = "was never taken in" if entry is None else "was not refused by DPS as it was sent last"
        talk.print(f"{record_id} {why}: there is nothing to send again.")
        raise typer.Exit(1)
    _resend(settings, [entry], wait, as_json=as_json)


def find_refused(
    settings: Settings, programme: str | None = None, outcome: Outcome | None = None, since: datetime | None = None
) -> Iterator[Entry]:
    """Find the records whose last version DPS refused."""
    register = settings.register()
    after = since.replace(tzinfo=UTC).isoformat(timespec="seconds") if since else ""
    for key in [programme] if programme else PROGRAMMES:
        for entry in register.refused(key, after):
            if entry.refused and outcome in {None, entry.refused.outcome}:
                yield entry


def tell_refused(settings: Settings, found: Iterable[Entry], *, text: bool) -> list[dict[str, Any]]:
    """Tell of each refused record what its uploader needs, with what DPS said only where that is wanted."""
    upload = _uploads(settings)
    rows = [
        {
            "record": entry.record_id,
            "programme": entry.programme,
            "action": entry.action,
            "upload": upload(entry.batch_id),
            "line": entry.line,
            "class": str(why.outcome),
            "export": why.export_id,
            "row": why.row,
            "heard": why.at,
            "answer": why.answer,
            "held": entry.held,
        }
        for entry in found
        if (why := entry.refused)
    ]
    if not text:
        return rows
    said = _texts(settings, rows)
    return [row | {"text": said.get((str(row["answer"]), row["row"]), "")} for row in rows]


def show_refused(rows: list[dict[str, Any]]) -> None:
    """Show refused records as a table."""
    columns = ["record", "upload", "line", "class", "export", "row"]
    if data.width >= WIDE:
        columns.append("heard")
    if "text" in rows[0]:
        columns.append("text")
    cells = [[str(row[column]).removeprefix(INCOMING) for column in columns] for row in rows]
    data.print(table("Refused by DPS", columns, cells))


def _uploads(settings: Settings) -> Any:
    """Make what tells the upload that a batch came from, asking for each once."""
    archive = settings.archive()
    return cache(lambda batch_id: str(archive.intake(batch_id)["upload"]))


def _texts(settings: Settings, rows: Iterable[dict[str, Any]]) -> dict[tuple[str, int], str]:
    """Read what DPS said of rows, each answer once; by answer and row."""
    archive = settings.archive()
    wanted: defaultdict[str, set[int]] = defaultdict(set)
    for row in rows:
        wanted[row["answer"]].add(row["row"])
    texts = {}
    for answer, of_answer in wanted.items():
        is_json = archive.message_filename(answer).lower().endswith(".json")
        with closing(archive.open_message(answer)) as body:
            for refusal in read_bus_ack(body, is_json=is_json):
                if refusal.row in of_answer:
                    texts[answer, refusal.row] = refusal.text
    return texts


def _resend(settings: Settings, entries: Iterable[Entry], wait: int, *, as_json: bool) -> None:
    """Upload the wish to send records again, a file for each organisation, and show the receipts."""
    upload = _uploads(settings)
    ids = defaultdict(list)
    for entry in entries:
        ids[upload(entry.batch_id).removeprefix(INCOMING).partition("/")[0]].append(entry.record_id)
    receipts: list[dict[str, Any]] = []
    missing = False
    for organisation, named in ids.items():
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}.resend"
        key, version = put_upload(settings, name, "\n".join([*named, ""]).encode(), organisation)
        if not wait:
            receipts.append({"upload": key, "version": version, "records": len(named)})
            continue
        with talk.status(f"Waiting for the receipt of {organisation}/{name}"):
            receipt = wait_for_receipt(settings, key, version, wait)
        if receipt is None:
            missing = True
            talk.print(
                f"No receipt after {wait} s; ask later with: mesh receipt {shlex.quote(f'{organisation}/{name}')}"
            )
            continue
        receipts.append(receipt)
        if not as_json:
            show_receipt(receipt, settings)
    if as_json:
        print_json(receipts)
    elif not wait:
        for receipt in receipts:
            talk.print(f"Uploaded as {receipt['upload']}.")
    if missing or any(receipt.get("rejected") for receipt in receipts):
        raise typer.Exit(1)
