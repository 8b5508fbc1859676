"""Each change of an export's state is told on EventBridge, here moto's, and nothing ever waits for that."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import jsonschema
import pytest
from botocore.config import Config

from local.children import free_port
from tests.usecases.world import World, row, upload_of
from vaccinations.aws.bus import DETAIL_TYPE, SOURCE, publisher
from vaccinations.aws.ledger import Status
from vaccinations.jobs.export import file_names
from vaccinations.model.programmes import PROGRAMMES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vaccinations.aws.ledger import Ledger

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "dps-export-event.schema.json").read_text())


@pytest.fixture
def heard(aws: Callable[[str], Any], world: World, make_ledger: Callable[..., Ledger]) -> Iterator[Callable[[], Any]]:
    """Listen to the bus as another system would, by a rule and a queue; return what was heard since."""
    events, sqs = aws("events"), aws("sqs")
    name = f"heard-{uuid.uuid4().hex[:12]}"
    queue = sqs.create_queue(QueueName=name)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    pattern = {"source": [SOURCE], "detail-type": [DETAIL_TYPE]}
    events.create_event_bus(Name=name)
    events.put_rule(Name=name, EventBusName=name, EventPattern=json.dumps(pattern))
    events.put_targets(Rule=name, EventBusName=name, Targets=[{"Id": "queue", "Arn": arn}])
    world.ledger = make_ledger(clock=world.clock, changed=publisher(events, name))

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
        "filename": export.filename,
        "message_id": export.message_id,
        "processing": None,
        "taken": None,
        "refused": None,
        "changed_at": export.updated_at.isoformat(),
    }
    world.track()
    assert heard() == []
    world.acknowledge()
    world.track()
    assert [(e["export_id"], e["status"]) for e in heard()] == [("hpv-1", "acknowledged")]
    world.clock.forward(hours=1)
    answered = world.ledger.process(world.ledger.get("hpv", 1), taken=1, refused=1)
    [processed] = heard()
    facts = tuple(processed[name] for name in ("status", "processing", "taken", "refused"))
    assert facts == ("acknowledged", "processed", 1, 1)
    assert answered.processed_at
    assert processed["changed_at"] == answered.processed_at.isoformat()


def test_an_attempt_that_fails_and_the_next_one_are_published(
    world: World, heard: Callable[[], Any], report: Callable[[str], None]
) -> None:
    world.upload(upload_of(row(1)))
    world.export()
    report(world.ledger.get("hpv", 1).message_id)
    world.track()
    world.next_night()
    told = [(e["status"], e["attempt"]) for e in heard()]
    assert told == [("pending", 1), ("accepted", 1), ("undelivered", 1), ("pending", 2), ("accepted", 2)]


def test_what_a_person_sends_again_is_published(world: World, heard: Callable[[], Any]) -> None:
    world.upload(upload_of(row(1)))
    world.export()
    world.ledger.undeliver(world.ledger.get("hpv", 1), {"code": "14", "description": ""})
    heard()
    world.ledger.retry(world.ledger.get("hpv", 1), file_names(PROGRAMMES["hpv"], world.settings))
    assert [e["status"] for e in heard()] == ["pending"]


def test_an_export_goes_out_though_nobody_can_be_told(
    world: World,
    make_ledger: Callable[..., Ledger],
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
    world.ledger = make_ledger(clock=world.clock, changed=publisher(nobody, "default"))
    world.upload(upload_of(row(1)))
    assert world.export()["status"] == "ok"
    assert world.ledger.get("hpv", 1).status is Status.ACCEPTED
    assert capsys.readouterr().out.count('"EventsNotPublished":[1.0]') == 2
    assert "the export's state could not be published" in caplog.messages
