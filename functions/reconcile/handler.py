"""Reconcile: every day, queue the uploads that were forgotten.

It runs while mesh_jobs is off, too: it does not speak to MESH.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vaccinations.jobs.reconcile import ReconcileRequest
from vaccinations.results import document
from vaccinations.telemetry import observed
from vaccinations.wiring import wire

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext


@observed
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Look for forgotten uploads; `ReconcileRequest` says what the event may hold. Answer a `ReconcileRun`."""
    reconcile = wire("reconcile").reconcile(lambda: context.get_remaining_time_in_millis() / 1000)
    return document(reconcile.run(ReconcileRequest.from_event(event)))
