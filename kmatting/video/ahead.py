"""Lets the steps of a pipeline work at the same time, each in a thread of its own."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")

_END: Any = object()


def ahead(items: Iterable[Item], depth: int = 2) -> Iterator[Item]:
    """Makes the next items in a thread, while the caller works on this one.

    Args:
        items: what to iterate over, in the thread.
        depth: number of items made ahead. No more than these are held.

    Yields:
        The items, in order. What making one raises is raised here in its place.
    """
    iterator = iter(items)
    pool = ThreadPoolExecutor(1, "kmatting-ahead")
    waiting: deque[Future[Item]] = deque()
    try:
        while len(waiting) < depth:
            waiting.append(pool.submit(next, iterator, _END))
        while (item := waiting.popleft().result()) is not _END:
            waiting.append(pool.submit(next, iterator, _END))
            yield item
            del item  # or it would be held while the next one is made
    finally:
        pool.shutdown(cancel_futures=True)
        if hasattr(iterator, "close"):
            iterator.close()  # the steps before this one end too
