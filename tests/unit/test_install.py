"""What `install/` and the Dockerfile say is true of the code they deploy."""

from __future__ import annotations

import configparser
import http.client
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import time
import tomllib
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
import requests
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cutout_api import errors, server, settings
from cutout_api.batch import PATIENCE, SLOWEST
from tests.archive import NIGHT, SampleArchive
from tests.catalogue import catalogued
from tests.conftest import IN_CI
from tests.nginx import require_nginx, running_nginx
from tests.samples import ZTF_SCHEMA, ztf_alert
from tests.service import Service, free_port, running_service

ROOT = Path(__file__).parents[2]
INSTALL = ROOT / "install"
SYSTEMD_ANALYZE = shutil.which("systemd-analyze")
PROBLEM = "application/problem+json"

README = (INSTALL / "README.md").read_text()
UNIT = (INSTALL / "cutout-api.service").read_text()
CONF = (INSTALL / "nginx.conf").read_text()
IGNORED = (ROOT / ".dockerignore").read_text().splitlines()


def dockerfile() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile, continuations joined."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines]


def copied_from_here() -> list[str]:
    return [
        source
        for instruction, rest in dockerfile()
        if instruction == "COPY" and not rest.startswith("--from=")
        for source in rest.split()[:-1]
    ]


def setting_variables(text: str) -> set[str]:
    return set(re.findall(r"\bCUTOUT_API_[A-Z_]+", text))


# Dockerfile


@pytest.mark.parametrize("source", copied_from_here())
def test_what_the_dockerfile_copies_is_there_and_not_ignored(source: str) -> None:
    assert (ROOT / source).exists()
    assert f"!{source}" in IGNORED


def test_the_image_lets_in_nothing_that_it_does_not_copy() -> None:
    assert {line[1:] for line in IGNORED if line.startswith("!")} == set(copied_from_here())
    assert "*" in IGNORED


def test_the_image_does_not_run_as_root() -> None:
    users = [rest for instruction, rest in dockerfile() if instruction == "USER"]
    assert users
    assert users[-1].isdigit()
    assert int(users[-1]) > 0


@pytest.mark.parametrize("name", ["Dockerfile", "install/cutout-api.service", "install/README.md"])
def test_variables_that_are_named_are_settings(name: str) -> None:
    known = {"CUTOUT_API_CONFIG"} | {
        settings.PREFIX + path.replace(".", "_").upper() for path in settings.setting_fields()
    }
    named = setting_variables((ROOT / name).read_text())
    assert named
    assert named <= known


def test_the_exposed_port_is_the_default_one() -> None:
    assert ("EXPOSE", str(settings.Server().port)) in dockerfile()


def test_the_health_check_follows_the_service(sample_archive: SampleArchive) -> None:
    with running_service({"CUTOUT_API_ARCHIVE_URI": str(sample_archive.folder)}) as service:
        environment = os.environ | {
            "CUTOUT_API_SERVER_PORT": str(service.port),
            "http_proxy": "http://127.0.0.1:9",
        }
        command = [sys.executable, str(INSTALL / "healthcheck.py")]
        assert subprocess.run(command, env=environment, cwd=ROOT).returncode == 0
    assert subprocess.run(command, env=environment, cwd=ROOT).returncode == 1


def test_the_entry_point_adds_to_the_client_what_the_operator_says(tmp_path: Path) -> None:
    shutil.copy(INSTALL / "docker-entrypoint.sh", tmp_path)
    (tmp_path / "hdfs").mkdir()
    (tmp_path / "hdfs/env.sh").write_text(
        "export CLASSPATH='/a.jar:/b.jar'\nexport LIBHDFS_OPTS='-Xmx256m -Xrs'\n"
    )

    def run(**environment: str) -> list[str]:
        command = ["./docker-entrypoint.sh", "sh", "-c", 'echo "$CLASSPATH"; echo "$LIBHDFS_OPTS"']
        environment["PATH"] = os.environ["PATH"]
        return subprocess.check_output(command, cwd=tmp_path, env=environment, text=True).split(
            "\n"
        )

    assert run()[:2] == ["/a.jar:/b.jar", "-Xmx256m -Xrs"]
    assert run(HADOOP_CONF_DIR="/conf")[0] == "/conf:/a.jar:/b.jar"
    assert run(LIBHDFS_OPTS="-Xmx1g")[1] == "-Xmx1g"


