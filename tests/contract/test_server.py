"""The service as it runs: several processes, signals, what is not even HTTP."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import requests

from ..archive import NIGHT, SampleArchive
from ..samples import stored_fits
from ..service import COMMAND, ROOT, Service, running_service

ASKED = {
    "hdfsPath": f"{NIGHT}/part-00000.snappy.parquet",
    "candid": "2656254792815010000",
    "kind": "Science",
    "return_type": "FITS",
}


@pytest.fixture(scope="module")
def service(sample_archive: SampleArchive) -> Iterator[Service]:
    with running_service({"CUTOUT_API_ARCHIVE_URI": str(sample_archive.folder)}) as service:
        yield service


def ask(service: Service, **changes: str) -> requests.Response:
    return requests.get(f"{service.address}/api/v1/cutouts", params=ASKED | changes, timeout=20)


def wait_for_log(service: Service, words: str) -> None:
    """Wait until the log has them: one worker may answer while the other one still starts."""
    end = time.monotonic() + 20
    while words not in service.log and time.monotonic() < end:
        time.sleep(0.05)
    assert words in service.log


def test_starting_says_in_one_line_what_is_served(
    service: Service, sample_archive: SampleArchive
) -> None:
    wait_for_log(service, "serving from")
    lines = [line for line in service.log.splitlines() if "serving from" in line]
    assert len(lines) == 1
    assert str(sample_archive.folder) in lines[0]


def test_metrics_add_up_over_the_processes(service: Service) -> None:
    line = 'cutout_requests_total{format="FITS",route="/api/v1/cutouts",status="200"}'

    def count() -> float:
        text = requests.get(f"{service.address}/metrics", timeout=20).text
        found = re.search(rf"^{re.escape(line)} (\S+)$", text, re.MULTILINE)
        return float(found.group(1)) if found else 0.0

    before = count()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: ask(service), range(64)))
    assert {answer.status_code for answer in answers} == {200}
    assert count() == before + 64
    assert {count() for _ in range(20)} == {before + 64}  # whichever process answers


def test_a_killed_worker_is_replaced(service: Service, sample_archive: SampleArchive) -> None:
    expected = stored_fits(sample_archive.rows[ASKED["hdfsPath"]][0], "Science")
    kill_workers(service)
    assert ask_again(service).content == expected


def workers(service: Service) -> list[int]:
    listed = subprocess.run(
        ["ps", "--ppid", str(service.process.pid), "-o", "pid="], capture_output=True, text=True
    )
    return [int(pid) for pid in listed.stdout.split()]


def kill_workers(service: Service) -> None:
    killed = workers(service)
    assert len(killed) == 2
    for pid in killed:
        os.kill(pid, signal.SIGKILL)


def ask_again(service: Service) -> requests.Response:
    """Ask until the workers that were killed are replaced."""
    for _ in range(100):
        with suppress(requests.RequestException):
            return ask(service)
        time.sleep(0.1)
    raise AssertionError(service.log)


@pytest.mark.parametrize(
    "command",
    [(sys.executable, "-m", "gunicorn", "app:app"), COMMAND],
    ids=["gunicorn app:app", "cutout_api serve"],
)
def test_settings_and_code_are_those_of_the_start(
    command: tuple[str, ...], sample_archive: SampleArchive, tmp_path: Path
) -> None:
    for name in ("app.py", "gunicorn.conf.py"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "cutout_api", tmp_path / "cutout_api")
    config = tmp_path / "config.yml"
    config.write_text(f"archive: {{uri: '{sample_archive.folder}'}}")
    environment = {"CUTOUT_API_CONFIG": str(config), "PYTHONPATH": str(tmp_path)}
    with running_service(environment, command, folder=tmp_path) as service:
        assert ask(service).status_code == 200
        wait_for_log(service, "serving from")  # by the first worker alone, while there is one
        config.write_text("archive: {uri: /nothing/here}")
        for module in (tmp_path / "cutout_api").glob("*.py"):
            module.write_text("raise RuntimeError('another version')")
        kill_workers(service)
        assert ask_again(service).status_code == 200
        assert "another version" not in service.log


def test_an_address_that_is_too_long_is_a_problem_too(service: Service) -> None:
    response = ask(service, hdfsPath="x" * 9000)
    assert response.status_code == 414
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["code"] == "address_too_long"


@pytest.mark.parametrize(
    "sent",
    [
        b"GARBAGE\r\n\r\n",
        b"GET /api/v1/cutouts HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nBad Header : x\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc",
        b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * 20_000 + b"\r\n\r\n",
    ],
)
def test_what_is_not_http_is_a_problem_too(service: Service, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection:
        connection.sendall(sent)
        received = b""
        while piece := connection.recv(65536):
            received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    assert re.match(rb"HTTP/1\.1 4\d\d ", head), head
    assert b"application/problem+json" in head
    assert json.loads(body)["status"] < 500


def test_a_body_sent_in_chunks_is_limited_too(service: Service) -> None:
    def pieces() -> Iterator[bytes]:
        yield b'{"hdfsPath": "'
        for _ in range(100):
            yield b"x" * 2_000
        yield b'"}'

    response = requests.post(
        f"{service.address}/api/v1/cutouts",
        data=pieces(),
        headers={"Content-Type": "application/json"},
        timeout=20,
    )
    assert (response.status_code, response.json()["code"]) == (413, "body_too_large")


def test_a_form_sent_in_chunks_is_not_cut(service: Service) -> None:
    form = "&".join(f"{name}={value}" for name, value in ASKED.items() if name != "candid")
    body = f"{form}&objectId=ZTF24aaaaaaa{'&' * 70_000}&candid={ASKED['candid']}".encode()
    response = requests.post(
        f"{service.address}/api/v1/cutouts",
        data=iter([body[:40_000], body[40_000:]]),
        headers={"Content-Type": "application/x-www-form-urlencoded"},
        timeout=20,
    )
    assert (response.status_code, response.json()["code"]) == (413, "body_too_large")


def test_chunks_that_are_none_are_the_clients_mistake(service: Service) -> None:
    sent = (
        b"POST /api/v1/cutouts HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection:
        connection.sendall(sent)
        received = b""
        while b"malformed_http" not in received:
            piece = connection.recv(65536)
            assert piece, received
            received += piece
    assert received.startswith(b"HTTP/1.1 400 ")


HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
HEALTHY = re.compile(rb"HTTP/1\.[01] 200 OK\r\n.*?\r\n\r\n\{[^}]*\}", re.DOTALL)
FORM = "&".join(f"{name}={value}" for name, value in ASKED.items()).encode()
POST = (
    b"POST /api/v1/cutouts HTTP/1.1\r\nHost: x\r\n"
    b"Content-Type: application/x-www-form-urlencoded\r\n"
)


def connect(service: Service) -> socket.socket:
    return socket.create_connection(("127.0.0.1", service.port), timeout=20)


def read_to_end(connection: socket.socket) -> bytes:
    received = b""
    with suppress(ConnectionResetError):
        while piece := connection.recv(65_536):
            received += piece
    return received


def read_healthy(connection: socket.socket, count: int = 1) -> None:
    """Read so many answers of /healthz, and nothing else."""
    received = b""
    while len(HEALTHY.findall(received)) < count:
        piece = connection.recv(65_536)
        assert piece, received
        received += piece
    assert not HEALTHY.sub(b"", received)


@pytest.fixture
def one_process(sample_archive: SampleArchive) -> dict[str, str]:
    """The settings of a process with 4 threads that waits for a client longer than a test does."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    return {
        "CUTOUT_API_ARCHIVE_URI": str(sample_archive.folder),
        "CUTOUT_API_LIMITS_CLIENT_SECONDS": "600",
        "CUTOUT_API_SERVER_WORKERS": "1",
        "CUTOUT_API_SERVER_THREADS": "4",
    }


