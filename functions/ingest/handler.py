"""Ingest: check every row of an upload, and queue what DPS does not know for the next export.

It runs while mesh_jobs is off, too: it does not speak to MESH, and a message that the queue has handed over and that
was skipped would be an upload lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.utilities.data_classes import S3EventBridgeNotificationEvent, SQSEvent

import vaccinations.jobs.ingest  # noqa: F401 - so that Lambda loads it while it starts the function
from vaccinations.results import IngestRun, document
from vaccinations.telemetry import observed
from vaccinations.wiring import wire

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext


@observed
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Ingest each upload of an SQS event whose messages are "Object Created"; answer an `IngestRun`."""
    ingest = wire("ingest").ingest()
    created = (S3EventBridgeNotificationEvent(message.json_body).detail.object for message in SQSEvent(event).records)
    receipts = tuple(ingest.ingest(upload.key, upload.get("version-id") or "") for upload in created)
    return document(IngestRun(uploads=receipts))