# What is fetched


def locked() -> dict[str, tuple[str, list[str]]]:
    """Return version and hashes of what requirements.lock names."""
    text = (ROOT / "requirements.lock").read_text().replace("\\\n", " ")
    lines = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    return {pin.partition("==")[0]: (pin.partition("==")[2], found) for pin, *found in lines}


def wanted_by(name: str) -> list[Requirement]:
    """Return what a locked package needs where the image runs."""
    try:
        required = distribution(name).requires or []
    except PackageNotFoundError:  # only newer than what is installed here
        return []
    environment = {"extra": "", "python_version": "3.11", "python_full_version": "3.11.2"}
    needs = [Requirement(each) for each in required]
    return [n for n in needs if n.marker is None or n.marker.evaluate(environment)]


def test_the_lock_has_what_the_requirements_allow_and_need() -> None:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    asked = [
        Requirement(line.partition("#")[0]) for line in lines if line.partition("#")[0].strip()
    ]
    asked += [Requirement(each) for each in build_requirements()]
    assert len(asked) > 20
    pins = locked()
    for need in [*asked, *(need for name in pins for need in wanted_by(name))]:
        version, _ = pins[canonicalize_name(need.name)]
        assert need.specifier.contains(version, prereleases=True), need
        for extra in need.extras:
            assert f"{need.name}-{extra}" in pins


def build_requirements() -> list[str]:
    requires: list[str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"][
        "requires"
    ]
    return requires


def test_whatever_the_lock_names_has_hashes() -> None:
    for name, (version, found) in locked().items():
        assert version, name
        assert 1 <= len(found) <= 2, name  # one for each machine, or one for both
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", each) for each in found)


def test_the_image_installs_nothing_without_a_hash() -> None:
    commands = [rest for instruction, rest in dockerfile() if instruction == "RUN"]
    installs = [c for run in commands for c in run.split("&&") if "pip install" in c]
    assert len(installs) == 2
    for command in installs:
        own = "--no-deps --no-build-isolation /build" in command  # ours, built by what is locked
        assert own or "--require-hashes" in command


EVIL_SETUP = """
import pathlib
pathlib.Path({marker!r}).touch()
from setuptools import setup
setup(name={name!r}, version={version!r})
"""


