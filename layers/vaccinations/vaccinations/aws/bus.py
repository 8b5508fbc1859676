"""Events out: on EventBridge each change of an export's state is told, and what became of each upload.

So other systems can keep their own state, and teams hear what to do.

What an event holds, and what may be relied on, is in docs/events.md: identifiers, states and counts, and of what a team
is told the keys, which bear the name that it gave its file.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from vaccinations.results import ExportChanged, RowsRefused, UploadFinished, document
from vaccinations.telemetry import count, logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from mypy_boto3_events import EventBridgeClient

    from vaccinations.model.export import DPSExport
    from vaccinations.results import ForTeam, PersonActed

__all__ = ["DETAIL_TYPE", "FOR_TEAMS", "PERSON_ACTED", "SOURCE", "publisher", "team_teller", "tell_of_act"]

SOURCE = "vaccinations-to-dps"
DETAIL_TYPE = "DPSExport status changed"
PERSON_ACTED = "Person acted"
FOR_TEAMS = {UploadFinished: "Upload finished", RowsRefused: "Rows refused by DPS"}


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
        if failed := _put(events, bus, DETAIL_TYPE, _event(export)):
            extra = {"export_id": export.export_id, "status": str(export.status), "code": failed}
            logger.warning("the export's state could not be published", extra=extra)
            count("EventsNotPublished")

    return publish


def team_teller(events: EventBridgeClient, bus: str) -> Callable[[ForTeam], None]:
    """Make a function that tells a team what became of its upload. It never raises, as `publisher`'s does not.

    Parameters
    ----------
    bus
        Name or ARN of the event bus.
    """

    def tell(what: ForTeam) -> None:
        detail_type = FOR_TEAMS[type(what)]
        if failed := _put(events, bus, detail_type, what):
            extra = {"batch_id": what.batch_id, "event": detail_type, "code": failed}
            logger.warning("a team could not be told what became of its upload", extra=extra)
            count("EventsNotPublished")

    return tell


def tell_of_act(events: EventBridgeClient, bus: str, act: PersonActed) -> str:
    """Tell that a person has acted; return why nobody could be told, if so. It never raises."""
    return _put(events, bus, PERSON_ACTED, act)


def _put(events: EventBridgeClient, bus: str, detail_type: str, detail: Any) -> str:
    text = json.dumps(document(detail))
    entry = {"EventBusName": bus, "Source": SOURCE, "DetailType": detail_type, "Detail": text}
    try:
        answer = events.put_events(Entries=[entry])  # type: ignore[list-item] # a TypedDict
    except (BotoCoreError, ClientError) as error:
        return type(error).__name__
    return answer["Entries"][0].get("ErrorCode", "") if answer["FailedEntryCount"] else ""


def _event(export: DPSExport) -> ExportChanged:
    attempt = export.attempts[-1]
    heard = (export.updated_at, attempt.received_at, attempt.processed_at)
    return ExportChanged(
        export_id=export.export_id,
        programme=export.programme,
        number=export.number,
        status=export.status,
        attempt=attempt.number,
        records=export.records,
        filename=attempt.filename,
        mesh_filename=attempt.mesh_filename,
        message_id=attempt.message_id,
        processing=attempt.processing,
        rows_processed=attempt.rows_processed,
        rows_refused=attempt.rows_refused,
        changed_at=max(moment for moment in heard if moment).isoformat(),
    )
