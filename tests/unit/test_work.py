"""What a request may take: time, bytes, places."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from cutout_api.errors import Saturated
from cutout_api.work import Places, Stopped, Work, going_on


def test_work_that_is_stopped_ends_at_its_next_step_in_every_thread() -> None:
    work = Work(60)
    begun, stopped = threading.Event(), threading.Event()

    def step() -> None:
        assert going_on() is work
        begun.set()
        assert stopped.wait(20)
        going_on()

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(work.run, step)
        assert begun.wait(20)
        work.stop()
        stopped.set()
        with pytest.raises(Stopped):
            other.result()
        pool.submit(going_on).result()  # the thread is free of it


def test_work_ends_at_its_deadline() -> None:
    with pytest.raises(Stopped):
        Work(-1).run(going_on)


def test_what_is_the_work_of_no_request_is_never_stopped() -> None:
    going_on().stop()
    going_on()


@pytest.mark.parametrize(
    ("asked", "threads", "places"),
    [(2, 8, 2), (2, 4, 1), (9, 8, 3), (2, 1, 1), (2, 2, 1), (2, 9, 2)],
)
def test_places_are_less_than_half_of_the_threads(asked: int, threads: int, places: int) -> None:
    found = Places(asked, threads, 0, "batches")
    taken = [found.take() for _ in range(places)]
    with pytest.raises(Saturated):
        found.take()
    taken[0]()
    taken[0]()  # once is enough
    found.take()
    with pytest.raises(Saturated):
        found.take()


def test_those_who_wait_are_less_than_half_of_the_threads_too() -> None:
    places = Places(2, 8, 20, "batches")  # of three threads, one may wait
    first, _ = places.take(), places.take()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(places.take)
        while places._queue is not None and places._queue._value:  # type: ignore[attr-defined]
            pass
        with pytest.raises(Saturated):
            places.take()  # at once
        first()
        waiting.result(20)
