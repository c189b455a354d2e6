"""gunicorn's configuration, its hooks, and its worker.

``gunicorn app:app`` finds it through ``gunicorn.conf.py``, ``cutout_api serve`` by name. It is
imported in the master, so nothing here may start a JVM or import prometheus_client.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import resource
import select
import selectors
import shutil
import socket
import sys
import tempfile
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from gunicorn.http.errors import LimitRequestHeaders, LimitRequestLine, ParseException
from gunicorn.http.unreader import SocketUnreader
from gunicorn.workers.gthread import TConn, ThreadWorker

from . import __version__
from .errors import (
    AddressTooLong,
    CutoutError,
    InternalError,
    MalformedHttp,
    Saturated,
    SettingsError,
    StorageUnavailable,
)
from .plain_text import LineFormatter
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
# Of proxies' headers none is believed here: `proxy` looks at who sent them.
forwarded_allow_ips = forwarder_headers = ""
secure_scheme_headers: dict[str, str] = {}
keepalive = 5
limit_request_line = 8190
control_socket_disable = True  # it would be made in the home folder, which may be read-only
# Workers' heartbeat files: on a disk, a busy system stalls them.
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108

LINGER_MILLISECONDS = 2
LEAVE_SECONDS = 2.0
MOST_CREDIT = 3
PIECE_BYTES = 65_536
HEAD_BYTES = 32_768
CHUNK_LINE_BYTES = 1_024
BODY_BYTES = max(_settings.limits.body_bytes, _settings.limits.batch_bytes)
BODIES_BYTES = 8 * BODY_BYTES
"""What a process holds at most of long bodies that come in or wait to be read."""
NO_MORE_FILES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
NO_CLIENT = {errno.EAGAIN, errno.EWOULDBLOCK, errno.ECONNABORTED}
_FRAMING = re.compile(rb"\r\n(content-length|transfer-encoding|expect):([^\r\n]*)", re.IGNORECASE)
_LENGTH = re.compile(rb"[ \t]*[0-9]{1,15}[ \t]*")
_HEXADECIMAL = re.compile(rb"[0-9A-Fa-f]{1,15}")
METRICS_PREFIX = "cutout-api-metrics-"


def make_application() -> Any:
    from .web import create_app

    return create_app(_settings)


def on_starting(server: Any) -> None:
    """Refuse to start on an archive that is not there; HDFS is asked by the workers."""
    set_up_logging(_settings)
    if server.cfg.is_ssl:
        sys.exit("cutout_api: TLS is the part of a proxy in front, such as install/nginx.conf")
    # Connections, and the files of the archive: 1,024, as many systems begin with, may be too few.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    folder = _settings.archive.address.folder
    if _settings.archive.address.host is None and not Path(folder).is_dir():
        sys.exit(
            f"cutout_api: archive.uri is {_settings.archive.uri}, but there is no such folder; "
            "'cutout_api demo' makes a simulated archive"
        )
    log.info("cutout_api %s on http://%s%s", __version__, bind, _settings.server.prefix)


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
    handler.setFormatter(LineFormatter())
    log.handlers = [handler]
    log.propagate = False
    log.setLevel(settings.server.log_level)
    for other in logging.getLogger("gunicorn.error").handlers:
        other.setFormatter(LineFormatter())


def _has_more(connection: socket.socket) -> bool:
    """Wait a moment for a connection's next request."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(LINGER_MILLISECONDS))


