"""``cutout_api get``: files of stamps, from the archive itself or from a running service."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pytest
import requests
from astropy.io import fits
from PIL import Image

from cutout_api.formatter import FORMATS
from cutout_api.settings import Archive, Settings

from ..catalogue import catalogued
from ..pictures import (
    CANDID,
    LSST_FACTS,
    OBJECT,
    SOURCE,
    ZTF_ODD,
    candid,
    lsst_row,
    make_pictures,
    ztf_row,
)
from ..samples import REAL_DATA, stored_fits, write
from ..service import ROOT, Service, running_service

BOTH = CANDID + 2
COMMAND = (sys.executable, "-m", "cutout_api", "get")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = make_pictures(tmp_path_factory.mktemp("get"))
    both = lsst_row(0)
    both["diaSource"] |= {"diaSourceId": BOTH, "diaObjectId": SOURCE + 8}
    write(folder / "both.parquet", [both], LSST_FACTS)
    settings = catalogued(Settings(archive=Archive(uri=str(folder))))
    return {
        "CUTOUT_API_CONFIG": os.devnull,
        "CUTOUT_API_ARCHIVE_URI": str(folder),
        "CUTOUT_API_CATALOG_URL": settings.catalog.url,
    }


@pytest.fixture(scope="module")
def service(environment: dict[str, str]) -> Iterator[Service]:
    with running_service(environment) as running:
        yield running


@pytest.fixture(params=["archive", "service"])
def source(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """The arguments that say where the stamps come from: each of the two in turn."""
    if request.param == "archive":
        return ()
    return ("--url", request.getfixturevalue("service").address)


def get(
    environment: dict[str, str], *arguments: object, given: str = ""
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | environment,
        input=given.encode(),
        capture_output=True,
        timeout=60,
    )


def lines_of(said: bytes) -> list[str]:
    """Return what a command said on standard error, but for how far it was after some seconds."""
    lines = said.decode().splitlines()
    return [line for line in lines if not re.fullmatch(r"\d+ of \d+ alerts, .* left", line)]


def test_each_alert_is_a_file_named_as_the_service_names_it(
    environment: dict[str, str], service: Service, source: tuple[str, ...], tmp_path: Path
) -> None:
    ended = get(
        environment, OBJECT, CANDID, SOURCE, f"diaObjectId={SOURCE + 7}", "-o", tmp_path, *source
    )
    assert (ended.returncode, lines_of(ended.stderr)) == (0, [])
    assert ended.stdout.decode() == f"4 asked for, 4 written to {tmp_path}\n"
    asked = [
        {"objectId": OBJECT},
        {"candid": CANDID},
        {"diaSourceId": SOURCE},
        {"diaObjectId": SOURCE + 7},
    ]
    names = set()
    for keys in asked:
        answer = requests.get(
            f"{service.address}/api/v1/cutouts",
            params={**keys, "kind": "All", "output-format": "FITS"},
            timeout=20,
        )
        name = answer.headers["Content-Disposition"].partition("filename=")[2]
        assert (tmp_path / name).read_bytes() == answer.content
        names.add(name)
    assert {file.name for file in tmp_path.iterdir()} == names
    assert all((tmp_path / name).stat().st_mode & 0o777 == 0o666 & ~_umask() for name in names)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_is_written(
    environment: dict[str, str], source: tuple[str, ...], tmp_path: Path, form: str
) -> None:
    ended = get(
        environment, OBJECT, "--kind", "science", "--format", form.lower(), "-o", tmp_path, *source
    )
    assert ended.returncode == 0, ended.stderr
    (file,) = tmp_path.iterdir()
    assert file.name == f"{OBJECT}_Science{FORMATS[form].suffix or '.json'}"
    content = file.read_bytes()
    if FORMATS[form].is_picture:
        assert Image.open(io.BytesIO(content)).size == (63, 63)
    elif form == "FITS":
        assert fits.open(file, ignore_missing_simple=True)[0].data.shape == (63, 63)
    elif form == "array":
        assert np.shape(json.loads(content)["b:cutoutScience_stampData"]) == (63, 63)
    else:
        assert np.size(np.load(file)["Science"] if form == "NPZ" else np.load(file)) == 63 * 63


def test_ids_are_read_from_standard_input(
    environment: dict[str, str], source: tuple[str, ...], tmp_path: Path
) -> None:
    given = f"# tonight's\n{CANDID}\n\n  {SOURCE} {CANDID} # twice\n"
    ended = get(environment, "-", "--kind", "Template", "-o", tmp_path, *source, given=given)
    assert ended.returncode == 0, ended.stderr
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {
        f"{CANDID}_Template.fits": stored_fits(ztf_row(0), "Template"),
        f"{SOURCE}_Template.fits": stored_fits(lsst_row(0), "Template"),
    }


BAD_IDS = {
    "1.5e18": "neither an object's name",
    "SN2024abc": "neither an object's name",
    "../../etc": "neither an object's name",
    "ZTF99aaaaaaa": "ZTF99aaaaaaa",
    str(CANDID + 5000): "neither as candid nor as diaSourceId",
    str(BOTH): f"say which, as candid={BOTH}",
    f"candid={SOURCE}": "no alert",
    "candid=ten": "whole number",
    "hdfsPath=/etc/passwd": "not one of",
}


def test_a_bad_id_is_told_and_the_others_go_on(
    environment: dict[str, str], source: tuple[str, ...], tmp_path: Path
) -> None:
    ended = get(environment, *BAD_IDS, SOURCE, "-o", tmp_path, *source)
    assert ended.returncode == 1
    said = lines_of(ended.stderr)
    for line, (id_, sentence) in zip(said, BAD_IDS.items(), strict=True):
        assert line.startswith(f"{id_}: ")
        assert sentence in line
    assert [file.name for file in tmp_path.iterdir()] == [f"{SOURCE}_All.fits"]
    assert ended.stdout.decode().startswith(f"{len(BAD_IDS) + 1} asked for, 1 written")


def test_a_number_of_both_surveys_is_told_apart(
    environment: dict[str, str], source: tuple[str, ...], tmp_path: Path
) -> None:
    ended = get(environment, f"diaSourceId={BOTH}", "--kind", "Science", "-o", tmp_path, *source)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / f"{BOTH}_Science.fits").read_bytes() == stored_fits(lsst_row(0), "Science")
    # An option that only one survey has says it too.
    ended = get(environment, BOTH, "--kind", "Science", "--plane", "psf", "-o", "-", *source)
    assert fits.open(io.BytesIO(ended.stdout))[0].data.shape == (41, 41)


def test_options_are_those_of_the_route(
    environment: dict[str, str], source: tuple[str, ...], tmp_path: Path
) -> None:
    options = ("--format", "PNG", "--zoom", 2, "--stretch", "ASINH", "--colormap", "viridis")
    ended = get(environment, OBJECT, *options, "--which", "brightest", "-o", tmp_path, *source)
    assert ended.returncode == 0, ended.stderr
    picture = Image.open(tmp_path / f"{OBJECT}_All.png")
    assert (picture.size, picture.mode) == ((3 * 126, 126), "RGBA")
    assert f"candid={CANDID}" in json.loads(picture.text["Description"])["request"]


def test_a_dash_writes_one_answer_to_standard_output(
    environment: dict[str, str], source: tuple[str, ...]
) -> None:
    ended = get(environment, CANDID, "--kind", "Science", "-o", "-", *source)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == stored_fits(ztf_row(0), "Science")


def test_nothing_is_replaced_unless_asked_for(
    environment: dict[str, str], source: tuple[str, ...], tmp_path: Path
) -> None:
    files = [tmp_path / f"{stem}_Science.fits" for stem in (OBJECT, CANDID)]
    for file in files:
        file.write_text("mine")
    arguments = (OBJECT, CANDID, "--kind", "Science", "-o", tmp_path, *source)
    ended = get(environment, *arguments)
    assert ended.returncode == 1
    assert ended.stderr.decode().count("is there; --overwrite replaces it") == 2
    assert [file.read_text() for file in files] == ["mine", "mine"]
    assert get(environment, *arguments, "--overwrite").returncode == 0
    assert all(file.read_bytes().startswith(b"SIMPLE") for file in files)
    assert len(list(tmp_path.iterdir())) == 2


MISTAKES: dict[str, tuple[tuple[str, ...], str]] = {
    "kind": (("--kind", "sciense"), "argument --kind: must be one of Science"),
    "format": (("--format", "bmp"), "argument --format: must be one of array"),
    "option": (("--stretch", "asinch"), "argument --stretch: must be one of"),
    "unknown option": (("--colourmap", "jet"), "unrecognized arguments: --colourmap"),
    "several to one": (("-o", "-"), "-o - writes one answer, and there are 2 ids"),
    "no folder": (("-o", "/dev/null/x"), "cannot be a folder"),
    "no address": (("--url", "localhost"), "'localhost' is not the address of a service"),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_a_mistake_in_the_command_is_told_before_anything_is_read(
    environment: dict[str, str], tmp_path: Path, what: str
) -> None:
    arguments, sentence = MISTAKES[what]
    ended = get(environment, OBJECT, CANDID, "-o", tmp_path, *arguments)
    assert ended.returncode == 2
    assert sentence in ended.stderr.decode()
    assert not list(tmp_path.iterdir())


def test_what_does_not_go_together_is_told_of_each_id(
    environment: dict[str, str], source: tuple[str, ...], tmp_path: Path
) -> None:
    ended = get(environment, OBJECT, SOURCE, "--plane", "psf", "-o", tmp_path, *source)
    assert ended.returncode == 1
    assert re.match(f"{OBJECT}: .*ZTF stamps have no psf", ended.stderr.decode())
    assert [file.name for file in tmp_path.iterdir()] == [f"{SOURCE}_All.fits"]


class _Server(ThreadingHTTPServer):
    request_queue_size = 64


@contextmanager
def running_proxy(service: Service, hold: Callable[[str], object]) -> Iterator[str]:
    """Lend the address of a proxy that answers as the service, once ``hold`` is through.

    ``hold`` gets what is asked for; the answer is a 508 where it raises BrokenBarrierError.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = requests.get(service.address + self.path, timeout=20)
            status = answer.status_code
            try:
                hold(self.path)
            except threading.BrokenBarrierError:
                status = 508
            with suppress(ConnectionError):  # whoever asked may be gone
                self.send_response(status)
                for name in ("Content-Type", "X-Cutout-Id"):
                    if name in answer.headers:
                        self.send_header(name, answer.headers[name])
                self.send_header("Content-Length", str(len(answer.content)))
                self.end_headers()
                self.wfile.write(answer.content)

        def log_message(self, *_: object) -> None:
            pass

    with _Server(("127.0.0.1", 0), Handler) as proxy:
        thread = threading.Thread(target=proxy.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{proxy.server_port}"
        proxy.shutdown()
        thread.join()


@pytest.fixture
def waits_for_eight(service: Service) -> Iterator[str]:
    """The address of a proxy of the service that answers eight requests at a time, and no fewer."""
    all_there = threading.Barrier(8, timeout=20)
    with running_proxy(service, lambda _: all_there.wait()) as address:
        yield address


def test_eight_are_asked_for_at_a_time_and_told_of_in_their_order(
    environment: dict[str, str], waits_for_eight: str, tmp_path: Path
) -> None:
    known = [f"candid={CANDID + n}" for n in range(len(ZTF_ODD)) if CANDID + n != BOTH]
    unknown = [f"candid={10**15 + n}" for n in range(16 - len(known) % 8)]
    ids = [id_ for pair in zip_longest(known, unknown) for id_ in pair if id_]
    assert len(ids) % 8 == 0
    ended = get(environment, *ids, "--url", waits_for_eight, "--kind", "Science", "-o", tmp_path)
    told = [line.split(":")[0] for line in lines_of(ended.stderr)]
    assert told == unknown
    assert ended.stdout.decode() == f"{len(ids)} asked for, {len(known)} written to {tmp_path}\n"
    assert len(list(tmp_path.iterdir())) == len(known)


def test_a_service_that_is_gone_is_given_up(environment: dict[str, str], tmp_path: Path) -> None:
    ids = [f"candid={CANDID + number}" for number in range(9)]
    # One that refuses connections is tried a few times for each of three alerts.
    ended = get(environment, *ids, "--url", "http://127.0.0.1:9", "-o", tmp_path)
    assert ended.returncode == 1
    said = lines_of(ended.stderr)
    assert len(said) == 4
    assert "http://127.0.0.1:9 cannot be reached" in said[0]
    assert said[3] == "cutout_api: given up on 6 more"


def test_a_catalog_that_is_missing_is_told(environment: dict[str, str], tmp_path: Path) -> None:
    other = environment | {"CUTOUT_API_CATALOG_URL": f"sqlite:///{tmp_path / 'none.sqlite'}"}
    ended = get(other, OBJECT, "-o", tmp_path)
    assert ended.returncode == 1
    assert "cutout_api index" in ended.stderr.decode()
    assert "Traceback" not in ended.stderr.decode()


def test_on_a_terminal_there_is_a_bar(environment: dict[str, str], tmp_path: Path) -> None:
    main, other = pty.openpty()
    ids = [str(number) for number in range(CANDID, CANDID + 4) if number != BOTH]
    process = subprocess.Popen(
        [*COMMAND, *ids, "nonsense", "-o", str(tmp_path)],
        cwd=ROOT,
        env=os.environ | environment | {"TERM": "xterm", "COLUMNS": "100"},
        stdout=subprocess.PIPE,
        stderr=other,
    )
    os.close(other)
    shown = b""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if select.select([main], [], [], 1)[0]:
            try:
                part = os.read(main, 4096)
            except OSError:  # Linux's way of saying that the terminal is closed
                break
            if not part:
                break
            shown += part
    os.close(main)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    text = re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", shown).decode()
    assert "4/4" in text
    assert "1 failed" in text
    assert "nonsense: neither an object's name" in text
    assert out.decode() == f"4 asked for, 3 written to {tmp_path}\n"


def start_getting(environment: dict[str, str], *arguments: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def await_files(folder: Path, count: int) -> None:
    end = time.monotonic() + 60
    while len(list(folder.glob("*.fits"))) < count:
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_ends_at_once_and_says_so(
    environment: dict[str, str], service: Service, tmp_path: Path, number: signal.Signals
) -> None:
    ids = [f"candid={CANDID + n}" for n in range(len(ZTF_ODD)) if CANDID + n != BOTH]
    ended = threading.Event()

    def hold(path: str) -> None:
        if not any(id_ in path for id_ in ids[:3]):
            ended.wait(60)

    with running_proxy(service, hold) as address:
        process = start_getting(
            environment, *ids, "--url", address, "--kind", "Science", "-o", tmp_path
        )
        try:
            await_files(tmp_path, 3)
            process.send_signal(number)
            _, said = process.communicate(timeout=30)
        finally:
            process.kill()
            ended.set()
    assert process.returncode == 130
    assert lines_of(said) == ["cutout_api: interrupted; the files that are there are whole"]
    names = {f"{id_.removeprefix('candid=')}_Science.fits" for id_ in ids[:3]}
    assert {file.name for file in tmp_path.iterdir()} == names


def test_killed_it_leaves_whole_files_under_their_names(
    environment: dict[str, str], tmp_path: Path
) -> None:
    ids = {f"candid={candid(what)}": what for what in ZTF_ODD}
    process = start_getting(environment, *ids, "--kind", "Science", "-o", tmp_path)
    await_files(tmp_path, 1)
    process.kill()
    process.communicate(timeout=30)
    whole = {file_.name: file_.stat().st_size for file_ in tmp_path.glob("*.fits")}
    get(environment, *ids, "--kind", "Science", "-o", tmp_path, "--overwrite")
    assert whole
    assert whole == {name: (tmp_path / name).stat().st_size for name in whole}


SIGNALLED_AT = """
import os, signal, sys
from cutout_api import cli, get

at = 0
code = get.write_whole.__code__

def trace(frame, event, _argument):
    global left
    if event != "call" and (left := left - 1) == 0:
        os.kill(os.getpid(), (signal.SIGINT, signal.SIGTERM)[at % 2])
    return trace

def enter(frame, event, _argument):  # until the writing is done, what it calls included
    while frame and frame.f_code is not code:
        frame = frame.f_back
    return frame and trace

ended = None
while ended != 0:
    at += 1
    folder = os.path.join(sys.argv[2], str(at))
    child = os.fork()
    if child == 0:
        left = at
        sys.settrace(enter)
        os._exit(cli.main(["get", sys.argv[1], "--kind", "Science", "-o", folder]))
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print("ended", ended, flush=True)
"""


def test_interrupted_at_any_line_of_the_writing_it_leaves_no_part_of_a_file(
    environment: dict[str, str], tmp_path: Path
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SIGNALLED_AT, f"candid={CANDID}", tmp_path],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        timeout=250,
    )
    assert ended.returncode == 0, ended.stderr
    codes = [int(line[6:]) for line in ended.stdout.splitlines() if line.startswith(b"ended ")]
    assert len(codes) > 20
    assert codes == [130] * (len(codes) - 1) + [0]
    assert len(set(lines_of(ended.stderr))) == 1
    files = [file for folder in tmp_path.iterdir() for file in folder.iterdir()]
    assert {file.name for file in files} == {f"{CANDID}_Science.fits"}
    assert len(files) == len(codes)
    assert len({file.read_bytes() for file in files}) == 1


def test_interrupted_it_does_not_wait_for_a_service_that_hangs(
    environment: dict[str, str], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hangs:
        address = f"http://127.0.0.1:{hangs.getsockname()[1]}"
        process = subprocess.Popen(
            [*COMMAND, "candid=1", "candid=2", "--url", address, "-o", str(tmp_path)],
            cwd=ROOT,
            env=os.environ | environment,
            stderr=subprocess.PIPE,
        )
        hangs.settimeout(30)
        asked, _ = hangs.accept()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)  # a service is given 60 s
        asked.close()
    assert process.returncode == 130
    assert said.decode() == "cutout_api: interrupted; the files that are there are whole\n"


@pytest.mark.skipif(not REAL_DATA.is_dir(), reason="the folder of real alerts is not here")
def test_real_alerts_are_written_byte_for_byte(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    environment = {"CUTOUT_API_CONFIG": os.devnull, "CUTOUT_API_ARCHIVE_URI": str(REAL_DATA)}
    for name, key in (("ztf_spark_1.10", "candid"), ("lsst_spark_1.12_offsetindex", "diaSource")):
        file = pq.ParquetFile(REAL_DATA / f"{name}.parquet")
        rows = next(file.iter_batches(3, columns=[key, "cutoutDifference"])).to_pylist()
        ids = [row[key]["diaSourceId"] if key == "diaSource" else row[key] for row in rows]
        options = ("--kind", "Difference", "--hdfsPath", f"{name}.parquet", "-o", tmp_path)
        ended = get(environment, *ids, *options)
        assert ended.returncode == 0, ended.stderr
        for id_, row in zip(ids, rows, strict=True):
            written = (tmp_path / f"{id_}_Difference.fits").read_bytes()
            assert written == stored_fits(row, "Difference")
