"""Set the stage, have each subject measured in a process of its own, and write it all down."""

from __future__ import annotations

import csv
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import uuid
from argparse import ArgumentParser
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import date
from functools import partial
from itertools import batched, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isal import igzip
from rich.console import Console
from rich.progress import Progress

from bench.report import Results, write_report
from local import children
from local.cloud import Aws
from local.emulator import BUILD, check_build, python_path, runtime
from local.sample import make_batch_lines, sample_upload
from local.sandbox import Sandbox
from local.session import session
from local.stack import LOOPBACK, PROJECT
from local.template import Template
from tests import dynamodb_local
from vaccinations.aws.bucket import Bucket
from vaccinations.aws.ledger import Ledger
from vaccinations.aws.register import Register
from vaccinations.formats.dps_columns import COLUMNS, render_row
from vaccinations.formats.dps_parts import RowsWriter
from vaccinations.settings import COMMAND, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: How many records are exported, and how often each is measured.
OURS = {1_000: 3, 3_000: 3, 10_000: 3, 30_000: 3, 100_000: 3, 300_000: 3, 1_000_000: 3}
RENDERING = {1_000: 3, 3_000: 1, 10_000: 3, 30_000: 1, 100_000: 3, 1_000_000: 1}
OTHERWISE = {1_000: 3, 3_000: 3, 10_000: 3, 30_000: 1, 100_000: 1}
#: moto's query reads through the whole table for each page.
OTHERWISE_ON_MOTO = {1_000: 3, 3_000: 1, 10_000: 1}
BATCH = 100_000
LINES = 1_000_000
TODAY = date(2026, 1, 12)
UPLOAD_ROWS_A_PROGRAMME = 10_000
ROWS_A_PROGRAMME = 10_000

talk = Console(stderr=True)


@dataclass
class Stage:
    """The servers, and what a job has to know of them."""

    folder: Path
    settings: Settings
    sandbox: Sandbox
    s3: Any
    dynamodb: Any
    engine: str
    core: int | None
    endpoints: dict[str, str]
    template: Template

    @property
    def bucket(self) -> Bucket:
        """The bucket."""
        return Bucket(self.s3, self.settings.bucket)

    def run(self, subject: str, **job: Any) -> dict[str, Any]:
        """Have a subject measured."""
        certificates = self.sandbox.certificates
        job |= {
            "core": self.core,
            "settings": asdict(self.settings),
            "endpoints": self.endpoints,
            "folder": str(self.folder),
            "mailboxes": str(self.folder / "sandbox" / "mailboxes"),
            "to": self.settings.dps_mailbox,
            "workflow_id": self.settings.workflow_id,
            "mesh": {
                "base_url": self.sandbox.base_url,
                "mailbox": self.sandbox.mailboxes[0],
                "password": self.sandbox.password,
                "shared_key": self.sandbox.shared_key,
                "certificate": certificates.certificate,
                "private_key": certificates.private_key,
                "passphrase": certificates.passphrase,
                "ca_bundle": certificates.ca_bundle,
            },
        }
        ran = subprocess.run(
            [sys.executable, "-m", "bench.subjects", subject],
            input=json.dumps(job, default=str),
            capture_output=True,
            text=True,
            check=False,
            cwd=PROJECT,
            timeout=900,
        )
        self.sandbox.reset()
        if ran.returncode:
            raise RuntimeError(f"{subject} failed:\n{ran.stderr[-3000:]}")
        measured: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
        return measured

    def best(self, subject: str, times: int, prepare: Callable[[], object] | None = None, **job: Any) -> dict[str, Any]:
        """Have a subject measured several times, prepared for each; return the run that was disturbed least."""
        runs = []
        for _ in range(times):
            if prepare:
                prepare()
            runs.append(self.run(subject, **job))
        return min(runs, key=lambda run: float(run["wall"]))


