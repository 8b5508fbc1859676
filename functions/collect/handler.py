"""Collect: every hour, bring what has come into the mailbox to the bucket, and read what DPS answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import vaccinations.jobs.collect  # noqa: F401 - so that Lambda loads it while it starts the function
from vaccinations.results import document
from vaccinations.telemetry import observed
from vaccinations.wiring import skipped_when_off, wire

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext


@observed
@skipped_when_off("collect")
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Collect every message that waits, whatever its workflow; answer a `CollectRun`."""
    collect = wire("collect").collect(lambda: context.get_remaining_time_in_millis() / 1000)
    return document(collect.run())
