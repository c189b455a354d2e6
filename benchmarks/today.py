"""The algorithm of the service that exists today, written anew and as small as it is.

Connect, read whole columns with a filter, gunzip, ``fits.open``, ``jsonify``. As a service it runs
under gunicorn with the settings that ours has (``today_server``); ``BENCH_KEEP`` keeps the
connection, which the service that exists does not.
"""

from __future__ import annotations

import gzip
import io
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from astropy.io import fits
from flask import Flask, Response, jsonify, request, send_file
from PIL import Image
from pyarrow import fs

from .datasets import GZIP_MAGIC, KEYS
from .places import Place


def read_cells(
    filesystem: fs.FileSystem, path: str, keys: dict[str, Any], kinds: Sequence[str]
) -> list[bytes]:
    """Return the stored stamps of an alert: whole columns are read, then filtered."""
    columns = [next(iter(keys)), *(f"cutout{kind}" for kind in kinds)]
    filters = [[name, "=", value] for name, value in keys.items()]
    table = pq.read_table(path, columns=columns, filters=filters, filesystem=filesystem)
    found = table.to_pydict()
    cells = [found[column][0] for column in columns[1:]]
    return [cell["stampData"] if isinstance(cell, dict) else cell for cell in cells]


def open_stamp(cell: bytes) -> fits.HDUList:
    if cell.startswith(GZIP_MAGIC):
        with gzip.open(io.BytesIO(cell), "rb") as packed:
            cell = packed.read()
    return fits.open(io.BytesIO(cell), ignore_missing_simple=True)


def to_list(cell: bytes) -> list[list[float]]:
    with open_stamp(cell) as hdus:
        rows: list[list[float]] = hdus[0].data.tolist()
    return rows


def to_fits(cell: bytes) -> io.BytesIO:
    written = io.BytesIO()
    with open_stamp(cell) as hdus:
        hdus.writeto(written, output_verify="silentfix+ignore")
    written.seek(0)
    return written


def to_png(cell: bytes) -> io.BytesIO:
    """Draw as the public service does: sigmoid, grayscale."""
    with open_stamp(cell) as hdus:
        pixels = np.nan_to_num(hdus[0].data.astype(np.float64))
    bright = 1 / (1 + np.exp(-(pixels - pixels.mean()) / pixels.std()))
    written = io.BytesIO()
    Image.fromarray((bright * 255).astype(np.uint8)).save(written, format="PNG")
    written.seek(0)
    return written


WRITERS: dict[str, Callable[[bytes], Response]] = {
    "array": lambda cell: jsonify([to_list(cell)]),
    "FITS": lambda cell: send_file(to_fits(cell), mimetype="application/octet-stream"),
    "PNG": lambda cell: send_file(to_png(cell), mimetype="image/png"),
}


def create_app() -> Flask:
    """Return the minimal service; ``BENCH_URI`` and ``BENCH_USER`` say where the files are."""
    app = Flask(__name__)
    place = Place(os.environ["BENCH_URI"], "", "", "", os.environ.get("BENCH_USER", ""))
    keep = bool(os.environ.get("BENCH_KEEP"))
    kept: list[fs.FileSystem] = []

    def connection() -> fs.FileSystem:
        if not keep:
            return place.connect()
        if not kept:
            kept.append(place.connect())
        return kept[0]

    @app.get("/healthz")
    def healthz() -> Response:
        return jsonify(status="ok")

    @app.post("/api/v1/cutouts")
    def cutouts() -> Response:
        asked = request.get_json()
        survey = "ztf" if "objectId" in asked else "lsst"
        keys = {
            name: asked[name] if name == "objectId" else int(asked[name])
            for name in KEYS[survey]
            if name in asked
        }
        (cell,) = read_cells(connection(), asked["hdfsPath"], keys, [asked["kind"]])
        return WRITERS[asked.get("return_type", "array")](cell)

    return app
