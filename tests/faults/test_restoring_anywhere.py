"""Promises about a restore: the tables may be put back to any moment, and the command may die at any step."""

from __future__ import annotations

from itertools import count

import pytest

from tests.usecases.restored import days, die_and_put_back, die_at_each_step, put_back_to, several_parts


def test_the_tables_may_be_put_back_to_any_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The moments after each write of a story of several days."""
    put_back_to(*days(monkeypatch))


def test_whatever_came_to_a_halt_the_tables_may_be_put_back_to_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process dies after each write of the story; the tables go back to the first, a middle or the last moment."""
    several_parts(monkeypatch)
    assert next(write for write in count(1) if not die_and_put_back(write)) > 90


@pytest.mark.parametrize("moment", [0, 0.4, 0.8])
def test_the_command_may_die_at_any_step_and_be_run_again(monkeypatch: pytest.MonkeyPatch, moment: float) -> None:
    after, backups = days(monkeypatch)
    assert die_at_each_step(after, backups[int(moment * len(backups))]) > 3