def test_connections_that_say_nothing_hold_up_nobody(one_process: dict[str, str]) -> None:
    with running_service(one_process) as service, ExitStack() as stack:
        for _ in range(400):
            idle = stack.enter_context(connect(service))
            idle.sendall(HEALTH)
            read_healthy(idle)
        silent = [stack.enter_context(connect(service)) for _ in range(700)]
        for _ in range(20):
            assert requests.get(f"{service.address}/healthz", timeout=15).ok
        # One process has a thousand connections; the oldest of the silent ones made room.
        assert read_to_end(silent[0]) == b""
        silent[-1].sendall(HEALTH)
        read_healthy(silent[-1])


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"GET /healthz HTTP/1.1\r\nHo",
        b"GET /healthz HTTP/1.1\r\nX: y",
        POST + b"Content-Length: 1000\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\nfff\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: y",
    ],
    ids=["line", "name", "value", "body", "chunk", "trailer"],
)
def test_clients_that_send_a_byte_now_and_then_hold_up_nobody(
    one_process: dict[str, str], begun: bytes
) -> None:
    with running_service(one_process) as service, ExitStack() as stack:
        slow = [stack.enter_context(connect(service)) for _ in range(200)]
        for client in slow:
            client.sendall(begun)
        for _ in range(5):
            for client in slow:
                client.sendall(b"a")
            assert ask(service).status_code == 200


