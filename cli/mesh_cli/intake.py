"""Commands about uploads of vaccination records."""

from __future__ import annotations

import io
import shlex
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from local.sample import LEAST_TO_CORRECT, Form, corrected_upload, sample_file, sample_upload
from mesh_cli.acting import NotYet, Reason, Why, acting
from mesh_cli.functions import have_done
from mesh_cli.options import Json, Limit, Since, Watch, Wide, deployment, goes_on
from mesh_cli.output import Table, age, counted, data, print_json, raw, talk, transfer, watch
from vaccinations.aws.bucket import INCOMING
from vaccinations.formats.rejects import HEADER, read_rejects
from vaccinations.formats.requests import ALREADY_SENT, REQUESTS
from vaccinations.model.london import day_in_london
from vaccinations.model.outcome import Action
from vaccinations.model.programmes import PROGRAMMES
from vaccinations.ports import IntakeGone
from vaccinations.prefetch import prefetch
from vaccinations.results import ParkedUpload, Receipt, ReconcileRun, RejectedUpload, document

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mesh_cli.deployment import Deployment
    from vaccinations.aws.bucket import Bucket
    from vaccinations.model.export import Asked
    from vaccinations.ports import StoredUpload
    from vaccinations.results import AnyReceipt
    from vaccinations.wiring import Wiring

PANEL = "Intake"
uploads = typer.Typer(invoke_without_command=True)
Key = Annotated[str, typer.Argument(metavar="KEY", help="The upload: monday.csv, R1L/monday.csv, or its batch id.")]
Wait = Annotated[int, typer.Option(help="How long to wait for the outcome, in seconds; 0 does not wait.", min=0)]
_PARKED = {
    "parked": "the upload could not be ingested, and waits for a person.",
    "retried": "the upload could not be ingested at first, and was ingested afresh.",
    "abandoned": "the upload could not be ingested, and a person has ended it.",
}
#: So many kinds of faults are shown, and so many lines of each; the file has them all.
MOST_FAULTS, MOST_LINES = 20, 10
#: So many receipts are fetched at once.
RECEIPTS_AT_ONCE = 8
#: An upload that has waited longer than this may have been forgotten.
FORGOTTEN = timedelta(hours=1)


class UploadStatus(StrEnum):
    """Where an upload is."""

    WAITING = "waiting"
    INGESTED = "ingested"
    REJECTED = "rejected"
    PARKED = "parked"
    RETRIED = "retried"
    ABANDONED = "abandoned"


def add_to(app: typer.Typer) -> None:
    """Add these commands to the app."""
    app.command("sample", rich_help_panel=PANEL)(sample)
    app.command("upload", rich_help_panel=PANEL)(upload)
    app.command("already-sent", rich_help_panel=PANEL)(already_sent)
    app.command("receipt", rich_help_panel=PANEL)(receipt)
    app.add_typer(uploads, name="uploads", rich_help_panel=PANEL)
    app.command("reconcile", rich_help_panel=PANEL)(reconcile)


def sample(
    rows: Annotated[int, typer.Option("--rows", help="So many good rows.", min=0)] = 60,
    bad: Annotated[int, typer.Option("--bad", help="So many rows with something wrong.", min=0)] = 5,
    form: Annotated[
        Form,
        typer.Option(
            "--format",
            help="csv and jsonl as docs/upload-format.md has them; systmone, offline (Mavis's spreadsheet) and "
            "semicolons (Excel) as these write them.",
        ),
    ] = Form.CSV,
    corrected: Annotated[
        bool, typer.Option("--corrected", help="The CSV of the day after: three rows put right, one withdrawn.")
    ] = False,
    day: Annotated[
        datetime | None,
        typer.Option("--day", help="As it is made on that day; by default today.", metavar="DAY", formats=["%Y-%m-%d"]),
    ] = None,
) -> None:
    """Print vaccinations of made-up children, to upload: always the same for the same day.

    For example: mesh sample --rows 12 --bad 2
    """
    today = day.date() if day else day_in_london(datetime.now(UTC))
    if corrected and (form != Form.CSV or rows < LEAST_TO_CORRECT):
        raise typer.BadParameter(
            f"that is for --format csv and at least {LEAST_TO_CORRECT} rows", param_hint="--corrected"
        )
    with raw() as target:
        if corrected:
            target.write(corrected_upload(sample_upload(today, rows=rows, bad=bad)))
        else:
            target.write(sample_file(form, today, rows=rows, bad=bad))