def main() -> None:
    """Measure, and write results.md with its plot."""
    parser = ArgumentParser(prog="python -m bench", description=main.__doc__)
    parser.add_argument("--most", type=int, default=max(OURS), help="export no more records than this, for a try")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent, help="where to write; bench/ by default")
    options = parser.parse_args()
    for plan in (OURS, RENDERING, OTHERWISE, OTHERWISE_ON_MOTO):
        for count in [count for count in plan if count > options.most]:
            del plan[count]
    check_build(PROJECT)
    cores = sorted(os.sched_getaffinity(0))
    core = cores[0] if len(cores) > 1 else None
    if core is not None:
        os.sched_setaffinity(0, set(cores[1:]))  # the servers are started from here, and inherit it
    with ExitStack() as stack:
        stage = set_up(stack, core)
        results = Results(
            machine=f"{_processor()}, {len(cores)} cores, {_memory()} GB; Python {platform.python_version()}",
            engine=stage.engine,
        )
        lines = stage.folder / "lines.jsonl"
        with talk.status("Making a million records…"):
            make_lines(lines, LINES)
        measure_exports(stage, results, lines)
        measure_intake(stage, results)
        if core is not None:
            os.sched_setaffinity(0, {core})
        measure_starts(stage, results)
        write_report(results, options.folder, Console())


