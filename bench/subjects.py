"""What is measured, each in a process of its own: ``python -m bench.subjects NAME`` with its job as JSON on stdin.

A subject makes its clients, says the time, works, and prints what that took as JSON.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import sys
import time
import uuid
from contextlib import redirect_stdout
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

type Job = dict[str, Any]

#: What a DPS file's rows are written with, where it is not done here.
WRITER: dict[str, Any] = {"delimiter": "|", "quoting": csv.QUOTE_ALL, "lineterminator": "\n"}


def main() -> None:
    """Run the subject that the command line names."""
    job = json.loads(sys.stdin.read())
    if job["core"] is not None:
        os.sched_setaffinity(0, {job["core"]})
    with redirect_stdout(sys.stderr):  # metrics are written there
        ready = SUBJECTS[sys.argv[1]](job)
        began, used = time.monotonic(), time.process_time()
        told = ready()
        wall, cpu = time.monotonic() - began, time.process_time() - used
    own = wall - told.get("waited", 0.0)
    print(json.dumps({"wall": wall, "cpu": cpu, "peak": _peak(), "own": own, **told}))


# -- exports


def ours(job: Job) -> Callable[[], dict[str, Any]]:
    """Export as the function does: records at rest in S3, until MESH has taken the file."""
    from nhs_mesh import Credentials, MeshClient
    from vaccinations.aws.bucket import Bucket
    from vaccinations.aws.ledger import Ledger
    from vaccinations.formats.dps_names import file_names
    from vaccinations.jobs.export import Export, ExportRequest
    from vaccinations.settings import Settings

    settings = Settings(**job["settings"])
    calls, dynamodb = _counted(job, "dynamodb")
    s3 = _client(job, "s3")
    mesh = job["mesh"]
    client = MeshClient(
        mesh["base_url"],
        Credentials(mesh["mailbox"], mesh["password"], mesh["shared_key"]),
        **{name: mesh[name] for name in ("certificate", "private_key", "passphrase", "ca_bundle")},
    )
    client.handshake()
    bucket = Bucket(s3, settings.bucket)
    export = Export(
        ledger=Ledger(dynamodb, settings.exports_table),
        bucket=bucket,
        connect=lambda: client,
        names=lambda programme: file_names(programme, settings.filename_style, settings.supplier_ods_code),
        recipient=settings.dps_mailbox,
        workflow_id=settings.workflow_id,
        holder=str(uuid.uuid4()),
        seconds_left=lambda: 900.0,
    )

    def run() -> dict[str, Any]:
        (outcome,) = export.run(ExportRequest(programme="hpv")).exports
        if outcome.status != "accepted":
            raise RuntimeError(f"the export was not accepted: {outcome}")
        asked = list(calls)
        number = int((outcome.export_id or "").rpartition("-")[2])
        manifest = bucket.manifest("hpv", number)
        sizes = [part.size for part in manifest.parts] if manifest else []
        return {"records": outcome.records, "wire": sum(sizes), "parts": len(sizes), "calls": asked}

    return run


def otherwise(job: Job) -> Callable[[], dict[str, Any]]:
    """Export as one would write it at first: query the records, write them with csv.writer, send that."""
    import boto3
    from boto3.dynamodb.conditions import Key

    from vaccinations.formats.dps_columns import COLUMNS

    client = _their_client(job)
    client.handshake()
    resource_ = boto3.Session("local", "local", region_name="eu-west-2").resource(
        "dynamodb", endpoint_url=job["endpoints"]["dynamodb"]
    )
    calls = _count(resource_.meta.client)
    table = resource_.Table(job["table"])

    def run() -> dict[str, Any]:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", **WRITER)
        writer.writeheader()
        records, waited = 0, 0.0
        query: dict[str, Any] = {"KeyConditionExpression": Key("programme").eq(job["programme"])}
        while True:
            asked, used = time.monotonic(), time.process_time()
            page = table.query(**query)
            waited += (time.monotonic() - asked) - (time.process_time() - used)
            writer.writerows(page["Items"])
            records += len(page["Items"])
            if "LastEvaluatedKey" not in page:
                break
            query["ExclusiveStartKey"] = page["LastEvaluatedKey"]
        wire = _send(client, job, text.getvalue().encode(), compress=True)
        return {"records": records, "wire": wire, "calls": list(calls), "waited": waited}

    return run


# -- ingesting


def checking(job: Job) -> Callable[[], dict[str, Any]]:
    """Do the work of taking an upload in that needs nobody else: parse, validate, digest, write line and row."""
    from vaccinations.formats.batches import batch_line
    from vaccinations.formats.dps_columns import render_row
    from vaccinations.formats.dps_parts import RowsWriter
    from vaccinations.formats.upload_csv import read_csv
    from vaccinations.model.entry import Entry, age_of
    from vaccinations.model.outcome import Action
    from vaccinations.model.row import Vaccinated

    today = date.fromisoformat(job["today"])
    stated_at = age_of(datetime.now(UTC), "incoming/R1L/upload.csv", 0)

    def run() -> dict[str, Any]:
        records = 0
        with Path(job["file"]).open("rb") as upload, Path(os.devnull).open("wb") as nowhere:
            rows = RowsWriter(nowhere)
            for row in read_csv(upload, organisation_code="R1L", today=today):
                if not isinstance(row, Vaccinated):
                    continue
                entry = Entry(
                    row.record_id,
                    row.record.programme,
                    row.digest,
                    Action.NEW,
                    "b",
                    row.line,
                    "R1L",
                    stated_at,
                    stated_at,
                )
                line = batch_line(row.record, entry, today=today)
                records += 1
                if job["rows"]:
                    rows.write(render_row(line))
            rows.finish()
        return {"records": records}

    return run


def ingesting(job: Job) -> Callable[[], dict[str, Any]]:
    """Ingest an upload as the function does."""
    from vaccinations.aws.bucket import Bucket
    from vaccinations.aws.ledger import Ledger
    from vaccinations.aws.register import Register
    from vaccinations.jobs.ingest import Ingest
    from vaccinations.settings import Settings

    settings = Settings(**job["settings"])
    calls, dynamodb = _counted(job, "dynamodb")
    ingest = Ingest(
        Bucket(_client(job, "s3"), settings.bucket),
        Register(dynamodb, settings.records_table),
        Ledger(dynamodb, settings.exports_table, records_table=settings.records_table),
    )

    def run() -> dict[str, Any]:
        receipt = ingest.ingest(job["key"], "")
        if receipt.status != "ingested":
            raise RuntimeError(f"the upload was {receipt.status}: {receipt.reason}")
        return {"records": sum(sum(a.values()) for a in receipt.accepted.values()), "calls": list(calls)}

    return run


# -- what they share


def _peak() -> int:
    """Return the most memory that was resident here; getrusage would count what its parent had before the start."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else 0


