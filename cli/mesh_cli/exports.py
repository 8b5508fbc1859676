"""Commands about exports: the DPS files and what became of them."""

from __future__ import annotations

import gzip
import os
import shutil
from contextlib import ExitStack, closing
from dataclasses import asdict, astuple
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer
from aws_lambda_powertools.utilities.parameters.exceptions import GetParameterError
from rich.console import Group
from rich.text import Text

from mesh_cli.acting import Reason, Why, acting
from mesh_cli.deployment import find_deployment
from mesh_cli.functions import have_done
from mesh_cli.intake import Wait, request
from mesh_cli.options import FAILED, REFUSED, UNKNOWN, Json, Limit, Since, Watch, Wide, deployment
from mesh_cli.output import Table, age, counted, data, print_json, raw, talk, watch
from mesh_cli.records import record
from nhs_mesh import MeshError
from vaccinations.aws.parameters import SecretIncomplete
from vaccinations.formats.requests import requeue_name
from vaccinations.jobs.status import processing_in_words
from vaccinations.model import lifecycle
from vaccinations.model.export import Processing, Status
from vaccinations.model.lifecycle import Attention, Event
from vaccinations.model.programmes import PROGRAMMES
from vaccinations.results import ExportRun, TrackRun

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mesh_cli.deployment import Deployment
    from vaccinations.aws.ledger import Ledger
    from vaccinations.jobs.status import Verdict
    from vaccinations.model.export import Asked, Attempt, DPSExport
    from vaccinations.wiring import Wiring

PANEL = "Exports"
export = typer.Typer(
    help="One export: show, resend, fetch; or start a programme afresh.\n\nFor example: mesh export show hpv-17",
    no_args_is_help=True,
)
_COLOURS = {
    Attention.DONE: "green",
    Attention.PARTLY: "yellow",
    Attention.WAITING: "blue",
    Attention.PERSON: "bold red",
}
PRODUCTION_HOST = "mesh-sync.spineservices.nhs.uk"


def complete_programmes(incomplete: str) -> list[tuple[str, str]]:
    """Complete the key of a programme."""
    return [(key, programme.name) for key, programme in PROGRAMMES.items() if key.startswith(incomplete)]


