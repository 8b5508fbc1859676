"""Fixtures of the use cases' tests: fresh tables and bucket for each test, as the template defines them."""

from __future__ import annotations

import logging
import sys
import uuid
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from moto.server import ThreadedMotoServer
from samcli.yamlhelper import yaml_parse

from local.moto import quicken
from tests.usecases.memory import NOT_COLLECTED, MemoryBucket, MemoryLedger, MemoryMesh, MemoryRegister
from tests.usecases.stores import STORES, WORLDS, Stores
from tests.usecases.tables import MemoryTables
from tests.usecases.world import DPS, OURS, SUPPLIER, WORKFLOW, World
from vaccinations.aws.bucket import Bucket
from vaccinations.aws.ledger import Ledger
from vaccinations.aws.register import Register
from vaccinations.settings import COMMAND, Settings
from vaccinations.telemetry import logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from local.sandbox import Sandbox
    from tests.clocks import Clock

TEMPLATE = Path(__file__).parents[2] / "template.yaml"


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # it would write a line to the log at each request
    quicken()
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def aws(endpoint: str) -> Callable[[str], Any]:
    session = boto3.Session("testing", "testing", region_name="eu-west-2")
    return lambda service: session.client(service, endpoint_url=endpoint)


@pytest.fixture(scope="session")
def dynamodb(aws: Callable[[str], Any]) -> Any:
    return aws("dynamodb")


@pytest.fixture(scope="session")
def s3(aws: Callable[[str], Any]) -> Any:
    return aws("s3")


@pytest.fixture(scope="session")
def resources() -> dict[str, Any]:
    found: dict[str, Any] = yaml_parse(TEMPLATE.read_text())["Resources"]
    return found


def make_table(dynamodb: Any, resources: dict[str, Any], logical_id: str) -> str:
    properties = resources[logical_id]["Properties"]
    name = f"{logical_id}-{uuid.uuid4().hex[:12]}"
    wanted = ("AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes", "BillingMode")
    dynamodb.create_table(TableName=name, **{key: properties[key] for key in wanted if key in properties})
    return name


