"""What a request may take: time, memory, and a place among those that take long.

The work of one request runs in several threads. Each step of it (a file, a stamp) calls
``going_on()`` first, so that work which nobody waits for ends at its next step.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextvars import ContextVar
from typing import Any, TypeVar

from .errors import Saturated

T = TypeVar("T")


class Stopped(Exception):
    """The work is past its deadline, or nobody waits for it.

    No CutoutError: what handles the error of one file or one id must not handle this.
    """


class Work:
    """Until when work may go on, and how many bytes of stamps it may hold; None: any number."""

    __slots__ = ("lock", "room", "until")

    def __init__(self, seconds: float, room: int | None = None) -> None:
        self.until = time.monotonic() + seconds
        self.room = room
        self.lock = threading.Lock()
        """Of ``room``."""

    def run(self, call: Callable[[], T]) -> T:
        """Return what a call returns that is a part of this work, in whatever thread."""
        token = _current.set(self)
        try:
            return call()
        finally:
            _current.reset(token)

    def stop(self) -> None:
        """End the work with its next step."""
        if self is not _WITHOUT_LIMIT:  # which is everybody's
            self.until = 0.0

    def check(self) -> None:
        """Raise Stopped where the work is to end."""
        if time.monotonic() > self.until:
            raise Stopped


_WITHOUT_LIMIT = Work(math.inf)
_current: ContextVar[Work] = ContextVar("work", default=_WITHOUT_LIMIT)


def going_on() -> Work:
    """Return the work that the calling thread does, if it may go on. Raises Stopped."""
    work = _current.get()
    work.check()
    return work


def settle(futures: Iterable[Future[Any]]) -> None:
    """Wait until none of some calls goes on: they may not read on from a file that is given back.

    Those that have not begun are not begun.
    """
    for future in futures:
        if not future.cancel():
            future.exception()


def _never() -> bool:
    return False


has_left: ContextVar[Callable[[], bool]] = ContextVar("has_left", default=_never)
"""Tells whether the client of the request that this thread answers is gone."""


class Places:
    """So many requests of a kind that take long may be answered at a time.

    Each holds a thread for as long as its client reads, and so does a request that waits for a
    place. There are two such kinds: each has less than half of ``server.threads``, one at least.
    """

    def __init__(self, count: int, threads: int, seconds: float, what: str) -> None:
        most = max(1, (threads - 1) // 2)
        count = min(count, most)
        self._places = threading.BoundedSemaphore(count)
        self._queue = threading.BoundedSemaphore(most - count) if most > count else None
        self._seconds = seconds
        self._what = what

    def take(self) -> Callable[[], None]:
        """Return what gives the place back; it may be called again. Raises Saturated."""
        if not self._places.acquire(blocking=False) and not self._wait():
            raise Saturated(f"as many {self._what} as this service sends at a time are being sent")
        given_back = threading.Lock()

        def give_back() -> None:
            if given_back.acquire(blocking=False):
                self._places.release()

        return give_back

    def _wait(self) -> bool:
        if self._queue is None or not self._queue.acquire(blocking=False):
            return False
        try:
            return self._places.acquire(timeout=self._seconds)
        finally:
            self._queue.release()
