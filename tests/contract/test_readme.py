"""The README's commands give what it says, on the archive that `make run` makes."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import nbformat
import numpy as np
import pytest
from astropy.io import fits
from nbclient import NotebookClient
from PIL import Image

from ..service import Service, running_service

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
ADDRESS = "http://127.0.0.1:24000"
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
CURLS = [text for language, text in BLOCKS if language == "bash" and "curl" in text]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The demo archive, made and served by the commands that `make run` uses."""
    folder = tmp_path_factory.mktemp("readme") / "demo-archive"
    environment = {
        "CUTOUT_API_ARCHIVE_URI": str(folder),
        "CUTOUT_API_CATALOG_URL": f"sqlite:///{folder.parent / 'catalog.sqlite'}",
    }
    command = [sys.executable, "-m", "cutout_api", "demo", folder]
    subprocess.run(command, check=True, env=os.environ | environment)
    with running_service(environment) as service:
        yield service


def test_there_is_a_curl_for_each_format() -> None:
    names = [Path(shlex.split(text)[-1]).suffix for text in CURLS]
    assert names == [".json", ".fits", ".png", ".png", ".npz", ".csv"]


@pytest.mark.parametrize("text", CURLS)
def test_each_curl_gives_what_the_readme_says(service: Service, text: str, tmp_path: Path) -> None:
    command = text.replace(ADDRESS, service.address)
    subprocess.run(["bash", "-ec", command], cwd=tmp_path, check=True, capture_output=True)
    (file,) = tmp_path.iterdir()
    said = README.split(text)[1].split("```")[1].split("```")[0]
    content = file.read_bytes()
    if file.suffix == ".json":
        assert "63 rows of 63 numbers" in said
        assert np.shape(json.loads(content)) == (1, 63, 63)
    elif file.suffix == ".csv":
        first, *rows = content.decode().splitlines()
        assert "the names of the four columns" in said
        assert len(first.split(",")) == 4
        assert rows
    elif file.suffix == ".npz":
        assert "`stamps` of shape (2, 63, 63, 3)" in said
        stamps = np.load(io.BytesIO(content))["stamps"]
        assert stamps.shape == (2, 63, 63, 3)
        assert np.isfinite(stamps).any()
    elif file.suffix == ".fits":
        assert "one 63 x 63 image" in said
        hdus = fits.open(io.BytesIO(content), ignore_missing_simple=True)
        assert [hdu.data.shape for hdu in hdus] == [(63, 63)]
    else:
        width, height = map(int, re.search(r"(\d+) x (\d+) pixels", said).groups())
        assert Image.open(io.BytesIO(content)).size == (width, height)


def test_the_notebook_example_runs(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = (text for language, text in BLOCKS if language == "python")
    names: dict[str, object] = {}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    exec(code.replace(ADDRESS, service.address), names)
    assert names["cutout"].array.shape == (63, 63)
    assert list(tmp_path.rglob("*"))  # what was answered is kept where it was said


def test_the_command_for_files_writes_them(service: Service, tmp_path: Path) -> None:
    (text,) = (text for language, text in BLOCKS if "cutout_api get" in text)
    command = text.replace(".venv/bin/cutout_api", f"{sys.executable} -m cutout_api")
    command = command.strip() + f" --url {service.address}"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(["bash", "-ec", command], cwd=tmp_path, check=True, env=environment)
    assert {file.name for file in (tmp_path / "stamps").iterdir()} == {
        "ZTF26efbhfef_All.fits",
        "214589538595504195_All.fits",
    }


def test_the_demo_prints_a_curl_that_works(service: Service, tmp_path: Path) -> None:
    folder = tmp_path / "demo-archive"
    printed = subprocess.run(
        [sys.executable, "-m", "cutout_api", "demo", folder],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ
        | {
            "CUTOUT_API_SERVER_PORT": str(service.port),
            "CUTOUT_API_CATALOG_URL": f"sqlite:///{tmp_path / 'catalog.sqlite'}",
        },
    ).stdout
    commands = re.findall(r"^  (curl .+)$", printed, re.MULTILINE)
    assert "hdfsPath" not in printed
    assert len(commands) == 2
    for command in commands:
        subprocess.run(["bash", "-ec", command], cwd=tmp_path, check=True, capture_output=True)
    for name in ("ztf.png", "lsst.png"):
        image = Image.open(tmp_path / name)
        assert image.width == 3 * image.height


NOTEBOOK = ROOT / "docs" / "notebook.ipynb"


def test_the_notebook_runs(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert ADDRESS in notebook.cells[1].source  # what it asks where nothing else is said
    monkeypatch.setenv("CUTOUT_SERVICE", service.address)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name in ("XDG_CACHE_HOME", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    # Not under the new one: matplotlib complains where it takes long to list the fonts.
    monkeypatch.setenv("MPLCONFIGDIR", matplotlib.get_configdir())
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = {
        cell.source.splitlines()[-1]: [
            output.data for output in cell.outputs if output.output_type != "stream"
        ]
        for cell in notebook.cells
        if cell.cell_type == "code"
    }
    assert all("text/html" in shown[last][0] for last in ("alerts", "stamps", "epochs"))
    for picture in ("stamps", "epochs", "stamps.plot();", 'plt.ylabel("difference magnitude");'):
        assert "image/png" in shown[picture][0]
    assert re.fullmatch(r"\(\d+, 63, 63, 3\)", shown["cube.shape"][0]["text/plain"])
    assert "<SkyCoord (ICRS)" in shown["science.wcs.pixel_to_world(x, y)"][0]["text/plain"]
    warned = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert not [output for output in warned if output.get("name") == "stderr"]


def test_the_notebook_is_kept_without_its_outputs() -> None:
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_every_link_leads_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name} links to {target}"
