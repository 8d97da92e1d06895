"""The bounded, ordered map over threads."""

import threading
import time

import pytest

from kmatting.ahead import map_ordered


def test_results_are_in_order_whatever_takes_longest():
    def slow(number):
        time.sleep(0.02 if number % 3 == 0 else 0)
        return number, threading.current_thread().name

    results = list(map_ordered(slow, range(20), 3))
    assert [number for number, _ in results] == list(range(20))
    assert len({name for _, name in results}) > 1


@pytest.mark.parametrize(("options", "most"), [({}, 3), ({"held": 2}, 2), ({"held": 6}, 6)])
def test_no_more_items_are_taken_than_are_held(options, most):
    taken = []

    def items():
        for number in range(20):
            taken.append(number)
            yield number

    for count, _ in enumerate(map_ordered(str, items(), 2, **options), 1):
        assert len(taken) <= count - 1 + most
    assert len(taken) == 20


def test_what_is_raised_takes_its_place():
    results = map_ordered(lambda number: 1 / number, [2, 1, 0, 4], 2)
    assert [next(results), next(results)] == [0.5, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_leaving_ends_the_items_and_the_threads():
    ended = []

    def items():
        try:
            yield from range(100)
        finally:
            ended.append(True)

    before = threading.active_count()
    results = map_ordered(str, items(), 2)
    assert next(results) == "0"
    results.close()
    assert ended == [True]
    assert threading.active_count() == before


def test_nothing_to_do():
    assert list(map_ordered(str, [], 2)) == []