def test_a_request_has_so_long_to_arrive_in_all(one_process: dict[str, str]) -> None:
    seconds = {"CUTOUT_API_LIMITS_CLIENT_SECONDS": "1.5"}
    with running_service(one_process | seconds) as service, ExitStack() as stack:
        slow = [stack.enter_context(connect(service)) for _ in range(10)]
        for client in slow[:5]:
            client.sendall(POST + b"Content-Length: 1000\r\n\r\n")
        sent, open_ = 0, set(slow)
        while open_:  # never, if each byte gave it more time
            for client in tuple(open_):
                client.setblocking(False)
                with suppress(OSError):
                    client.sendall(b"a")
                    sent += 1
                with suppress(BlockingIOError):
                    assert client.recv(1) == b""
                    open_.remove(client)
            assert sent < 1000
            time.sleep(0.1)
        assert "Traceback" not in service.log


@pytest.mark.parametrize(
    ("sent", "answers"),
    [
        (HEALTH, 1),
        (b"\r\n" + HEALTH, 1),
        (HEALTH * 3, 3),
        (HEALTH.replace(b"Host", b"Content-Length: 5\r\nHost") + b"abcde" + HEALTH, 2),
        (HEALTH.replace(b"Host", b"Transfer-Encoding: chunked\r\nHost") + b"0\r\n\r\n" + HEALTH, 2),
        (
            HEALTH.replace(b"Host", b"transfer-encoding:chunked\r\nHost")
            + b"3;a=b\r\nabc\r\n00B\r\n0\r\n\r\n 0\r\n\r\n\r\n0\r\nX: y\r\nZ: z\r\n\r\n"
            + HEALTH,
            2,
        ),
        (HEALTH.replace(b"1.1", b"1.0"), 1),
        (HEALTH.replace(b"Host", b"Connection: close\r\nHost"), 1),
    ],
    ids=["one", "empty line", "pipelined", "body", "no chunk", "chunks", "HTTP 1.0", "close"],
)
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_a_request_is_the_same_in_whatever_pieces_it_comes(
    service: Service, sent: bytes, answers: int, size: int
) -> None:
    with connect(service) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, len(sent), size):
            client.sendall(sent[start : start + size])
        read_healthy(client, answers)
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(client) == b""


def test_a_client_that_only_reads_from_then_on_is_answered(service: Service) -> None:
    with connect(service) as client:
        client.sendall(HEALTH)
        client.shutdown(socket.SHUT_WR)
        read_healthy(client)


