"""Promises of the queue of uploads, on moto's SQS."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import EndpointConnectionError

from vaccinations.aws.queue import Queue

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def sqs(aws: Callable[[str], Any]) -> Any:
    return aws("sqs")


@pytest.fixture
def url(sqs: Any) -> str:
    attributes = {"FifoQueue": "true", "ContentBasedDeduplication": "true", "VisibilityTimeout": "960"}
    return str(sqs.create_queue(QueueName=f"{uuid.uuid4().hex}.fifo", Attributes=attributes)["QueueUrl"])


def received(sqs: Any, url: str) -> list[dict[str, Any]]:
    """Receive what there is to receive; as long as one is in flight, that is none of the others."""
    found: list[dict[str, Any]] = sqs.receive_message(QueueUrl=url, AttributeNames=["All"]).get("Messages", [])
    return found


@pytest.mark.parametrize("version", ["", "v1"])
def test_an_upload_is_announced_as_its_event_announces_it_and_once(sqs: Any, url: str, version: str) -> None:
    for _ in range(2):
        Queue(sqs, url).announce("incoming/R1L/a + b.csv", version, "b1")
    [message] = received(sqs, url)
    assert message["Attributes"]["MessageGroupId"] == "uploads"
    event = json.loads(message["Body"])
    assert (event["source"], event["detail-type"]) == ("aws.s3", "Object Created")
    uploaded = event["detail"]["object"]
    assert (uploaded["key"], uploaded.get("version-id", "")) == ("incoming/R1L/a + b.csv", version)


@pytest.mark.parametrize("what", ["retry", "abandon"])
def test_what_a_person_asks_for_goes_through_the_same_queue(sqs: Any, url: str, what: str) -> None:
    Queue(sqs, url).ask(what, "b1", "it is well again", "me")
    [message] = received(sqs, url)
    assert json.loads(message["Body"]) == {what: {"batch_id": "b1", "reason": "it is well again", "by": "me"}}


def test_a_message_that_failed_is_offered_again_in_a_minute(sqs: Any, url: str) -> None:
    asked: list[int] = []
    sqs.meta.events.register(
        "provide-client-params.sqs.ChangeMessageVisibility",
        lambda params, **_: asked.append(params["VisibilityTimeout"]),
    )
    queue = Queue(sqs, url)
    queue.announce("incoming/R1L/monday.csv", "", "b1")
    [message] = received(sqs, url)
    queue.offer_again_soon(message["ReceiptHandle"])
    assert asked == [60]


def test_a_failure_is_not_hidden_by_a_queue_that_does_not_answer(
    sqs: Any, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(**_: Any) -> None:
        raise EndpointConnectionError(endpoint_url=url)

    queue = Queue(sqs, url)
    queue.offer_again_soon("AQEBexample")  # not a message of this queue
    monkeypatch.setattr(sqs, "change_message_visibility", unreachable)
    queue.offer_again_soon("AQEBexample")
