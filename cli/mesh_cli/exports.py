"""Commands about exports: the DPS files and what became of them."""

from __future__ import annotations

import gzip
import shutil
import sys
import uuid
from contextlib import ExitStack, closing
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit
from uuid import UUID

import typer

from mesh_cli.options import FAILED, REFUSED, UNKNOWN, Json, deployment
from mesh_cli.output import age, data, print_json, table, talk
from nhs_mesh import MeshError
from vaccinations.aws.ledger import ImpossibleTransition, Processing
from vaccinations.jobs.export import Export, ExportRequest, file_names
from vaccinations.jobs.track import Track
from vaccinations.model.programmes import PROGRAMMES
from vaccinations.settings import Settings, connect

if TYPE_CHECKING:
    from collections.abc import Callable

    from vaccinations.aws.ledger import DPSExport

PANEL = "Exports"
export = typer.Typer(help="One export: show, resend, fetch; or start a programme afresh.", no_args_is_help=True)
record = typer.Typer(help="One vaccination record.", no_args_is_help=True)
#: A command has no function's time limit; a lease for this long keeps the schedules' runs away meanwhile.
SECONDS = 900.0
#: From this many columns on there is room for message ids.
WIDE = 120
PRODUCTION_HOST = "mesh-sync.spineservices.nhs.uk"

Programme = Annotated[
    str | None,
    typer.Option("--programme", "-p", help=f"Only this programme: {', '.join(PROGRAMMES)}.", metavar="KEY"),
]


def add_to(app: typer.Typer) -> None:
    """Add these commands to the app."""
    app.command("dps-export", rich_help_panel=PANEL)(dps_export)
    app.command("track", rich_help_panel=PANEL)(track)
    app.command("exports", rich_help_panel=PANEL)(exports)
    app.add_typer(export, name="export", rich_help_panel=PANEL)
    app.add_typer(record, name="record", rich_help_panel=PANEL)


def known_programme(programme: str | None) -> str | None:
    """Check the key of a programme that was given, if one was."""
    if programme is not None and programme not in PROGRAMMES:
        raise typer.BadParameter(f"{programme!r} is not one of: {', '.join(PROGRAMMES)}", param_hint="--programme")
    return programme


ExportId = Annotated[str, typer.Argument(metavar="ID", help="Export id, as `mesh exports` lists it, such as hpv-17.")]


def dps_export(
    programme: Programme = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be sealed and sent.")] = False,
    as_json: Json = False,
) -> None:
    """Seal the open exports and send everything that is unsent to DPS, as the nightly run does."""
    _run(deployment(), ExportRequest(programme=known_programme(programme), dry_run=dry_run), as_json=as_json)


def _run(settings: Settings, request: ExportRequest, *, as_json: bool) -> None:
    use_case = Export(
        settings,
        settings.ledger(),
        settings.archive(),
        connect=lambda: connect(settings),
        holder=f"mesh-command-{uuid.uuid4()}",
        seconds_left=lambda: SECONDS,
    )
    answer = use_case.run(request)
    if as_json:
        print_json(answer)
    else:
        show_export_run(answer)
    if code := _exit_code(answer):
        raise typer.Exit(code)


def _exit_code(answer: dict[str, Any]) -> int:
    """Tell how a run ended: 4 where nobody knows yet, 3 where MESH refused, 1 where something else is left to do."""
    if answer["status"] != "incomplete":
        return 0
    codes = {error.get("code") for e in answer["exports"] if isinstance(error := e.get("error"), dict)}
    if "outcome-unknown" in codes:
        return UNKNOWN
    return REFUSED if any(e["status"] == "failed" for e in answer["exports"]) or "unauthorised" in codes else FAILED