def upload(
    context: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(
            exists=True, dir_okay=False, readable=True, help="A .csv or .jsonl file of vaccination records."
        ),
    ],
    organisation: Annotated[
        str, typer.Option("--organisation", "-O", help="ODS code of the organisation that uploads.", metavar="ODS")
    ],
    wait: Annotated[
        int, typer.Option(help="How long to wait for the receipt, in seconds; 0 does not wait.", min=0)
    ] = 300,
    as_json: Json = False,
) -> None:
    """Upload vaccination records, wait for the receipt and show it.

    Exits with 1 if the file was rejected, or each row of it that says something new.

    For example: mesh upload monday.csv -O R1L
    """
    works_on = deployment(context)
    bucket = works_on.wiring.bucket()
    progress, task = transfer(f"Uploading {file.name}", file.stat().st_size)
    stopped = goes_on("Nothing was uploaded, unless all of it had been sent. See: mesh uploads")
    with stopped, progress, progress.open(file, "rb", task_id=task) as body:
        key, version = bucket.put_upload(organisation, file.name, body)
    if not wait:
        talk.print(f"Uploaded as {key}.")
        if as_json:
            print_json({"upload": key, "version": version})
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    later = f"mesh receipt {shlex.quote(f'{organisation}/{file.name}')}"
    waiting = goes_on(f"The upload is in the queue and is ingested without you. Ask later with: {later}")
    with waiting, Progress(*columns, console=talk, transient=True) as progress:
        progress.add_task(f"Waiting for the receipt of {file.name}")
        receipt = wait_for_receipt(bucket, key, version, wait)
    if receipt is None:
        talk.print(f"No receipt after {wait} s. The upload is in the queue and is not lost.")
        talk.print(f"Ask later with: {later}", markup=False, soft_wrap=True)
        raise typer.Exit(1)
    if as_json:
        print_json(document(receipt))
    else:
        show_receipt(receipt, bucket)
    if not isinstance(receipt, Receipt) or _nothing_accepted(receipt):
        raise typer.Exit(1)


def _nothing_accepted(receipt: Receipt) -> bool:
    """Tell whether no row was accepted, though there is something to accept: not all was known or of nobody."""
    return not receipt.accepted and not receipt.unchanged and (receipt.rejected > 0 or not receipt.rows)


def already_sent(
    context: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(exists=True, dir_okay=False, readable=True, help="A .csv or .jsonl file, as uploads are."),
    ],
    organisation: Annotated[
        str, typer.Option("--organisation", "-O", help="ODS code of the records' owner.", metavar="ODS")
    ],
    reason: Reason,
    wait: Wait = 300,
    as_json: Json = False,
) -> None:
    """Register records that another system has sent to DPS, so that they are not sent again: for the cut-over.

    Give these lists before the teams' first uploads. For example: mesh already-sent mavis.csv -O R1L --reason cut-over
    """
    name = f"{ALREADY_SENT.removeprefix(REQUESTS)}{organisation}/{file.name}"
    works_on = deployment(context)
    with file.open("rb") as body, acting(works_on, "already-sent", organisation, reason) as asked:
        request(works_on, name, body, asked, wait, as_json=as_json)


def receipt(
    context: typer.Context,
    upload_key: Annotated[
        str,
        typer.Argument(
            metavar="UPLOAD", help="The upload: monday.csv, R1L/monday.csv, or its key incoming/R1L/monday.csv."
        ),
    ],
    as_json: Json = False,
) -> None:
    """Show the latest receipt of an upload, or say that there is no such upload, or that it waits.

    Exits with 1 unless it was ingested.

    For example: mesh receipt R1L/monday.csv
    """
    bucket = deployment(context).wiring.bucket()
    key = find_upload(bucket, upload_key)
    waiting = _waiting(bucket, key)
    found = bucket.latest_receipt(key)
    if waiting:
        talk.print(f"{_named(key)} was uploaded {age(waiting.uploaded_at)} and waits to be ingested.", markup=False)
        if datetime.now(UTC) - waiting.uploaded_at > FORGOTTEN:
            talk.print("That is long. Was it forgotten? See: mesh reconcile --dry-run")
        if found:
            talk.print("The receipt of the version before:")
    if as_json:
        at = waiting and waiting.uploaded_at.isoformat(timespec="seconds")
        shown = document(found[0]) | {"refused_by_dps": found[1]} if found else {}
        print_json({"upload": key, "status": "waiting", "uploaded_at": at} if waiting else shown)
    elif found:
        latest, refusals = found
        show_receipt(latest, bucket)
        for refusal in refusals:
            data.print(f"DPS refused rows of it: s3://{bucket.bucket}/{refusal}", markup=False, soft_wrap=True)
    if waiting or not found or found[0].status != "ingested":
        raise typer.Exit(1)


