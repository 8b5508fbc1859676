"""One logger, one metrics namespace and one tracer for everybody, from AWS Lambda Powertools.

Service, namespace and log level come from the environment (``POWERTOOLS_SERVICE_NAME``,
``POWERTOOLS_METRICS_NAMESPACE``, ``POWERTOOLS_LOG_LEVEL``). Nothing personal is ever given to them: identifiers,
counts and programme names only. Powertools' event logging stays off. The tracer keeps neither answers nor exceptions,
and no calls that a function makes: X-Ray's SDK would note the keys of objects, which hold files' names.

X-Ray's SDK, which takes a tenth of a function's start, is loaded with the first invocation that X-Ray samples.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from functools import cache, wraps
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import EphemeralMetrics, MetricUnit

if TYPE_CHECKING:
    from collections.abc import Callable

    from aws_lambda_powertools.utilities.typing import LambdaContext

    type Handler = Callable[[dict[str, Any], LambdaContext], Any]

__all__ = ["MetricUnit", "count", "gauge", "logger", "observed", "silence"]

logger = Logger(service=os.environ.get("POWERTOOLS_SERVICE_NAME", "vaccinations"))


@dataclass
class _Metrics:
    """Whether metrics are written."""

    on: bool = True


_metrics = _Metrics()


def silence() -> None:
    """Write neither logs nor metrics from now on: a person at a terminal is told by the command itself."""
    logger.setLevel(logging.CRITICAL)
    _metrics.on = False


def count(metric: str, value: int = 1, **dimensions: str) -> None:
    """Add ``value`` to a counting metric, for example ``count("RowsRejected", 3)``."""
    gauge(metric, value, MetricUnit.Count, **dimensions)


def gauge(metric: str, value: float, unit: MetricUnit = MetricUnit.NoUnit, **dimensions: str) -> None:
    """Record the present value of something, such as the days left on the certificate.

    The metric is written at once, in CloudWatch's embedded metric format, so that one counted before a function
    dies is not lost with it. It is there by ``service``, and where there are dimensions by these, too; they are few
    and their values are fixed words.
    """
    if not _metrics.on:
        return
    written = EphemeralMetrics(
        service=logger.service, namespace=os.environ.get("POWERTOOLS_METRICS_NAMESPACE", "Vaccinations")
    )
    if dimensions:
        written.add_dimensions(service=logger.service, **dimensions)
    written.add_metric(name=metric, unit=unit, value=value)
    written.flush_metrics()


def observed(handler: Handler) -> Handler:
    """Give a Lambda handler structured logs that bear its request id, and a trace where X-Ray wants one.

    Where a person asked for the invocation, its event says who and why (``asked``), and so does each line of the log.
    """

    @wraps(handler)
    def sampled(event: dict[str, Any], context: LambdaContext) -> Any:
        if isinstance(asked := event.get("asked"), dict):
            logger.append_keys(asked_by=asked.get("by"), asked_because=asked.get("reason"))
            logger.info("a person has asked for this")
        # Lambda puts X-Ray's decision here before each invocation.
        traced = "Sampled=1" in os.environ.get("_X_AMZN_TRACE_ID", "")
        return (_traced(handler) if traced else handler)(event, context)

    wrapped: Handler = logger.inject_lambda_context(sampled, clear_state=True)
    return wrapped


@cache
def _traced(handler: Handler) -> Handler:
    from aws_lambda_powertools import Tracer

    tracer = Tracer(service=logger.service, auto_patch=False)
    return tracer.capture_lambda_handler(handler, capture_response=False, capture_error=False)
