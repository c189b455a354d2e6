"""The benchmark on tiny files: its methods agree, its report tells, its runs resume."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as command
from benchmarks import load, methods, parts, report
from benchmarks.datasets import (
    LAYOUTS,
    File,
    inflate,
    read_samples,
    write_files,
    write_rows,
    write_warm_up,
)
from benchmarks.places import ChildFailed, Place, call_in_child, describe_machine
from cutout_api.surveys import KINDS

SCALE = command.Scale(
    "test",
    sizes=(1,),
    rounds=2,
    stamp_seconds=5,
    load_seconds=0.1,
    passes=1,
    files=(1, 2),
    rows=(100,),
)
FILES = [File(survey, 1, layout) for survey in ("ztf", "lsst") for layout in LAYOUTS]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Files of 1 MB on local disk."""
    folder, scratch = tmp_path_factory.mktemp("files"), tmp_path_factory.mktemp("scratch")
    write_files(folder, FILES, 8)
    for survey in ("ztf", "lsst"):
        write_warm_up(folder, survey)
    place = Place(folder.as_uri(), str(folder), str(folder), str(scratch))
    parts.store_ours(place, FILES)
    return place


NAMES = [
    method.name for method in methods.list_methods(Place("file:///", "", "", "")) if method.checked
]


@pytest.mark.parametrize("name", NAMES)
def test_each_method_returns_the_stamps_that_were_written(place: Place, name: str) -> None:
    (method,) = (method for method in methods.list_methods(place) if method.name == name)
    if method.missing:
        pytest.skip(f"{method.library} is not installed: requirements-bench.txt names it")
    way = method.make()
    for file in FILES:
        for alert in read_samples(Path(place.local), file)[:3]:
            for kinds in (("Difference",), KINDS):
                way.prepare(file)
                found = [inflate(cell) for cell in way.read(file, alert, kinds)]
                assert found == [inflate(alert.cells[kind]) for kind in kinds]
                assert found[0].startswith(b"SIMPLE")
    way.close()


@pytest.mark.parametrize("page", [True, False])
def test_the_floor_reads_as_much_as_it_says(place: Place, page: bool) -> None:
    way = methods.Floor(place, "local", page=page)
    lengths = set()
    for file in FILES:
        way.prepare(file)
        for alert in read_samples(Path(place.local), file):
            (data,) = way.read(file, alert, ("Science",))
            lengths.add(len(data))
    way.close()
    assert min(lengths) >= 65536
    assert (lengths == {65536}) == (not page)