def find_upload(bucket: Bucket, name: str) -> str:
    """Return the key of an upload or a request by its key, or its name with or without its folder.

    Raises
    ------
    typer.Exit
        There is none, and that is said.
    typer.BadParameter
        Several organisations uploaded one of this name.
    """
    if name.startswith((INCOMING, REQUESTS)):
        keys = [name]
    else:
        keys = [f"{INCOMING}{name}"] if "/" in name else []
        keys += [f"{INCOMING}{folder}/{name}" for folder in bucket.folders()]
    found = [key for key in keys if next(bucket.versions(key), None) or bucket.latest_receipt(key)]
    if len(found) > 1:
        names = ", ".join(map(_named, found))
        raise typer.BadParameter(f"several organisations uploaded {name}: say which, {names}", param_hint="UPLOAD")
    if not found:
        talk.print(f"There is no upload {name}. See those that there are: mesh uploads", markup=False, soft_wrap=True)
        raise typer.Exit(1)
    return found[0]


def _named(key: str) -> str:
    return key.removeprefix(INCOMING)


def _waiting(bucket: Bucket, key: str) -> StoredUpload | None:
    """Return the newest version of an upload, where it has no receipt yet."""
    newest = next(bucket.versions(key), None)
    return newest if newest and not bucket.outcome(key, bucket.batch_id(key, newest.version)) else None


#: By what each asks of a person; a row that was rejected asks for a look.
_COLOURS = {
    UploadStatus.WAITING: "blue",
    UploadStatus.INGESTED: "green",
    UploadStatus.REJECTED: "bold red",
    UploadStatus.PARKED: "bold red",
    UploadStatus.RETRIED: "green",
    UploadStatus.ABANDONED: "yellow",
}


@uploads.callback()
def list_uploads(
    context: typer.Context,
    organisation: Annotated[
        str | None,
        typer.Option("--organisation", "-O", help="Only those of this organisation's folder.", metavar="ODS"),
    ] = None,
    status: Annotated[
        list[UploadStatus] | None,
        typer.Option("--status", help=f"Only those: {', '.join(UploadStatus)}.", metavar="STATUS"),
    ] = None,
    since: Since = None,
    limit: Limit = None,
    view: Wide = None,
    watching: Watch = False,
    as_json: Json = False,
) -> None:
    """List the uploads and where each is: waiting, ingested, rejected, parked, retried or abandoned; newest first.

    Red needs a person, yellow was rejected in part or abandoned, blue goes on by itself, green is done.

    For example: mesh uploads -O R1L --since 2026-09-01 --status rejected
    """
    if context.invoked_subcommand:
        return
    wiring = deployment(context).wiring

    def find() -> list[dict[str, Any]]:
        with talk.status("Looking at the uploads"):
            return _uploads(wiring, organisation, set(status or ()), since)[:limit]

    if watching:
        watch(lambda: [uploads_table(find(), wide=bool(view))])
    found = find()
    if as_json:
        print_json(found)
    elif found:
        data.print(uploads_table(found, wide=bool(view)))
    else:
        talk.print("There are no such uploads." if status or since or organisation else "There are no uploads yet.")


def _uploads(
    wiring: Wiring, organisation: str | None, status: set[UploadStatus], since: datetime | None
) -> list[dict[str, Any]]:
    """Find the uploads that are asked for, newest first."""
    only_parked = status == {UploadStatus.PARKED}
    rows = parked_uploads(wiring) if only_parked else stored_uploads(wiring.bucket(), organisation or "")
    oldest = since.replace(tzinfo=UTC).isoformat(timespec="seconds") if since else ""
    prefix = f"{INCOMING}{organisation}/" if organisation else ""
    found = (
        row
        for row in rows
        if row["uploaded_at"] >= oldest and row["upload"].startswith(prefix) and (not status or row["status"] in status)
    )
    return sorted(found, key=lambda row: row["uploaded_at"], reverse=True)


