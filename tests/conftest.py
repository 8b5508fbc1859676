"""Fixtures that all tests share."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from hypothesis import HealthCheck, settings

from local.sandbox import Sandbox
from tests import chromium as browser
from tests import dynamodb_local as engine

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What tests count, each with ``record_property``, and the end of the report adds up.
TOTALS = ("crash points tried", "interleavings run", "bad inputs tried")


# How quickly examples come depends on the machine and on what else it does.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    """NHS England's MESH sandbox over mutual TLS, one for each worker."""
    with Sandbox() as running:
        yield running


@pytest.fixture
def clean_mailboxes(sandbox: Sandbox) -> None:
    """Begin with empty mailboxes."""
    sandbox.reset()


@pytest.fixture(scope="session")
def dynamodb_local() -> Iterator[Any]:
    """Make a client of DynamoDB Local, one for each worker; skip where it cannot be had, unless it must be."""
    if why := engine.missing():
        (pytest.fail if os.environ.get("REQUIRE_DYNAMODB_LOCAL") == "1" else pytest.skip)(why)
    with engine.DynamoDBLocal() as running:
        session = boto3.Session("testing", "testing", region_name="eu-west-2")
        yield session.client("dynamodb", endpoint_url=running.endpoint)


@pytest.fixture(scope="session")
def chromium() -> None:
    """Make sure that there is a Chromium; skip where it cannot be had, unless it must be."""
    if why := browser.missing():
        (pytest.fail if os.environ.get("REQUIRE_CHROMIUM") == "1" else pytest.skip)(why)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how much was tried."""
    totals: Counter[str] = Counter()
    for report in terminalreporter.getreports(""):
        if report.when == "teardown":
            totals.update({str(name): int(str(n)) for name, n in report.user_properties if name in TOTALS})
    for name, total in totals.items():
        terminalreporter.write_line(f"{name}: {total}")