def show_export_run(answer: dict[str, Any]) -> None:
    """Show what an export run did, or would do."""
    columns = ["export", "status", "records", "message id"]
    rows = [[e.get("export_id"), e["status"], e.get("records"), e.get("message_id")] for e in answer["exports"]]
    if answer["status"] == "dry run":
        columns[-1] = "would"
        rows = [[e["export_id"], e["status"], e["records"], e["would"]] for e in answer["exports"]]
    if rows:
        data.print(table("DPS export", columns, rows))
    for export in answer["exports"]:
        if error := export.get("error"):
            text = error if isinstance(error, str) else f"{error.get('code', '')} {error.get('description', '')}"
            talk.print(f"{export.get('export_id', export['programme'])}: {text}", markup=False)
    if answer["nothing_to_send"]:
        names = ", ".join(PROGRAMMES[key].name for key in answer["nothing_to_send"])
        talk.print(f"No vaccination records to export for: {names}")


def track(as_json: Json = False) -> None:
    """Ask MESH whether DPS has picked up what was sent, as the hourly run does."""
    settings = deployment()
    answer = Track(settings.ledger(), connect(settings)).run()
    if as_json:
        print_json(answer)
    else:
        show_track_run(answer)
    if answer["status"] == "incomplete":
        raise typer.Exit(1)


def show_track_run(answer: dict[str, Any]) -> None:
    """Show what a tracking run has learned."""
    if answer["exports"]:
        rows = [[e["export_id"], e["status"], e["message_id"]] for e in answer["exports"]]
        data.print(table("Tracked", ["export", "status", "message id"], rows))
    else:
        talk.print("No export waits to be acknowledged.")
    if answer["reports"]:
        talk.print(f"{answer['reports']} error report(s) read from the inbox.")


def exports(programme: Programme = None, as_json: Json = False) -> None:
    """List the exports and the states they are in, newest first."""
    found = list_exports(deployment(), known_programme(programme))
    if as_json:
        print_json([_document(export) for export in found])
    elif found:
        data.print(exports_table(found))
    else:
        talk.print("There are no exports yet. Records come in with: mesh upload FILE")


def list_exports(settings: Settings, programme: str | None = None) -> list[DPSExport]:
    """Return the exports of one programme or all, newest first."""
    ledger = settings.ledger()
    keys = [programme] if programme else list(PROGRAMMES)
    found = [export for key in keys for export in ledger.exports(key)]
    return sorted(found, key=lambda export: export.created_at, reverse=True)


def exports_table(found: list[DPSExport]) -> Any:
    """Make the table of exports, with those columns only that say something and that the terminal has room for."""
    columns: dict[str, Callable[[DPSExport], Any]] = {
        "export": lambda export: export.export_id,
        "status": lambda export: str(export.status),
        "records": lambda export: export.records,
    }
    answered = any(export.processing for export in found)
    if answered:
        columns["DPS"] = processing_of
    if data.width >= WIDE or not answered:
        columns["file"] = lambda export: export.filename
    columns["changed"] = lambda export: age(export.updated_at)
    if data.width >= WIDE:
        columns["message id"] = lambda export: export.message_id
    if any(export.attempt > 1 for export in found):
        columns["attempt"] = lambda export: export.attempt
    if any(export.error for export in found):
        columns["error"] = lambda export: " ".join((export.error or {}).values())
    return table("DPS exports", list(columns), [[tell(export) for tell in columns.values()] for export in found])


def processing_of(export: DPSExport) -> str:
    """Tell what DPS has made of an export's file: ``processed 298/300`` are the rows that it took of all."""
    match export.processing:
        case Processing.PROCESSED:
            return f"processed {export.taken}/{export.records}"
        case Processing.REFUSED:
            return f"refused {export.refusal}"
    return str(export.processing or "")


def find_export(settings: Settings, export_id: str) -> DPSExport:
    """Return the export of an id such as ``hpv-17``."""
    programme, _, number = export_id.rpartition("-")
    if programme not in PROGRAMMES or not number.isdecimal():
        raise typer.BadParameter(f"{export_id!r} is no export id; they look like hpv-17", param_hint="ID")
    try:
        return settings.ledger().get(programme, int(number))
    except KeyError:
        raise typer.BadParameter(f"there is no export {export_id}; see `mesh exports`", param_hint="ID") from None


