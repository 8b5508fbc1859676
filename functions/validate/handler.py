"""Validate: the daily handshake, so that MESH knows the mailbox is alive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dps.observability import observed
from dps.settings import Settings, skipped_when_off
from dps.validate import validate

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext


@observed
@skipped_when_off("validate")
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Shake hands with MESH: ``{"status": "ok", "mailbox", "certificate_days_left"}``."""
    return validate(Settings.from_environment())
