"""Each change of an export's state is told on EventBridge, here moto's, and nothing ever waits for that."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import boto3
import jsonschema
import pytest
from botocore.config import Config

from local.children import free_port
from tests.schemas import FOLDER
from tests.usecases.rows import row, upload_of
from tests.usecases.stores import on_sandbox
from vaccinations.aws.bus import DETAIL_TYPE, SOURCE, publisher
from vaccinations.aws.ledger import Ledger
from vaccinations.model import lifecycle
from vaccinations.model.export import Processing, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.usecases.world import World

SCHEMA = json.loads((FOLDER / "export-changed.schema.json").read_text())
pytestmark = on_sandbox


def publish(world: World, events: Any, bus: str) -> None:
    stores = world.stores
    changed = publisher(events, bus)
    stores.ledger = Ledger(stores.dynamodb, *stores.tables, changed=changed, clock=world.clock)


@pytest.fixture
def heard(aws: Callable[[str], Any], world: World) -> Iterator[Callable[[], Any]]:
    """Listen to the bus as another system would, by a rule and a queue; return what was heard since."""
    events, sqs = aws("events"), aws("sqs")
    name = f"heard-{uuid.uuid4().hex[:12]}"
    queue = sqs.create_queue(QueueName=name)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    pattern = {"source": [SOURCE], "detail-type": [DETAIL_TYPE]}
    events.create_event_bus(Name=name)
    events.put_rule(Name=name, EventBusName=name, EventPattern=json.dumps(pattern))
    events.put_targets(Rule=name, EventBusName=name, Targets=[{"Id": "queue", "Arn": arn}])
    publish(world, events, name)

    def since() -> list[dict[str, Any]]:
        details = []
        while messages := sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages"):
            for message in messages:
                details.append(json.loads(message["Body"])["detail"])
                sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        for detail in details:
            jsonschema.validate(detail, SCHEMA)
        return details

    yield since
    events.remove_targets(Rule=name, EventBusName=name, Ids=["queue"])
    sqs.delete_queue(QueueUrl=queue)


def test_each_state_that_an_export_comes_into_is_published(world: World, heard: Callable[[], Any]) -> None:
    world.upload(upload_of(row(1), row(2)))
    assert heard() == []
    world.export()
    pending, accepted = heard()
    assert (pending["status"], pending["message_id"], pending["records"]) == ("pending", "", 2)
    export = world.ledger.get("hpv", 1)
    assert accepted == {
        "export_id": "hpv-1",
        "programme": "hpv",
        "number": 1,
        "status": "accepted",
        "attempt": 1,
        "records": 2,
        "filename": export.attempts[-1].filename,
        "mesh_filename": export.attempts[-1].mesh_filename,
        "message_id": export.message_id,
        "processing": None,
        "rows_processed": None,
        "rows_refused": None,
        "changed_at": export.updated_at.isoformat(),
    }
    world.track()
    assert heard() == []
    world.acknowledge()
    world.track()
    assert [(e["export_id"], e["status"]) for e in heard()] == [("hpv-1", "acknowledged")]
    world.clock.forward(hours=1)
    hear = partial(lifecycle.hear, number=1, to=Processing.PROCESSED, now=world.clock())
    answered = world.ledger.change(
        world.ledger.get("hpv", 1), lambda found: hear(found, rows_processed=1, rows_refused=1)
    )
    [processed] = heard()
    facts = tuple(processed[name] for name in ("status", "processing", "rows_processed", "rows_refused"))
    assert facts == ("acknowledged", "processed", 1, 1)
    processed_at = answered.attempts[-1].processed_at
    assert processed_at
    assert processed["changed_at"] == processed_at.isoformat()


def test_an_export_that_is_requeued_and_the_next_one_are_published(world: World, heard: Callable[[], Any]) -> None:
    world.upload(upload_of(row(1)))
    world.export()
    world.report(world.ledger.get("hpv", 1).message_id)
    world.track()
    world.do_requests()
    world.next_night()
    told = [(e["export_id"], e["status"]) for e in heard()]
    first = ["pending", "accepted", "undelivered", "requeued"]
    assert told == [*(("hpv-1", status) for status in first), ("hpv-2", "pending"), ("hpv-2", "accepted")]


def test_what_a_person_sends_again_is_published(world: World, heard: Callable[[], Any]) -> None:
    world.upload(upload_of(row(1)))
    world.export()
    export = world.ledger.get("hpv", 1)
    world.ledger.change(export, lambda current: replace(current, status=Status.UNCLEAR))
    heard()
    world.resend("hpv-1")
    assert [e["status"] for e in heard()] == ["pending"]


def test_an_export_goes_out_though_nobody_can_be_told(
    world: World,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    nobody = boto3.client(
        "events",
        endpoint_url=f"http://127.0.0.1:{free_port()}",
        region_name="eu-west-2",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
        config=Config(retries={"total_max_attempts": 1}),
    )
    publish(world, nobody, "default")
    world.upload(upload_of(row(1)))
    assert world.export().status == "ok"
    assert world.ledger.get("hpv", 1).status is Status.ACCEPTED
    assert capsys.readouterr().out.count('"EventsNotPublished":[1.0]') == 2
    assert "the export's state could not be published" in caplog.messages
