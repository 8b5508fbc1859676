"""How many inputs the readers of uploads were fed; those of tests marked ``bad_inputs`` are counted in the report."""

from __future__ import annotations

__all__ = ["count", "read"]

read = 0


def count() -> None:
    """Count one more."""
    global read  # noqa: PLW0603 - a tally
    read += 1
