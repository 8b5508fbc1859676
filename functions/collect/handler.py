"""Collect: every hour, bring what has come into the mailbox to safety, and hear what DPS answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vaccinations.jobs.collect import Collect
from vaccinations.settings import Settings, connect, skipped_when_off
from vaccinations.telemetry import observed

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext


@observed
@skipped_when_off("collect")
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Collect every message that waits, whatever its workflow."""
    settings = Settings.from_environment()
    return Collect(
        settings.archive(),
        settings.ledger(),
        settings.register(),
        connect(settings),
        seconds_left=lambda: context.get_remaining_time_in_millis() / 1000,
    ).run()