@export.command("show")
def show(export_id: ExportId, as_json: Json = False) -> None:
    """Show everything that is known of an export: states with times, parts, checksums, what MESH says now."""
    settings = deployment()
    found = find_export(settings, export_id)
    manifest = settings.archive().manifest(found.programme, found.number)
    tracking = _tracking(settings, found)
    if as_json:
        parts = [asdict(part) for part in manifest.parts] if manifest else []
        print_json(_document(found) | {"parts_sent_of": parts, "tracking": tracking})
        return
    times = (
        *("created_at", "sealed_at", "sending_at", "accepted_at", "sent_at", "acknowledged_at"),
        *("received_at", "processed_at", "updated_at"),
    )
    facts = [
        ["status", str(found.status)],
        ["DPS", processing_of(found)],
        ["programme", PROGRAMMES[found.programme].name],
        ["records", str(found.records)],
        ["batches", str(len(found.batches))],
        ["file", found.filename],
        ["file on MESH", found.mesh_filename],
        ["attempt", f"{found.attempt} (local id {found.local_id})" if found.attempt else ""],
        ["message id", found.message_id],
        ["parts", f"{found.parts_sent} of {found.parts} sent" if found.parts else ""],
        *([name.removesuffix("_at"), _when(getattr(found, name))] for name in times),
        ["error", " ".join((found.error or {}).values())],
        *(
            ["attempt before", f"{e['attempt']}: {e['filename']} {e['message_id']} {e.get('processing', '')}".strip()]
            for e in found.earlier
        ),
        *(["MESH says", f"{name}: {value}"] for name, value in tracking.items()),
    ]
    data.print(table(found.export_id, ["what", "value"], [fact for fact in facts if fact[1]]))
    if manifest:
        rows = [[part.number, part.rows, part.size, part.sha256] for part in manifest.parts]
        data.print(table("Parts", ["part", "rows", "bytes", "sha256 (compressed)"], rows))


def _when(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S %Z} ({age(moment)})" if moment else ""


def _tracking(settings: Settings, found: DPSExport) -> dict[str, str]:
    """Ask MESH about an export's message; what cannot be asked is said, and does not hide the rest."""
    if not found.message_id:
        return {}
    try:
        tracking = connect(settings).track(found.message_id)
    except MeshError as error:
        return {"status": f"cannot be asked now: {error}"}
    names = ("status", "status_code", "status_description", "status_timestamp", "recipient")
    return {name: str(value) for name in names if (value := getattr(tracking, name))}


@export.command("resend")
def resend(export_id: ExportId, as_json: Json = False) -> None:
    """Send an export again that did not come to DPS or that DPS refused whole, as another attempt and another name."""
    settings = deployment()
    found = find_export(settings, export_id)
    try:
        settings.ledger().retry(found, file_names(PROGRAMMES[found.programme], settings))
    except ImpossibleTransition:
        state = " ".join(filter(None, [str(found.status), processing_of(found)]))
        talk.print(
            f"{export_id} is {state}: only what failed, was not delivered, is unclear or was refused as a whole "
        )
        talk.print("is sent again. For records that DPS refused: mesh refused")
        raise typer.Exit(1) from None
    _run(settings, ExportRequest(programme=found.programme, resume_only=True), as_json=as_json)


