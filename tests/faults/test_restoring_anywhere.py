"""Promises about a restore: the tables may be put back to any moment, and the command may die at any step."""

from __future__ import annotations

import pytest

from tests.usecases.restored import days, die_at_each_step, put_back_to


def test_the_tables_may_be_put_back_to_any_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The moments after each write of a story of several days."""
    put_back_to(*days(monkeypatch), every=1)


@pytest.mark.parametrize("moment", [0, 0.4, 0.8])
def test_the_command_may_die_at_any_step_and_be_run_again(monkeypatch: pytest.MonkeyPatch, moment: float) -> None:
    after, backups = days(monkeypatch)
    assert die_at_each_step(after, backups[int(moment * len(backups))]) > 3
