"""Fixtures of the use cases' tests: fresh tables and bucket for each test, as the template defines them."""

from __future__ import annotations

import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from moto.server import ThreadedMotoServer
from samcli.yamlhelper import yaml_parse

from tests.usecases.world import Clock, World
from vaccinations.aws.bucket import Archive
from vaccinations.aws.ledger import Ledger
from vaccinations.aws.register import Register
from vaccinations.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from local.sandbox import Sandbox

TEMPLATE = Path(__file__).parents[2] / "template.yaml"


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
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
def fresh_settings(dynamodb: Any, s3: Any, resources: dict[str, Any]) -> Iterator[Settings]:
    """Make tables and a bucket of their own."""
    bucket = f"bucket-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-2"})
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    made = Settings(
        exports_table=make_table(dynamodb, resources, "DpsExportsTable"),
        records_table=make_table(dynamodb, resources, "VaccinationRecordsTable"),
        bucket=bucket,
        mesh_secret="mesh",
        mesh_jobs_parameter="/test/mesh_jobs",
        mesh_base_url="https://localhost",
        dps_mailbox="X26ABC3",
    )
    yield made
    # moto copies a table for each transaction, and all of them live in this process.
    dynamodb.delete_table(TableName=made.exports_table)
    dynamodb.delete_table(TableName=made.records_table)


@pytest.fixture
def settings(dynamodb: Any, s3: Any, resources: dict[str, Any]) -> Iterator[Settings]:
    with fresh_settings(dynamodb, s3, resources) as made:
        yield made


@pytest.fixture
def make_ledger(dynamodb: Any, settings: Settings) -> Callable[..., Ledger]:
    return lambda **options: Ledger(dynamodb, settings.exports_table, **options)


@pytest.fixture
def register(dynamodb: Any, settings: Settings) -> Register:
    return Register(dynamodb, settings.records_table)


@pytest.fixture
def archive(s3: Any, settings: Settings) -> Archive:
    return Archive(s3, settings.bucket)


@pytest.fixture
def world(
    settings: Settings,
    archive: Archive,
    register: Register,
    make_ledger: Callable[..., Ledger],
    s3: Any,
    sandbox: Sandbox,
    clean_mailboxes: None,
) -> Iterator[World]:
    clock = Clock()
    with sandbox.client() as client, sandbox.client("X26ABC3") as receiver:
        yield World(settings, archive, register, make_ledger(clock=clock), clock, client, receiver, s3)


@pytest.fixture
def report(world: World, sandbox: Sandbox) -> Callable[[str], None]:
    """Make MESH report that a message was not collected (the sandbox's admin API)."""

    def make(message_id: str) -> None:
        sandbox.admin(
            "POST",
            "/messageexchange/admin/report",
            {
                "mailbox_id": "X26ABC1",
                "code": "14",
                "description": "Message not collected by recipient after 5 days",
                "workflow_id": "dps export",
                "subject": "NDR",
                "local_id": "",
                "file_name": "report.dat",
                "linked_message_id": message_id,
            },
        )

    return make


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
