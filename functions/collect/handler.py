"""Collect: every hour, bring what has come into the mailbox to the bucket, and read what DPS answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vaccinations.jobs.collect import Collect  # noqa: TC001 - loaded while Lambda starts the function
from vaccinations.results import document
from vaccinations.telemetry import observed
from vaccinations.wiring import skipped_when_off, wire

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext


@observed
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Collect every message that waits, whatever its workflow; answer a `CollectRun`.

    ``{"again": true}`` hears what was collected in the last weeks once more, while mesh_jobs is off, too.
    """
    return _again(context) if event.get("again") is True else _collect(event, context)


@skipped_when_off("collect")
def _collect(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    return document(_use_case(context).run())


def _again(context: LambdaContext) -> dict[str, Any]:
    return document(_use_case(context).again())


def _use_case(context: LambdaContext) -> Collect:
    return wire("collect").collect(lambda: context.get_remaining_time_in_millis() / 1000)