@export.command("fetch")
def fetch(
    export_id: ExportId,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the file here, not to stdout.", metavar="FILE")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="With --output: say what was written, as JSON.")] = False,
) -> None:
    """Print the DPS file of an export, decompressed from the very bytes that were sent. It holds personal data."""
    if as_json and output is None:
        raise typer.BadParameter("--json goes with --output", param_hint="--json")
    settings = deployment()
    found = find_export(settings, export_id)
    archive = settings.archive()
    manifest = archive.manifest(found.programme, found.number)
    if manifest is None:
        talk.print(f"{export_id} is {found.status}: it has not been rendered yet.")
        raise typer.Exit(1)
    with ExitStack() as stack:
        target = stack.enter_context(output.open("wb")) if output else sys.stdout.buffer
        for part in manifest.parts:
            with (
                closing(archive.open_part(found.programme, found.number, part.number)) as body,
                gzip.open(body) as lines,
            ):
                shutil.copyfileobj(lines, target, 1 << 20)
        target.flush()
    if as_json:
        print_json({"export_id": export_id, "records": manifest.records, "file": str(output)})
    elif output:
        talk.print(f"{manifest.records} records written to {output}")


@export.command("reset")
def reset(
    programme: Annotated[str, typer.Argument(metavar="PROGRAMME", help=f"One of: {', '.join(PROGRAMMES)}.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Forget a programme's exports, so that all its records are unsent again. For tests; refused in production."""
    settings = deployment()
    key = known_programme(programme)
    if urlsplit(settings.mesh_base_url).hostname == PRODUCTION_HOST:
        talk.print("This stack speaks to MESH's production: its exports are not forgotten. Nothing was changed.")
        raise typer.Exit(1)
    found = list_exports(settings, key)
    records = sum(e.records for e in found)
    if not yes:
        typer.confirm(
            f"Forget {len(found)} exports of {PROGRAMMES[programme].name} and send their {records} rows again?",
            abort=True,
            err=True,
        )
    number = settings.ledger().reset(programme)
    answer = {"programme": programme, "forgotten": len(found), "records": records, "open": f"{programme}-{number}"}
    if as_json:
        print_json(answer)
    else:
        data.print(f"{len(found)} exports forgotten; their {records} rows wait in {programme}-{number}")


@record.command("find")
def find(
    record_id: Annotated[UUID, typer.Argument(metavar="UUID", help="The record's identifier.")], as_json: Json = False
) -> None:
    """Tell a record's story: in which upload it came in, in which export it went and how, what DPS made of it."""
    settings = deployment()
    register = settings.register()
    entry = register.get([str(record_id)]).get(str(record_id))
    if entry is None:
        talk.print(f"{record_id} was never taken in.")
        raise typer.Exit(1)
    document = settings.archive().intake(entry.batch_id)
    answer: dict[str, Any] = {
        "record": entry.record_id,
        "programme": entry.programme,
        "action": entry.action,
        "upload": document["upload"],
        "line": entry.line,
        "uploaded": document["receipt"]["uploaded_at"],
        "batch": entry.batch_id,
    }
    intake = register.intake(entry.batch_id)
    if intake and (number := intake.attached.get(entry.programme)):
        found = settings.ledger().get(entry.programme, number)
        answer |= {
            "export": found.export_id,
            "status": str(found.status),
            "file": found.filename,
            "message": found.message_id,
            "sent": found.sent_at and found.sent_at.isoformat(),
            "picked up": found.acknowledged_at and found.acknowledged_at.isoformat(),
            "DPS": "taken"
            if found.processing is Processing.PROCESSED
            else f"file {found.processing or 'not answered'}",
        }
    if entry.refused:
        answer |= {
            "DPS": f"refused: {entry.refused.outcome}",
            "heard": entry.refused.at,
            "row": entry.refused.row,
            "DPS holds it": "yes, as it was before" if entry.held else "no",
        }
    if as_json:
        print_json(answer)
    else:
        data.print(table("Record", ["what", "value"], [[name, str(value)] for name, value in answer.items() if value]))


def _document(export: DPSExport) -> dict[str, Any]:
    document = asdict(export)
    del document["batches"], document["lease"]
    return {"export_id": export.export_id, **document}
