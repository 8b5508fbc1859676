"""Ingest: check every row of an upload, and queue what DPS does not know for the next export.

It runs while mesh_jobs is off, too: it does not speak to MESH, and a message that the queue has handed over and that
was skipped would be an upload lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.utilities.data_classes import S3EventBridgeNotificationEvent, SQSEvent

import vaccinations.jobs.ingest  # noqa: F401 - so that Lambda loads it while it starts the function
from vaccinations.results import IngestRun, Uploader, document
from vaccinations.telemetry import observed
from vaccinations.wiring import wire

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

    from vaccinations.results import AnyReceipt


@observed
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Do what each message of an SQS event asks for, or the event itself; answer an `IngestRun`.

    That is "Object Created" of an upload, or, about a parked one,
    ``{"retry": {"batch_id": …, "reason": …, "by": …}}`` or the same with ``abandon``. A message that fails is soon
    offered again, for all others wait behind it.
    """
    if "Records" not in event:
        return document(IngestRun(uploads=(_do(event),)))
    receipts = []
    for message in SQSEvent(event).records:
        try:
            receipts.append(_do(message.json_body))
        except Exception:
            wire("ingest").queue().offer_again_soon(message.receipt_handle)
            raise
    return document(IngestRun(uploads=tuple(receipts)))


def _do(asked: dict[str, Any]) -> AnyReceipt:
    ingest = wire("ingest").ingest()
    match asked:
        case {"retry": {"batch_id": batch_id, "reason": reason, "by": by}}:
            return ingest.retry(batch_id, reason, by)
        case {"abandon": {"batch_id": batch_id, "reason": reason, "by": by}}:
            return ingest.abandon(batch_id, reason, by)
    detail = S3EventBridgeNotificationEvent(asked).detail
    requester, address = detail.get("requester"), detail.get("source-ip-address")
    uploader = Uploader(requester=requester, source_address=address or "") if requester else None
    # The class reads "+" and "%" in a key as code, which EventBridge's keys are not.
    return ingest.ingest(detail.object["key"], detail.object.get("version-id") or "", uploader)