@pytest.mark.parametrize(
    "framing", [b"Content-Length: %d" % len(FORM), b"Transfer-Encoding: chunked"]
)
def test_a_body_that_waits_to_be_asked_for_is_asked_for_once(
    service: Service, sample_archive: SampleArchive, framing: bytes
) -> None:
    body = FORM if b"Length" in framing else b"%x\r\n%s\r\n0\r\n\r\n" % (len(FORM), FORM)
    with connect(service) as client:
        client.sendall(POST + framing + b"\r\nConnection: close\r\nExpect: 100-continue\r\n\r\n")
        assert client.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(body)
        head, _, stamp = read_to_end(client).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert stamp == stored_fits(sample_archive.rows[ASKED["hdfsPath"]][0], "Science")


def test_a_body_that_is_too_long_is_refused_without_being_asked_for(service: Service) -> None:
    with connect(service) as client:
        client.sendall(POST + b"Content-Length: 9000000\r\nExpect: 100-continue\r\n\r\n")
        received = read_to_end(client)
    assert received.startswith(b"HTTP/1.1 413 ")
    assert b"body_too_large" in received


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /healthz HTTP/1.1\r\n" + b"X: y\r\n" * 1_000 + b"\r\n", b"400"),
        (b"GET /healthz HTTP/1.1\r\n" + b"X: y\r\n" * 100_000, b"400"),
        (b"GET /healthz HTTP/1.1\r\nX: " + b" " * 100_000 + b"y", b"400"),
        (b"GET /" + b"x" * 100_000, b"414"),
        (b"\x16\x03\x01" + bytes(range(256)) * 200, b"400"),
        (POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef", b"400"),
        (POST + b"Content-Length: " + b"9" * 4_000 + b"\r\n\r\n", b"413"),
        (POST + b"Content-Length: " + b"9" * 5_000 + b"\r\n\r\n", b"400"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"1;" + b"a" * 20_000, b"400"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 300 + b"\r\n", b"400"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: y\r\n" * 20_000, b"400"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 2_000_000, b"4\\d\\d"),
    ],
)
def test_what_goes_on_for_too_long_is_refused_and_not_waited_for(
    one_process: dict[str, str], sent: bytes, status: bytes
) -> None:
    """Whatever is not refused at once would be waited for ten minutes."""
    with running_service(one_process) as service, connect(service) as client:
        with suppress(ConnectionError):
            client.sendall(sent)
        assert re.match(rb"HTTP/1\.1 %s " % status, read_to_end(client))
        assert ask(service).status_code == 200


def test_a_body_that_ends_too_soon_is_not_taken_for_another_request(service: Service) -> None:
    """What follows a body that is not read is no request, however much it looks like one."""
    head = HEALTH.replace(b"Host", b"Content-Length: 9000000\r\nHost")
    with connect(service) as client:
        client.sendall(head + HEALTH * 3)
        assert len(HEALTHY.findall(read_to_end(client))) == 1


