"""Every snippet of the pages for users runs, with nothing changed but the address."""

from __future__ import annotations

import re
import subprocess
import textwrap
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
import requests
from werkzeug.serving import make_server

from cutout_api.settings import Archive, Settings
from cutout_api.web import create_app

from ..catalogue import catalogued
from ..epochs_archive import NIGHT, make_epochs_archive
from ..samples import REAL_DATA

mpl.use("Agg")
PAGES = REAL_DATA.parent / "today"
# What each page has at least, so that a page that is no longer taken apart shows.
SNIPPETS = {
    "cutout-api-README.md": 3,
    "public-api-image-data.md": 12,
    "public-api-object-data.md": 8,
}
ADDRESSES = re.compile(r"https://(?:api\.)?(?:lsst\.)?fink-portal\.org")
FENCE = re.compile(r"^( *)```(\w+)[^\n]*\n(.*?)^\1```", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Snippet:
    language: str
    code: str


def snippets(page: str) -> list[Snippet]:
    """Return the code blocks of a page that can be run, in order."""
    text = (PAGES / page).read_text()
    blocks = [(match[2], textwrap.dedent(match[3])) for match in FENCE.finditer(text)]
    return [
        Snippet(language, code)
        for language, code in blocks
        if language in ("bash", "python")
        and not re.match(r"python |pip ", code)
        # How the old service is started is not part of what it answers.
        and "app.py" not in code
        and "api_test.py" not in code
    ]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running service over an archive that has the ids of the pages."""
    if not PAGES.is_dir():
        pytest.skip("the folder of the pages for users, ../shared/today, is not here")
    folder = tmp_path_factory.mktemp("documented")
    make_epochs_archive(folder)
    settings = Settings(archive=Archive(uri=f"file://{folder}"))
    app = create_app(catalogued(settings))
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()
    app.extensions["cutout_reader"].close()


@pytest.mark.parametrize(("page", "least"), SNIPPETS.items())
def test_the_snippets_of_each_page_are_found(page: str, least: int) -> None:
    if not PAGES.is_dir():
        pytest.skip("the folder of the pages for users, ../shared/today, is not here")
    assert len(snippets(page)) >= least


@pytest.mark.parametrize("page", SNIPPETS)
def test_every_snippet_of_a_page_runs(
    address: str, page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plt, "show", lambda: plt.close("all"))
    # What the pages say comes before: the imports of the first snippet, and where the service is.
    names: dict[str, Any] = {"requests": requests, "URL": address, "HDFS_PATH": NIGHT}
    for snippet in snippets(page):
        code = ADDRESSES.sub(address, snippet.code)
        if snippet.language == "python":
            _forget_files_of_other_tabs(code)
            exec(compile(code, page, "exec"), names)
            _check_answer(names.get("r"), code)
        else:
            code = code.replace(":HDFS_PATH", f':"{NIGHT}"').replace("    URL/", f"    {address}/")
            before = set(tmp_path.iterdir())
            subprocess.run(["bash", "-ec", code], check=True, capture_output=True, timeout=60)
            for file in set(tmp_path.iterdir()) - before:
                _check_file(file)


def _forget_files_of_other_tabs(code: str) -> None:
    """Remove what the same example in another language has written: a user chooses one of them."""
    for name in re.findall(r"writeto\('([^']+)'\)", code):
        Path(name).unlink(missing_ok=True)


def _check_answer(response: requests.Response | None, code: str) -> None:
    if response is not None:
        assert response.status_code == 200, (response.text, code)
        assert response.content not in (b"[]", b""), code


def _check_file(file: Path) -> None:
    content = file.read_bytes()
    begins = {
        ".csv": b'"i:objectId"',
        ".json": b'[{"i:objectId":"ZTF',
        ".fits": b"SIMPLE",
        ".png": b"\x89PNG",
    }
    assert content.startswith(begins[file.suffix]), (file.name, content[:200])


def test_the_selection_of_columns_gives_these_alone(address: str) -> None:
    answer = requests.post(
        f"{address}/api/v1/objects",
        json={"objectId": "ZTF21aaxtctv", "columns": "i:jd,i:magpsf,i:sigmapsf"},
    )
    assert list(answer.json()[0]) == ["i:jd", "i:magpsf", "i:sigmapsf"]
