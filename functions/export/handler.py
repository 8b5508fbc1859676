"""Export: every night, one DPS file for each programme with unsent records, sent over MESH."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vaccinations.jobs.export import ExportRequest
from vaccinations.results import document
from vaccinations.telemetry import observed
from vaccinations.wiring import skipped_when_off, wire

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext


@observed
@skipped_when_off("export")
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Seal and send what is to be sent; `ExportRequest` says what the event may hold. Answer an `ExportRun`."""
    export = wire("export").export(context.aws_request_id, lambda: context.get_remaining_time_in_millis() / 1000)
    return document(export.run(ExportRequest.from_event(event)))
