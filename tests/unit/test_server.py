"""The worker: when a thread stays with a connection."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import ThreadPoolExecutor

from gunicorn.config import Config
from gunicorn.workers.gthread import TConn

from cutout_api.server import Worker


def test_a_thread_stays_with_a_connection_only_while_nobody_waits_for_it() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, ThreadPoolExecutor(1) as pool:
        worker = object.__new__(Worker)  # as one is before it starts
        worker.tpool = pool
        connection = TConn(Config(), ours, ("127.0.0.1", 1), ("127.0.0.1", 2))
        connection.init()
        busy = threading.Event()
        running = pool.submit(busy.wait)
        while not running.running():
            pass
        assert worker._may_linger(connection)
        waiting = pool.submit(int)
        assert not worker._may_linger(connection)
        busy.set()
        waiting.result()
        connection.parser.unreader.unread(b"GET")
        assert not worker._may_linger(connection)  # gunicorn looks at what was read ahead
