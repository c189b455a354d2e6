"""One more survey is one more file: what was made before it was known is brought up to date.

A copy of the package, of links, gets a file more, and processes of their own import it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

import cutout_api
from cutout_api.catalog import database_url

from ..samples import KINDS, WINTER_SCHEMA, ZTF_SCHEMA, stored_fits, winter_alert, write, ztf_alert

PACKAGE = Path(cutout_api.__file__).parent

# Its ids are called as ZTF's and WINTER's are, or as nobody's; its stamps as ZTF's.
SURVEY = """
from .model import KINDS, STAMP_RULES, Curve, Key, Rule, Survey, View, parse_int64

SURVEY = Survey(
    name="newest",
    since=2030,
    alert_key=Key("detection", ("detection",), parse_int64, "Id of a detection.", "12"),
    object_key=Key("star", ("star",), parse_int64, "Id of a star.", "34"),
    moving_key=None,
    time_columns=("mjd",),
    stamp_columns=("cutout{kind}.stampData",),
    id_names=("detection", "star"),
    file_key="detection",
    response_key="b:{lower}",
    time_scale="tai",
    mjd_offset=0.0,
    band_columns=("filter",),
    bands={"W": "W", "F": "F"},
    brightness_columns=("flux",),
    brightness_unit="nJy",
    ra_columns=("ra",),
    dec_columns=("dec",),
    sign_columns=("positive",),
    signs={True: True, False: False},
    sky_matrix=None,
    planes={},
    difference_follows_sign=False,
)
ALERTS = View(
    survey=SURVEY,
    title="the detections of stars",
    rules=(*STAMP_RULES,),
    rest="n:",
    least=(("n:star", "int64"), ("n:detection", "int64")),
    time_name="n:mjd",
)
TABLES = {"objects": ALERTS, "sources": ALERTS}
CURVE = Curve("/api/v1/sources", {"alert": "n:detection", "time": "n:mjd", "band": "n:filter",
                                  "value": "n:flux"})
"""
SCHEMA = pa.schema(
    [
        ("star", pa.int64()),
        ("detection", pa.int64()),
        ("mjd", pa.float64()),
        ("filter", pa.string()),
        ("flux", pa.float64()),
        *(ZTF_SCHEMA.field(f"cutout{kind}") for kind in KINDS),
    ]
)
ROWS = [
    {**ztf_alert(500 + n), "star": 77, "detection": 9000 + n, "mjd": 62_000.5 + n}
    | {"filter": "WF"[n % 2], "flux": 100.0 * (n + 1)}
    for n in range(4)
]

INDEX = """
import sys
from cutout_api.indexing import open_indexer
from cutout_api.settings import load_settings
pages = sys.argv[1:] == ["pages"]
with open_indexer(load_settings(), blocks=False, jobs=1, pages=pages) as indexer:
    outcomes = indexer.run(indexer.plan())
    indexer.note_walk()
    print(*sorted(f"{it.path.rpartition('/')[2]}={it.state}" for it in outcomes))
"""
ASK = """
import json, sys
from cutout_api.settings import load_settings
from cutout_api.web import create_app
client = create_app(load_settings()).test_client()
answers = []
for path, arguments in json.load(sys.stdin):
    response = client.get(path, query_string=arguments)
    told = response.json if response.is_json else response.data.hex()[:200]
    answers.append([response.status_code, response.headers.get("X-Cutout-Survey"), told])
