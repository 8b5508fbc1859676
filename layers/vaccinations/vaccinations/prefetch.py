"""Prefetch: do what waits for the network a few items before its results are needed."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from concurrent.futures import Future

__all__ = ["prefetch"]


def prefetch[T, R](work: Callable[[T], R], items: Iterable[T], *, depth: int) -> Generator[R]:
    """Do some work on each item, ``depth`` of them at once in threads; yield the results in the items' order.

    No more than ``depth`` results wait to be used, so that memory stays flat however many items there are. Items are
    fetched in the caller's thread. Where the work fails, its exception is raised in its turn, and no more is begun.
    """
    with ThreadPoolExecutor(depth) as threads:
        waiting: deque[Future[R]] = deque()
        try:
            for item in items:
                waiting.append(threads.submit(work, item))
                if len(waiting) > depth:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
