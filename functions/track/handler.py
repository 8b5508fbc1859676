"""Track: every hour, learn whether each file was picked up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vaccinations.jobs.track import Track
from vaccinations.settings import Settings, connect, skipped_when_off
from vaccinations.telemetry import observed

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext


@observed
@skipped_when_off("track")
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Ask MESH about every accepted export, and read the error reports it sent."""
    settings = Settings.from_environment()
    return Track(settings.ledger(), connect(settings)).run()
