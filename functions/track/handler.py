"""Track: every hour, learn whether each file was picked up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import vaccinations.jobs.track  # noqa: F401 - so that Lambda loads it while it starts the function
from vaccinations.results import document
from vaccinations.telemetry import observed
from vaccinations.wiring import skipped_when_off, wire

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext


@observed
@skipped_when_off("track")
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Ask MESH about every accepted export, and read the error reports that it sent; answer a `TrackRun`."""
    return document(wire("track").track().run())
