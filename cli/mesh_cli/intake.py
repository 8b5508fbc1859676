"""Commands about uploads of vaccination records."""

from __future__ import annotations

import csv
import io
import itertools
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from mesh_cli.options import Json, deployment
from mesh_cli.output import data, print_json, table, talk, transfer
from vaccinations.formats.rejects import HEADER
from vaccinations.model.entry import Action
from vaccinations.model.programmes import PROGRAMMES
from vaccinations.results import Receipt, RejectedUpload, document

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vaccinations.aws.bucket import Bucket

PANEL = "Intake"
#: So many rejected rows are shown; the file has them all.
MOST_REJECTS = 10


def add_to(app: typer.Typer) -> None:
    """Add these commands to the app."""
    app.command("upload", rich_help_panel=PANEL)(upload)
    app.command("receipt", rich_help_panel=PANEL)(receipt)


def upload(
    context: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(
            exists=True, dir_okay=False, readable=True, help="A .csv or .jsonl file of vaccination records."
        ),
    ],
    organisation: Annotated[
        str | None,
        typer.Option(
            "--organisation",
            "-O",
            help="ODS code of the organisation that uploads; the deployment's own (DPS_ODS_CODE) where left out.",
            metavar="ODS",
        ),
    ] = None,
    wait: Annotated[
        int, typer.Option(help="How long to wait for the receipt, in seconds; 0 does not wait.", min=0)
    ] = 300,
    as_json: Json = False,
) -> None:
    """Upload vaccination records, wait for the receipt and show it. Exits with 1 if the file was rejected."""
    works_on = deployment(context)
    bucket = works_on.wiring.bucket()
    organisation = organisation or works_on.settings.ods_code
    if not organisation:
        raise typer.BadParameter("the deployment has no ODS code of its own; give one", param_hint="--organisation")
    progress, task = transfer(f"Uploading {file.name}", file.stat().st_size)
    with progress, progress.open(file, "rb", task_id=task) as body:
        key, version = bucket.put_upload(organisation, file.name, body)
    if not wait:
        talk.print(f"Uploaded as {key}.")
        if as_json:
            print_json({"upload": key, "version": version})
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=talk, transient=True) as progress:
        progress.add_task(f"Waiting for the receipt of {file.name}")
        receipt = wait_for_receipt(bucket, key, version, wait)
    if receipt is None:
        talk.print(f"No receipt after {wait} s. The upload is in the queue and is not lost.")
        talk.print(f"Ask later with: mesh receipt {organisation}/{file.name}")
        raise typer.Exit(1)
    if as_json:
        print_json(document(receipt))
    else:
        show_receipt(receipt, bucket)
    if receipt.status == "rejected":
        raise typer.Exit(1)


def receipt(
    context: typer.Context,
    upload_key: Annotated[
        str, typer.Argument(metavar="UPLOAD", help="The upload: R1L/monday.csv, or its key incoming/R1L/monday.csv.")
    ],
    as_json: Json = False,
) -> None:
    """Show the latest receipt of an upload. Exits with 1 if there is none yet, or the file was rejected."""
    bucket = deployment(context).wiring.bucket()
    found = bucket.latest_receipt(upload_key)
    if not found:
        talk.print(f"There is no receipt of {upload_key} yet; uploads are ingested one after the other.")
        raise typer.Exit(1)
    latest, refusals = found
    if as_json:
        print_json(document(latest) | {"refused_by_dps": refusals})
    else:
        show_receipt(latest, bucket)
        for key in refusals:
            data.print(f"DPS refused rows of it: s3://{bucket.bucket}/{key}", soft_wrap=True)
    if latest.status == "rejected":
        raise typer.Exit(1)


def wait_for_receipt(bucket: Bucket, key: str, version: str, seconds: float) -> Receipt | RejectedUpload | None:
    """Wait until an upload's receipt is there; None where it has not come in time."""
    batch_id = bucket.batch_id(key, version)
    deadline = time.monotonic() + seconds
    while (receipt := bucket.receipt(key, batch_id)) is None and time.monotonic() < deadline:
        time.sleep(0.2)
    return receipt


def show_receipt(receipt: Receipt | RejectedUpload, bucket: Bucket) -> None:
    """Show a receipt as a person would like it."""
    if isinstance(receipt, RejectedUpload):
        data.print(f"[bold red]Rejected[/]: {receipt.reason}. Right would be: {receipt.fix}.")
        return
    rows = [
        [PROGRAMMES[key].name, *(counts.get(action, 0) for action in Action), receipt.exports.get(key, "")]
        for key, counts in receipt.accepted.items()
    ]
    if rows:
        data.print(table("Accepted", ["programme", *Action, "export"], rows))
    accepted = sum(sum(counts.values()) for counts in receipt.accepted.values())
    data.print(
        f"{receipt.rows} rows: {accepted} accepted, {receipt.unchanged} unchanged, "
        f"{receipt.skipped} skipped, {receipt.rejected} rejected"
    )
    if receipt.rejects:
        rejects = list(itertools.islice(_rejects(bucket, receipt.rejects), MOST_REJECTS + 1))
        data.print(table("Rejected", HEADER, rejects[:MOST_REJECTS]))
        if len(rejects) > MOST_REJECTS:
            data.print("and more:")
        data.print(f"s3://{bucket.bucket}/{receipt.rejects}", soft_wrap=True)


def _rejects(bucket: Bucket, key: str) -> Iterator[list[str]]:
    with closing(bucket.open_rejects(key)) as body:
        rows = csv.reader(io.TextIOWrapper(body, "utf-8", newline=""))
        next(rows, None)
        yield from rows