def uploads_table(found: list[dict[str, Any]], *, wide: bool = False) -> Table:
    """Make the table of uploads."""
    rows = [
        [
            _named(row["upload"]),
            _coloured(row),
            age(datetime.fromisoformat(row["uploaded_at"])) if row["uploaded_at"] else "",
            *(row[column] for column in ("rows", "accepted", "rejected", "batch_id")),
        ]
        for row in found
    ]
    title = ["upload", "status", "uploaded", "rows", "accepted", "rejected", "batch id"]
    rank = ["batch id", "accepted", "rows", "uploaded"]
    return Table("Uploads", title, rows, rank=rank, wide=wide)


def _coloured(row: dict[str, Any]) -> Text:
    partly = row["status"] == UploadStatus.INGESTED and row["rejected"]
    return Text(row["status"], style="yellow" if partly else _COLOURS[UploadStatus(row["status"])])


def stored_uploads(bucket: Bucket, organisation: str) -> Iterator[dict[str, Any]]:
    """Tell of each upload in the bucket where it is."""

    def tell(upload: StoredUpload) -> dict[str, Any]:
        batch_id = bucket.batch_id(upload.key, upload.version)
        receipt = bucket.outcome(upload.key, batch_id)
        return _row(upload.key, upload.uploaded_at.isoformat(timespec="seconds"), batch_id, receipt)

    return prefetch(tell, bucket.uploads(organisation), depth=RECEIPTS_AT_ONCE)


def parked_uploads(wiring: Wiring) -> Iterator[dict[str, Any]]:
    """Tell of each upload that is parked and waits for a person, whether its file is there or not."""
    bucket = wiring.bucket()
    for batch_id in wiring.register().parked():
        try:
            stored = bucket.intake(batch_id)
        except IntakeGone:
            yield _row("", "", batch_id, None) | {"status": "parked"}
        else:
            yield _row(stored.upload, stored.receipt.uploaded_at, batch_id, stored.parked) | {"status": "parked"}


def _row(upload: str, uploaded_at: str, batch_id: str, receipt: AnyReceipt | None) -> dict[str, Any]:
    counts: dict[str, Any] = {"rows": None, "accepted": None, "rejected": None}
    if isinstance(receipt, Receipt):
        accepted = sum(sum(actions.values()) for actions in receipt.accepted.values())
        counts = {"rows": receipt.rows, "accepted": accepted, "rejected": receipt.rejected}
    return {
        "upload": upload,
        "status": receipt.status if receipt else "waiting",
        "uploaded_at": uploaded_at,
        **counts,
        "rejects": receipt.rejects if isinstance(receipt, Receipt) else None,
        "reason": receipt.reason if isinstance(receipt, RejectedUpload | ParkedUpload) else "",
        "batch_id": receipt.batch_id if receipt else batch_id,
    }


@uploads.command("retry")
def retry(context: typer.Context, key: Key, reason: Reason, wait: Wait = 300, as_json: Json = False) -> None:
    """Have a parked upload ingested afresh, once the cause is gone.

    For example: mesh uploads retry R1L/monday.csv --reason "the table was restored"
    """
    _ask(context, "retry", key, reason, wait, as_json=as_json)


@uploads.command("abandon")
def abandon(context: typer.Context, key: Key, reason: Reason, wait: Wait = 300, as_json: Json = False) -> None:
    """End a parked upload: what of it is in no export is never sent. Its receipt says so, with the reason.

    For example: mesh uploads abandon R1L/monday.csv --reason "the team has uploaded a corrected file"
    """
    _ask(context, "abandon", key, reason, wait, as_json=as_json)


def _ask(context: typer.Context, what: str, key: str, reason: str, wait: int, *, as_json: bool) -> None:
    """Put the request into the queue, so that Ingest does it in its turn, and show what became of it."""
    works_on = deployment(context)
    wiring = works_on.wiring
    name = _named(key)
    named = [
        row
        for row in parked_uploads(wiring)
        if name in {_named(row["upload"]), _named(row["upload"]).partition("/")[2], row["batch_id"]}
    ]
    if len(named) != 1:
        what_there_is = (
            "several uploads of this name are parked; give the batch id" if named else "no such upload is parked"
        )
        raise typer.BadParameter(f"{what_there_is}; see: mesh uploads --status parked", param_hint="KEY")
    [parked] = named
    batch_id = parked["batch_id"]
    if what == "retry" and not parked["upload"]:
        raise typer.BadParameter(
            "nobody knows which file this was; upload it again, and abandon this", param_hint="KEY"
        )
    with acting(works_on, f"uploads {what}", batch_id, reason) as asked:
        wiring.queue().ask(what, batch_id, reason, asked.by)
        _wait(wiring, what, parked, wait, as_json=as_json)


