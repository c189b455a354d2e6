"""A small pool of processes for work on bytes that nobody has validated.

What pyarrow, or another library in C, makes of such bytes may be a crash, a loop, or all of the
memory. Here that is the error of one call: the process that ran it is gone, and the next call
starts another one. They are started by ``exec``, not by ``fork``, which a JVM does not survive;
when first needed; and each has a bound on its memory and on its time. They end with the process
that started them, since their connection to it ends.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pickle
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
ReadAt = Callable[[int, int], bytes]
"""Returns so many bytes from an offset on."""

PROCESSES = 2
MEMORY_BYTES = 2 << 30
"""Of address space of one process, what its libraries map included."""
SECONDS = 10.0
"""That one call may take, the reads that it asks for included."""
START_SECONDS = 30.0
KEPT_BYTES = 512 << 20
"""A process that still holds more memory is not kept for the next call."""
_READ, _STARTED, _RETURNED, _RAISED = "read", "started", "returned", "raised"
_START = "import sys; sys.path[:] = {path!r}; from {module} import _serve; _serve({number})"


class ProcessLost(RuntimeError):
    """The process that did the work crashed, or did not end in time."""


def run_isolated(function: Callable[..., T], *args: Any, read_at: ReadAt | None = None) -> T:
    """Return ``function(*args)``, called in another process.

    Function, arguments, result and what it raises are pickled. With ``read_at`` the function is
    called as ``function(read_at, *args)``, and what it reads is read here: files and connections
    stay in this process. Raises ProcessLost, and what the function or ``read_at`` raises.
    """
    result: T = _pool().run(function, args, read_at)
    return result


def close_pool() -> None:
    """End the processes of the pool. Another call would start new ones."""
    with _LOCK:
        pool = _POOLS.pop(os.getpid(), None)
    if pool is not None:
        pool.close()


atexit.register(close_pool)


class _Process:
    """One process, and the connection to it."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            number = theirs.fileno()
            start = _START.format(path=sys.path, module=__name__, number=number)
            self._process = subprocess.Popen(  # noqa: S603 - this interpreter and module
                [sys.executable, "-c", start],
                stdin=subprocess.DEVNULL,
                # What it prints as it dies is of no use to anybody.
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[number],
            )
        self._connection = Connection(ours.detach())

    def call(
        self, function: Callable[..., Any], args: Any, read_at: ReadAt | None
    ) -> tuple[str, Any, bool]:
        """Return what came of a call, and whether the process is good for another one.

        Raises ProcessLost, and what ``read_at`` raises; the process is to be ended then.
        """
        with _lost():
            self._connection.send((function, args, read_at is not None))
        end = time.monotonic() + START_SECONDS
        while True:
            with _lost():
                if not self._connection.poll(max(end - time.monotonic(), 0)):
                    raise ProcessLost("reading it did not end in time")
                what, value, goes_on = self._connection.recv()
            if what == _READ and read_at is not None:
                data = read_at(*value)
                with _lost():
                    self._connection.send_bytes(data)
            elif what == _STARTED:
                end = time.monotonic() + SECONDS
            else:
                return what, value, goes_on

    def end(self) -> None:
        self._connection.close()
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def _lost() -> Iterator[None]:
    try:
        yield
    except (EOFError, OSError) as error:
        raise ProcessLost("reading it ended the process that did it") from error


class _Pool:
    def __init__(self) -> None:
        self._turns = threading.BoundedSemaphore(PROCESSES)
        self._lock = threading.Lock()
        self._idle: list[_Process] = []
        self._closed = False

    def run(self, function: Callable[..., Any], args: Any, read_at: ReadAt | None) -> Any:
        if not self._turns.acquire(timeout=SECONDS):
            raise ProcessLost("every process for such work is busy")
        goes_on = False
        try:
            with self._lock:
                process = self._idle.pop() if self._idle else None
            process = process or _Process()
            try:
                what, value, goes_on = process.call(function, args, read_at)
            finally:
                with self._lock:
                    goes_on = goes_on and not self._closed
                    if goes_on:
                        self._idle.append(process)
                if not goes_on:
                    process.end()
        finally:
            self._turns.release()
        if what == _RAISED:
            raise value
        return value

    def close(self) -> None:
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for process in idle:
            process.end()


_LOCK = threading.Lock()
_POOLS: dict[int, _Pool] = {}
"""By process: one that was forked has a pool of its own."""


def _pool() -> _Pool:
    with _LOCK:
        return _POOLS.setdefault(os.getpid(), _Pool())


# --- in the other process ----------------------------------------------------------------------


def _serve(number: int) -> None:
    """Do what is asked through a connection until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the parent ends this process
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    connection = Connection(number)

    def read_at(length: int, offset: int) -> bytes:
        connection.send((_READ, (length, offset), True))
        return connection.recv_bytes()

    goes_on = True
    while goes_on:
        try:
            function, args, reads = connection.recv()
        except (EOFError, OSError):
            return
        connection.send((_STARTED, None, True))
        _allow_seconds()
        try:
            what, value = _RETURNED, function(read_at, *args) if reads else function(*args)
        except MemoryError:
            what, value = _RAISED, ProcessLost("reading it takes too much memory")
        except Exception as error:  # noqa: BLE001 - raised where the call came from
            what, value = _RAISED, _picklable(error)
        goes_on = resident_bytes() < KEPT_BYTES
        connection.send((what, value, goes_on))


def resident_bytes() -> int:
    """Return how much memory this process holds.

    Not the most that it has held, as ``getrusage`` counts that: it begins with what the process
    held that started this one.
    """
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _allow_seconds() -> None:
    """Have the system end this process when it outlives its parent in a loop of its own."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    most = int(used.ru_utime + used.ru_stime + SECONDS) + 1
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (most, hard))


def _picklable(error: Exception) -> Exception:
    try:
        again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    except Exception:  # noqa: BLE001 - whatever its class does
        again = None
    return error if type(again) is type(error) else RuntimeError(f"{type(error).__name__}: {error}")
