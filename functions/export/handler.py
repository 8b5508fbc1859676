"""Export: every night, one DPS file for each programme with unsent records, sent over MESH."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vaccinations.jobs.export import Export, ExportRequest
from vaccinations.settings import Settings, connect, invoke_later, skipped_when_off
from vaccinations.telemetry import observed

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext


@observed
@skipped_when_off("export")
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Seal and send what is to be sent; `ExportRequest` says what the event may hold."""
    settings = Settings.from_environment()
    export = Export(
        settings,
        settings.ledger(),
        settings.archive(),
        connect=lambda: connect(settings),
        holder=context.aws_request_id,
        seconds_left=lambda: context.get_remaining_time_in_millis() / 1000,
        hand_over=lambda event: invoke_later(context.function_name, event),
    )
    return export.run(ExportRequest.from_event(event))
