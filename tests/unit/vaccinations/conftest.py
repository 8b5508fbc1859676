"""Counts what the readers of uploads are fed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.vaccinations import bad_inputs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(autouse=True)
def _tell_how_many_bad_inputs(
    request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> Iterator[None]:
    before = bad_inputs.read
    yield
    if request.node.get_closest_marker("bad_inputs"):
        record_property("bad inputs tried", bad_inputs.read - before)