def test_long_bodies_that_do_not_end_take_bounded_memory(one_process: dict[str, str]) -> None:
    head = POST.replace(b"cutouts", b"cutouts/batch") + b"Content-Length: 8000000\r\n\r\n"
    with running_service(one_process) as service, ExitStack() as stack:
        (pid,) = workers(service)
        slow = [stack.enter_context(connect(service)) for _ in range(40)]
        before = resident_bytes(pid)
        for client in slow:
            with suppress(ConnectionError):
                client.sendall(head + b"1" * 7_999_000)
        assert ask(service).status_code == 200
        assert resident_bytes(pid) - before < 150_000_000  # and not 320
        assert b"saturated" in read_to_end(slow[0])
        # The last that came has its place.
        slow[-1].sendall(b"1" * 1_000)
        assert slow[-1].recv(12) == b"HTTP/1.1 400"


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.parametrize("takes", [0, 1])
def test_clients_that_do_not_take_their_answers_lose_them(
    one_process: dict[str, str], sample_archive: SampleArchive, takes: int
) -> None:
    """As many as there are places; the answer of each is longer than what the kernel takes."""
    settings = {
        "CUTOUT_API_LIMITS_CLIENT_SECONDS": "1",
        "CUTOUT_API_LIMITS_CLIENT_RATE": "10000000",
        "CUTOUT_API_SERVER_THREADS": "6",  # batches get less than half of them
    }
    name = ASKED["hdfsPath"]
    candids = [str(row["candid"]) for row in sample_archive.rows[name][:3]] * 300
    body = json.dumps({"hdfsPath": name, "candid": candids, "kind": "Science", "package": "tar"})
    sent = (
        b"POST /api/v1/cutouts/batch HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (len(body), body.encode())
    )
    with running_service(one_process | settings) as service, ExitStack() as stack:
        slow = [stack.enter_context(connect(service)) for _ in range(2)]  # limits.batches
        for client in slow:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            client.sendall(sent)
        end = time.monotonic() + 60
        while service.log.count("too slowly") < len(slow):
            assert time.monotonic() < end
            for client in slow:
                client.recv(takes)
            time.sleep(0.1)
        answer = requests.post(
            f"{service.address}/api/v1/cutouts/batch", body, headers=JSON, timeout=20
        )
        assert answer.status_code == 200
        assert "Traceback" not in service.log


def test_a_client_that_goes_on_taking_its_answer_gets_it_whole(
    one_process: dict[str, str], sample_archive: SampleArchive
) -> None:
    """It takes longer than ``limits.client_seconds`` in all, and more than ``client_rate``."""
    settings = {"CUTOUT_API_LIMITS_CLIENT_SECONDS": "3", "CUTOUT_API_LIMITS_CLIENT_RATE": "100000"}
    name = ASKED["hdfsPath"]
    candids = [str(row["candid"]) for row in sample_archive.rows[name][:3]] * 250
    body = {"hdfsPath": name, "candid": candids, "kind": "Science", "package": "tar"}
    with running_service(one_process | settings) as service:
        url = f"{service.address}/api/v1/cutouts/batch"
        start = time.monotonic()
        with requests.post(url, json=body, stream=True, timeout=20) as answer:
            received = 0
            for piece in answer.iter_content(1 << 20):
                received += len(piece)
                time.sleep(0.1)
        assert time.monotonic() - start > 4  # else it tells nothing
        assert received > 750 * 10_000
        assert "too slowly" not in service.log


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_worker_that_stops_waits_for_no_silent_client(
    one_process: dict[str, str], number: signal.Signals
) -> None:
    with running_service(one_process) as service, ExitStack() as stack:
        (old,) = workers(service)
        silent = [stack.enter_context(connect(service)) for _ in range(50)]
        for client in silent[:25]:
            client.sendall(b"GET /healthz HTTP/1.1\r\n")
        assert requests.get(f"{service.address}/healthz", timeout=20).ok
        service.process.send_signal(number)
        if number == signal.SIGTERM:
            assert service.process.wait(14) == 0  # gunicorn gives up on what it answers after 15 s
        for client in silent:
            assert read_to_end(client) == b""
        if number == signal.SIGHUP:
            assert ask_again(service).status_code == 200
            assert workers(service) != [old]


def test_clients_that_do_not_hang_up_hold_up_nobody(service: Service) -> None:
    sent = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    start = time.monotonic()
    with ExitStack() as stack:
        for _ in range(100):
            client = stack.enter_context(
                socket.create_connection(("127.0.0.1", service.port), timeout=20)
            )
            client.sendall(sent)
            assert client.recv(15) == b"HTTP/1.1 200 OK"
        # Each of the two workers would wait for fifty of them in turn, 2 s each.
        assert requests.get(f"{service.address}/healthz", timeout=20).ok
        assert time.monotonic() - start < 60
        received = b""
        while piece := client.recv(65_536):
            received += piece
        assert received.endswith(b"}")


