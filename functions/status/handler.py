"""Recent exports: the table on the dashboard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vaccinations.jobs.status import RecentExports
from vaccinations.settings import Settings
from vaccinations.telemetry import observed

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext


@observed
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> str:
    """Return the table as HTML, or what there is to say about it, as CloudWatch asks its custom widgets."""
    return RecentExports(Settings.from_environment().ledger()).show(event)