@contextmanager
def fresh_tables(dynamodb: Any, resources: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Make tables of their own: of exports, and of records."""
    tables = tuple(make_table(dynamodb, resources, name) for name in ("DpsExportsTable", "VaccinationRecordsTable"))
    yield tables[0], tables[1]
    # moto copies a table for each transaction, and all of them live in this process.
    for table in tables:
        dynamodb.delete_table(TableName=table)


@contextmanager
def fresh_settings(dynamodb: Any, s3: Any, resources: dict[str, Any]) -> Iterator[Settings]:
    """Make tables and a bucket of their own."""
    bucket = f"bucket-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-2"})
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    with fresh_tables(dynamodb, resources) as (exports_table, records_table):
        yield Settings.of(
            COMMAND,
            {
                "DPS_EXPORTS_TABLE": exports_table,
                "VACCINATION_RECORDS_TABLE": records_table,
                "UPLOADS_QUEUE": "https://queue.invalid/uploads.fifo",
                "BUCKET": bucket,
                "MESH_SECRET": "mesh",
                "MESH_JOBS_PARAMETER": "/test/mesh_jobs",
                "MESH_BASE_URL": "https://localhost",
                "DPS_MAILBOX": DPS,
                "DPS_SUPPLIER_ODS_CODE": SUPPLIER,
            },
        )


@pytest.fixture
def settings(dynamodb: Any, s3: Any, resources: dict[str, Any]) -> Iterator[Settings]:
    with fresh_settings(dynamodb, s3, resources) as made:
        yield made


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """Give back everything that was logged and counted since it was asked last."""

    # The logger writes to what standard output was when it was made.
    def write(text: str) -> None:
        sys.stdout.write(text)

    for handler in logger.handlers:
        monkeypatch.setattr(handler, "stream", SimpleNamespace(write=write, flush=lambda: None))
    return lambda: capsys.readouterr().out


@pytest.fixture(params=STORES)
def stores(request: pytest.FixtureRequest, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stores]:
    """Give bucket, register and ledger, in memory and on a server; tests/usecases/stores.py lets a test say where."""
    ask = request.getfixturevalue
    match request.param:
        case "memory":
            yield memory_stores(clock)
        case "tables":
            # Whoever is outrun tries again, and nobody waits for that.
            monkeypatch.setattr("vaccinations.aws.backoff.sleep", lambda _: None)
            yield table_stores(clock, MemoryTables(), "exports", "records")
        case "moto":
            with moto_stores(ask, clock, monkeypatch) as made:
                yield made
        case _:
            with fresh_tables(ask("dynamodb_local"), ask("resources")) as tables:
                yield table_stores(clock, ask("dynamodb_local"), *tables)


@contextmanager
def moto_stores(ask: Callable[[str], Any], clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stores]:
    # moto's server is in this process: its S3 dates uploads by the test's clock.
    monkeypatch.setattr("moto.s3.models.utcnow", lambda: clock().replace(tzinfo=None))
    with fresh_settings(ask("dynamodb"), ask("s3"), ask("resources")) as made:
        yield server_stores(clock, ask("dynamodb"), made, ask("s3"))


def memory_stores(clock: Clock) -> Stores:
    bucket, register = MemoryBucket(clock), MemoryRegister()
    return Stores(
        bucket,
        register,
        MemoryLedger(register, clock),
        clock,
        bucket.store,
        lambda: sorted(bucket.objects),
        bucket.objects.pop,
    )


def table_stores(clock: Clock, dynamodb: Any, exports_table: str, records_table: str) -> Stores:
    """Make stores of which the tables are on a server and the bucket in memory."""
    stores = memory_stores(clock)
    register = Register(dynamodb, records_table)
    ledger = Ledger(dynamodb, exports_table, records_table=records_table, clock=clock)
    tables = (exports_table, records_table)
    return replace(stores, register=register, ledger=ledger, dynamodb=dynamodb, tables=tables)


def server_stores(clock: Clock, dynamodb: Any, settings: Settings, s3: Any) -> Stores:
    """Make stores that are all on a server."""

    def upload(key: str, body: bytes) -> str:
        return str(s3.put_object(Bucket=settings.bucket, Key=key, Body=body).get("VersionId", ""))

    def list_keys() -> list[str]:
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=settings.bucket)
        return sorted(item["Key"] for page in pages for item in page.get("Contents", []))

    tables = table_stores(clock, dynamodb, settings.exports_table, settings.records_table)
    delete = partial(_delete, s3, settings.bucket)
    return replace(tables, bucket=Bucket(s3, settings.bucket), upload=upload, list_keys=list_keys, delete=delete)


def _delete(s3: Any, bucket: str, key: str) -> None:
    s3.delete_object(Bucket=bucket, Key=key)


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Give everything that the use cases work on: all of it in memory, or on moto's server and the MESH sandbox."""
    ask = request.getfixturevalue
    if request.param == "memory":
        mesh = MemoryMesh(OURS, DPS)
        yield World(memory_stores(clock), mesh.mailbox(OURS), mesh.mailbox(DPS), mesh.report)
        return
    sandbox: Sandbox = ask("sandbox")
    sandbox.reset()
    with (
        moto_stores(ask, clock, monkeypatch) as stores,
        sandbox.client(OURS) as client,
        sandbox.client(DPS) as receiver,
    ):
        yield World(stores, client, receiver, partial(make_report, sandbox))


def make_report(sandbox: Sandbox, message_id: str) -> None:
    """Make MESH report that a message was not collected (the sandbox's admin API)."""
    about = {"code": "14", "description": NOT_COLLECTED, "subject": "NDR"}
    names = {"workflow_id": WORKFLOW, "local_id": "", "file_name": "report.dat", "linked_message_id": message_id}
    sandbox.admin("POST", "/messageexchange/admin/report", {"mailbox_id": OURS, **about, **names})


@pytest.fixture
def count_writes(dynamodb: Any) -> Iterator[Callable[[], int]]:
    """Count the items written to DynamoDB so far."""
    written = 0

    def note(params: dict[str, Any], model: Any, **_: Any) -> None:
        nonlocal written
        if model.name in {"PutItem", "UpdateItem", "DeleteItem"}:
            written += 1
        elif model.name == "TransactWriteItems":
            written += len(params["TransactItems"])
        elif model.name == "BatchWriteItem":
            written += sum(map(len, params["RequestItems"].values()))

    dynamodb.meta.events.register("provide-client-params.dynamodb", note)
    yield lambda: written
    dynamodb.meta.events.unregister("provide-client-params.dynamodb", note)


@pytest.fixture
def table_text(dynamodb: Any, settings: Settings) -> Callable[[], str]:
    """Return everything that is in both tables, as one text."""
    tables = (settings.exports_table, settings.records_table)
    return lambda: str([dynamodb.scan(TableName=table)["Items"] for table in tables])
