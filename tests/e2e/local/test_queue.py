"""The way of an upload here is that of AWS: bucket, rule, queue, function, dead-letter queue."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from local.emulator import FunctionError
from local.stack import LocalCloud

if TYPE_CHECKING:
    from collections.abc import Iterator


def put(cloud: LocalCloud, key: str, body: bytes = b"") -> str:
    """Put an object into the bucket and return its version."""
    answer = cloud.client("s3").put_object(Bucket=cloud.outputs["BucketName"], Key=key, Body=body)
    version: str = answer["VersionId"]
    return version


def receipts(cloud: LocalCloud) -> dict[str, Any]:
    s3, bucket = cloud.client("s3"), cloud.outputs["BucketName"]
    objects = s3.list_objects_v2(Bucket=bucket, Prefix="receipts/").get("Contents", [])
    return {o["Key"]: json.load(s3.get_object(Bucket=bucket, Key=o["Key"])["Body"]) for o in objects}


def count(cloud: LocalCloud, output: str) -> int:
    attributes = cloud.client("sqs").get_queue_attributes(QueueUrl=cloud.outputs[output], AttributeNames=["All"])
    return int(attributes["Attributes"]["ApproximateNumberOfMessages"])


def test_an_upload_waits_while_an_ingest_is_under_way(toy: LocalCloud) -> None:
    with ThreadPoolExecutor(1) as threads:
        began = time.monotonic()
        ingesting = threads.submit(toy.invoke, "IngestFunction", {"sleep": 2})
        time.sleep(0.5)
        put(toy, "incoming/R1A/waits.csv", b"abc")
        toy.drain()
        assert ingesting.done()
        assert time.monotonic() - began >= 2


@pytest.fixture
def short_visibility(toy: LocalCloud) -> Iterator[None]:
    """Let the queue offer a message again after a second."""
    sqs, url = toy.client("sqs"), toy.outputs["UploadsQueueUrl"]
    before = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["VisibilityTimeout"])["Attributes"]
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": "1"})
    yield
    sqs.set_queue_attributes(QueueUrl=url, Attributes=before)


def test_an_upload_reaches_the_function_with_its_key_and_version(toy: LocalCloud) -> None:
    version = put(toy, "incoming/R1A/Tuesday's file (1).csv", b"abc")
    toy.drain()
    record = receipts(toy)["receipts/R1A/Tuesday's file (1).csv"]
    assert record["eventSource"] == "aws:sqs"
    assert record["eventSourceARN"].endswith(":UploadsQueue.fifo")
    assert record["attributes"]["MessageGroupId"] == "uploads"
    assert record["attributes"]["ApproximateReceiveCount"] == "1"
    assert record["body"]["bucket"]["name"] == toy.outputs["BucketName"]
    assert record["body"]["object"]["key"] == "incoming/R1A/Tuesday's file (1).csv"
    assert record["body"]["object"]["version-id"] == version
    assert record["body"]["object"]["size"] == 3


def test_an_upload_in_several_parts_reaches_the_function_once(toy: LocalCloud) -> None:
    s3, bucket = toy.client("s3"), toy.outputs["BucketName"]
    key = "incoming/R1A/large.csv"
    upload = s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    parts = []
    for number, size in ((1, 5 * 1024 * 1024), (2, 10)):
        answer = s3.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=number, Body=b"x" * size)
        parts.append({"PartNumber": number, "ETag": answer["ETag"]})
    s3.complete_multipart_upload(Bucket=bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts})
    toy.drain()
    assert receipts(toy)["receipts/R1A/large.csv"]["body"]["object"]["size"] == 5 * 1024 * 1024 + 10
    assert toy.logs()["IngestFunction"].count("large.csv") == 0


def test_what_the_functions_write_themselves_is_no_upload(toy: LocalCloud) -> None:
    before = receipts(toy)
    for folder in ("batches", "rejected", "exports"):
        put(toy, f"{folder}/hpv/written-by-a-function")
    toy.drain()
    assert receipts(toy) == before


def test_uploads_are_ingested_in_the_order_in_which_they_came(toy: LocalCloud) -> None:
    for number in range(5):
        put(toy, f"incoming/R1B/{number}.csv")
    toy.drain()
    ingested = {key: r["attributes"]["SentTimestamp"] for key, r in receipts(toy).items() if "/R1B/" in key}
    assert len(ingested) == 5
    assert sorted(ingested, key=lambda key: int(ingested[key])) == sorted(ingested)


@pytest.mark.usefixtures("short_visibility")
def test_an_upload_that_always_fails_is_set_aside_after_five_tries_and_holds_up_no_other(toy: LocalCloud) -> None:
    (poller,) = toy.pollers
    failed_before = len(poller.failures)
    put(toy, "incoming/R1A/bad.csv")
    put(toy, "incoming/R1A/after-it.csv")
    toy.drain()
    assert [failure.error_type for failure in poller.failures[failed_before:]] == ["Disobedience"] * 5
    assert "receipts/R1A/after-it.csv" in receipts(toy)
    assert count(toy, "UploadsDeadLetterQueueUrl") == 1
    (message,) = toy.client("sqs").receive_message(QueueUrl=toy.outputs["UploadsDeadLetterQueueUrl"])["Messages"]
    assert json.loads(message["Body"])["detail"]["object"]["key"] == "incoming/R1A/bad.csv"


def test_waiting_for_an_upload_that_failed_ends_at_once_and_says_why(toy_project: Any) -> None:
    with LocalCloud(project=toy_project) as cloud:
        put(cloud, "incoming/R1A/bad.csv")
        with pytest.raises(TimeoutError, match="IngestFunction") as caught:
            cloud.drain(30)
        assert isinstance(caught.value.__cause__, FunctionError)


def test_the_real_function_ingests_an_upload(cloud: LocalCloud) -> None:
    put(cloud, "incoming/R1A/nonsense.csv", b"this is no upload\n")
    cloud.drain()
    assert [key for key in receipts(cloud) if key.startswith("receipts/R1A/nonsense.csv/")]