def complete_exports(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Complete an export's id, where the stack can be asked."""
    try:
        ledger = find_deployment(context.find_root().params.get("stack"), os.environ).wiring.ledger()
        wanted = [key for key in PROGRAMMES if f"{key}-".startswith(incomplete) or incomplete.startswith(f"{key}-")]
        found = [export for key in wanted for export in ledger.latest(key, 20)]
    except Exception:  # noqa: BLE001 - at the shell's prompt nothing is said
        return []
    return [(e.export_id, str(e.status)) for e in found if e.export_id.startswith(incomplete)]


Programme = Annotated[
    str | None,
    typer.Option(
        "--programme",
        "-p",
        help=f"Only this programme: {', '.join(PROGRAMMES)}.",
        metavar="KEY",
        autocompletion=complete_programmes,
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add these commands to the app."""
    app.command("dps-export", rich_help_panel=PANEL)(dps_export)
    app.command("track", rich_help_panel=PANEL)(track)
    app.command("status", rich_help_panel=PANEL)(status)
    app.command("exports", rich_help_panel=PANEL)(exports)
    app.add_typer(export, name="export", rich_help_panel=PANEL)
    app.add_typer(record, name="record", rich_help_panel=PANEL)


def known_programme(programme: str | None) -> str | None:
    """Check the key of a programme that was given, if one was."""
    if programme is not None and programme not in PROGRAMMES:
        raise typer.BadParameter(f"{programme!r} is not one of: {', '.join(PROGRAMMES)}", param_hint="--programme")
    return programme


ExportId = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        help="Export id, such as hpv-17, or one of its file names, as `mesh exports` lists them.",
        autocompletion=complete_exports,
    ),
]


def dps_export(
    context: typer.Context,
    programme: Programme = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be sealed and sent.")] = False,
    reason: Why = None,
    as_json: Json = False,
) -> None:
    """Seal the open exports and send everything that is unsent to DPS, as the nightly run does.

    For example: mesh dps-export --dry-run
    """
    key = known_programme(programme)
    event: dict[str, Any] = {"programme": key} if key else {}
    works_on = deployment(context)
    if dry_run:
        _run(works_on, event | {"dry_run": True}, as_json=as_json)
        return
    with acting(works_on, "dps-export", key or "", reason) as asked:
        _run(works_on, event, asked, as_json=as_json)


def _run(works_on: Deployment, event: dict[str, Any], asked: Asked | None = None, *, as_json: bool) -> None:
    run = have_done(works_on, "export", ExportRun, event, asked, as_json=as_json)
    if not as_json:
        show_export_run(run)
    if code := _exit_code(run):
        raise typer.Exit(code)


def _exit_code(run: ExportRun) -> int:
    """Tell how a run ended: 4 where nobody knows yet, 3 where MESH refused, 1 where something else is left to do."""
    if run.status != "incomplete":
        return 0
    codes = {outcome.error_code for outcome in run.exports}
    if "outcome-unknown" in codes:
        return UNKNOWN
    refused = "unauthorised" in codes or any(outcome.status == "failed" for outcome in run.exports)
    return REFUSED if refused else FAILED


def show_export_run(run: ExportRun) -> None:
    """Show what an export run did, or would do."""
    dry = run.status == "dry run"
    rows = [[o.export_id, o.status, o.records, o.would if dry else o.message_id] for o in run.exports]
    if rows:
        data.print(Table("DPS export", ["export", "status", "records", "would" if dry else "message id"], rows))
    for outcome in run.exports:
        if outcome.error_code:
            about = outcome.export_id or outcome.programme
            talk.print(f"{about}: {outcome.error_code} {outcome.error_description}".rstrip(), markup=False)
    if run.nothing_to_send:
        names = ", ".join(PROGRAMMES[key].name for key in run.nothing_to_send)
        talk.print(f"No vaccination records to export for: {names}")


def track(context: typer.Context, reason: Why = None, as_json: Json = False) -> None:
    """Ask MESH whether DPS has picked up what was sent, as the hourly run does.

    For example: mesh track --reason "DPS says that it has the files"
    """
    works_on = deployment(context)
    with acting(works_on, "track", reason=reason) as asked:
        run = have_done(works_on, "track", TrackRun, asked=asked, as_json=as_json)
        if not as_json:
            show_track_run(run)
        if run.status == "incomplete":
            raise typer.Exit(1)


def show_track_run(run: TrackRun) -> None:
    """Show what a tracking run has learned."""
    if run.exports:
        rows = [[tracked.export_id, tracked.status, tracked.message_id] for tracked in run.exports]
        data.print(Table("Tracked", ["export", "status", "message id"], rows))
    else:
        talk.print("No export waits to be acknowledged.")
    if run.reports:
        talk.print(f"{counted(run.reports, 'error report')} read from the inbox.")


def exports(
    context: typer.Context,
    programme: Programme = None,
    states: Annotated[
        list[Status] | None,
        typer.Option("--status", help=f"Only those in this state: {', '.join(Status)}.", metavar="STATE"),
    ] = None,
    since: Since = None,
    limit: Limit = None,
    view: Wide = None,
    watching: Watch = False,
    as_json: Json = False,
) -> None:
    """List the exports and the states they are in, newest first.

    Red needs a person, yellow was refused in part by DPS, blue goes on by itself, green is done.

    For example: mesh exports -p hpv --status failed --status unclear --since 2026-09-01
    """
    key = known_programme(programme)
    ledger = deployment(context).wiring.ledger()

    def find() -> list[DPSExport]:
        found = list_exports(ledger, key)
        after = since.replace(tzinfo=UTC) if since else None
        wanted = (e for e in found if (not states or e.status in states) and (not after or e.created_at >= after))
        return list(islice(wanted, limit))

    if watching:
        watch(lambda: [exports_table(find(), wide=bool(view))])
    found = find()
    if as_json:
        print_json([_document(export) for export in found])
    elif found:
        data.print(exports_table(found, wide=bool(view)))
    elif states or since:
        talk.print("There are no such exports.")
    else:
        talk.print("There are no exports yet. Records come in with: mesh upload FILE -O ODS")


def status(context: typer.Context, watching: Watch = False, as_json: Json = False) -> None:
    """Tell on one screen what became of last night, and what needs a person. Exits with 1 where something does.

    It shows what the dashboard shows, the uploads that are parked, and how many records of last night DPS refused.
    Rejected uploads are in `mesh uploads --status rejected`; what waits in the queues is on the dashboard.

    For example: mesh status --watch
    """
    wiring = deployment(context).wiring

    def look() -> tuple[Verdict, int, bool]:
        return wiring.status().verdict(), len(wiring.register().parked()), bool(wiring.jobs_enabled())

    def screen() -> Iterator[Text | Table]:
        verdict, parked, enabled = look()
        return status_screen(verdict, parked, enabled=enabled)

    if watching:
        watch(screen)
    verdict, parked, enabled = look()
    if as_json:
        people = [{"export": e.export.export_id, "todo": e.todo, "runbook": e.section} for e in verdict.people]
        told = {"night": [asdict(each) for each in verdict.night], "people": people}
        print_json({**told, "parked_uploads": parked, "mesh_jobs": enabled})
    else:
        data.print(Group(*status_screen(verdict, parked, enabled=enabled)))
    if _needs(verdict, parked, enabled=enabled):
        raise typer.Exit(1)


def _refused(verdict: Verdict) -> int:
    """Count the records of last night that DPS refused."""
    return sum(each.refused for each in verdict.night)


def _needs(verdict: Verdict, parked: int, *, enabled: bool) -> int:
    """Count what needs a person."""
    return len(verdict.people) + parked + (not enabled) + bool(_refused(verdict))


def status_screen(verdict: Verdict, parked: int, enabled: bool) -> Iterator[Text | Table]:
    """Make the screen: the verdict, what needs a person, and last night by programme."""
    if needs := _needs(verdict, parked, enabled=enabled):
        yield Text(f"{counted(needs, 'thing')} {'needs' if needs == 1 else 'need'} a person.", style="bold red")
    elif verdict.night:
        yield Text("No export of last night needs a person, and DPS has refused no record.", style="green")
    else:
        yield Text("Nothing was sealed in the last 24 hours, and no export needs a person.", style="green")
    rows = [[coloured(e.export.export_id, e.export), e.todo, e.section] for e in verdict.people]
    if parked:
        rows.append(
            ["uploads", f"{counted(parked, 'upload')} parked; see: mesh uploads --status parked", "uploads-parked"]
        )
    if refused := _refused(verdict):
        rows.append(["records", f"DPS refused {counted(refused, 'record')}; see: mesh refused", "records-refused"])
    if not enabled:
        rows.append(["mesh_jobs", "switched off, nothing is sent; switch it on with: mesh jobs enable", "jobs-off"])
    if rows:
        yield Text()
        yield Table("What needs a person", ["what", "what to do", "docs/operations.md"], rows, prose=["what to do"])
    if verdict.night:
        yield Text()
        columns = ["programme", "sent", "accepted", "picked up", "processed", "refused"]
        counts = [[*astuple(each)] for each in verdict.night]
        yield Table("Records of the last 24 hours", columns, counts, rank=["sent", "picked up"])


def list_exports(ledger: Ledger, programme: str | None = None) -> list[DPSExport]:
    """Return the exports of one programme or all, newest first."""
    keys = [programme] if programme else list(PROGRAMMES)
    found = [export for key in keys for export in ledger.exports(key)]
    return sorted(found, key=lambda export: export.created_at, reverse=True)


def exports_table(found: list[DPSExport], *, wide: bool = False) -> Table:
    """Make the table of exports, with those columns only that say something."""
    columns: dict[str, Callable[[DPSExport], Any]] = {
        "export": lambda export: export.export_id,
        "status": coloured_status,
        "records": lambda export: export.records,
    }
    if any(export.processing for export in found):
        columns["DPS"] = _coloured_processing
    columns["file"] = _names
    columns["changed"] = lambda export: age(export.updated_at)
    columns["message id"] = lambda export: export.message_id
    if any(len(export.attempts) > 1 for export in found):
        columns["attempt"] = lambda export: len(export.attempts)
    if any(_error(export.attempt) for export in found):
        columns["error"] = lambda export: _error(export.attempt)
    rows = [[tell(export) for tell in columns.values()] for export in found]
    rank = ["message id", "attempt", "file", "changed", "error"]
    return Table("DPS exports", list(columns), rows, prose=["DPS", "error"], rank=rank, wide=wide)


def coloured(text: str, export: DPSExport) -> Text:
    """Show something about an export in the colour of what it asks of a person."""
    return Text(text, style=_COLOURS[lifecycle.attention(export, datetime.now(UTC))])


def coloured_status(export: DPSExport) -> Text:
    """Show an export's status so that it stands out who has to act."""
    return coloured(str(export.status), export)


def _coloured_processing(export: DPSExport) -> Text:
    return coloured(processing_in_words(export), export)


def _error(attempt: Attempt | None) -> str:
    return f"{attempt.error.code} {attempt.error.description}".rstrip() if attempt and attempt.error else ""


def _names(export: DPSExport) -> str:
    return "\n".join(export.attempt.file_names) if export.attempt else ""


def find_export(ledger: Ledger, which: str) -> DPSExport:
    """Return the export of an id such as ``hpv-17``, or the one of which an attempt bore a file name.

    Parameters
    ----------
    which
        The id, or either name, with or without its extension and in any case.
    """
    programme, _, number = which.rpartition("-")
    if programme in PROGRAMMES and number.isdecimal():
        try:
            return ledger.get(programme, int(number))
        except KeyError:
            raise typer.BadParameter(f"there is no export {which}; see `mesh exports`", param_hint="ID") from None
    stem = which.lower().removesuffix(".csv")
    if found := ledger.find(stem):
        return found[0]
    for export in list_exports(ledger):
        if stem in {names.filename.lower().removesuffix(".csv") for names in export.names}:
            return ledger.get(export.programme, export.number)  # with its batches
    said = f"{which!r} is no export id, such as hpv-17, nor an export's file name; see `mesh exports`"
    raise typer.BadParameter(said, param_hint="ID")


@export.command("show")
def show(context: typer.Context, export_id: ExportId, as_json: Json = False) -> None:
    """Show everything that is known of an export: states with times, parts, checksums, what MESH says now.

    For example: mesh export show hpv-17
    """
    wiring = deployment(context).wiring
    found = find_export(wiring.ledger(), export_id)
    manifest = wiring.bucket().manifest(found.programme, found.number)
    tracking = _tracking(wiring, found)
    behind = _behind(wiring.ledger(), found)
    if as_json:
        parts = [asdict(part) for part in manifest.parts] if manifest else []
        print_json(_document(found) | {"parts_sent_of": parts, "tracking": tracking, "may_wait_behind_it": behind})
        return
    facts = [
        *_facts(found),
        ("may wait behind it", ", ".join(behind)),
        *(("MESH says", f"{name}: {value}") for name, value in tracking.items()),
    ]
    data.print(Table(found.export_id, ["what", "value"], [fact for fact in facts if fact[1]], prose=["value"]))
    if manifest:
        rows = [[part.number, part.rows, part.size, part.sha256] for part in manifest.parts]
        data.print(Table("Parts", ["part", "rows", "bytes", "sha256 (compressed)"], rows))


def _behind(ledger: Ledger, export: DPSExport) -> list[str]:
    """Name the exports that DPS may leave waiting until it has cleared this one's file."""
    if export.processing is not Processing.REFUSED:
        return []
    return [each.export_id for each in lifecycle.behind(export, ledger.exports(export.programme))]


def _facts(export: DPSExport) -> Iterator[tuple[str, str]]:
    """Tell what the ledger knows of an export, name and value; some are empty."""
    yield "status", str(export.status if export.state is export.status else f"{export.status}: {export.state}")
    yield "to do", lifecycle.todo(export, datetime.now(UTC))
    yield "DPS", processing_in_words(export)
    yield "programme", PROGRAMMES[export.programme].name
    yield "records", str(export.records)
    yield "batches", str(len(export.batches))
    yield "created", _when(export.created_at)
    yield "sealed", _when(export.sealed_at)
    yield "accepted", _when(export.accepted_at)
    if attempt := export.attempt:
        yield "attempt", f"{attempt.number} (local id {export.local_id})"
        yield "file", attempt.filename
        yield "file on MESH", attempt.mesh_filename
        yield "message id", attempt.message_id
        yield "parts", f"{attempt.parts_sent} of {export.parts} sent" if export.parts else ""
        for name in ("begun", "sending", "sent", "acknowledged", "received", "processed"):
            yield name, _when(getattr(attempt, f"{name}_at"))
        if attempt.arrival:
            yield "DPS's id of the file", attempt.arrival.header_id
            yield "arrived at DPS", attempt.arrival.received_time
        yield "asked for", _asked(attempt.asked)
        yield "error", _error(attempt)
    yield "requeued", _asked(export.asked)
    yield "updated", _when(export.updated_at)
    for earlier in export.attempts[:-1]:
        asked = _asked(earlier.asked)
        told = (
            f"{earlier.number}:",
            *earlier.file_names,
            earlier.message_id,
            earlier.processing,
            _error(earlier),
            asked,
        )
        yield "attempt before", " ".join(str(part) for part in told if part)


def _asked(asked: Asked | None) -> str:
    return f"by {asked.by}: {asked.reason}" if asked else ""


def _when(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S %Z} ({age(moment)})" if moment else ""


def _tracking(wiring: Wiring, found: DPSExport) -> dict[str, str]:
    """Ask MESH about an export's message; what cannot be asked is said, and does not hide the rest."""
    if not found.message_id:
        return {}
    try:
        tracking = wiring.mesh().track(found.message_id)
    except (MeshError, SecretIncomplete, GetParameterError) as error:
        return {"status": f"cannot be asked now: {error}"}
    names = ("status", "status_code", "status_description", "status_timestamp", "recipient")
    return {name: str(value) for name in names if (value := getattr(tracking, name))}


@export.command("resend")
def resend(
    context: typer.Context, export_id: ExportId, reason: Reason, wait: Wait = 300, as_json: Json = False
) -> None:
    """Send an export again that MESH or DPS refused, or DPS has dropped, once the reason is put right.

    One that MESH refused goes out as it is, as another attempt and under another name. One that DPS refused as a whole,
    or picked up and dropped, does not, for DPS may have processed later ones: what DPS must be told of its records now
    goes out with the next export.

    For example: mesh export resend hpv-17 --reason "DPS has cleared the file"
    """
    works_on = deployment(context)
    ledger = works_on.wiring.ledger()
    found = find_export(ledger, export_id)
    export_id = found.export_id
    if behind := _behind(ledger, found):
        name = PROGRAMMES[found.programme].name
        talk.print(f"DPS may move no later file of {name} until it has cleared this one: {', '.join(behind)}")
    may = {move.event for move in lifecycle.possible(found)}
    if Event.REQUEUE in may:
        with acting(works_on, "export resend", export_id, reason) as asked:
            request(works_on, requeue_name(export_id), b"", asked, wait, as_json=as_json)
    elif Event.RESEND in may:
        with acting(works_on, "export resend", export_id, reason) as asked:
            _run(works_on, {"resend": export_id}, asked, as_json=as_json)
    else:
        state = " ".join(filter(None, [str(found.status), processing_in_words(found)]))
        talk.print(
            f"{export_id} is {state}: only what failed, is unclear or was refused as a whole by DPS is sent again."
        )
        talk.print("For records that DPS refused: mesh refused")
        raise typer.Exit(1)


@export.command("fetch")
def fetch(
    context: typer.Context,
    export_id: ExportId,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the file here, not to stdout.", metavar="FILE")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="With --output: say what was written, as JSON.")] = False,
) -> None:
    """Print the DPS file of an export, decompressed from the very bytes that were sent. It holds personal data.

    For example: mesh export fetch hpv-17 -o sent.csv
    """
    if as_json and output is None:
        raise typer.BadParameter("--json goes with --output", param_hint="--json")
    wiring = deployment(context).wiring
    found = find_export(wiring.ledger(), export_id)
    bucket = wiring.bucket()
    manifest = bucket.manifest(found.programme, found.number)
    if manifest is None:
        talk.print(f"{export_id} is {found.status}: it has not been rendered yet.")
        raise typer.Exit(1)
    with ExitStack() as stack:
        target = stack.enter_context(output.open("wb") if output else raw())
        for part in manifest.parts:
            with (
                closing(bucket.open_part(found.programme, found.number, part.number)) as body,
                gzip.open(body) as lines,
            ):
                shutil.copyfileobj(lines, target, 1 << 20)
    if as_json:
        print_json({"export_id": export_id, "records": manifest.records, "file": str(output)})
    elif output:
        talk.print(f"{counted(manifest.records, 'record')} written to {output}", markup=False, soft_wrap=True)


@export.command("reset")
def reset(
    context: typer.Context,
    programme: Annotated[
        str,
        typer.Argument(
            metavar="PROGRAMME", help=f"One of: {', '.join(PROGRAMMES)}.", autocompletion=complete_programmes
        ),
    ],
    reason: Reason,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Forget a programme's exports, so that all its records are unsent again. For tests; refused in production.

    For example: mesh export reset hpv --reason "the test begins again"
    """
    works_on = deployment(context)
    ledger = works_on.wiring.ledger()
    key = known_programme(programme)
    if urlsplit(works_on.settings.mesh_base_url).hostname == PRODUCTION_HOST:
        talk.print("This stack speaks to MESH's production: its exports are not forgotten. Nothing was changed.")
        raise typer.Exit(1)
    found = list_exports(ledger, key)
    records = sum(e.records for e in found)
    if not yes:
        typer.confirm(
            f"Forget {counted(len(found), 'export')} of {PROGRAMMES[programme].name} on {works_on.where}, "
            f"and send {counted(records, 'row')} again?",
            abort=True,
            err=True,
        )
    with acting(works_on, "export reset", programme, reason):
        number = ledger.reset(programme)
    answer = {"programme": programme, "forgotten": len(found), "records": records, "open": f"{programme}-{number}"}
    if as_json:
        print_json(answer)
    else:
        data.print(
            f"{counted(len(found), 'export')} forgotten; {counted(records, 'row')} to send in {programme}-{number}"
        )


def _document(export: DPSExport) -> dict[str, Any]:
    """Return an export as JSON shows it: without its batches, and what only concurrent runs need."""
    shown = asdict(export)
    del shown["batches"], shown["lease"], shown["revision"]
    return {"export_id": export.export_id, **shown}
