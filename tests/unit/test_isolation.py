"""Work in other processes: what comes back, what is read here, and whom their end concerns."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from cutout_api import isolation
from cutout_api.errors import FileUnreadable
from cutout_api.isolation import PROCESSES, ProcessLost, close_pool, run_isolated

from ..service import ROOT


@pytest.fixture(autouse=True)
def no_pool_stays() -> Iterator[None]:
    yield
    close_pool()


def read_twice(read_at: isolation.ReadAt, text: str) -> str:
    return f"{text} {read_at(3, 1).decode()} {read_at(2, 0).decode()}"


def refuse() -> None:
    raise FileUnreadable("it is encrypted", "a.parquet")


def pid_after(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def test_it_returns_and_raises_what_the_function_does() -> None:
    assert run_isolated(divmod, 17, 5) == (3, 2)
    with pytest.raises(ZeroDivisionError):
        run_isolated(divmod, 1, 0)
    with pytest.raises(FileUnreadable, match="it is encrypted") as raised:
        run_isolated(refuse)
    assert raised.value.where == "a.parquet"


def test_what_it_reads_is_read_here() -> None:
    asked = []

    def read_at(length: int, offset: int) -> bytes:
        asked.append((os.getpid(), length, offset))
        return b"abcdef"[offset : offset + length]

    assert run_isolated(read_twice, "got", read_at=read_at) == "got bcd ab"
    assert asked == [(os.getpid(), 3, 1), (os.getpid(), 2, 0)]


def test_a_storage_that_fails_fails_as_it_did() -> None:
    def read_at(length: int, offset: int) -> bytes:
        raise ConnectionResetError("the data node is gone")

    with pytest.raises(ConnectionResetError, match="the data node is gone"):
        run_isolated(read_twice, "got", read_at=read_at)
    assert run_isolated(abs, -1) == 1


def test_a_crash_is_the_error_of_one_call() -> None:
    before = run_isolated(pid_after, 0)
    with pytest.raises(ProcessLost):
        run_isolated(ctypes.string_at, 0)
    assert run_isolated(pid_after, 0) not in (before, os.getpid())


def test_too_much_memory_is_the_error_of_one_call() -> None:
    with pytest.raises(ProcessLost, match="memory"):
        run_isolated(bytes, isolation.MEMORY_BYTES)
    assert run_isolated(abs, -1) == 1


def test_a_call_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    run_isolated(abs, -1)
    monkeypatch.setattr(isolation, "SECONDS", 0.2)
    with pytest.raises(ProcessLost, match="in time"):
        run_isolated(pid_after, 60)
    assert run_isolated(abs, -1) == 1


def test_there_are_few_processes_and_they_are_used_again() -> None:
    with ThreadPoolExecutor(8) as threads:
        pids = set(threads.map(lambda _: run_isolated(pid_after, 0.05), range(24)))
    assert len(pids) == PROCESSES
    close_pool()
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_a_process_of_a_large_one_is_used_again() -> None:
    """The kernel counts what the parent held as the most that its child has held."""
    code = (
        "import os; from cutout_api import isolation; held = bytearray(isolation.KEPT_BYTES);"
        "print(len({isolation.run_isolated(os.getpid) for _ in range(3)}))"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ended.stdout == "1\n"


def test_its_processes_end_with_the_one_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, time; from cutout_api.isolation import run_isolated;"
        "print(run_isolated(os.getpid), flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    child = psutil.Process(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    gone, _ = psutil.wait_procs([child], timeout=20)
    assert gone
