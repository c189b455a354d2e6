"""A closed loop of keep-alive clients: each asks again as soon as it has its answer.

One thread, raw sockets and epoll, so that on a small machine the load costs little of what is
measured; ``cpu`` says how much it did.
"""

from __future__ import annotations

import json
import selectors
import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

HEADER_END = b"\r\n\r\n"
DRAIN_SECONDS = 60.0
ANSWERS_PER_CLIENT = 4
LONGER = 4


@dataclass
class Load:
    """What came of it."""

    seconds: float = 0.0
    """From the first request to the last answer that counts."""
    answered: int = 0
    """Within ``seconds``."""
    failed: int = 0
    """Other statuses than 200, connections that broke, and answers that never came."""
    latencies: list[float] = field(default_factory=list)
    """Seconds; of slow services also of answers that came after the time was up."""
    received: int = 0
    cpu: float = 0.0
    """Processor seconds that the clients themselves took."""

    @property
    def rate(self) -> float:
        return self.answered / self.seconds if self.seconds else 0.0


def build_request(port: int, path: str, body: dict[str, Any] | None = None) -> bytes:
    """Return a request as it goes over the wire: a GET, or a POST of JSON."""
    content = b"" if body is None else json.dumps(body).encode()
    head = f"{'GET' if body is None else 'POST'} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
    if body is not None:
        head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
    return head.encode() + b"\r\n" + content


class _Client:
    def __init__(self, port: int) -> None:
        self.port = port
        self.started = 0.0
        self.received = bytearray()
        self.length = -1
        self.ok = False
        self.socket = self._connect()

    def _connect(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def reconnect(self) -> None:
        self.socket.close()
        self.socket = self._connect()

    def send(self, request: bytes) -> None:
        self.received.clear()
        self.length = -1
        self.started = time.perf_counter()
        self.socket.sendall(request)

    def receive(self) -> bool:
        """Take what has come; tell whether the answer is complete. Raises ConnectionError."""
        data = self.socket.recv(1 << 18)
        if not data:
            raise ConnectionResetError
        self.received += data
        if self.length < 0:
            end = self.received.find(HEADER_END)
            if end < 0:
                return False
            head = bytes(self.received[:end]).lower()
            self.ok = head.startswith((b"http/1.1 200", b"http/1.0 200"))
            self.length = end + 4 + int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
        return len(self.received) >= self.length


def run_load(port: int, requests: Iterable[bytes], *, clients: int, seconds: float) -> Load:
    """Ask for ``seconds``, in turn what ``requests`` holds, again and again.

    A service so slow that a client had not four answers by then is asked up to four times as long.
    """
    return _run(port, cycle(requests), clients, LONGER * seconds, least=seconds)


def run_once(port: int, requests: Iterable[bytes], *, clients: int, seconds: float) -> Load:
    """Ask each of ``requests`` once; give up after ``seconds``."""
    return _run(port, iter(requests), clients, seconds, least=seconds)


def _run(
    port: int, requests: Iterator[bytes], clients: int, seconds: float, *, least: float
) -> Load:
    loop = _Loop(port, requests, time.perf_counter() + seconds)
    cpu, start = time.process_time(), time.perf_counter()
    load = loop.load
    for _ in range(clients):
        loop.add_client()
    while loop.is_busy():
        loop.serve_events()
        now = time.perf_counter()
        if now >= start + least and load.answered >= ANSWERS_PER_CLIENT * clients:
            loop.end = min(loop.end, now)
        if now > loop.end + DRAIN_SECONDS:
            loop.give_up()
    # All that was to be asked has been: it took until the last answer.
    load.seconds = (loop.last if next(requests, None) is None else loop.end) - start
    load.cpu = time.process_time() - cpu
    return load


class _Loop:
    """The clients, and whose answer has come."""

    def __init__(self, port: int, requests: Iterator[bytes], end: float) -> None:
        self.load = Load()
        self.end = self.last = end
        self._port, self._requests = port, requests
        self._selector = selectors.DefaultSelector()

    def is_busy(self) -> bool:
        return bool(self._selector.get_map())

    def add_client(self) -> None:
        client = _Client(self._port)
        self._selector.register(client.socket, selectors.EVENT_READ, client)
        self._ask(client)

    def serve_events(self) -> None:
        for key, _ in self._selector.select(timeout=1):
            client: _Client = key.data
            try:
                if not client.receive():
                    continue
            except ConnectionError:
                self._replace(client)
            else:
                self._count(client, time.perf_counter())
            self._ask(client)

    def give_up(self) -> None:
        """Leave the clients that still wait."""
        for key in list(self._selector.get_map().values()):
            self.load.failed += 1
            self._selector.unregister(key.fileobj)
            key.data.socket.close()

    def _count(self, client: _Client, now: float) -> None:
        self.load.latencies.append(now - client.started)
        self.load.received += client.length
        self.load.failed += not client.ok
        if now <= self.end:
            self.load.answered += client.ok
            self.last = now

    def _ask(self, client: _Client) -> None:
        """Send the next request, or leave when the time is up or nothing is left to ask."""
        request = next(self._requests, None) if time.perf_counter() < self.end else None
        if request is None:
            self._selector.unregister(client.socket)
            client.socket.close()
            return
        try:
            client.send(request)
        except ConnectionError:
            self._replace(client)
            client.send(request)

    def _replace(self, client: _Client) -> None:
        self.load.failed += 1
        self._selector.unregister(client.socket)
        client.reconnect()
        self._selector.register(client.socket, selectors.EVENT_READ, client)


def fetch(port: int, request: bytes) -> tuple[bool, bytes]:
    """Ask once; return whether it was answered with 200, and the body."""
    client = _Client(port)
    try:
        client.socket.settimeout(60)
        client.send(request)
        while not client.receive():
            pass
        return client.ok, bytes(client.received.partition(HEADER_END)[2])
    finally:
        client.socket.close()