def _client(job: Job, service: Any) -> Any:
    import boto3

    session = boto3.Session("local", "local", region_name="eu-west-2")
    return session.client(service, endpoint_url=job["endpoints"][service])


def _counted(job: Job, service: str) -> tuple[list[str], Any]:
    client = _client(job, service)
    return _count(client), client


def _count(client: Any) -> list[str]:
    """Return a list to which each call's name is added."""
    calls: list[str] = []
    client.meta.events.register("before-call.dynamodb", lambda model, **_: calls.append(model.name))
    return calls


def _their_client(job: Job) -> Any:
    import mesh_client

    mesh = job["mesh"]
    folder = Path(job["folder"])
    for name in ("certificate", "private_key", "ca_bundle"):
        (folder / name).write_text(mesh[name])
    return mesh_client.MeshClient(
        mesh["base_url"],
        mesh["mailbox"],
        mesh["password"],
        shared_key=mesh["shared_key"].encode(),
        cert=(str(folder / "certificate"), str(folder / "private_key"), mesh["passphrase"]),
        verify=str(folder / "ca_bundle"),
    )


def _send(client: Any, job: Job, body: Any, *, compress: bool) -> int:
    """Send with NHS England's client; return how many bytes went over the wire, as the sandbox has them."""
    message_id = client.send_message(
        job["to"], body, compress=compress, workflow_id=job["workflow_id"], filename="bench.csv"
    )
    return sum(file.stat().st_size for file in Path(job["mailboxes"], job["to"], "in", message_id).iterdir())


SUBJECTS: dict[str, Callable[[Job], Callable[[], dict[str, Any]]]] = {
    "ours": ours,
    "otherwise": otherwise,
    "checking": checking,
    "ingesting": ingesting,
}

if __name__ == "__main__":
    main()
