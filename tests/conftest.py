"""Fixtures that all tests share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from local.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    """NHS England's MESH sandbox over mutual TLS, one for each worker."""
    with Sandbox() as running:
        yield running


@pytest.fixture
def clean_mailboxes(sandbox: Sandbox) -> None:
    """Begin with empty mailboxes."""
    sandbox.reset()