def test_what_is_sent_after_the_last_answer_does_not_break_it_off(service: Service) -> None:
    sent = b"GET /api/v1/cutouts?x=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as client:
        client.sendall(sent + b"x" * 1_000_000)
        time.sleep(1)
        received = b""
        while piece := client.recv(65_536):
            received += piece
    assert received.startswith(b"HTTP/1.1 400 ")
    assert received.endswith(b"}")


def test_one_connection_asks_many_times(service: Service) -> None:
    with requests.Session() as session:
        for _ in range(50):
            response = session.get(f"{service.address}/api/v1/cutouts", params=ASKED, timeout=20)
            assert response.status_code == 200
        assert session.head(f"{service.address}/api/v1/cutouts", params=ASKED, timeout=20).ok


# As fast as it can, in a process of its own: a pause would hand the thread back anyway.
_BUSY = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=20) as connection:
    while True:
        connection.sendall(b"GET /healthz HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
        answer = b""
        while not answer.endswith(b"}"):
            piece = connection.recv(65536)
            if not piece:
                sys.exit("the connection was closed")
            answer += piece
        print(flush=True)
"""


def test_a_busy_connection_leaves_its_thread_to_others(sample_archive: SampleArchive) -> None:
    settings = {
        "CUTOUT_API_ARCHIVE_URI": str(sample_archive.folder),
        "CUTOUT_API_SERVER_WORKERS": "1",
        "CUTOUT_API_SERVER_THREADS": "1",
    }
    busy = (sys.executable, "-c", _BUSY)
    with (
        running_service(settings) as service,
        subprocess.Popen((*busy, str(service.port)), stdout=subprocess.PIPE) as client,
    ):
        assert client.stdout is not None
        try:
            client.stdout.readline()
            # Each on a connection of its own, which must have the only thread in between.
            others = [ask(service).status_code for _ in range(20)]
            client.stdout.readline()
            assert client.poll() is None
        finally:
            client.kill()
    assert others == [200] * 20


def test_sigterm_finishes_and_leaves_nothing(sample_archive: SampleArchive, tmp_path: Path) -> None:
    environment = {
        "CUTOUT_API_ARCHIVE_URI": str(sample_archive.folder),
        "TMPDIR": str(tmp_path),
    }
    log = tmp_path / "log"
    with running_service(environment, log_file=log) as service:
        assert ask(service).status_code == 200
        assert list(tmp_path.glob("cutout-api-metrics-*"))
        service.process.terminate()
        assert service.process.wait(40) == 0
        assert "Traceback" not in service.log
        assert not list(tmp_path.glob("cutout-api-metrics-*"))


def test_a_port_that_is_taken_leaves_nothing(sample_archive: SampleArchive, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = subprocess.run(
            COMMAND,
            cwd=ROOT,
            env=os.environ
            | {
                "CUTOUT_API_ARCHIVE_URI": str(sample_archive.folder),
                "CUTOUT_API_SERVER_PORT": str(taken.getsockname()[1]),
                "TMPDIR": str(tmp_path),
            },
            capture_output=True,
            timeout=30,
        )
    assert ended.returncode == 1
    assert b"in use" in ended.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "command",
    [
        (sys.executable, "app.py"),
        (sys.executable, "-m", "gunicorn", "app:app"),
        COMMAND,
    ],
    ids=["python app.py", "gunicorn app:app", "cutout_api serve"],
)
def test_every_way_to_start_serves_the_same(
    command: tuple[str, ...], sample_archive: SampleArchive
) -> None:
    environment = {"CUTOUT_API_ARCHIVE_URI": str(sample_archive.folder)}
    with running_service(environment, command) as service:
        expected = stored_fits(sample_archive.rows[ASKED["hdfsPath"]][0], "Science")
        assert ask(service).content == expected
        wait_for_log(service, "serving from")


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"CUTOUT_API_SERVER_PRT": "1"}, "did you mean CUTOUT_API_SERVER_PORT"),
        ({"CUTOUT_API_SERVER_PORT": "many"}, "must be a whole number"),
        ({"CUTOUT_API_ARCHIVE_URI": "/nothing/here"}, "there is no such folder"),
        ({"CUTOUT_API_ARCHIVE_URI": "s3://bucket"}, "file and hdfs are served"),
        ({"CUTOUT_API_CONFIG": "/nothing.yml"}, "cannot be read"),
    ],
)
@pytest.mark.parametrize(
    "command",
    [(sys.executable, "app.py"), (sys.executable, "-m", "gunicorn", "app:app"), COMMAND],
    ids=["python app.py", "gunicorn app:app", "cutout_api serve"],
)
def test_a_start_that_cannot_work_ends_with_a_sentence(
    command: tuple[str, ...], environment: dict[str, str], sentence: str
) -> None:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("CUTOUT_API_")}
    ended = subprocess.run(
        command,
        cwd=ROOT,
        env=inherited | {"CUTOUT_API_CONFIG": os.devnull} | environment,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert ended.returncode != 0
    assert sentence in ended.stderr
    assert "Traceback" not in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1


def test_check_says_what_would_be_served(sample_archive: SampleArchive, tmp_path: Path) -> None:
    def check(uri: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "cutout_api", "check"],
            cwd=ROOT,
            env=os.environ | {"CUTOUT_API_ARCHIVE_URI": uri},
            capture_output=True,
            text=True,
            timeout=30,
        )

    good = check(str(sample_archive.folder))
    assert (good.returncode, good.stderr) == (0, "")
    assert good.stdout.startswith(f"serves file://{sample_archive.folder}")
    bad = check(str(tmp_path / "none"))
    assert bad.returncode == 1
    assert "has no folder" in bad.stderr
    assert "Traceback" not in bad.stderr


@pytest.fixture
def hanging_archive() -> Iterator[dict[str, str]]:
    """The settings of an HDFS whose name node takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as hangs:
        yield os.environ | {
            "CUTOUT_API_ARCHIVE_URI": f"hdfs://127.0.0.1:{hangs.getsockname()[1]}/archive",
            "CUTOUT_API_ARCHIVE_DRIVER": "native",
            "CUTOUT_API_LIMITS_DEADLINE_SECONDS": "0.5",
            "CUTOUT_API_CONFIG": os.devnull,
        }


@pytest.mark.parametrize(
    ("arguments", "last_line"),
    [
        (["check"], "cutout_api: the archive did not answer within 0.5 s; try again in a moment"),
        (
            ["get", *(f"candid={n}" for n in range(1, 6)), "--hdfsPath", "a.parquet"],
            "cutout_api: given up on 2 more",
        ),
    ],
    ids=["check", "get"],
)
def test_a_command_does_not_wait_for_reads_that_it_gave_up(
    hanging_archive: dict[str, str], arguments: list[str], last_line: str, tmp_path: Path
) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "cutout_api", *arguments],
        cwd=tmp_path,
        env=hanging_archive | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == last_line


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_command_whose_output_nobody_reads_ends_with_a_sentence(
    sample_archive: SampleArchive, unbuffered: str
) -> None:
    environment = {
        "CUTOUT_API_ARCHIVE_URI": str(sample_archive.folder),
        "PYTHONUNBUFFERED": unbuffered,
    }
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed:
        ended = subprocess.run(
            [sys.executable, "-m", "cutout_api", "check"],
            cwd=ROOT,
            env=os.environ | environment,
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
        )
    sentence = "cutout_api: nobody reads what is printed\n"
    assert (ended.returncode, ended.stderr) == (1, sentence)
