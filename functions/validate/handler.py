"""Validate: the daily handshake, so that MESH knows the mailbox is alive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vaccinations.jobs.validate import validate
from vaccinations.settings import Settings, skipped_when_off
from vaccinations.telemetry import observed

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext


@observed
@skipped_when_off("validate")
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Shake hands with MESH: ``{"status": "ok", "mailbox", "certificate_days_left"}``."""
    return validate(Settings.from_environment())
