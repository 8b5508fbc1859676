"""Ingest: take uploaded records in, check every row, remember what was seen.

It runs while mesh_jobs is off, too: it does not touch MESH, and a message that the queue has handed over and that
was skipped would be an upload lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.utilities.data_classes import S3EventBridgeNotificationEvent, SQSEvent

from vaccinations.jobs.ingest import Ingest
from vaccinations.settings import Settings
from vaccinations.telemetry import observed

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext


@observed
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Take in each upload of an SQS event whose messages are EventBridge's "Object Created"."""
    settings = Settings.from_environment()
    ingest = Ingest(settings.archive(), settings.register(), settings.ledger())
    uploads = []
    for message in SQSEvent(event).records:
        created = S3EventBridgeNotificationEvent(message.json_body).detail.object
        uploads.append(ingest.take_in(created.key, created.get("version-id") or ""))
    return {"status": "ok", "uploads": uploads}