def test_a_method_that_answers_wrongly_stops_the_part(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(methods.Today, "read", lambda *_: [b"SIMPLE"])
    with pytest.raises(parts.WrongAnswer, match="today"):
        parts.measure_stamps(place, survey="ztf", sizes=[1], layouts=["spark"], rounds=1, seconds=5)


def test_files_of_many_rows_hold_what_they_say(tmp_path: Path) -> None:
    path = tmp_path / "ztf-0-rows.parquet"
    alerts = list(write_rows(path, 1000))
    place = Place(tmp_path.as_uri(), str(tmp_path), str(tmp_path), str(tmp_path))
    way = methods.Today(place, keep=True)
    for alert in alerts[:5]:
        assert way.read(File("ztf", 0, "rows"), alert, ("Science",)) == [alert.cells["Science"]]


# --- The run ----------------------------------------------------------------------------------


def fake_measurement(calls: list[str], fail: str = "") -> Callable[..., Any]:
    """Stand in for the process that measures, so that what is left is planning and keeping."""

    def call(function: str, arguments: dict[str, Any], **_: Any) -> Any:
        survey = arguments.get("survey", "")
        calls.append(f"{function.partition(':')[2]} {survey}".strip())
        if calls[-1] == fail:
            raise ChildFailed("as the test wants")
        return {"steps": []}

    return call


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run the command in a cache and with a report of its own."""
    monkeypatch.setattr(command, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(command, "FULL", SCALE)
    monkeypatch.setattr(report, "write", lambda folder, _: folder)

    def bring(stage: command.Stage, part: command.Part) -> dict[str, Any]:
        for file in part.files:
            (Path(stage.place.local) / file.name).touch()
        return {}

    monkeypatch.setattr(command.Stage, "bring", bring)

    def call(*arguments: str) -> int:
        monkeypatch.setattr("sys.argv", ["benchmarks", *arguments])
        return command.main()

    return call


def test_a_run_skips_the_parts_that_are_done(
    run: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(command, "call_in_child", fake_measurement(calls, fail="measure_http lsst"))
    selected = ("--parts", "stamps-*,http-*")
    assert run(*selected) == 1
    assert len(calls) == 4
    calls.clear()
    monkeypatch.setattr(command, "call_in_child", fake_measurement(calls))
    assert run(*selected) == 0
    assert calls == ["measure_http lsst"]
    calls.clear()
    assert run(*selected) == 0
    assert calls == []
    assert run(*selected, "--fresh") == 0
    assert len(calls) == 4


def test_a_result_counts_only_for_the_code_and_the_sizes_it_was_measured_with(
    run: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(command, "call_in_child", fake_measurement(calls))
    for _ in range(2):
        assert run("--parts", "stamps-ztf") == 0
        assert run("--parts", "stamps-ztf", "--sizes", "2") == 0
    assert len(calls) == 4
    monkeypatch.setattr(command, "fingerprint", lambda: "changed")
    assert run("--parts", "stamps-ztf", "--sizes", "2") == 0
    assert len(calls) == 5


def test_what_was_generated_is_removed_in_the_end(
    run: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "call_in_child", fake_measurement([]))
    assert run("--parts", "stamps-ztf") == 0
    left = [path.name for path in command.CACHE.rglob("*") if path.is_file()]
    assert sorted(left) == ["lock", "stamps-ztf.json"]


def test_a_child_that_fails_is_told_apart_from_a_result(place: Place) -> None:
    with pytest.raises(ChildFailed, match="ended with 1"):
        call_in_child("parts:no_such_function", {}, environment={}, seconds=110)


# --- The report -------------------------------------------------------------------------------


def test_the_report_holds_what_was_measured(place: Place, tmp_path: Path) -> None:
    results = tmp_path / "results"
    for part in command.plan_parts("local", SCALE):
        if part.function == "parts:measure_stamps":
            result = parts.measure_stamps(place, **part.arguments)
        elif part.function == "parts:measure_formats":
            result = parts.measure_formats(place, size=1, rounds=2)
        else:
            continue
        kept = {
            "version": report.VERSION,
            "result": result,
            "scale": "test",
            "code": "c",
            "date": "2026-09-11T00:00+00:00",
            "machine": describe_machine(),
        }
        file = results / "test" / "local" / f"{part.name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(kept))
    document = report.write(results, "test", tmp_path / "b.md", tmp_path / "pictures")
    text = document.read_text()
    for method in methods.list_methods(place):
        assert (f"| {method.title} |" in text) == (not method.missing), method.title
    assert "| ZTF | PNG |" in text
    assert "2026-09-11" in text
    for line in text.splitlines():
        if line.startswith("!["):
            assert (tmp_path / line.partition("(")[2].rstrip(")")).stat().st_size > 5000
    assert "pictures/stamps-local.png" in text
    assert "nan" not in text


def hdfs_results(folder: Path, page_ms: float) -> report.Results:
    """Return results in which a page of today's took 30 ms."""
    case = {"megabytes": 100, "layout": "spark", "kinds": 1, "title": "", "group": ""}
    cases = [
        {**case, "method": "today-kept", "times": 1, "ms": [30.0]},
        {**case, "method": "page@libhdfs", "times": 3, "ms": [99.0, page_ms, page_ms]},
        {**case, "method": "page@native", "times": 1, "ms": [1.0]},
    ]
    file = folder / "full" / "hdfs" / "stamps-ztf.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"version": report.VERSION, "result": {"cases": cases}}))
    return report.Results(folder, "full")


@pytest.mark.parametrize(("page_ms", "met"), [(1.9, "yes"), (2.1, "no: ZTF libhdfs")])
def test_a_bar_is_met_where_every_driver_meets_it(tmp_path: Path, page_ms: float, met: str) -> None:
    rows = report.write_bars(hdfs_results(tmp_path, page_ms))
    cells = [cell.strip() for cell in rows[2].split("|")]
    assert cells[3:5] == [f"{30 / page_ms:.3g}x", "30x"]
    assert cells[-2] == met
    assert rows[3].split("|")[-2].strip() == "not measured"


def test_results_of_the_scale_asked_for_come_first_and_old_ones_not_at_all(
    tmp_path: Path,
) -> None:
    for scale, name, version in (
        ("quick", "rows", report.VERSION),
        ("full", "rows", report.VERSION),
        ("quick", "formats", report.VERSION),
        ("full", "formats", report.VERSION - 1),
    ):
        file = tmp_path / scale / "local" / f"{name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"version": version, "result": {"scale": scale}}))
    results = report.Results(tmp_path, "full")
    assert results.get("local", "rows") == {"scale": "full"}
    assert results.get("local", "formats") == {"scale": "quick"}


# --- The clients ------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[tuple[int, list[bytes]]]:
    """A server that answers each request with its path; /bad with 500, /leave by hanging up."""
    listener = socket.create_server(("127.0.0.1", 0))
    seen: list[bytes] = []

    def answer(connection: socket.socket) -> None:
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while data := connection.recv(4096):
                path = data.split()[1]
                seen.append(path)
                if path == b"/leave":
                    return
                status = b"500 No" if path == b"/bad" else b"200 OK"
                head = b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n" % (status, len(path))
                connection.sendall(head + path[:1])
                connection.sendall(path[1:])

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield listener.getsockname()[1], seen
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(5)


def test_the_load_is_asked_in_turn_by_all_clients(server: tuple[int, list[bytes]]) -> None:
    port, seen = server
    requests = [load.build_request(port, f"/{n}") for n in range(5)]
    done = load.run_load(port, requests, clients=3, seconds=0.2)
    assert done.failed == 0
    assert done.answered >= 12  # of each client four, however slow
    assert len(done.latencies) == len(seen)
    assert {seen.count(b"/%d" % n) - seen.count(b"/0") for n in range(5)} <= {-1, 0, 1}
    assert 0.15 < done.seconds < 10
    assert load.fetch(port, requests[3]) == (True, b"/3")


def test_what_goes_wrong_is_counted_as_failed(server: tuple[int, list[bytes]]) -> None:
    port, _ = server
    requests = [load.build_request(port, path) for path in ("/1", "/bad", "/leave", "/2")]
    done = load.run_once(port, requests, clients=1, seconds=10)
    assert (done.answered, done.failed) == (2, 2)
    assert done.seconds < 5


def test_each_request_is_asked_once(server: tuple[int, list[bytes]]) -> None:
    port, seen = server
    requests = [load.build_request(port, f"/{n}") for n in range(50)]
    done = load.run_once(port, requests, clients=4, seconds=10)
    assert done.answered == 50
    assert sorted(seen) == sorted(b"/%d" % n for n in range(50))


def test_the_plan_keeps_within_the_time_and_the_disk() -> None:
    planned = command.plan_parts("hdfs", command.FULL)
    assert sum(part.seconds for part in planned) < 30 * 60
    for survey in ("ztf", "lsst"):
        files = {f for part in planned for f in part.files if f.survey == survey}
        assert {file.megabytes for file in files} == {25, 100, 400}
        assert sum(file.megabytes for file in files) < 3000
    quick = command.plan_parts("hdfs", command.QUICK)
    assert sum(part.seconds for part in quick) < 5 * 60
    assert replace(quick[0], arguments={}).key("a") != quick[0].key("a")
