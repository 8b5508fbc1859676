"""Trying again: pauses that grow and vary, so that others can finish meanwhile."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["tries"]

#: Tests put another in its place, so as not to wait.
sleep = time.sleep


def tries(most: int, *, first: float = 0.05, longest: float = 5.0) -> Iterator[int]:
    """Count tries from 0, with a pause before each but the first.

    The caller leaves the loop where a try succeeds, and raises behind it, for the case that none does.

    Parameters
    ----------
    most
        How many tries there are.
    first, longest
        The longest pause before the second try, and before any, in seconds. It doubles from try to try; the pause
        itself is drawn at random from nothing up to it.
    """
    for attempt in range(most):
        if attempt:
            sleep(random.uniform(0, min(first * 2 ** (attempt - 1), longest)))  # noqa: S311 - jitter, not a secret
        yield attempt
