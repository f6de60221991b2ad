"""Many files, by as many threads as the disk makes wait."""

import threading
import time

import pytest

from pipeline.execution.accesses import AT_A_TIME, MOST_THREADS, each, threads_for


def computing(number: int) -> tuple[int, int]:
    end = time.thread_time() + 1e-4
    while time.thread_time() < end:
        pass
    return number * number, threading.get_ident()


def waiting(number: int) -> tuple[int, int]:
    time.sleep(0.002)
    return number * number, threading.get_ident()


@pytest.mark.parametrize("count", [0, 1, AT_A_TIME, AT_A_TIME + 1, 10 * AT_A_TIME + 3])
@pytest.mark.parametrize("function", [computing, waiting])
def test_each_comes_in_order_with_its_result(function, count):
    found = [(item, result) for item, (result, _) in each(function, range(count))]
    assert found == [(number, number * number) for number in range(count)]


def test_what_waits_waits_together():
    threads = {thread for _, (_, thread) in each(waiting, range(20 * AT_A_TIME))}
    assert len(threads) > 4


@pytest.mark.parametrize(
    ("wall", "busy", "threads"),
    [(1, 1, 1), (1.9, 1, 1), (2, 1, 2), (5, 1, 5), (100, 1, MOST_THREADS), (1, 0, MOST_THREADS), (0, 0, 1)],
)
def test_the_clock_against_the_processor_says_how_many(wall, busy, threads):
    assert threads_for(wall, busy) == threads


@pytest.mark.parametrize("function", [computing, waiting])
@pytest.mark.parametrize("at", [0, AT_A_TIME + 5])
def test_an_error_ends_it_and_little_more_is_begun(function, at):
    begun = []

    def failing(number):
        begun.append(number)
        if number == at:
            raise OSError("no")
        return function(number)

    with pytest.raises(OSError, match="no"):
        list(each(failing, range(40 * AT_A_TIME)))
    assert len(begun) < 25 * AT_A_TIME