@pytest.fixture
def evil_index(tmp_path: Path) -> dict[str, str]:
    """The environment of a pip whose index has what the scripts fetch, but written by others."""
    links, marker = tmp_path / "links", str(tmp_path / "was run")
    links.mkdir()
    scripts = "".join((INSTALL / f"hdfs-{side}.sh").read_text() for side in ("client", "server"))
    pins = set(re.findall(r"^(\w+)=\1==([\d.]+)$", scripts, re.MULTILINE))
    assert {name for name, _ in pins} == {"pydoop", "pyspark", "setuptools"}
    for name, version in pins:
        if name == "setuptools":
            with zipfile.ZipFile(links / f"setuptools-{version}-py3-none-any.whl", "w") as wheel:
                about = f"setuptools-{version}.dist-info"
                wheel.writestr("setuptools/__init__.py", f"open({marker!r}, 'w')")
                wheel.writestr(f"{about}/METADATA", f"Name: setuptools\nVersion: {version}\n")
                wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
                wheel.writestr(f"{about}/RECORD", "")
            continue
        code = EVIL_SETUP.format(marker=marker, name=name, version=version).encode()
        with tarfile.open(links / f"{name}-{version}.tar.gz", "w:gz") as sdist:
            member = tarfile.TarInfo(f"{name}-{version}/setup.py")
            member.size = len(code)
            sdist.addfile(member, io.BytesIO(code))
    return os.environ | {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(links),
        "PYTHON": sys.executable,
    }


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("trusted", ["nothing", "setuptools"])
def test_what_was_exchanged_on_the_index_is_not_run(
    evil_index: dict[str, str], tmp_path: Path, side: str, trusted: str
) -> None:
    if shutil.which("javac") is None or shutil.which("gcc") is None:
        (pytest.fail if IN_CI else pytest.skip)("no JDK or gcc: run install/hdfs-client.sh")
    script = (INSTALL / f"hdfs-{side}.sh").read_text()
    if trusted == "setuptools":  # so that the sdist is fetched too
        script = re.sub(
            r"^(\s*(PYTHONPATH=\S+ )?)pinned \"\$setuptools\".*", r"\1:", script, flags=re.M
        )
    copy = tmp_path / f"hdfs-{side}.sh"
    copy.write_text(script)
    # A pyspark that is installed is not trusted either.
    jars = tmp_path / "installed/pyspark/jars"
    jars.mkdir(parents=True)
    (jars.parent / "__init__.py").touch()
    for name in re.findall(r"[a-z-]+-[\d.]+\.jar", script):
        (jars / name).write_bytes(b"exchanged")
    environment = evil_index | {"PYTHONPATH": str(tmp_path / "installed")}
    environment.pop("HADOOP_HOME", None)
    prefix = tmp_path / "prefix"
    ended = subprocess.run(
        ["bash", str(copy), str(prefix)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode != 0
    assert "DO NOT MATCH THE HASHES" in ended.stderr
    assert ("pyspark" if trusted == "setuptools" else "setuptools") in ended.stderr
    assert not (tmp_path / "was run").exists()
    assert not (prefix / "lib").exists()


@pytest.mark.parametrize("name", sorted(file.name for file in INSTALL.glob("*.sh")))
def test_scripts_fetch_from_no_index_but_by_hash(name: str) -> None:
    script = (INSTALL / name).read_text().replace("\\\n", " ")
    for line in script.splitlines():
        if re.search(r"-m pip\b(?! --version)|\bpip3? (install|download)", line.partition("#")[0]):
            assert "--require-hashes" in line
        assert not re.search(r"^[^#]*\b(curl|wget) .*\|", line)


# systemd


def unit() -> configparser.SectionProxy:
    parser = configparser.RawConfigParser(strict=False, comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(UNIT)
    return parser["Service"]


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    if SYSTEMD_ANALYZE is None:
        assert {"User", "ExecStart", "Type"} <= set(unit())
        return
    # The program is not installed here, and nothing else may be wrong.
    copy = tmp_path / "cutout-api.service"
    copy.write_text(UNIT.replace("/opt/cutout-api/venv/bin/cutout_api", "/bin/true"))
    run = subprocess.run(
        [SYSTEMD_ANALYZE, "verify", "--man=no", str(copy)], capture_output=True, text=True
    )
    assert (run.returncode, run.stdout + run.stderr) == (0, "")


def test_the_page_makes_a_unit_that_keeps_the_catalog(tmp_path: Path) -> None:
    (command,) = re.findall(r"^  (sed .*) > .*-index.service$", README, re.MULTILINE)
    made = subprocess.check_output(["bash", "-ec", command], cwd=ROOT, text=True)
    assert "\nExecStart=/opt/cutout-api/venv/bin/cutout_api index --watch\n" in made
    assert "\nType=exec\n" in made
    assert "ExecReload" not in made
    if SYSTEMD_ANALYZE is None:
        return
    copy = tmp_path / "cutout-api-index.service"
    copy.write_text(made.replace("/opt/cutout-api/venv/bin/cutout_api", "/bin/true"))
    run = subprocess.run(
        [SYSTEMD_ANALYZE, "verify", "--man=no", str(copy)], capture_output=True, text=True
    )
    assert (run.returncode, run.stdout + run.stderr) == (0, "")


def test_systemd_finds_little_exposed(tmp_path: Path) -> None:
    if SYSTEMD_ANALYZE is None:
        assert unit()["NoNewPrivileges"] == unit()["PrivateTmp"] == "yes"
        assert unit()["CapabilityBoundingSet"] == ""
        return
    command = [SYSTEMD_ANALYZE, "security", "--offline=yes", "--threshold=15"]
    run = subprocess.run([*command, str(INSTALL / "cutout-api.service")], capture_output=True)
    assert run.returncode == 0, run.stdout.decode()


def test_the_unit_waits_longer_than_the_service_takes_to_stop() -> None:
    assert int(unit()["TimeoutStopSec"]) > server.graceful_timeout


# nginx


def test_nginx_speaks_of_errors_as_the_service_does() -> None:
    classes = {cls.code: cls for cls in errors.error_classes()}
    bodies = [json.loads(body) for body in re.findall(r"'(\{.*\})';", CONF)]
    assert len(bodies) == 9
    for body in bodies:
        if body["type"] == "about:blank":
            assert body["code"] not in classes
        else:
            cls = classes[body["code"]]
            assert body == cls(body["detail"]).problem()


def test_nginx_repeats_the_settings_it_names() -> None:
    limits = settings.Limits()
    assert f"server 127.0.0.1:{settings.Server().port} " in CONF
    assert f"client_max_body_size        {limits.body_bytes};" in CONF
    assert f"default                  {limits.body_bytes};" in CONF
    assert f"client_max_body_size {limits.batch_bytes};" in CONF
    assert f"~^/api/v1/cutouts/batch  {limits.batch_bytes};" in CONF
    assert f"longer than {server.limit_request_line} bytes" in CONF
    single, batch = map(int, re.findall(r"proxy_read_timeout +(\d+)s", CONF))
    assert single > limits.deadline_seconds + PATIENCE * limits.queue_seconds
    assert batch > SLOWEST * (limits.deadline_seconds + PATIENCE * limits.queue_seconds)
    assert int(re.findall(r"keepalive_timeout (\d+)s", CONF)[0]) < server.keepalive


PLAIN = {"Accept-Encoding": "identity"}
MASKED = 2_656_254_792_815_010_002
"""The alert of ``samples`` that has masked pixels."""


@dataclass
class Front:
    """nginx on a free port, with the service behind it."""

    address: str
    service: Service
    rows: list[dict[str, object]]
    log_file: Path

    def cutout(self, row: int, output: str = "PNG", *, direct: bool = False) -> str:
        alert = self.rows[row]
        keys = f"objectId={alert['objectId']}&candid={alert['candid']}"
        path = f"hdfsPath={NIGHT}/part-00000.snappy.parquet"
        base = self.service.address if direct else self.address
        return f"{base}/api/v1/cutouts?{path}&{keys}&kind=Science&return_type={output}"


@contextmanager
def running_front(
    sample_archive: SampleArchive, folder: Path, conf: str = CONF, **environment: str
) -> Iterator[Front]:
    require_nginx()
    port = free_port()
    environment |= {"CUTOUT_API_ARCHIVE_URI": str(sample_archive.folder)}
    with running_service(environment) as service:
        site = conf.replace("listen 80;", f"listen 127.0.0.1:{port};")
        site = site.replace("    listen [::]:80;\n", "")
        site = site.replace("127.0.0.1:24000", f"127.0.0.1:{service.port}")
        site = site.replace("/var/cache/", f"{folder}/").replace("/var/log/nginx/", f"{folder}/")
        address = f"http://127.0.0.1:{port}"
        with running_nginx(site, address, folder) as log_file:
            rows = sample_archive.rows[f"{NIGHT}/part-00000.snappy.parquet"]
            yield Front(address, service, rows, log_file)


@pytest.fixture(scope="module")
def front(
    sample_archive: SampleArchive, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Front]:
    with running_front(sample_archive, tmp_path_factory.mktemp("nginx")) as running:
        yield running


def problem(answer: requests.Response) -> tuple[int, str]:
    """Return status and code of an error, which must say both in the body as well."""
    assert answer.headers["Content-Type"] == PROBLEM
    assert answer.headers["X-Request-ID"]
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert answer.headers["Cache-Control"] == "no-store"
    body = answer.json()
    assert body["status"] == answer.status_code
    return answer.status_code, body["code"]


@pytest.mark.parametrize("output", ["PNG", "FITS", "array"])
def test_bytes_are_the_same_through_nginx(front: Front, output: str) -> None:
    direct = requests.get(front.cutout(0, output, direct=True))
    through = requests.get(front.cutout(0, output))
    assert direct.status_code == through.status_code == 200
    assert through.content == direct.content
    for name in ("ETag", "Content-Type", "Cache-Control", "Access-Control-Allow-Origin"):
        assert through.headers[name] == direct.headers[name]


def test_an_alerts_stamp_is_asked_of_the_service_once(front: Front) -> None:
    first, second = (requests.get(front.cutout(1)) for _ in range(2))
    assert [first.headers["X-Cache"], second.headers["X-Cache"]] == ["MISS", "HIT"]
    assert second.content == first.content
    assert second.headers["ETag"] == first.headers["ETag"]
    assert second.headers["Access-Control-Allow-Origin"] == "*"
    assert first.headers["X-Request-ID"] != second.headers["X-Request-ID"]


def test_gzip_and_plain_answers_are_kept_apart(front: Front) -> None:
    for _ in range(2):
        plain = requests.get(front.cutout(2, "array"), headers={"Accept-Encoding": "identity"})
        small = requests.get(front.cutout(2, "array"), headers={"Accept-Encoding": "gzip"})
        assert "Content-Encoding" not in plain.headers
        assert small.headers["Content-Encoding"] == "gzip"
        assert plain.headers["ETag"] != small.headers["ETag"]
        assert plain.content == small.content


def test_errors_of_the_service_pass_and_are_not_kept(front: Front) -> None:
    url = f"{front.address}/api/v1/cutouts?hdfsPath=../etc&objectId=ZTF24aaaaaaa&kind=Science"
    for _ in range(2):
        answer = requests.get(url)
        assert problem(answer) == (403, "path_forbidden")
        assert answer.headers["X-Cache"] == "MISS"


def test_a_browser_gets_no_answer_that_was_kept_for_a_program(front: Front) -> None:
    url = front.cutout(next(n for n in range(12) if front.rows[n]["candid"] == MASKED), "array")
    for _ in range(2):
        for headers in ({}, {"Origin": "https://a.example"}, {"Accept": "application/json"}):
            kept = requests.get(url, headers=headers)
            direct = requests.get(
                url.replace(front.address, front.service.address), headers=headers
            )
            assert kept.content == direct.content
            assert (b"NaN" in kept.content) == (not headers)


@pytest.mark.parametrize("output", ["FITS", "array"])
def test_parts_of_answers_come_from_the_service(front: Front, output: str) -> None:
    url = front.cutout(4, output)
    whole = requests.get(front.cutout(4, output, direct=True), headers=PLAIN)
    length = len(whole.content)
    for _ in range(2):
        for wanted, start, stop in (
            ("bytes=2880-5759", 2880, 5760),
            ("bytes=-7", length - 7, length),
            ("bytes=-999999", 0, length),
        ):
            part = requests.get(url, headers={"Range": wanted})
            assert part.status_code == 206
            assert part.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{length}"
            assert part.content == whole.content[start:stop]
            for if_range, status in ((whole.headers["ETag"], 206), ('"other"', 200)):
                answer = requests.get(url, headers=PLAIN | {"Range": wanted, "If-Range": if_range})
                assert answer.status_code == status
        several = requests.get(url, headers={"Range": "bytes=0-1,5-6"})
        assert (several.status_code, several.content) == (200, whole.content)
        beyond = requests.get(url, headers={"Range": f"bytes={length}-"})
        assert problem(beyond) == (416, "range_not_satisfiable")
        assert beyond.headers["Content-Range"] == f"bytes */{length}"
    for headers in ({}, PLAIN, {"Range": "bytes=0-9"}):
        for answer in (requests.head(url, headers=headers), requests.get(url, headers=headers)):
            assert answer.headers["Accept-Ranges"] == "bytes"


def test_post_and_head_pass(front: Front) -> None:
    alert = front.rows[0]
    body = {
        "hdfsPath": f"{NIGHT}/part-00000.snappy.parquet",
        "objectId": alert["objectId"],
        "candid": str(alert["candid"]),
        "kind": "Science",
        "return_type": "PNG",
    }
    url = f"{front.address}/api/v1/cutouts"
    got = requests.get(front.cutout(0))
    assert requests.post(url, json=body).content == got.content
    head = requests.head(front.cutout(0))
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Length"] == str(len(got.content))


def test_a_known_etag_is_answered_with_304(front: Front) -> None:
    tag = requests.get(front.cutout(0)).headers["ETag"]
    known = requests.get(front.cutout(0), headers={"If-None-Match": tag})
    assert (known.status_code, known.content) == (304, b"")
    changed = requests.get(front.cutout(0), headers={"If-None-Match": '"another"'})
    assert changed.status_code == 200
    assert changed.content


def test_the_request_id_is_taken_over_or_made(front: Front) -> None:
    url = f"{front.address}/healthz"
    given = requests.get(url, headers={"X-Request-ID": "night-7:42"})
    assert given.headers["X-Request-ID"] == "night-7:42"
    assert "id=night-7:42" in front.service.log
    made = requests.get(url, headers={"X-Request-ID": 'not "one"'}).headers["X-Request-ID"]
    assert re.fullmatch(r"[0-9a-f]{32}", made)
    assert f"id={made}" in front.service.log


def test_what_nginx_refuses_is_worded_as_the_service_would(front: Front) -> None:
    url = f"{front.address}/api/v1/cutouts"
    assert problem(requests.post(url, data=b"x" * 65_537)) == (413, "body_too_large")
    assert problem(requests.get(f"{url}?a={'x' * 9000}")) == (414, "address_too_long")
    assert problem(requests.get(url, headers={"X-Long": "x" * 9000})) == (400, "malformed_http")
    assert problem(requests.request("TRACE", url)) == (405, "method_not_allowed")


def metrics_spellings() -> list[str]:
    """Return ways to write /metrics: what routes, servers and proxies are known to take for it."""
    plain = [
        "/metrics",
        "//metrics",
        "///metrics//",
        "/./metrics",
        "/x/../metrics",
        "/metrics/x/..",
    ]
    letters = [
        "/metrics"[:n] + f"%{ord(c):02x}" + "/metrics"[n + 1 :] for n, c in enumerate("/metrics")
    ]
    encoded = [
        "".join(f"%{ord(c):02X}" for c in "/metrics"),
        "/%2e/metrics",
        "/x/%2e%2e/metrics",
        "/%256detrics",
    ]
    starts = [
        *plain,
        *letters,
        *encoded,
        "/METRICS",
        "/Metrics",
        "/metrics/metrics",
        "/healthz/../metrics",
    ]
    starts += [
        "/api/v1/cutouts/batch/../../../../metrics",
        "/api/v1/cutouts/batch%2f..%2f..%2f..%2f..%2fmetrics",
    ]
    ends = [
        "",
        "/",
        "//",
        "%2f",
        "%2F%2F",
        "/.",
        "/%2e",
        "?x=1",
        "/?x",
        ";x",
        "/;x",
        "#x",
        "%23",
        "%3f",
        "%20",
        "%09",
        "%00",
        "%0a",
        ".",
    ]
    return [start + end for start in starts for end in ends]


def status_and_body(address: str, target: str) -> tuple[int, bytes]:
    """Ask for an address exactly as it is spelled, which clients do not."""
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=20)
    with closing(connection):
        connection.putrequest("GET", target)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read()


def test_operators_metrics_have_no_spelling_that_passes(
    sample_archive: SampleArchive, tmp_path: Path
) -> None:
    spelled = [*metrics_spellings(), "http://x/metrics", "http://x//metrics/"]
    conf = CONF.replace("rate=100r/s", "rate=10000r/s")
    without = re.sub(r"location ~\* \^/metrics \{[^}]*\}", "", conf)
    assert "metrics" not in re.sub(r"#.*", "", without)
    for number, site in enumerate((conf, without)):  # nginx and the service, each by itself
        (tmp_path / str(number)).mkdir()
        with running_front(sample_archive, tmp_path / str(number), site) as front:
            direct = [status_and_body(front.service.address, target)[0] for target in spelled]
            assert direct.count(200) > 20
            for target in spelled:
                status, body = status_and_body(front.address, target)
                assert (target, status) in ((target, 404), (target, 400), (target, 308))
                assert b"cutout_requests_total" not in body


def test_slow_senders_are_not_noticed_through_nginx(front: Front) -> None:
    port = int(front.address.rpartition(":")[2])
    post = b"POST /api/v1/cutouts HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
    with ExitStack() as stack:
        slow = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
            for _ in range(200)
        ]
        for number, client in enumerate(slow):
            # Bodies of one address count as its requests, and are refused beyond 32.
            client.sendall(post if number < 20 else b"GET /healthz HTTP/1.1\r\nX: y")
        for _ in range(5):
            for client in slow:
                client.sendall(b"a")
            for row in range(3):
                assert requests.get(front.cutout(row, "FITS"), timeout=5).status_code == 200


def test_one_address_is_answered_so_many_requests_at_a_time(
    sample_archive: SampleArchive, tmp_path: Path
) -> None:
    post = b"POST /api/v1/cutouts HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
    with running_front(sample_archive, tmp_path) as front, ExitStack() as stack:
        port = int(front.address.rpartition(":")[2])
        for _ in range(32):
            client = socket.create_connection(("127.0.0.1", port), timeout=20)
            stack.enter_context(client).sendall(post)
        for _ in range(100):  # until nginx has seen all of them
            if (refused := requests.get(f"{front.address}/healthz")).status_code != 200:
                break
            time.sleep(0.05)
        assert problem(refused) == (429, "too_many_requests")


def test_a_long_table_for_a_slow_client_takes_little_of_the_disk(tmp_path: Path) -> None:
    archive = SampleArchive(tmp_path / "archive")
    (tmp_path / "nginx").mkdir()
    name = f"{NIGHT}/part-00000.snappy.parquet"
    archive.write(name, [ztf_alert(n, "ZTF24aaaaaaa") for n in range(1_000)], ZTF_SCHEMA)
    uri = f"file://{archive.folder}"
    made = catalogued(settings.Settings(archive=settings.Archive(uri=uri)))
    catalog = {"CUTOUT_API_CATALOG_URL": made.catalog.url}
    with running_front(archive, tmp_path / "nginx", **catalog) as front:
        url = f"{front.address}/api/v1/objects?objectId=ZTF24aaaaaaa&withcutouts=True"
        with requests.get(url, stream=True, timeout=20) as answer:
            largest, last = 0, -1
            while largest > last:  # until nothing more is taken from the service
                last = largest
                time.sleep(1)
                largest = max(largest, temporary_bytes(tmp_path / "nginx" / "pid"))
            assert 8 << 20 < largest <= 17 << 20
            rest = sum(len(piece) for piece in answer.iter_content(1 << 20))
    assert rest > 3 * largest


def temporary_bytes(pid_file: Path) -> int:
    """Return the size of the files without a name that nginx has open."""
    master = pid_file.read_text().strip()
    children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    found = [file for pid in children for file in Path(f"/proc/{pid}/fd").iterdir()]
    return sum(
        f.stat().st_size
        for f in found
        if os.readlink(f).endswith("(deleted)") and "proxy" in os.readlink(f)
    )


def test_a_batch_passes_as_it_is_made(front: Front) -> None:
    asked = {
        "hdfsPath": f"{NIGHT}/part-00000.snappy.parquet",
        "candid": [str(front.rows[n % 3]["candid"]) for n in range(3_500)],
        "kind": "Science",
        "package": "tar",
    }
    assert len(json.dumps(asked)) > settings.Limits().body_bytes
    route = "/api/v1/cutouts/batch"
    direct = requests.post(front.service.address + route, json=asked)
    with requests.post(front.address + route, json=asked, stream=True) as through:
        assert through.status_code == 200
        time.sleep(1)  # a client that is slow: what is buffered for it would go to disk
        assert through.content == direct.content
    assert len(direct.content) > 64 << 20  # more than the sockets between them hold
    assert "buffered to a temporary file" not in front.log_file.read_text()


def test_a_batch_may_be_as_large_as_the_service_takes_it(front: Front) -> None:
    limit = settings.Limits().batch_bytes
    for address in (front.address, front.service.address):
        url = f"{address}/api/v1/cutouts/batch"
        fits = requests.post(url, data=b"x" * limit, headers={"Content-Type": "text/plain"})
        assert fits.status_code == 400
        large = requests.post(url, data=b"x" * (limit + 1), headers={"Content-Type": "text/plain"})
        assert (large.status_code, large.json()["code"]) == (413, "body_too_large")
        assert large.json()["detail"] == f"the body is larger than {limit} bytes"


def test_a_table_that_is_made_while_it_is_sent_is_not_kept(tmp_path: Path) -> None:
    archive = SampleArchive(tmp_path / "archive")
    (tmp_path / "nginx").mkdir()
    name = f"{NIGHT}/part-00000.snappy.parquet"
    archive.write(name, [ztf_alert(n, "ZTF24aaaaaaa") for n in range(200)], ZTF_SCHEMA)
    uri = f"file://{archive.folder}"
    made = catalogued(settings.Settings(archive=settings.Archive(uri=uri)))
    catalog = {"CUTOUT_API_CATALOG_URL": made.catalog.url}
    with running_front(archive, tmp_path / "nginx", **catalog) as front:
        url = f"{front.address}/api/v1/objects?objectId=ZTF24aaaaaaa"
        for stamps, kept in (("False", True), ("True", False)):
            answers = [requests.get(f"{url}&withcutouts={stamps}") for _ in range(2)]
            assert answers[0].content == answers[1].content
            assert [answer.status_code for answer in answers] == [200, 200]
            assert (answers[1].headers["X-Cache"] == "HIT") == kept
            ranges = "bytes" if kept else "none"
            assert [answer.headers["Accept-Ranges"] for answer in answers] == [ranges] * 2


def test_a_caller_who_asks_too_often_is_told_when_to_come_back(
    sample_archive: SampleArchive, tmp_path: Path
) -> None:
    # So slow a caller does not reach what is allowed otherwise on every machine.
    conf = CONF.replace("rate=100r/s", "rate=2r/s").replace("burst=200", "burst=10")
    assert conf.count("2r/s") == conf.count("burst=10") == 1
    with running_front(sample_archive, tmp_path, conf) as front:
        with requests.Session() as session:
            answers = [session.get(front.cutout(0)) for _ in range(100)]
        refused = [answer for answer in answers if answer.status_code != 200]
        assert refused
        assert {problem(answer) for answer in refused} == {(429, "too_many_requests")}
        assert refused[0].headers["Retry-After"] == "1"
        time.sleep(1)
        assert requests.get(front.cutout(0)).status_code == 200


def test_a_service_that_is_down_is_unavailable_but_its_kept_answers_are_not(
    sample_archive: SampleArchive, tmp_path: Path
) -> None:
    with running_front(sample_archive, tmp_path) as front:
        kept = requests.get(front.cutout(0))
        front.service.process.terminate()
        front.service.process.wait(20)
        answer = requests.get(f"{front.address}/healthz")
        assert problem(answer) == (503, "storage_unavailable")
        assert answer.headers["Retry-After"] == "5"
        still = requests.get(front.cutout(0))
        assert (still.status_code, still.content) == (200, kept.content)


def test_what_a_caller_says_of_a_proxy_reaches_neither_service_nor_cache(front: Front) -> None:
    said = {
        "X-Forwarded-Prefix": "/evil",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Proto": "https",
        "Forwarded": "host=evil.example",
    }
    for headers in (said, {}, {}):
        answer = requests.get(f"{front.address}/openapi.json", headers=headers)
        assert answer.json()["servers"] == [{"url": "/"}]
        page = requests.get(f"{front.address}/try", headers=headers)
        assert "evil" not in page.text
        assert f"curl '{front.address}/api/v1/cutouts'" in page.text
        assert "/metrics" not in page.text
    assert answer.headers["X-Cache"] == "HIT"  # what it varies by does not keep it out