class Connection(socket.socket):
    """A client's connection, which must take its answer at some pace.

    A client is waited for as long as its credit lasts: ``limits.client_seconds`` at first, and
    ``limits.client_rate`` bytes that are taken earn a second, up to three times that. So one that
    stops is given up soon, and one that is too slow on average later. The time in which an answer
    is made costs nothing. (The credit may grow because a client that reads steadily shows it in
    steps: its kernel asks for more when half of its buffer is free, some megabytes.)
    """

    def __init__(self, accepted: socket.socket) -> None:
        super().__init__(accepted.family, accepted.type, accepted.proto, accepted.detach())
        self.begin_answer()

    def begin_answer(self) -> None:
        self._credit = _settings.limits.client_seconds

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Raises BrokenPipeError, as for a client that left, for one that is too slow."""
        try:
            taken = self.send(data, flags | socket.MSG_DONTWAIT)
        except BlockingIOError:
            taken = 0
        self._earn(taken)
        if taken < len(data):
            self._send_slowly(memoryview(data)[taken:], flags)

    def _earn(self, taken: int) -> None:
        limits = _settings.limits
        self._credit = min(
            self._credit + taken / limits.client_rate, MOST_CREDIT * limits.client_seconds
        )

    def _send_slowly(self, data: memoryview, flags: int) -> None:
        try:
            while data:
                start = time.monotonic()
                self.settimeout(max(self._credit, 0.001))
                taken = self.send(data, flags)
                self._credit -= time.monotonic() - start
                self._earn(taken)
                data = data[taken:]
        except TimeoutError:
            log.info("a client takes its answer too slowly, and is given up")
            raise BrokenPipeError(errno.EPIPE, "the client is too slow") from None
        finally:
            self.settimeout(None)


class Inbox(SocketUnreader):  # type: ignore[misc]
    """Collects a request as it comes; a thread parses it once all of it is there.

    So a thread never waits for a client, however slowly that sends: ``chunk``, by which gunicorn's
    parser asks for more, gives what has come and then says that there is no more.
    """

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(connection)
        self.begin()

    def begin(self) -> None:
        """Begin a request with what was read beyond the one before."""
        self.came = bytearray(self.take_buffered())
        self.is_cut = False
        """Whether the parser wanted more than there is; then the next request begins nowhere."""
        self._given = 0
        self._seen = 0
        self._body = 0
        """Where the body begins; 0 before the end of the head has come."""
        self._end: int | None = 0
        """Where the request ends; None where that shows in its chunks, as far as they are known."""
        self._chunk = 0

    def receive(self) -> bool:
        """Read what has come without waiting; tell whether the request is there, or ever will be.

        It is given to a thread too if it is too long or its client has left, for the parser to say
        what is wrong with it.
        """
        try:
            piece = self.sock.recv(PIECE_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True
        self.came += piece
        return not piece or self.is_whole()

    def is_whole(self) -> bool:
        came = self.came
        if not self._body:
            end = came.find(b"\r\n\r\n", max(self._seen - 3, 0))
            self._seen = len(came)
            if end < 0:
                return len(came) > HEAD_BYTES
            self._read_head(end + 4)
        if self._end is None:
            self._follow_chunks()
        end = len(came) + 1 if self._end is None else self._end
        return len(came) >= min(end, self._body + BODY_BYTES + BODY_BYTES // 8)

    def _read_head(self, length: int) -> None:
        """Note how long the body is; what makes no sense here is refused by the parser."""
        self._body = self._end = self._chunk = length
        expects = False
        for name, value in _FRAMING.findall(self.came, 0, length):
            match name.lower():
                case b"content-length" if _LENGTH.fullmatch(value):
                    # One that is refused for its length is not waited for.
                    self._end = length + (int(value) if int(value) <= BODY_BYTES else 0)
                case b"transfer-encoding":
                    self._end = None
                case b"expect":
                    expects = True
        if expects and self._end != length:
            with suppress(OSError):
                self.sock.send(b"HTTP/1.1 100 Continue\r\n\r\n", socket.MSG_DONTWAIT)

    def _follow_chunks(self) -> None:
        """Go from the length of each chunk to the next, up to the empty line after the last."""
        while (stop := self.came.find(b"\r\n", self._chunk, self._chunk + CHUNK_LINE_BYTES)) >= 0:
            size = bytes(self.came[self._chunk : stop]).partition(b";")[0].strip()
            if not _HEXADECIMAL.fullmatch(size):
                self._end = stop  # no chunk: the parser refuses it
                return
            if int(size, 16) == 0:
                end = self.came.find(b"\r\n\r\n", stop)
                if end >= 0 or len(self.came) > stop + HEAD_BYTES:
                    self._end = end + 4 if end >= 0 else stop
                return
            self._chunk = stop + 2 + int(size, 16) + 2
        if len(self.came) > self._chunk + CHUNK_LINE_BYTES:
            self._end = self._chunk

    def chunk(self, size_hint: int | None = None) -> bytes:
        size = min(max(size_hint or 0, self.mxchunk), self.max_body_chunk)
        piece = bytes(memoryview(self.came)[self._given : self._given + size])
        if not piece and self._seen > HEAD_BYTES and not self._body:
            raise LimitRequestHeaders("the head of the request is too long")
        self._given += len(piece)
        self.is_cut = self.is_cut or not piece
        if self._given == len(self.came):
            self.came, self._given = bytearray(), 0
        return piece

    def put_back(self) -> None:
        """Put what was not parsed where gunicorn looks for the beginning of another request."""
        self.buf.seek(0, os.SEEK_END)
        self.buf.write(memoryview(self.came)[self._given :])
        self.came, self._given = bytearray(), 0


class Worker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's threaded worker; clients are waited for in its poller and never in a thread.

    Everything but ``handle`` and what that calls runs in the thread that has the poller.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._arriving: dict[Any, None] = {}
        """Connections whose request is not yet there whole, the oldest first."""
        self._large: set[Any] = set()
        """Those of them, and of the ones that are being answered, that sent a long body."""
        self._is_full = False
        self._leaving: dict[socket.socket, float] = {}
        """Connections that are answered, and when they are closed whatever the client does."""

    def accept(self, listener: Any) -> None:
        try:
            client, address = listener.accept()
        except OSError as error:
            if error.errno in NO_MORE_FILES:
                self._is_full = True
            elif error.errno not in NO_CLIENT:
                raise
            return
        self.nr_conns += 1
        conn = TConn(self.cfg, Connection(client), address, listener.getsockname())
        conn.close = partial(self._close, conn.sock)
        conn.init()
        conn.parser.unreader = Inbox(conn.sock)
        self.enqueue_req(conn)

    def enqueue_req(self, conn: Any) -> None:
        """Give a connection to a thread as soon as its next request is there."""
        inbox = conn.parser.unreader
        inbox.begin()
        if inbox.is_whole() or inbox.receive():
            super().enqueue_req(conn)
            return
        conn.timeout = time.monotonic() + _settings.limits.client_seconds
        self._arriving[conn] = None
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._take, conn))

    def _take(self, conn: Any, _socket: socket.socket) -> None:
        inbox = conn.parser.unreader
        is_there = inbox.receive()
        if len(inbox.came) > HEAD_BYTES:
            self._large.add(conn)
        if is_there:
            self._stop_waiting(conn)
            super().enqueue_req(conn)

    def _stop_waiting(self, conn: Any) -> None:
        del self._arriving[conn]
        self.poller.unregister(conn.sock)

    def murder_pending(self) -> None:  # once each turn, when what has happened is dealt with
        """Close connections that took too long, and the oldest ones where there are too many."""
        now = time.monotonic()
        while (oldest := next(iter(self._arriving), None)) and oldest.timeout <= now:
            self._drop(oldest)
        while self._is_full or self.nr_conns >= self.worker_connections:
            self._is_full = False
            if self._arriving:
                self._drop(next(iter(self._arriving)))
            elif self.keepalived_conns:
                self.keepalived_conns[0].timeout = now
                self.murder_keepalived()
            else:
                break
        while sum(len(conn.parser.unreader.came) for conn in self._large) > BODIES_BYTES:
            waiting = (conn for conn in self._arriving if conn in self._large)
            if (oldest := next(waiting, None)) is None:
                break
            self._refuse(oldest.sock, Saturated("too many large requests come in at a time"))
            self._drop(oldest, graceful=True)

    def _drop(self, conn: Any, *, graceful: bool = False) -> None:
        self._stop_waiting(conn)
        self._large.discard(conn)
        self.nr_conns -= 1
        conn.close(graceful)

    def _cap_keepalive(self, deadline: float) -> None:
        """Wait as long for what still comes in, when the worker stops, as for idle connections."""
        super()._cap_keepalive(deadline)
        for conn in self._arriving:
            conn.timeout = min(conn.timeout, deadline)

    def finish_request(self, conn: Any, fs: Any) -> None:
        self._large.discard(conn)
        super().finish_request(conn, fs)

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
            inbox = conn.parser.unreader
            inbox.begin()
            if not inbox.receive():
                inbox.put_back()  # the rest is waited for in the poller
                break
            keeps = super().handle(conn)
        return keeps

    def _may_linger(self, conn: Any) -> bool:
        read_ahead = conn.parser.unreader.buf.getvalue()
        return not read_ahead and self.tpool._work_queue.empty()

    def handle_request(self, req: Any, conn: Any) -> Any:
        # Its body is there, or not waited for.
        req._expected_100_continue = False
        conn.sock.begin_answer()
        return super().handle_request(req, conn)

    def _keepalive_after(self, conn: Any, keepalive: Any) -> bool:
        inbox = conn.parser.unreader
        keeps = super()._keepalive_after(conn, keepalive) and not inbox.is_cut
        inbox.put_back()
        return keeps

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
        self._refuse(client, problem)

    def _refuse(self, client: socket.socket, problem: CutoutError) -> None:
        """Say what is wrong to a client whose connection is then closed, without waiting for it."""
        body = json.dumps(problem.problem(_settings.server.prefix)).encode()
        head = (
            f"HTTP/1.1 {problem.status} {problem.title}\r\n"
            "Connection: close\r\n"
            "Content-Type: application/problem+json\r\n"
            "Cache-Control: no-store\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        try:
            client.send(head.encode("latin-1") + body, socket.MSG_DONTWAIT)
        except OSError:
            log.debug("the client left before it could be told: %s", problem)
