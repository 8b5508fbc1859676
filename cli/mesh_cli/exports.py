"""Commands about exports: the DPS files and what became of them."""

from __future__ import annotations

import uuid
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from dps.export import Export, ExportRequest
from dps.programmes import PROGRAMMES
from dps.settings import Settings, connect
from dps.track import Track

from mesh_cli.options import Json, deployment
from mesh_cli.output import age, data, print_json, table, talk

if TYPE_CHECKING:
    from dps.ledger import DPSExport

PANEL = "Exports"
#: A command has no function's time limit; a lease for this long keeps the schedules' runs away meanwhile.
SECONDS = 900.0

Programme = Annotated[
    str | None,
    typer.Option("--programme", "-p", help=f"Only this programme: {', '.join(PROGRAMMES)}.", metavar="KEY"),
]


def add_to(app: typer.Typer) -> None:
    """Add these commands to the app."""
    app.command("dps-export", rich_help_panel=PANEL)(dps_export)
    app.command("track", rich_help_panel=PANEL)(track)
    app.command("exports", rich_help_panel=PANEL)(exports)


def _known(programme: str | None) -> str | None:
    if programme is not None and programme not in PROGRAMMES:
        raise typer.BadParameter(f"{programme!r} is not one of: {', '.join(PROGRAMMES)}", param_hint="--programme")
    return programme


def dps_export(
    programme: Programme = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be sealed and sent.")] = False,
    as_json: Json = False,
) -> None:
    """Seal the open exports and send everything that is unsent to DPS, as the nightly run does."""
    settings = deployment()
    request = ExportRequest(programme=_known(programme), dry_run=dry_run)
    export = Export(
        settings,
        settings.ledger(),
        settings.archive(),
        connect=lambda: connect(settings),
        holder=f"mesh-command-{uuid.uuid4()}",
        seconds_left=lambda: SECONDS,
    )
    answer = export.run(request)
    if as_json:
        print_json(answer)
    else:
        show_export_run(answer)
    if answer["status"] == "incomplete":
        raise typer.Exit(1)


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
    found = list_exports(deployment(), _known(programme))
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
    """Make the table of exports."""
    columns = ["export", "status", "records", "file", "message id", "attempt", "changed", "error"]
    rows = [
        [
            export.export_id,
            str(export.status),
            export.records,
            export.filename,
            export.message_id,
            export.attempt,
            age(export.updated_at),
            (export.error or {}).get("code", ""),
        ]
        for export in found
    ]
    return table("DPS exports", columns, rows)


def _document(export: DPSExport) -> dict[str, Any]:
    document = asdict(export)
    del document["batches"], document["lease"]
    return {"export_id": export.export_id, **document}
