"""The gallery has a picture of every option, and the pages show pictures that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cutout_api.formatter import FORMATS
from cutout_api.presets import PRESETS
from cutout_api.render import INTERVALS, MANUAL, STRETCHES
from cutout_api.request import PARAMETERS
from cutout_api.views import PLANES, SIGNS

DOCS = Path(__file__).parents[2] / "docs"
GALLERY = DOCS / "gallery"
# Not drawn: which alert, which file, and what is no picture.
NOT_SHOWN = {"hdfsPath", "return_type", "wcs", "explain", "which", "date", "mjd"}
NOT_SHOWN |= {"strict", "nan"}
SHOWN_AS = {"output-format": "format-PNG", "pmin": "pmin-pmax", "pmax": "pmin-pmax"}
SHOWN_AS |= {"vmin": "vmin-vmax", "vmax": "vmin-vmax", "size": "zoom-3", "epochs": "epochs-ztf"}
SHOWN_AS |= {"band": "epochs-ztf", "labels": "labels-some"}
KEYS = {"objectId", "candid", "diaSourceId", "diaObjectId"}


def shown() -> set[str]:
    return {file.stem for file in GALLERY.iterdir()}


@pytest.mark.parametrize("name", [name for name in PARAMETERS if name not in NOT_SHOWN | KEYS])
def test_every_option_has_a_picture(name: str) -> None:
    wanted = SHOWN_AS.get(name, f"{name}-")
    assert any(stem.startswith(wanted) for stem in shown()), f"draw {name}: make gallery"


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("preset", list(PRESETS)),
        ("interval", [name for name in INTERVALS if name != MANUAL]),
        ("stretch", list(STRETCHES)),
        ("plane", list(PLANES)),
        ("diffsign", list(SIGNS)),
        ("format", [name for name, known in FORMATS.items() if known.is_picture]),
    ],
)
def test_every_value_of_these_has_a_picture(name: str, values: list[str]) -> None:
    assert {f"{name}-{value}" for value in values} <= shown()


@pytest.mark.parametrize("page", ["gallery.md", "api.md"])
def test_the_pages_show_pictures_that_are_there(page: str) -> None:
    found = re.findall(r"!\[[^]]*\]\((\S+?)\)", (DOCS / page).read_text())
    assert found
    assert [name for name in found if not (DOCS / name).is_file()] == []


def test_the_api_page_documents_every_option_and_preset() -> None:
    text = (DOCS / "api.md").read_text()
    assert [name for name in PARAMETERS if f"`{name}`" not in text] == []
    for name, preset in PRESETS.items():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{name}`"))
        for parameter, value in preset.values.items():
            number = value if isinstance(value, str) else f"{value:g}"
            assert f"{parameter}={number}" in row


def test_every_picture_is_shown_and_all_of_them_are_small() -> None:
    text = (DOCS / "gallery.md").read_text()
    assert [file.name for file in GALLERY.iterdir() if f"gallery/{file.name}" not in text] == []
    assert sum(file.stat().st_size for file in GALLERY.iterdir()) < 2_000_000
