"""Does what Lambda's event source mapping does: gives a queue's messages to a function and deletes what it ingested."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from local.emulator import FunctionError
from local.session import REGION

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from local.cloud import EventSource

__all__ = ["Poller"]

logger = logging.getLogger(__name__)

#: How long the poller waits when the queue is empty, in seconds.
_PAUSE = 0.1


class Poller:
    """Gives a queue's messages to a function, in a thread of its own.

    Where the function fails, the messages stay in the queue, invisible until their visibility timeout is over, and go
    to the dead-letter queue when they were received too often. The queue does both, here as in AWS.

    Parameters
    ----------
    sqs
        boto3's client of the queue.
    source
        The queue, and the function that gets its messages.
    invoke
        Invokes a function (its name, an event) and raises `local.emulator.FunctionError` where it fails.

    Attributes
    ----------
    enabled
        Whether it polls.
    failures
        What went wrong so far, oldest first.
    """

    def __init__(self, sqs: Any, source: EventSource, invoke: Callable[[str, Any], Any]) -> None:
        self._sqs = sqs
        self._source = source
        self._invoke = invoke
        self._url: str = sqs.get_queue_url(QueueName=source.queue_arn.rpartition(":")[2])["QueueUrl"]
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"poller of {source.function}", daemon=True)
        self.enabled = True
        self.failures: list[FunctionError] = []

    @property
    def source(self) -> EventSource:
        """The queue, and the function that gets its messages."""
        return self._source

    def start(self) -> None:
        """Begin to poll."""
        self._thread.start()

    def stop(self) -> None:
        """Receive no more messages, and wait for the invocation under way."""
        self._stopping.set()
        self._thread.join()

    def drain(self, timeout: float = 60) -> None:
        """Wait until every message was ingested, or is in the dead-letter queue.

        Parameters
        ----------
        timeout
            Seconds.

        Raises
        ------
        TimeoutError
            Some still wait, or the function failed and the queue does not offer the message again in time; the
            function's last error is the cause.
        """
        until = time.monotonic() + timeout
        failed_before = len(self.failures)
        while True:
            waiting, visible_again_after = self._waiting()
            if not waiting:
                return
            # The queue offers a failed message again once its visibility timeout is over. Where that is too late, stop.
            failed = len(self.failures) > failed_before
            if time.monotonic() + (visible_again_after if failed else 0) > until:
                cause = self.failures[-1] if self.failures else None
                raise TimeoutError(f"{waiting} messages for {self._source.function} were not ingested") from cause
            time.sleep(0.05)

    def _waiting(self) -> tuple[int, int]:
        """Return how many messages are in the queue, and its visibility timeout in seconds."""
        counts = (
            "ApproximateNumberOfMessages",
            "ApproximateNumberOfMessagesNotVisible",
            "ApproximateNumberOfMessagesDelayed",
        )
        attributes = self._sqs.get_queue_attributes(QueueUrl=self._url, AttributeNames=[*counts, "VisibilityTimeout"])[
            "Attributes"
        ]
        return sum(int(attributes[count]) for count in counts), int(attributes["VisibilityTimeout"])

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                received = self.enabled and self._poll()
            except (BotoCoreError, ClientError):
                if self._stopping.is_set():
                    return
                logger.exception("the queue of %s could not be read", self._source.function)
                received = False
            if not received:
                self._stopping.wait(_PAUSE)

    def _poll(self) -> bool:
        """Receive one batch and have it ingested; return False where there was none."""
        messages = self._sqs.receive_message(
            QueueUrl=self._url,
            MaxNumberOfMessages=self._source.batch_size,
            AttributeNames=["All"],
            MessageAttributeNames=["All"],
        ).get("Messages", [])
        if not messages:
            return False
        try:
            self._invoke(self._source.function, {"Records": [self._record(message) for message in messages]})
        except FunctionError as failure:
            self.failures.append(failure)
        else:
            for message in messages:
                self._sqs.delete_message(QueueUrl=self._url, ReceiptHandle=message["ReceiptHandle"])
        return True

    def _record(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Return a message in the form in which Lambda gives it to a function."""
        return {
            "messageId": message["MessageId"],
            "receiptHandle": message["ReceiptHandle"],
            "body": message["Body"],
            "attributes": message["Attributes"],
            "messageAttributes": {},
            "md5OfBody": message["MD5OfBody"],
            "eventSource": "aws:sqs",
            "eventSourceARN": self._source.queue_arn,
            "awsRegion": REGION,
        }
