"""Status: the table of recent exports on the dashboard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import vaccinations.jobs.status  # noqa: F401 - so that Lambda loads it while it starts the function
from vaccinations.telemetry import observed
from vaccinations.wiring import wire

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext


@observed
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> str:
    """Return the table as HTML, or what there is to say about it, as CloudWatch asks its custom widgets."""
    return wire("status").status().show(event)
