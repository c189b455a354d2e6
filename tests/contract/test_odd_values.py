"""Whatever JSON can carry, in every parameter of every route: refused or answered, never a 5xx."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from flask.testing import FlaskClient

from cutout_api.batch_request import BATCH_PARAMETERS
from cutout_api.request import IDENTIFY_PARAMETERS, INFO_PARAMETERS, PARAMETERS
from cutout_api.table_request import SCHEMA_PARAMETERS, TABLE_PARAMETERS

from ..archive import NIGHT, SampleArchive

FILE = f"{NIGHT}/part-00000.snappy.parquet"
GOOD = "2656254792815010000"
STAMP = {"candid": GOOD, "kind": "Science", "hdfsPath": FILE}

# As they stand in the body: no writer of JSON makes all of these.
ODD = (
    r'"\ud800"',
    r'"\udfff\ud800"',
    r'["\ud800"]',
    r'[["\ud800"]]',
    r'["a", "\udc00b"]',
    r'{"\ud800": 1}',
    r'[{"\ud800": "\ud800"}]',
    r'"\u0000"',
    r'["\u0000"]',
    r'"\ufffe\uffff"',
    r'"\r\nX-Evil: 1"',
    r'["\r\nX-Evil: 1"]',
    '"\U0001f600"',
    r'"\ud83d\ude00"',
    "1e999999",
    "-1e999999",
    "1e-999999",
    "-0.0",
    "1" * 4200,
    "-" + "9" * 4200,
    "1" * 5000,
    "NaN",
    "Infinity",
    "[NaN]",
    '"NaN"',
    '"inf"',
    '"-Infinity"',
    '"nan"',
    "true",
    "[true, false, null]",
    "null",
    '""',
    '" "',
    "[]",
    "[[]]",
    "{}",
    "[{}]",
    '{"a": [1]}',
    "[" * 900 + "]" * 900,
    "[" * 5000,
    "1.5",
    "[1.5]",
    f'"{"x" * 60000}"',
    f'["{"x" * 60000}"]',
    f'"{"1" * 60000}"',
    f'"{"," * 60000}"',
    f'"{" " * 60000}"',
    '"1_0"',
    '"٣"',
    '["٣"]',
    '"0x10"',
    '"\u0661e\u0663"',
    '"/"',
    '"//"',
    '"2024-11-14/2024-11-15/"',
    '"%s%n"',
    r'"\\"',
    '"*"',
    '["*"]',
    '"all"',
)
ROUTES: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "stamp": ("/api/v1/cutouts", STAMP, tuple(PARAMETERS)),
    "epochs": (
        "/api/v1/cutouts",
        {"objectId": "ZTF24aaaaaaa", "kind": "Science", "hdfsPath": FILE, "epochs": "all"},
        tuple(PARAMETERS),
    ),
    "batch": ("/api/v1/cutouts/batch", STAMP | {"candid": [GOOD]}, tuple(BATCH_PARAMETERS)),
    "objects": (
        "/api/v1/objects",
        {"objectId": "ZTF24aaaaaaa"},
        tuple(TABLE_PARAMETERS["objects"]),
    ),
    "sources": ("/api/v1/sources", {"diaObjectId": "1"}, tuple(TABLE_PARAMETERS["sources"])),
}


@pytest.mark.parametrize("name", ROUTES)
def test_no_value_of_any_parameter_is_a_failure_of_the_service(
    client: FlaskClient, name: str
) -> None:
    route, good, parameters = ROUTES[name]
    for parameter in (*parameters, r"\ud800", r"\u0000", "x" * 5000, r"\r\nX-Evil: 1"):
        for odd in ODD:
            members = [
                f"{json.dumps(n)}: {json.dumps(v)}" for n, v in good.items() if n != parameter
            ]
            body = "{" + ", ".join([*members, f'"{parameter}": {odd}']) + "}"
            response = client.post(route, data=body.encode(), content_type="application/json")
            content = response.data  # all of what is streamed
            at_fault = f"{route} {parameter} {odd[:60]}: {content[:300]!r}"
            assert response.status_code in (200, 400, 403, 404, 413), at_fault
            assert sum(len(n) + len(v) for n, v in response.headers) < 8000, at_fault
            if response.status_code != 200:
                assert response.mimetype == "application/problem+json", at_fault
                assert len(content) < 8000, at_fault
                response.json["detail"].encode()


@pytest.mark.parametrize(
    ("route", "parameters"),
    [
        ("/api/v1/cutouts", tuple(PARAMETERS)),
        ("/api/v1/cutouts/info", INFO_PARAMETERS),
        ("/api/v1/identify", tuple(IDENTIFY_PARAMETERS)),
        ("/api/v1/schema", tuple(SCHEMA_PARAMETERS)),
        ("/api/v1/columns", tuple(SCHEMA_PARAMETERS)),
        ("/api/v1/objects", tuple(TABLE_PARAMETERS["objects"])),
        ("/", ("id", "hdfsPath")),
        ("/plain", ("id", "hdfsPath")),
        ("/gallery", ("id",)),
        ("/healthz", ("id",)),
    ],
)
def test_no_value_in_an_address_is_a_failure_of_the_service(
    client: FlaskClient, route: str, parameters: tuple[str, ...]
) -> None:
    odd = (
        "%ED%A0%80",
        "%FF",
        "%00",
        "%0D%0AX-Evil:1",
        "%",
        "%u1234",
        "1" * 7900,
        "1" * 7900 + "x",
        "%F0%9F%98%80",
    )
    for parameter in (*parameters, "%ED%A0%80", "%00"):
        for value in odd:
            response = client.get(f"{route}?{parameter}={value}")
            assert response.status_code in (200, 400, 403, 404), (route, parameter, value)
            assert "X-Evil" not in response.headers


BAD: tuple[Any, ...] = (
    "\ud800",
    "\udfffx",
    1.5,
    1e300,
    None,
    True,
    [],
    [["x"]],
    {"a": "\ud800"},
    "x" * 100_000,
    10**4200,
    "\0",
    "",
    "a,b",
    "\r\n",
)


def _codes(package: str, content: bytes) -> list[str | None]:
    """Return the code of each item's error, None for what is none, read by another program."""
    if package == "ndjson":
        lines = [json.loads(line) for line in content.splitlines()]
        return [line.get("error", {}).get("code") for line in lines]
    if package == "arrow":
        table = pa.ipc.open_stream(content).read_all()
        return list(table.column("code").to_pylist())
    if package == "parquet":
        return list(pq.read_table(io.BytesIO(content)).column("code").to_pylist())
    if package == "npz":
        return [str(code) or None for code in np.load(io.BytesIO(content))["errors"]]
    if package == "zip":
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            files = {name: packed.read(name) for name in packed.namelist()}
    else:
        with tarfile.open(fileobj=io.BytesIO(content)) as opened:
            files = {name: opened.extractfile(name).read() for name in opened.getnames()}
    assert len(files) == 2 * len(BAD) + 1
    return [
        json.loads(held)["code"] if name.endswith(".error.json") else None
        for name, held in files.items()
    ]


@pytest.mark.parametrize("package", ["ndjson", "zip", "tar", "arrow", "parquet", "npz"])
def test_no_item_ends_a_batch(client: FlaskClient, archive: SampleArchive, package: str) -> None:
    ids = [GOOD, *(item for bad in BAD for item in (bad, GOOD))]
    body = json.dumps(STAMP | {"candid": ids, "package": package})
    response = client.post(
        "/api/v1/cutouts/batch", data=body.encode(), content_type="application/json"
    )
    assert response.status_code == 200
    assert _codes(package, response.data) == [None] + ["invalid_parameter", None] * len(BAD)
