"""Fixtures that all tests share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from local.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator


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