def set_up(stack: ExitStack, core: int | None) -> Stage:
    """Start the servers; make tables and a bucket."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
    aws = Aws(folder, LOOPBACK)
    stack.callback(aws.close)
    with talk.status("Starting moto's server, the MESH sandbox and DynamoDB Local…"):
        aws.start()
        sandbox = stack.enter_context(Sandbox(folder / "sandbox"))
        aws.wait()
        endpoints = {"s3": aws.endpoint_url, "dynamodb": aws.endpoint_url}
        engine = "moto"
        if not dynamodb_local.missing():
            endpoints["dynamodb"] = stack.enter_context(dynamodb_local.DynamoDBLocal("2g")).endpoint
            engine = "DynamoDB Local"
    s3, dynamodb = aws.client("s3"), session().client("dynamodb", endpoint_url=endpoints["dynamodb"])
    template = Template.read(PROJECT / "template.yaml")
    variables = {
        "DPS_EXPORTS_TABLE": "DpsExportsTable",
        "VACCINATION_RECORDS_TABLE": "VaccinationRecordsTable",
        "BUCKET": "bench-bucket",
        "MESH_SECRET": "mesh",
        "MESH_JOBS_PARAMETER": "/bench/mesh_jobs",
        "MESH_BASE_URL": sandbox.base_url,
        "DPS_MAILBOX": "X26ABC3",
        "DPS_SUPPLIER_ODS_CODE": "V0V8L",
    }
    settings = Settings.of(COMMAND, variables)
    s3.create_bucket(Bucket=settings.bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-2"})
    for table in (settings.exports_table, settings.records_table):
        properties = template.resources()[table]["Properties"]
        wanted = ("AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes", "BillingMode")
        dynamodb.create_table(TableName=table, **{key: properties[key] for key in wanted if key in properties})
    return Stage(folder, settings, sandbox, s3, dynamodb, engine, core, endpoints, template)


def make_lines(file: Path, count: int) -> None:
    """Write batch lines, once, for all."""
    with file.open("wb") as lines:
        lines.writelines(make_batch_lines(count))


# -- exports


def measure_exports(stage: Stage, results: Results, lines: Path) -> None:
    """Export the same records, ours and otherwise."""
    plan = OTHERWISE if stage.engine == "DynamoDB Local" else OTHERWISE_ON_MOTO
    with Progress(console=talk) as progress:
        task = progress.add_task("Exporting, as this project does", total=sum(OURS.values()) + sum(RENDERING.values()))
        for count, times in OURS.items():
            store_batches(stage, lines, count)
            results.ours[count] = stage.best("ours", times, partial(open_export, stage, count))
            progress.advance(task, times)
            if count in RENDERING:
                ready = partial(open_export, stage, count, endings=["jsonl.gz"])
                results.rendering[count] = stage.best("ours", RENDERING[count], ready)
                progress.advance(task, RENDERING[count])
        task = progress.add_task("Exporting, as one would otherwise", total=len(plan))
        make_items_table(stage)
        for count, times in plan.items():
            store_items(stage, lines, count)
            results.otherwise[count] = stage.best("otherwise", times, table="items", programme=str(count))
            progress.advance(task)


def store_batches(stage: Stage, lines: Path, count: int) -> None:
    """Store the first so many records as batches."""
    files = stage.folder / "batch.jsonl.gz", stage.folder / "batch.csv.gz"
    with lines.open("rb") as source:
        for number, batch in enumerate(batched(islice(source, count), BATCH)):
            with igzip.open(files[0], "wb", compresslevel=1) as stored, files[1].open("wb") as rows:
                stored.writelines(batch)
                writer = RowsWriter(rows)
                for line in batch:
                    writer.write(render_row(line))
                writer.finish()
            stage.bucket.put_batch("hpv", f"{count}-{number}", *files)


def open_export(stage: Stage, count: int, endings: Sequence[str] = ("jsonl.gz", "csv.gz")) -> None:
    """Attach copies of the batches of so many records, as lines and as rows, to a new export."""
    register = Register(stage.dynamodb, stage.settings.records_table)
    ledger = Ledger(stage.dynamodb, stage.settings.exports_table, records_table=stage.settings.records_table)
    run = uuid.uuid4().hex[:8]
    for number, start in enumerate(range(0, count, BATCH)):
        batch, records = f"{run}-{number}", min(BATCH, count - start)
        for ending in endings:
            stage.s3.copy_object(
                Bucket=stage.settings.bucket,
                Key=f"batches/hpv/{batch}.{ending}",
                CopySource=f"{stage.settings.bucket}/batches/hpv/{count}-{number}.{ending}",
            )
        register.begin(batch, {"hpv": records}, register.begun())
        ledger.attach("hpv", batch, records)
        register.finish(batch)


def make_items_table(stage: Stage) -> None:
    """Make a table with an item for each record."""
    stage.dynamodb.create_table(
        TableName="items",
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("programme", "UNIQUE_ID")],
        KeySchema=[
            {"AttributeName": "programme", "KeyType": "HASH"},
            {"AttributeName": "UNIQUE_ID", "KeyType": "RANGE"},
        ],
        BillingMode="PAY_PER_REQUEST",
    )


def store_items(stage: Stage, lines: Path, count: int) -> None:
    """Store the first so many records as items of 34 attributes, under a programme of their own."""
    with lines.open("rb") as source:
        for batch in batched(islice(source, count), 25):
            puts = []
            for line in batch:
                (cells,) = csv.reader([render_row(line)], delimiter="|")
                item = {column: {"S": cell} for column, cell in zip(COLUMNS, cells, strict=True)}
                puts.append({"PutRequest": {"Item": item | {"programme": {"S": str(count)}}}})
            left = {"items": puts}
            while left:
                left = stage.dynamodb.batch_write_item(RequestItems=left).get("UnprocessedItems")


# -- ingesting


def measure_intake(stage: Stage, results: Results) -> None:
    """Ingest an upload: the work of one core, and the whole."""
    with talk.status("Taking uploads in…"):
        file = stage.folder / "upload.csv"
        for rows in (UPLOAD_ROWS_A_PROGRAMME // 10, UPLOAD_ROWS_A_PROGRAMME):
            file.write_bytes(sample_upload(TODAY, rows=rows * 6).csv)
            for with_rows in (False, True):
                results.checking[rows * 6, with_rows] = stage.best(
                    "checking", 3, file=str(file), today=TODAY.isoformat(), rows=with_rows
                )
        key = "incoming/R1L/bench.csv"
        upload = sample_upload(date.today(), rows=ROWS_A_PROGRAMME * 6).csv  # noqa: DTZ011
        stage.s3.put_object(Bucket=stage.settings.bucket, Key=key, Body=upload)
        results.ingesting = stage.run("ingesting", key=key)


# -- starts


def measure_starts(stage: Stage, results: Results) -> None:
    """Import each built function, as Lambda does when it starts one."""
    functions = stage.template.functions()
    aws_part = runtime(stage.folder)
    some = functions["ExportFunction"]
    programs = {"boto3 and requests": (some, "import boto3, requests")}
    programs |= {name: (function, "import handler") for name, function in functions.items()}
    with talk.status("Starting the functions…"):
        times: dict[str, list[float]] = {name: [] for name in programs}
        for _ in range(15):
            for name, (function, program) in programs.items():
                environment = {
                    "PATH": os.defpath,
                    "PYTHONPATH": python_path(PROJECT / BUILD, function, aws_part),
                    "PYTHONPYCACHEPREFIX": str(stage.folder / "pycache"),
                    "LAMBDA_TASK_ROOT": "/var/task",
                }
                before = resource.getrusage(resource.RUSAGE_CHILDREN)
                subprocess.run([children.python(), "-S", "-c", program], env=environment, check=True)
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                times[name].append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    results.starts = {name: min(some) for name, some in times.items()}


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _memory() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)


if __name__ == "__main__":
    main()
