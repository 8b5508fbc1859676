"""Validate: the daily handshake, so that MESH knows the mailbox is alive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import vaccinations.jobs.validate  # noqa: F401 - so that Lambda loads it while it starts the function
from vaccinations.results import document
from vaccinations.telemetry import observed
from vaccinations.wiring import skipped_when_off, wire

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext


@observed
@skipped_when_off("validate")
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Shake hands with MESH; answer a `Validation`."""
    return document(wire("validate").validate().run())
