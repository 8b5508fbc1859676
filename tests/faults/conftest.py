"""Fixtures of the tests that break things: the use cases' world, and a process that can be made to die."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tests.faults.stage import fresh_stage
from tests.faults.victim import Victim
from tests.usecases.conftest import (  # noqa: F401 - fixtures
    aws,
    dynamodb,
    endpoint,
    resources,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from local.sandbox import Sandbox
    from tests.faults.stage import Stage


@pytest.fixture(scope="session")
def victim(endpoint: str, sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:  # noqa: F811
    with Victim(endpoint, sandbox, tmp_path_factory.mktemp("victim")) as running:
        yield running


@pytest.fixture
def begin(
    victim: Victim,
    aws: Callable[[str], Any],  # noqa: F811
    dynamodb: Any,  # noqa: F811
    resources: dict[str, Any],  # noqa: F811
    sandbox: Sandbox,
) -> Callable[..., AbstractContextManager[Stage]]:
    """Begin anew, with nothing left of what was before."""
    return partial(fresh_stage, victim, aws, dynamodb, resources, sandbox)
