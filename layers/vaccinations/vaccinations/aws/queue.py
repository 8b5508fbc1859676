"""The queue of uploads: one FIFO queue with one message group, which Ingest is fed from.

A message is EventBridge's "Object Created" event of an upload, or what a person asks for about a parked one.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from vaccinations.telemetry import logger

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

__all__ = ["Queue"]

#: The rule's group (template.yaml), so that everything is handed over one at a time, in order.
GROUP = "uploads"
#: How long a message that could not be handled is out of sight, in seconds. All others wait behind it.
SOON = 60


class Queue:
    """Writing to the queue (`vaccinations.ports.Queue`).

    Parameters
    ----------
    sqs
        A boto3 client.
    url
        The queue's.
    """

    def __init__(self, sqs: SQSClient, url: str) -> None:
        self._sqs = sqs
        self._url = url

    def announce(self, key: str, version: str, batch_id: str) -> None:
        """Put an upload into the queue, as its event does; several times within five minutes count once."""
        uploaded = {"key": key} | ({"version-id": version} if version else {})
        self._send({"source": "aws.s3", "detail-type": "Object Created", "detail": {"object": uploaded}}, batch_id)

    def ask(self, what: str, batch_id: str, reason: str, by: str = "") -> None:
        """Ask for something to be done about a parked upload.

        Parameters
        ----------
        what
            ``retry`` or ``abandon``.
        reason, by
            Why, in a person's words, and who they are.
        """
        self._send({what: {"batch_id": batch_id, "reason": reason, "by": by}}, f"{what}-{batch_id}")

    def offer_again_soon(self, receipt_handle: str) -> None:
        """Have a message that could not be handled offered again in a minute, not after the longest time of a run."""
        try:
            self._sqs.change_message_visibility(
                QueueUrl=self._url, ReceiptHandle=receipt_handle, VisibilityTimeout=SOON
            )
        except (BotoCoreError, ClientError) as error:  # the failure itself counts; the queue offers it again later
            logger.warning("the message will be offered again late", extra={"why": type(error).__name__})

    def _send(self, body: dict[str, Any], once: str) -> None:
        self._sqs.send_message(
            QueueUrl=self._url, MessageBody=json.dumps(body), MessageGroupId=GROUP, MessageDeduplicationId=once
        )
