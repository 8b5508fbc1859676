"""What Lambda's event source mapping does: it hands a queue's messages to a function and deletes those taken in."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from local.cloud import REGION
from local.emulator import FunctionError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from local.cloud import EventSource

__all__ = ["Poller"]

logger = logging.getLogger(__name__)

#: How long the poller rests when the queue is empty, in seconds.
_REST = 0.1


class Poller:
    """Feeds a function from a queue, in a thread of its own.

    Where the function fails, the messages stay in the queue, unseen until their visibility timeout is over, and go to
    the dead-letter queue when they were received too often: both are the queue's doing, here as in AWS.

    Parameters
    ----------
    sqs
        boto3's client of the queue.
    source
        Which queue feeds which function.
    invoke
        Invokes a function (its name, an event) and raises `local.emulator.FunctionError` where it fails.

    Attributes
    ----------
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
        self.failures: list[FunctionError] = []

    def start(self) -> None:
        """Begin to poll."""
        self._thread.start()

    def stop(self) -> None:
        """Take no more messages, and wait for the invocation that is under way."""
        self._stopping.set()
        self._thread.join()

    def drain(self, timeout: float = 60) -> None:
        """Wait until every message was taken in, or has gone to the dead-letter queue.

        Parameters
        ----------
        timeout
            Seconds.

        Raises
        ------
        TimeoutError
            There are still some, or the function failed and the queue will not offer the message again in time; the
            function's last error is the cause.
        """
        until = time.monotonic() + timeout
        failed_before = len(self.failures)
        while True:
            waiting, visible_again_after = self._waiting()
            if not waiting:
                return
            # What failed is tried again once its visibility timeout is over: no use to wait where that is too late.
            failed = len(self.failures) > failed_before
            if time.monotonic() + (visible_again_after if failed else 0) > until:
                cause = self.failures[-1] if self.failures else None
                raise TimeoutError(f"{waiting} messages for {self._source.function} were not taken in") from cause
            time.sleep(0.05)

    def _waiting(self) -> tuple[int, int]:
        """Return how many messages the queue holds, and its visibility timeout in seconds."""
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
                took = self._poll()
            except (BotoCoreError, ClientError):
                if self._stopping.is_set():
                    return
                logger.exception("the queue of %s could not be read", self._source.function)
                took = False
            if not took:
                self._stopping.wait(_REST)

    def _poll(self) -> bool:
        """Take one batch; False where there was none."""
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
        """Return a message in the form in which Lambda hands it to a function."""
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
