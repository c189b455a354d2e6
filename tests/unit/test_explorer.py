"""What the page at / is made of: examples, what an id names, colormaps, links."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib
import numpy as np
import pytest

import cutout_api
from cutout_api import explorer
from cutout_api.catalog import Catalog
from cutout_api.errors import CatalogUnavailable, InvalidParameter, MissingParameter
from cutout_api.explorer import Example, Examples, list_abilities, list_figures
from cutout_api.request import parse_identify_request
from cutout_api.surveys import CURVES, SURVEYS, TABLES

STATIC = Path(cutout_api.__file__).parent / "static" / "explorer"


def test_the_page_s_colormaps_are_matplotlib_s() -> None:
    text = (STATIC / "colormaps.js").read_text()
    tables = re.findall(r"^  (\w+):\n((?: {4}\"[0-9a-f]+\" ?[+,]\n)+)", text, re.MULTILINE)
    assert len(tables) == 5
    for name, lines in tables:
        held = bytes.fromhex("".join(re.findall(r'"([0-9a-f]+)"', lines)))
        colours = matplotlib.colormaps[name](np.arange(256), bytes=True)[:, :3]
        assert held == np.asarray(colours, np.uint8).tobytes(), name


def test_every_survey_has_a_light_curve_of_a_table_that_there_is() -> None:
    assert set(CURVES) == {survey.name for survey in SURVEYS}
    for curve in CURVES.values():
        assert curve.table.removeprefix("/api/v1/") in TABLES


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("ZTF24abssjsb", ["objectId"]),
        (" 169936132527095844 ", ["candid", "candid", "diaSourceId", "diaObjectId"]),
        ("169936132527095844_cutoutScience", ["candid", "candid", "diaSourceId", "diaObjectId"]),
    ],
)
def test_an_id_means_what_its_form_allows(given: str, names: list[str]) -> None:
    asked = parse_identify_request({"id": given})
    assert [meaning.key.name for meaning in asked.meanings] == names


@pytest.mark.parametrize(
    "given", ["ZTF24ABSSJS", "ZTF1", "1.5", "1e3", "9" * 19, "x", "\0", "\uff11", "0", "-5"]
)
def test_what_is_no_id_is_refused(given: str) -> None:
    with pytest.raises(InvalidParameter, match="id must be"):
        parse_identify_request({"id": given})


def test_an_id_is_needed() -> None:
    with pytest.raises(MissingParameter):
        parse_identify_request({"id": ""})


class FailingCatalog(Catalog):
    def __init__(self) -> None:
        self.asked = 0

    def examples(self, survey: object, count: int = 3) -> list[int | str]:
        self.asked += 1
        raise CatalogUnavailable("it does not answer")


def test_a_catalog_that_fails_leaves_the_page_without_examples_and_is_not_asked_again() -> None:
    catalog = FailingCatalog()
    examples = Examples(catalog)
    assert examples.get() == examples.get() == ()
    assert catalog.asked == 1


class OneObject(FailingCatalog):
    def examples(self, survey: object, count: int = 3) -> list[int | str]:
        self.asked += 1
        return ["ZTF24abssjsb"] if survey is SURVEYS[0] else []


def test_examples_are_looked_up_anew_after_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = OneObject()
    examples, now = Examples(catalog), [0.0]
    monkeypatch.setattr(explorer.time, "monotonic", lambda: now[0])
    assert examples.get() == (Example("ztf", "objectId", "ZTF24abssjsb"),)
    assert examples.get()
    assert catalog.asked == len(SURVEYS)
    now[0] = 61.0
    assert examples.get()
    assert catalog.asked == 2 * len(SURVEYS)


def test_without_examples_links_lead_to_the_documentation() -> None:
    links = [
        address
        for abilities in list_abilities(()).values()
        for ability in abilities
        for _, address in ability["links"]
    ]
    assert set(links) == {"/docs", "/api/v1/schema", "/api/v1/columns"}
    assert list_figures(()) == []
