"""What comes from an archive, a caller or a service does nothing to a terminal or a log."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import quote

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from cutout_api.plain_text import LineFormatter, printable, say
from tests.archive import NIGHT, SampleArchive, make_old
from tests.samples import ZTF_SCHEMA, ztf_alert
from tests.service import COMMAND, ROOT, running_service

EVIL = (
    "\x1b[2J\x1b]0;mine\x07\r\n2026-01-01 00:00:00,000 INFO forged \u202ereversed\u2028\x9b31m\x7f"
)


def is_plain(text: str) -> bool:
    """Tell whether text holds nothing but what is seen, and ends of lines."""
    unseen = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    return all(c == "\n" or unicodedata.category(c) not in unseen for c in text)


@given(st.text())
def test_whatever_it_was_it_is_one_line_that_can_be_seen_and_written(text: str) -> None:
    shown = printable(text)
    assert is_plain(shown)
    assert "\n" not in shown
    shown.encode()
    assert printable(shown) == shown


@pytest.mark.parametrize("text", ["", "ZTF24aaaaaaa", "Ångström µ 星 ½ “x”", "a\\b", "two  words"])
def test_what_can_be_seen_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


def test_lost_bytes_of_a_file_name_are_written(capsys: pytest.CaptureFixture[str]) -> None:
    say(os.fsdecode(b"\xff.parquet"), 3, file=sys.stderr)
    assert capsys.readouterr().err == "\\udcff.parquet 3\n"


def test_a_trace_begins_no_line_of_a_log() -> None:
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(LineFormatter())
    log = logging.Logger("test")
    log.addHandler(handler)
    try:
        raise ValueError(EVIL)
    except ValueError as error:
        log.error("of %s", EVIL, exc_info=error)
    first, *rest = written.getvalue().splitlines()
    assert is_plain(written.getvalue())
    assert "ERROR of \\x1b[2J" in first
    assert rest
    assert all(line.startswith("  ") for line in rest)
    assert sum("forged" in line for line in rest) == 1


@pytest.fixture
def evil_archive(tmp_path: Path) -> SampleArchive:
    """An archive with a good file, and with a damaged one that has such a name."""
    archive = SampleArchive(tmp_path / "archive")
    archive.write(f"{NIGHT}/good.parquet", [ztf_alert(1)], ZTF_SCHEMA)
    night = tmp_path / "archive" / NIGHT
    evil = night / f"a{EVIL.replace('/', '')}.parquet"
    evil.write_bytes(b"PAR1 is all there is of it PAR1")
    make_old(evil)
    return archive


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "CUTOUT_API_CONFIG": os.devnull,
        "CUTOUT_API_ARCHIVE_URI": str(folder),
        "CUTOUT_API_CATALOG_URL": f"sqlite:///{folder.parent}/catalog.sqlite",
    }
    return subprocess.run(
        [*COMMAND[:-1], *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_index_command_says_names_of_files_plainly(evil_archive: SampleArchive) -> None:
    for arguments in (["index"], ["index", "--status"]):
        ended = command(evil_archive.folder, *arguments)
        shown = ended.stdout + ended.stderr
        assert "a\\x1b[2J" in shown
        assert is_plain(shown)
        assert not any(line.startswith("2026-01-01") for line in shown.splitlines())


def test_the_log_of_the_service_is_plain(evil_archive: SampleArchive) -> None:
    with running_service({"CUTOUT_API_ARCHIVE_URI": str(evil_archive.folder)}) as service:
        url = f"{service.address}/api/v1/cutouts?hdfsPath={NIGHT}&kind=Science&objectId="
        answers = [
            requests.get(url + quote(f"ZTF24zzzzzzz{text}"), timeout=20) for text in ("", EVIL)
        ]
        assert answers[0].status_code == 502  # the damaged file may have held it
        requests.get(f"{service.address}/{quote(EVIL)}", timeout=20)
        log = service.log
    assert "a\\x1b[2J" in log
    assert is_plain(log)
    assert not any(line.startswith("2026-01-01") for line in log.splitlines())


class EvilService(BaseHTTPRequestHandler):
    """Refuses everything, in such words."""

    def do_GET(self) -> None:
        body = json.dumps({"detail": EVIL, "code": EVIL, "status": 404, "title": EVIL}).encode()
        self.send_response(404)
        self.send_header("Content-Type", "application/problem+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def evil_service() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), EvilService) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_what_a_service_says_is_printed_plainly(evil_service: str, tmp_path: Path) -> None:
    ended = command(
        tmp_path / "archive",
        "get",
        "candid=1",
        "--url",
        evil_service,
        "--output",
        str(tmp_path),
    )
    assert ended.returncode == 1
    assert "\\x1b[2J" in ended.stderr
    assert is_plain(ended.stdout + ended.stderr)
