"""An upload's way from the bucket to its receipt, with the events that S3 sends and the function's own handler."""

from __future__ import annotations

import importlib.util
import json
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from tests.usecases.rows import row, upload_of
from vaccinations.wiring import Wiring

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vaccinations.settings import Settings

HANDLER = Path(__file__).parents[2] / "functions" / "ingest" / "handler.py"
NAMES = ["mon+tue.csv", "a%20b.csv", "half term (1).csv", 'Y9\'s "new" list.csv', "\U0001f489 100%.csv"]


@pytest.fixture
def messages(aws: Callable[[str], Any], settings: Settings) -> Iterator[Callable[[], list[Any]]]:
    """Let the bucket's events go into a queue, as the template does; give what is in it."""
    sqs, events = aws("sqs"), aws("events")
    name = f"uploads-{uuid.uuid4().hex[:12]}"
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    created = {
        "source": ["aws.s3"],
        "detail-type": ["Object Created"],
        "detail": {"bucket": {"name": [settings.bucket]}},
    }
    events.put_rule(Name=name, EventPattern=json.dumps(created))
    events.put_targets(Rule=name, Targets=[{"Id": "queue", "Arn": arn}])
    aws("s3").put_bucket_notification_configuration(
        Bucket=settings.bucket, NotificationConfiguration={"EventBridgeConfiguration": {}}
    )
    yield lambda: sqs.receive_message(QueueUrl=url).get("Messages", [])
    events.remove_targets(Rule=name, Ids=["queue"])
    events.delete_rule(Name=name)


@pytest.fixture
def lambda_handler(
    monkeypatch: pytest.MonkeyPatch, aws: Callable[[str], Any], settings: Settings
) -> Callable[[Any], Any]:
    """Load the function's handler, and let it work on the test's stores."""
    spec = importlib.util.spec_from_file_location("ingest_handler", HANDLER)
    assert spec
    assert spec.loader
    handler = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(handler)
    clients: Any = SimpleNamespace(s3=aws("s3"), dynamodb=aws("dynamodb"))
    monkeypatch.setattr(handler, "wire", lambda _: Wiring(settings, clients))
    context = SimpleNamespace(
        function_name="ingest", memory_limit_in_mb=1024, invoked_function_arn="arn", aws_request_id="1"
    )
    return lambda event: handler.lambda_handler(event, context)


@pytest.mark.parametrize("name", NAMES)
def test_an_upload_of_any_name_is_ingested_and_its_receipt_bears_that_name(
    name: str,
    settings: Settings,
    aws: Callable[[str], Any],
    messages: Callable[[], list[Any]],
    lambda_handler: Callable[[Any], Any],
) -> None:
    aws("s3").put_object(Bucket=settings.bucket, Key=f"incoming/R1L/{name}", Body=upload_of(row(1)).encode())
    [message] = messages()
    answer = lambda_handler({"Records": [{"body": message["Body"], "messageId": "1"}]})
    [receipt] = answer["uploads"]
    assert (receipt["upload"], receipt["accepted"]) == (f"incoming/R1L/{name}", {"hpv": {"new": 1}})
    assert receipt["uploader"] == {"requester": "123456789012", "source_address": "1.2.3.4"}  # as moto tells
    stored = aws("s3").get_object(Bucket=settings.bucket, Key=f"receipts/R1L/{name}/{receipt['batch_id']}.json")
    assert json.load(stored["Body"]) == receipt
