"""What prefetching promises."""

from __future__ import annotations

import threading
from itertools import count

import pytest

from vaccinations.prefetch import prefetch


def test_results_come_in_the_order_of_their_items() -> None:
    later = threading.Event()

    def work(item: int) -> int:
        if item == 0:
            later.wait(30)
        if item == 2:
            later.set()
        return item * 10

    assert list(prefetch(work, range(9), depth=4)) == [item * 10 for item in range(9)]


def test_as_many_are_under_way_at_once_as_was_said() -> None:
    together = threading.Barrier(3)
    assert all(position >= 0 for position in prefetch(lambda _: together.wait(30), range(6), depth=3))


def test_no_more_is_begun_than_is_soon_used() -> None:
    items = count()
    results = prefetch(lambda item: item, items, depth=4)
    assert [next(results) for _ in range(10)] == list(range(10))
    results.close()
    assert next(items) == 10 + 4


def test_work_that_fails_fails_in_its_turn_and_nothing_more_is_begun() -> None:
    begun = []

    def work(item: int) -> int:
        begun.append(item)
        if item == 3:
            raise ValueError(item)
        return item

    results = prefetch(work, count(), depth=2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="3"):
        next(results)
    assert max(begun) <= 5
    assert list(results) == []
