"""gunicorn's configuration, its hooks, and its worker.

``gunicorn app:app`` finds it through ``gunicorn.conf.py``, ``cutout_api serve`` by name. It is
imported in the master, so nothing here may start a JVM or import prometheus_client.
"""

from __future__ import annotations

import json
import logging
import os
import select
import selectors
import shutil
import socket
import struct
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from gunicorn.http.errors import LimitRequestLine, ParseException
from gunicorn.workers.gthread import ThreadWorker

from . import __version__
from .errors import (
    AddressTooLong,
    CutoutError,
    InternalError,
    MalformedHttp,
    SettingsError,
    StorageUnavailable,
)
from .settings import Settings, load_settings

log = logging.getLogger("cutout_api")

try:
    _settings = load_settings()
except SettingsError as _error:
    sys.exit(f"cutout_api: {_error}")

wsgi_app = "cutout_api.server:make_application()"
bind = f"{_settings.server.host}:{_settings.server.port}"
workers = _settings.server.workers
threads = _settings.server.threads
worker_class = "cutout_api.server.Worker"
accesslog = None  # the service writes its own line for each request
errorlog = "-"
loglevel = "warning"
timeout = 60
graceful_timeout = 15
keepalive = 5
limit_request_line = 8190
control_socket_disable = True  # it would be made in the home folder, which may be read-only
# Workers' heartbeat files: on a disk, a busy system stalls them.
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108

LINGER_MILLISECONDS = 2
LEAVE_SECONDS = 2.0
METRICS_PREFIX = "cutout-api-metrics-"


def make_application() -> Any:
    from .web import create_app

    return create_app(_settings)


def on_starting(_server: Any) -> None:
    """Refuse to start on an archive that is not there; HDFS is asked by the workers."""
    set_up_logging(_settings)
    folder = _settings.archive.address.folder
    if _settings.archive.address.host is None and not Path(folder).is_dir():
        sys.exit(
            f"cutout_api: archive.uri is {_settings.archive.uri}, but there is no such folder; "
            "'cutout_api demo' makes a simulated archive"
        )
    log.info("cutout_api %s on http://%s", __version__, bind)


def when_ready(_server: Any) -> None:
    """Make what workers share, before they are forked: the folder of their metrics, and the code.

    A worker that comes later then has the code of the others, whatever was installed meanwhile.
    """
    # prometheus_client looks at this once, as it is imported.
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix=METRICS_PREFIX)
    from . import web  # noqa: F401


def post_worker_init(worker: Any) -> None:
    """Connect after the fork, before the first request: a JVM does not survive a fork."""
    from .web import warm_up

    reader = worker.wsgi.extensions["cutout_reader"]
    try:
        warm_up(worker.wsgi)
    except CutoutError as error:
        log.error("the archive cannot be served yet: %s (%s)", error, reader.archive)
        if isinstance(error, StorageUnavailable):
            log.debug("because of", exc_info=error)
    else:
        level = logging.INFO if worker.age == 1 else logging.DEBUG
        log.log(level, "serving from %s", reader.archive)


def worker_exit(_server: Any, worker: Any) -> None:
    """Close files before their file system, or libhdfs writes Java traces at the exit."""
    if getattr(worker, "wsgi", None) is not None:  # the application was loaded
        worker.wsgi.extensions["cutout_reader"].close()


def child_exit(_server: Any, worker: Any) -> None:
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def on_exit(_server: Any) -> None:
    folder = Path(os.environ.get("PROMETHEUS_MULTIPROC_DIR", ""))
    if folder.name.startswith(METRICS_PREFIX):  # the one made above
        shutil.rmtree(folder, ignore_errors=True)


def set_up_logging(settings: Settings) -> None:
    """Write one line a message to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.handlers = [handler]
    log.propagate = False
    log.setLevel(settings.server.log_level)
    logging.getLogger("gunicorn.error").addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """Leave out the trace of a client that was too slow."""
    return not (record.exc_info and isinstance(record.exc_info[1], BlockingIOError))


def _has_more(connection: socket.socket) -> bool:
    """Wait a moment for a connection's next request."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(LINGER_MILLISECONDS))


class Worker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's threaded worker, with time-outs, and errors in this service's own words."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._leaving: dict[socket.socket, float] = {}
        """Connections that are answered, and when they are closed whatever the client does."""

    def enqueue_req(self, conn: Any) -> None:
        """Give a client so long for each piece it sends or takes: it holds a thread meanwhile."""
        if not getattr(conn, "has_timeouts", False):  # it comes here again for each request
            conn.has_timeouts = True
            conn.close = partial(self._close, conn.sock)
            seconds = _settings.limits.client_seconds
            duration = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
            for direction in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                conn.sock.setsockopt(socket.SOL_SOCKET, direction, duration)
        super().enqueue_req(conn)

    def _close(self, connection: socket.socket, graceful: bool = False) -> None:
        """Close a connection; give a client time to take its answer, and to hang up first.

        gunicorn waits for that itself, two seconds for each client, on the thread that accepts all
        the others.
        """
        try:
            if graceful and len(self._leaving) < self.cfg.worker_connections:
                connection.shutdown(socket.SHUT_WR)
                connection.setblocking(False)
                self.poller.register(connection, selectors.EVENT_READ, self._see_off)
                self._leaving[connection] = time.monotonic() + LEAVE_SECONDS
                return
        except OSError:
            pass  # it has left
        connection.close()

    def _see_off(self, connection: socket.socket) -> None:
        """Drop what a client still sends, until it hangs up."""
        try:
            if connection.recv(65_536):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._hang_up(connection)

    def _hang_up(self, connection: socket.socket) -> None:
        del self._leaving[connection]
        self.poller.unregister(connection)
        connection.close()

    def notify(self) -> None:  # by the thread that has the poller, each second at least
        super().notify()
        now = time.monotonic()
        for connection in [other for other, end in self._leaving.items() if end < now]:
            self._hang_up(connection)

    def handle(self, conn: Any) -> Any:
        """Answer a request, and those that follow it on the connection within moments.

        Handing a connection back to the poller and out again takes as long as reading a stamp
        does, so a thread that nobody else waits for waits a moment for the next request itself.
        """
        keeps = super().handle(conn)
        while keeps is True and self.alive and self._may_linger(conn) and _has_more(conn.sock):
            keeps = super().handle(conn)
        return keeps

    def _may_linger(self, conn: Any) -> bool:
        read_ahead = conn.parser.unreader.buf.getvalue()
        return not read_ahead and not conn.is_http2 and self.tpool._work_queue.empty()

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: Exception) -> None:
        problem: CutoutError
        if isinstance(exc, LimitRequestLine):
            problem = AddressTooLong(
                f"the address is longer than {self.cfg.limit_request_line} bytes; "
                "send the arguments as a POST"
            )
        elif isinstance(exc, ParseException):
            problem = MalformedHttp("the request is not valid HTTP")
        else:
            log.error("500 internal_error", exc_info=exc)
            problem = InternalError("the service failed on this request; its log says why")
        body = json.dumps(problem.problem()).encode()
        head = (
            f"HTTP/1.1 {problem.status} {problem.title}\r\n"
            "Connection: close\r\n"
            "Content-Type: application/problem+json\r\n"
            "Cache-Control: no-store\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        try:
            client.sendall(head.encode("latin-1") + body)
        except OSError:
            log.debug("the client left before it could be told: %s", problem)
