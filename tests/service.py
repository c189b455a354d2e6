"""The real service, in processes of its own, for as long as a test needs it."""

from __future__ import annotations

import ctypes
import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import requests

ROOT = Path(__file__).parents[1]
COMMAND = (sys.executable, "-m", "cutout_api", "serve")
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)  # looked up before a fork, after which nothing may be


@dataclass
class Service:
    """A running service."""

    address: str
    port: int
    process: subprocess.Popen[bytes]
    log_file: Path

    @property
    def log(self) -> str:
        return self.log_file.read_text()


def _own_ports() -> Iterator[int]:
    """Yield ports of this process of the tests: a thousand, over and over.

    They lie below those that the system lends, so that what takes any free port takes none of them
    before the server that it is meant for.
    """
    own = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 10
    first = 20_000 + 1000 * own
    start = random.SystemRandom().randrange(1000)  # another one than the run's before
    return (first + (start + number) % 1000 for number in itertools.count())


_PORTS = _own_ports()


def free_port() -> int:
    for port in _PORTS:
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("there is always a next one")


def die_with_parent(number: int = signal.SIGTERM) -> None:
    """Of a child before it begins: a test run that is killed takes its servers with it."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, number)


@contextmanager
def running_service(
    environment: Mapping[str, str],
    command: Sequence[str] = COMMAND,
    *,
    seconds: float = 90,
    log_file: Path | None = None,
    folder: Path = ROOT,
) -> Iterator[Service]:
    """Start the service that lies in a folder, wait until it answers, stop it in the end."""
    port = free_port()
    own = {"CUTOUT_API_SERVER_PORT": str(port), "CUTOUT_API_CONFIG": os.devnull}
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("CUTOUT_API_")}
    log_file = log_file or Path(os.environ.get("TMPDIR", "/tmp")) / f"cutout-api-{port}.log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=inherited | own | environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
    service = Service(f"http://127.0.0.1:{port}", port, process, log_file)
    try:
        _wait_until_it_answers(service, seconds)
        yield service
    finally:
        process.terminate()
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(20)
        log_file.unlink(missing_ok=True)


def _wait_until_it_answers(service: Service, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if service.process.poll() is not None:
            break
        try:
            requests.get(f"{service.address}/healthz", timeout=5)
            if service.process.poll() is None:  # else another answered at this port
                return
        except requests.RequestException:
            time.sleep(0.05)
    raise AssertionError(f"the service did not start:\n{service.log}")