json.dump(answers, sys.stdout)
"""


@dataclass
class World:
    folder: Path
    catalog_url: str
    grown: Path
    """The package with a file more."""

    def run(self, code: str, *arguments: str, known: bool, sent: object = None) -> str:
        """Run ``code`` with the new survey ``known``, or as it was before."""
        environment = os.environ | {
            "PYTHONPATH": str(self.grown.parent if known else PACKAGE.parent),
            "CUTOUT_API_ARCHIVE_URI": str(self.folder),
            "CUTOUT_API_CATALOG_URL": self.catalog_url,
            "CUTOUT_API_INDEX_FOLDER": str(self.grown.parent / "indexes"),
        }
        ended = subprocess.run(
            [sys.executable, "-P", "-c", code, *arguments],
            input=json.dumps(sent),
            env=environment,
            cwd=self.grown.parent,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.strip()

    def ask(self, *requests: tuple[str, dict[str, Any]], known: bool = True) -> list[Any]:
        found: list[Any] = json.loads(self.run(ASK, known=known, sent=requests))
        return found


@pytest.fixture
def world(tmp_path: Path) -> World:
    grown = tmp_path / "grown" / "cutout_api"
    (grown / "surveys").mkdir(parents=True)
    for source, target in ((PACKAGE, grown), (PACKAGE / "surveys", grown / "surveys")):
        for entry in source.iterdir():
            if entry.name not in ("surveys", "__pycache__"):
                (target / entry.name).symlink_to(entry)
    (grown / "surveys" / "newest.py").write_text(SURVEY)
    folder = tmp_path / "archive"
    write(folder / "ztf.parquet", [ztf_alert(n) for n in range(3)], ZTF_SCHEMA)
    write(folder / "winter.parquet", [winter_alert(n) for n in range(3)], WINTER_SCHEMA)
    write(folder / "newest.parquet", ROWS, SCHEMA)
    return World(folder, f"sqlite:///{tmp_path / 'catalog.sqlite'}", grown)


@pytest.fixture
def anywhere(world: World, catalog_url: str) -> World:
    """The same with each kind of database in turn."""
    return replace(world, catalog_url=catalog_url)


CUTOUTS = "/api/v1/cutouts"
ASKED = {"detection": 9002, "kind": "Template", "return_type": "FITS"}


def test_a_survey_is_one_file(anywhere: World) -> None:
    # Cataloged, and indexes stored, by a service that has not heard of it.
    assert anywhere.run(INDEX, "pages", known=False) == (
        "newest.parquet=unknown-schema winter.parquet=ok ztf.parquet=ok"
    )
    status, *_ = anywhere.ask((CUTOUTS, {"candid": ztf_alert(1)["candid"], "kind": "Science"}))[0]
    assert status == 200

    # Known, but not in the catalog yet: an answer that says so, and pages without its examples.
    path = {"hdfsPath": "newest.parquet"}
    answers = anywhere.ask(
        (CUTOUTS, ASKED),
        ("/", {}),
        (CUTOUTS, ASKED | path),
        ("/api/v1/objects", {"star": 77}),
        (CUTOUTS, {"star": 77, "kind": "Template", "which": "first"} | path),
    )
    assert [it[0] for it in answers] == [404, 200, 200, 200, 200]
    assert answers[0][2]["code"] == "alert_not_found"
    assert bytes.fromhex(answers[2][2]) == stored_fits(ROWS[2], "Template")[:100]
    assert answers[3][2] == []

    # And back again: the service as it was does not choke on what this one stored.
    given = {"candid": ztf_alert(1)["candid"], "kind": "Science", "hdfsPath": "ztf.parquet"}
    assert anywhere.ask((CUTOUTS, given), known=False)[0][0] == 200

    # What is read anew is what may hold its alerts; then there is nothing to do.
    assert anywhere.run(INDEX, known=True) == "newest.parquet=ok"
    assert anywhere.run(INDEX, known=True) == ""
    found = anywhere.ask(
        (CUTOUTS, ASKED),
        ("/api/v1/sources", {"star": 77}),
        ("/api/v1/identify", {"id": 9001}),
        (f"{CUTOUTS}/info", {"detection": 9003}),
        (CUTOUTS, {"detection": 9000, "kind": "All", "output-format": "array"}),
        *((page, {}) for page in ("/", "/try", "/gallery", "/docs", "/openapi.json")),
    )
    assert [it[0] for it in found] == [200] * len(found)
    assert found[0][1] == "newest"
    assert [row["n:detection"] for row in found[1][2]] == [9003, 9002, 9001, 9000]
    assert [match["survey"] for match in found[2][2]["matches"]] == ["newest"]
    assert list(found[4][2]) == ["b:science", "b:template", "b:difference"]
    described = {it["name"] for it in found[-1][2]["paths"][CUTOUTS]["get"]["parameters"]}
    assert {"star", "detection", "objectId", "diaSourceId"} <= described

    # Keys of three surveys at once.
    three = {"objectId": "ZTF24aaaaaaa", "diaSourceId": 5, "detection": 6, "kind": "Science"}
    two = {"objectId": "ZTF24aaaaaaa", "star": 5}
    for status, _, problem in anywhere.ask((CUTOUTS, three), ("/api/v1/objects", two)):
        assert (status, problem["code"]) == (400, "conflicting_parameters")


def test_files_that_were_taken_for_another_survey_s_are_looked_at_again(world: World) -> None:
    assert "winter.parquet=ok" in world.run(INDEX, known=True)
    engine = sa.create_engine(database_url(world.catalog_url))
    with engine.begin() as connection:
        # As a service leaves it that knows ZTF alone, whose columns are called the same.
        connection.execute(sa.text("DROP TABLE file_recognised"))
        connection.execute(sa.text("DROP TABLE alert_winter"))
        connection.execute(sa.text("UPDATE file SET survey = 'ztf' WHERE survey = 'winter'"))
    engine.dispose()
    asked = {"candid": winter_alert(1)["candid"], "kind": "Science"}
    assert world.ask((CUTOUTS, asked))[0][0] == 404
    assert world.run(INDEX, known=True) == "winter.parquet=ok ztf.parquet=ok"
    assert world.run(INDEX, known=True) == ""
    (answer,) = world.ask((CUTOUTS, asked))
    assert answer[:2] == [200, "winter"]
    table = pq.read_table(world.folder / "winter.parquet")
    assert table.num_rows == 3