def _wait(wiring: Wiring, what: str, parked: dict[str, Any], wait: int, *, as_json: bool) -> None:
    """Wait until Ingest has done what was asked, and show what became of the upload."""
    register, batch_id = wiring.register(), parked["batch_id"]
    deadline = time.monotonic() + wait
    with talk.status("Waiting for Ingest"), goes_on("Ingest does it in its turn, without you. See: mesh uploads"):
        while batch_id in register.parked() and time.monotonic() < deadline:
            time.sleep(0.2)
    if batch_id in register.parked():
        talk.print("It waits in the queue. See later: mesh uploads --status parked")
        raise NotYet(1 if wait else 0)
    bucket = wiring.bucket()
    outcome = bucket.receipt(parked["upload"], batch_id) if parked["upload"] else None
    if isinstance(outcome, ParkedUpload) and outcome.retried_as:
        outcome = bucket.receipt(parked["upload"], outcome.retried_as) or outcome
    if as_json:
        print_json(document(outcome) if outcome else None)
    elif outcome:
        show_receipt(outcome, bucket)
    if what == "retry" and (outcome is None or outcome.status != "ingested"):
        raise typer.Exit(1)


def reconcile(
    context: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be queued.")] = False,
    minutes: Annotated[
        int, typer.Option(help="How old an upload without a receipt has to be, in minutes.", min=0)
    ] = 60,
    restored: Annotated[
        bool, typer.Option("--restored", help="Put exports and uploads right after the tables were restored.")
    ] = False,
    reason: Why = None,
    as_json: Json = False,
) -> None:
    """Find the uploads that were forgotten, since their events never arrived, and queue them, as the daily run does.

    For example: mesh reconcile --dry-run
    """
    works_on = deployment(context)
    event = {"dry_run": dry_run, "minutes": minutes, "restored": restored}
    if dry_run:
        _reconcile(works_on, event, as_json=as_json)
        return
    with acting(works_on, "reconcile --restored" if restored else "reconcile", reason=reason) as asked:
        _reconcile(works_on, event, asked, as_json=as_json)


def _reconcile(works_on: Deployment, event: dict[str, Any], asked: Asked | None = None, *, as_json: bool) -> None:
    run = have_done(works_on, "reconcile", ReconcileRun, event, asked, as_json=as_json)
    if not as_json:
        show_reconcile_run(run)
    if run.status == "incomplete":
        raise typer.Exit(1)


def show_reconcile_run(run: ReconcileRun) -> None:
    """Show what a run of reconcile has done, or would do."""
    if run.exports:
        rows = [[each.export_id, each.was, each.attempt, each.records, each.moved] for each in run.exports]
        title = "Would be put back, to ask MESH about" if run.dry_run else "Put back; MESH will be asked about"
        data.print(Table(title, ["export", "was", "attempt", "records", "batches moved"], rows))
    for programme, number in run.passed_over.items():
        talk.print(f"The next export of {PROGRAMMES[programme].name} comes after {programme}-{number}.")
    if run.uploads:
        rows = [[upload.upload, upload.uploaded_at, upload.batch_id] for upload in run.uploads]
        data.print(Table("Would be queued" if run.dry_run else "Queued", ["upload", "uploaded", "batch id"], rows))
    talk.print(f"{counted(run.looked_at, 'upload')} looked at; {run.queued} forgotten.")
    if run.status == "incomplete":
        talk.print("The time was up before everything was done: run it again.")


def wait_for_receipt(bucket: Bucket, key: str, version: str, seconds: float) -> AnyReceipt | None:
    """Wait until an upload's receipt is there; None where it has not come in time."""
    batch_id = bucket.batch_id(key, version)
    deadline = time.monotonic() + seconds
    while (receipt := bucket.receipt(key, batch_id)) is None and time.monotonic() < deadline:
        time.sleep(0.2)
    return receipt


