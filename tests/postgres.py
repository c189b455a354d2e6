"""A real PostgreSQL server on loopback, in a folder of its own, for as long as tests need it."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import psycopg

from .service import die_with_parent, free_port

PROGRAMS = Path("/usr/lib/postgresql")
SO_ATTACH_FILTER = 26  # asm-generic/socket.h


def program_folder() -> Path | None:
    """Return where Debian keeps the newest server's programs, or where the path finds them."""
    found = sorted(PROGRAMS.glob("*/bin/initdb"), key=lambda file: int(file.parts[-3]))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


class Network:
    """What is between a client and a server, until all its packets are lost."""

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._client_side: list[socket.socket] = []
        self._server_side: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def lose_everything(self) -> None:
        """Drop each packet from the clients unacknowledged, and send them none."""
        nothing = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # BPF: return 0
        program = struct.pack("HL", 1, ctypes.addressof(nothing))
        for end in (self._listening, *self._client_side):
            end.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)

    def close(self) -> None:
        for end in (self._listening, *self._client_side, *self._server_side):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = socket.create_connection(("127.0.0.1", self._server_port))
                self._client_side.append(client)
                self._server_side.append(server)
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=self._carry, args=ends, daemon=True).start()

    @staticmethod
    def _carry(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


class PostgresServer:
    """One server; ``new_database`` gives each test an empty database of its own."""

    def __init__(self) -> None:
        programs = program_folder()
        assert programs is not None
        self._programs = programs
        self.port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="cutout-postgres-"))
        # The server refuses to run as root.
        self._as_user = (
            {"user": "postgres", "group": "postgres", "extra_groups": []}
            if os.geteuid() == 0
            else {}
        )
        if self._as_user:
            shutil.chown(self._folder, "postgres", "postgres")
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0

    def __enter__(self) -> PostgresServer:
        self._run("initdb", "-D", str(self._folder / "data"), "-U", "tests", "-A", "trust", "-N")
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(self) -> None:
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._programs / "postgres",
                    *("-D", self._folder / "data", "-p", str(self.port)),
                    *(
                        "-c",
                        "listen_addresses=127.0.0.1",
                        "-c",
                        f"unix_socket_directories={self._folder}",
                    ),
                    *("-c", "fsync=off"),
                    # Tests leave their catalogs to the collector, whenever that comes.
                    *("-c", "max_connections=500"),
                ],
                cwd="/",
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=lambda: die_with_parent(signal.SIGQUIT),
                **self._as_user,  # type: ignore[call-overload]
            )
        end = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(self.url("postgres"), connect_timeout=2).close()
                return
            except psycopg.OperationalError:
                if time.monotonic() > end or self._process.poll() is not None:
                    raise AssertionError((self._folder / "log").read_text()) from None
                time.sleep(0.05)

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # ends connections, and then itself
            self._process.wait(30)
            self._process = None

    def new_database(self) -> str:
        self._databases += 1
        name = f"tests_{self._databases}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def run_file(self, url: str, file: Path, **values: object) -> None:
        """Run a file of SQL as an operator does."""
        given = [part for name, value in values.items() for part in ("-v", f"{name}={value}")]
        with file.open("rb") as script:
            subprocess.run(
                [self._programs / "psql", "-q", "-v", "ON_ERROR_STOP=1", *given, "-f", "-", url],
                stdin=script,
                check=True,
                capture_output=True,
            )

    def url(self, database: str) -> str:
        return f"postgresql://tests@127.0.0.1:{self.port}/{database}"

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._programs / program, *arguments],
            cwd="/",
            check=True,
            capture_output=True,
            **self._as_user,  # type: ignore[call-overload]
        )
