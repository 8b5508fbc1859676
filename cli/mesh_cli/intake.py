"""Commands about uploads of vaccination records."""

from __future__ import annotations

import csv
import itertools
import json
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import boto3
import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from mesh_cli.options import Json, deployment
from mesh_cli.output import data, print_json, table, talk, transfer
from vaccinations.aws.bucket import receipt_key, receipts_prefix
from vaccinations.model.programmes import PROGRAMMES
from vaccinations.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

PANEL = "Intake"
#: So many rejected rows are shown; the file has them all.
MOST_REJECTS = 10


def add_to(app: typer.Typer) -> None:
    """Add these commands to the app."""
    app.command("upload", rich_help_panel=PANEL)(upload)
    app.command("receipt", rich_help_panel=PANEL)(receipt)


def upload(
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
    settings = deployment()
    organisation = organisation or settings.ods_code
    if not organisation:
        raise typer.BadParameter("the deployment has no ODS code of its own; give one", param_hint="--organisation")
    progress, task = transfer(f"Uploading {file.name}", file.stat().st_size)
    with progress, progress.open(file, "rb", task_id=task) as body:
        key, version = put_upload(settings, file.name, body, organisation)
    if not wait:
        talk.print(f"Uploaded as {key}.")
        if as_json:
            print_json({"upload": key, "version": version})
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=talk, transient=True) as progress:
        progress.add_task(f"Waiting for the receipt of {file.name}")
        receipt = wait_for_receipt(settings, key, version, wait)
    if receipt is None:
        talk.print(f"No receipt after {wait} s. The upload is in the queue and is not lost.")
        talk.print(f"Ask later with: mesh receipt {organisation}/{file.name}")
        raise typer.Exit(1)
    if as_json:
        print_json(receipt)
    else:
        show_receipt(receipt, settings)
    if receipt["status"] == "rejected":
        raise typer.Exit(1)


def receipt(
    upload_key: Annotated[
        str, typer.Argument(metavar="UPLOAD", help="The upload: R1L/monday.csv, or its key incoming/R1L/monday.csv.")
    ],
    as_json: Json = False,
) -> None:
    """Show the latest receipt of an upload. Exits with 1 if there is none yet, or the file was rejected."""
    settings = deployment()
    s3 = boto3.client("s3")
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=settings.bucket, Prefix=receipts_prefix(upload_key))
    items = [item for page in pages for item in page.get("Contents", [])]
    keys = [item["Key"] for item in items]
    found = [item for item in items if item["Key"].endswith(".json")]
    if not found:
        talk.print(f"There is no receipt of {upload_key} yet; uploads are taken in one after the other.")
        raise typer.Exit(1)
    latest = max(found, key=lambda item: item["LastModified"])["Key"]
    document = json.loads(s3.get_object(Bucket=settings.bucket, Key=latest)["Body"].read())
    refusals = sorted(key for key in keys if key.startswith(f"{latest.removesuffix('.json')}-refused-"))
    if as_json:
        print_json(document | {"refused_by_dps": refusals})
    else:
        show_receipt(document, settings)
        for key in refusals:
            data.print(f"DPS refused rows of it: s3://{settings.bucket}/{key}", soft_wrap=True)
    if document["status"] == "rejected":
        raise typer.Exit(1)


def put_upload(settings: Settings, name: str, body: BinaryIO | bytes, organisation: str) -> tuple[str, str]:
    """Put an upload into the bucket; return its key and version."""
    key = f"incoming/{organisation}/{name}"
    answer = boto3.client("s3").put_object(Bucket=settings.bucket, Key=key, Body=body)
    return key, answer.get("VersionId", "")


def wait_for_receipt(settings: Settings, key: str, version: str, seconds: float) -> dict[str, Any] | None:
    """Wait until an upload's receipt is there; None where it has not come in time."""
    s3 = boto3.client("s3")
    where = receipt_key(key, settings.archive().batch_id(key, version))
    deadline = time.monotonic() + seconds
    while True:
        try:
            receipt: dict[str, Any] = json.loads(s3.get_object(Bucket=settings.bucket, Key=where)["Body"].read())
        except s3.exceptions.NoSuchKey:
            if time.monotonic() > deadline:
                return None
            time.sleep(0.2)
        else:
            return receipt


def show_receipt(receipt: dict[str, Any], settings: Settings) -> None:
    """Show a receipt as a person would like it."""
    if receipt["status"] == "rejected":
        data.print(f"[bold red]Rejected[/]: {receipt['reason']}. Right would be: {receipt['mend']}.")
        return
    actions = ("new", "update", "delete")
    rows = [
        [PROGRAMMES[key].name, *(counts.get(action, 0) for action in actions), receipt["exports"].get(key, "")]
        for key, counts in receipt["accepted"].items()
    ]
    taken_in = sum(sum(counts.values()) for counts in receipt["accepted"].values())
    if rows:
        data.print(table("Taken in", ["programme", *actions, "export"], rows))
    data.print(
        f"{receipt['rows']} rows: {taken_in} taken in, {receipt['unchanged']} unchanged, "
        f"{receipt['skipped']} not vaccinated, {receipt['rejected']} rejected"
    )
    if receipt["rejects"]:
        rejects = list(itertools.islice(_rejects(settings, receipt["rejects"]), MOST_REJECTS + 1))
        data.print(
            table("Rejected", ["line", "column", "what is wrong", "what would be right"], rejects[:MOST_REJECTS])
        )
        if len(rejects) > MOST_REJECTS:
            data.print("and more:")
        data.print(f"s3://{settings.bucket}/{receipt['rejects']}", soft_wrap=True)


def _rejects(settings: Settings, key: str) -> Iterator[list[str]]:
    body = boto3.client("s3").get_object(Bucket=settings.bucket, Key=key)["Body"]
    with closing(body):
        rows = csv.reader(line.decode() for line in body.iter_lines(keepends=True))
        next(rows, None)
        yield from rows
