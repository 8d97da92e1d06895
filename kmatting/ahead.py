"""Iterators that work ahead of their caller, in threads."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

__all__ = ["ahead", "map_ordered"]

Item = TypeVar("Item")
Result = TypeVar("Result")

_END: Any = object()


def ahead(items: Iterable[Item], depth: int = 1) -> Iterator[Item]:
    """Makes the next items in a thread, while the caller works on this one.

    Args:
        items: what to iterate over, in the thread.
        depth: number of items made ahead. No more are held.

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
        _end(pool, iterator)


def map_ordered(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int,
    held: int | None = None,
) -> Iterator[Result]:
    """Applies a function to the next items in several threads, while the caller works.

    Args:
        function: is called with each item, in one of the threads.
        items: what to iterate over, in the caller's thread. A generator is closed when the caller
            takes no more results.
        workers: number of threads.
        held: the most items that are begun and whose results are not yet taken; by default one more
            than there are workers.

    Yields:
        The results, in order. What the function raises is raised here in its place.
    """
    held = workers + 1 if held is None else held
    iterator = iter(items)
    pool = ThreadPoolExecutor(workers, "kmatting-map")
    waiting: deque[Future[Result]] = deque()
    try:
        for item in iterator:
            waiting.append(pool.submit(function, item))
            del item  # or it would be held while the next one is made
            if len(waiting) >= held:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        _end(pool, iterator)


def _end(pool: ThreadPoolExecutor, iterator: Any) -> None:
    """Waits for the threads and closes the iterator that they read."""
    pool.shutdown(cancel_futures=True)
    if hasattr(iterator, "close"):
        iterator.close()
