"""Events out: each change of an export's state is told on EventBridge, so that other systems can keep their own.

What an event holds, and what may be relied on, is in docs/events.md: identifiers, states and counts, nothing personal.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from vaccinations.telemetry import count, logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from mypy_boto3_events import EventBridgeClient

    from vaccinations.aws.ledger import DPSExport

__all__ = ["DETAIL_TYPE", "SOURCE", "publisher"]

SOURCE = "vaccinations-to-dps"
DETAIL_TYPE = "DPSExport status changed"


def publisher(events: EventBridgeClient, bus: str) -> Callable[[DPSExport], None]:
    """Make a function that tells of an export's new state.

    It never raises: what was done is done, whether or not somebody hears of it. A failure is logged and counted as
    ``EventsNotPublished``.

    Parameters
    ----------
    bus
        Name or ARN of the event bus.
    """

    def publish(export: DPSExport) -> None:
        detail = {
            "export_id": export.export_id,
            "programme": export.programme,
            "number": export.number,
            "status": str(export.status),
            "attempt": export.attempt,
            "records": export.records,
            "filename": export.filename,
            "message_id": export.message_id,
            "processing": export.processing and str(export.processing),
            "taken": export.taken,
            "refused": export.refused,
            "changed_at": max(filter(None, (export.updated_at, export.received_at, export.processed_at))).isoformat(),
        }
        entry = {"EventBusName": bus, "Source": SOURCE, "DetailType": DETAIL_TYPE, "Detail": json.dumps(detail)}
        try:
            answer = events.put_events(Entries=[entry])  # type: ignore[list-item] # a TypedDict
            failed = answer["Entries"][0].get("ErrorCode", "") if answer["FailedEntryCount"] else ""
        except (BotoCoreError, ClientError) as error:
            failed = type(error).__name__
        if failed:
            extra = {"export_id": export.export_id, "status": str(export.status), "code": failed}
            logger.warning("the export's state could not be published", extra=extra)
            count("EventsNotPublished")

    return publish