def request(works_on: Deployment, name: str, body: BinaryIO | bytes, asked: Asked, wait: int, *, as_json: bool) -> None:
    """Put a request into the bucket, wait for its receipt and show it.

    Raises
    ------
    typer.Exit
        With 1: the receipt has not come in time, the request was rejected, or a row of it; with 0: nobody waits.
    """
    bucket = works_on.wiring.bucket()
    key, version = bucket.put_request(name, body, asked)
    if not wait:
        talk.print(f"Requested as {key}.")
        if as_json:
            print_json({"request": key, "version": version})
        raise NotYet(0)
    later = f"mesh receipt {shlex.quote(key)}"
    waiting = goes_on(f"The request is in the queue and is done without you. Ask later with: {later}")
    with talk.status("Waiting for Ingest"), waiting:
        receipt = wait_for_receipt(bucket, key, version, wait)
    if receipt is None:
        talk.print(f"No receipt after {wait} s. The request is in the queue and is not lost.")
        talk.print(f"Ask later with: {later}", markup=False, soft_wrap=True)
        raise NotYet(1)
    if as_json:
        print_json(document(receipt))
    else:
        show_receipt(receipt, bucket)
    if not isinstance(receipt, Receipt) or receipt.rejected:
        raise typer.Exit(1)


def show_receipt(receipt: AnyReceipt, bucket: Bucket) -> None:
    """Show a receipt as a person would like it."""
    if isinstance(receipt, RejectedUpload):
        why = f"{escape(receipt.reason)}. Right would be: {escape(receipt.fix)}."
        data.print(f"[bold red]Rejected[/]: {why}", soft_wrap=True)
        return
    if isinstance(receipt, ParkedUpload):
        data.print(f"[bold red]{receipt.status.capitalize()}[/]: {_PARKED[receipt.status]}", soft_wrap=True)
        if receipt.status == "parked":
            name = shlex.quote(_named(receipt.upload))
            talk.print(f"Once the cause is gone: mesh uploads retry {name} --reason …", markup=False, soft_wrap=True)
            talk.print(f"To end it: mesh uploads abandon {name} --reason …", markup=False, soft_wrap=True)
        return
    rows = [
        [PROGRAMMES[key].name, *(counts.get(action, 0) for action in Action), receipt.exports.get(key, "")]
        for key, counts in receipt.accepted.items()
    ]
    if rows:
        data.print(Table("Accepted", ["programme", *Action, "export"], rows))
    accepted = sum(sum(counts.values()) for counts in receipt.accepted.values())
    data.print(
        f"{counted(receipt.rows, 'row')}: {accepted} accepted, {receipt.unchanged} unchanged, "
        f"{receipt.overtaken} overtaken, {receipt.skipped} skipped, {receipt.rejected} rejected"
    )
    if receipt.assumed:
        told = [[what, rows, _lines(receipt.assumed_in[what], rows)] for what, rows in receipt.assumed.items()]
        data.print(Table("Assumed", ["what", "rows", "lines"], told, prose=["what", "lines"]))
    if receipt.contradictions:
        data.print(
            "The later row counts where it contradicts an earlier one about the same vaccination "
            f"({counted(receipt.contradictions, 'time')}):"
        )
        for earlier, later in receipt.contradicting:
            data.print(f"line {later} contradicts line {earlier}")
    if receipt.rejects:
        faults = _faults(bucket, receipt.rejects)
        told = [[*fault, len(lines), _lines(lines[:MOST_LINES], len(lines))] for fault, lines in faults.items()]
        header = [*HEADER[1:], "rows", "lines"]
        data.print(Table("Rejected", header, told[:MOST_FAULTS], prose=[*HEADER[2:], "lines"]))
        if len(told) > MOST_FAULTS:
            data.print("and more:")
        data.print(f"s3://{bucket.bucket}/{receipt.rejects}", soft_wrap=True)


def _lines(first: Sequence[int | str], rows: int) -> str:
    return ", ".join(map(str, first)) + (" and more" if rows > len(first) else "")


def _faults(bucket: Bucket, key: str) -> dict[tuple[str, ...], list[str]]:
    """Return the lines that have each fault, with what would be right, in the order in which they come up first."""
    faults: dict[tuple[str, ...], list[str]] = {}
    for line, *fault in _rejects(bucket, key):
        faults.setdefault(tuple(fault), []).append(line)
    return faults


def _rejects(bucket: Bucket, key: str) -> Iterator[list[str]]:
    with closing(bucket.open_rejects(key)) as body:
        for line, problems in read_rejects(io.TextIOWrapper(body, "utf-8", newline="")):
            yield from ([str(line), each.column, each.what, each.fix] for each in problems)
