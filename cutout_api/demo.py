"""A simulated archive of both surveys, for people who have none at hand, for tests and benchmarks.

The schemas, ids, FITS cards, gzip headers, page layouts and value ranges are those of real alert
files; the sky is invented (``sky.py``).

    make_archive      nights of alerts, laid out as an archive
    simulate_ztf      a table of ZTF alerts
    simulate_lsst     a table of LSST alerts
    write_file        a table -> a parquet file as Spark or as pyarrow write it

Everything follows from the seed.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .sky import (
    CAMERAS,
    DETECTION,
    MARGINAL,
    MJD_OF_UNIX_EPOCH,
    PIXEL_VARIANCE,
    PSF,
    SURVEY_TABLES,
    Alert,
    Array,
    Epoch,
    Row,
    Target,
    Visit,
    day_of,
    flux_of,
    load_json,
    observe,
)
from .surveys import KINDS, SURVEYS

START = date(2026, 9, 11)
JD_OF_MJD_ZERO = 2400000.5
JD_OF_ZTF_NIGHT_ZERO = 2457754.5  # 2017-01-01
TAI_MINUS_UTC_DAYS = 37 / 86400


# --- Schemas ----------------------------------------------------------------------------------


@cache
def read_schema(name: str) -> pa.Schema:
    """Return the Arrow schema of ``ztf``, ``lsst_v7`` or ``lsst_v10`` alerts, all nullable.

    The files hold one member per column: a type, an object for a struct, a list of one for a
    list; a name in such a list stands for the type of that column.
    """
    types: dict[str, pa.DataType] = {}

    def parse(spec: Any) -> pa.DataType:
        if isinstance(spec, dict):
            return pa.struct([pa.field(key, parse(value)) for key, value in spec.items()])
        if isinstance(spec, list):
            return pa.list_(pa.field("element", types.get(str(spec[0])) or parse(spec[0])))
        return {"timestamp[ns]": pa.timestamp("ns")}.get(spec) or pa.type_for_alias(spec)

    for column, spec in load_json(name).items():
        types[column] = parse(spec)
    return pa.schema(types.items())


# --- FITS -------------------------------------------------------------------------------------

# The headers of real stamps, byte for byte: ZTF's has the value of SIMPLE in the wrong column,
# LSST's no CTYPE.
CARDS: dict[str, list[str]] = load_json("cards")
UTYPE = "UTYPE   = 'VarianceUncertainty'"
FITS_BLOCK = 2880


def write_hdu(cards: Iterable[str], pixels: Array, **values: Any) -> bytes:
    """Return one FITS unit; cards that come out empty are left out."""
    ny, nx = pixels.shape
    written = [card.format(nx=nx, ny=ny, **values) for card in cards]
    header = "".join(card.ljust(80) for card in (*written, "END") if card).encode("ascii")
    data = pixels.astype(pixels.dtype.newbyteorder(">")).tobytes()
    fill_header, fill_data = (-len(part) % FITS_BLOCK for part in (header, data))
    return header + b" " * fill_header + data + bytes(fill_data)


def decimal(value: float) -> str:
    """Return a number as wcslib writes it into a card."""
    text = f"{value:.14G}"
    return text if "." in text or "E" in text else text + ".0"


def write_ztf_stamp(alert: Alert, kind: str, created: int) -> bytes:
    """Return a gzipped FITS file, as the alert packet ships it."""
    target, pixels = alert.target, alert.picture.images[kind].astype(np.float32)
    if kind == "Difference" and alert.epoch.flux < 0:
        pixels = -pixels  # template minus science: what is seen is bright in it
    if target.edge:
        lost = slice(None, target.edge) if target.side % 2 == 0 else slice(-target.edge, None)
        pixels[(slice(None), lost) if target.side < 2 else lost] = np.nan
    if target.block:
        row, column = target.block
        pixels[row : row + 13, column : column + 12] = np.nan
    packed = gzip.compress(write_hdu(CARDS["ztf"], pixels), 9, mtime=created)
    return packed[:9] + b"\x03" + packed[10:]  # made on Unix


def write_lsst_stamp(alert: Alert, kind: str, *, rotpa: bool) -> bytes:
    """Return a FITS file of three units: nJy, their variance, and the PSF."""
    picture, epoch = alert.picture, alert.epoch
    x, y = picture.frame.centre
    # Inverse of a reflection times a scale: from pixels to degrees.
    matrix = np.linalg.inv(picture.frame.to_pixels) / 3600
    # The telescope's word, a little off what the stars say.
    angle = round((epoch.visit.rotation + 0.8) % 360, 6)
    primary = write_hdu(
        CARDS["lsst"],
        picture.images[kind].astype(np.float32),
        cutminx=int(epoch.x - x),
        cutminy=int(epoch.y - y),
        rotpa=f"ROTPA   = {angle!r:>20}" if rotpa else "",
        crpix1=decimal(x + 1),
        crpix2=decimal(y + 1),
        pc11=decimal(matrix[0, 0]),
        pc12=decimal(matrix[0, 1]),
        pc21=decimal(matrix[1, 0]),
        pc22=decimal(matrix[1, 1]),
        crval1=decimal(epoch.ra),
        crval2=decimal(epoch.dec),
    )
    cards = CARDS["extension"]
    variance = picture.variances[kind].astype(np.float32)
    psf = draw_psf(picture.cores[kind], 47 if kind == "Template" else 41)
    return (
        primary
        + write_hdu(cards, variance, bitpix=-32, utype=UTYPE, name="UNCERT")
        + write_hdu(cards, psf, bitpix=-64, utype="", name="PSFIMAGE")
    )


def draw_psf(core: float, side: int) -> Array:
    """Return a PSF as float64 pixels that sum to one."""
    steps = np.arange(side) - side // 2
    image = np.zeros((side, side))
    for share, spread in PSF:
        profile = np.exp(-0.5 * steps**2 / (spread * core**2 + PIXEL_VARIANCE))
        image += share * np.outer(profile, profile) / profile.sum() ** 2
    return np.asarray(image / image.sum())


# --- ZTF rows ---------------------------------------------------------------------------------


def ztf_visit_columns(visit: Visit, *, archived: bool) -> Row:
    """Return what an image gives its candidates, detected or not."""
    field_number, rcid = visit.field.constants["field"], visit.field.constants["rcid"]
    days = visit.mjd + JD_OF_MJD_ZERO - JD_OF_ZTF_NIGHT_ZERO
    fraction = f"{visit.mjd % 1:.6f}"[2:]
    image = (
        f"ztf_{visit.night:%Y%m%d}{fraction}_{field_number:06d}_z{visit.band}"
        f"_c{rcid // 4 + 1:02d}_o_q{rcid % 4 + 1}_scimrefdiffimg.fits"
    )
    if archived:
        image = f"/ztf/archive/sci/{visit.night:%Y/%m%d}/{fraction}/{image}.fz"
    constants = ("magzpsciunc", "magzpscirms", "clrcoeff", "clrcounc")
    return {
        **SURVEY_TABLES["ztf"]["fixed"]["visit"],
        **{column: visit.constants[column] for column in constants},
        "jd": round(visit.mjd + JD_OF_MJD_ZERO, 7),
        "fid": "gri".index(visit.band) + 1,
        "pid": math.floor(days * 1e5) * 10000 + rcid * 100 + 15,
        "nid": math.floor(days),
        "rcid": rcid,
        "field": field_number,
        "diffmaglim": visit.limit,
        "magzpsci": visit.zero_point,
        "pdiffimfilename": image,
    }


def ztf_epoch_columns(target: Target, epoch: Epoch, *, archived: bool) -> Row:
    """Return one epoch as ``candidate`` and ``prv_candidates`` have it: measured, or a limit."""
    columns = ztf_visit_columns(epoch.visit, archived=archived)
    if epoch.snr < MARGINAL:
        return columns
    positive, magnitude, sigma = epoch.flux > 0, epoch.magnitude, 1.0857 / epoch.snr
    quality = min(1.0, epoch.snr / 12) * (1.0 if target.population.genuine else 0.4)
    hosted, known = target.population.host != "none", not target.population.stays
    width, height = CAMERAS["ztf"].detector
    return {
        **columns,
        **{column: target.constants[column] for column in ("sigmagnr", "chinr", "sharpnr")},
        **epoch.columns,
        "candid": columns["pid"] * 10**6 + (15000 if positive else 10000) + target.slot,
        "isdiffpos": "t" if positive else "f",
        "tblid": target.slot,
        "xpos": epoch.x,
        "ypos": epoch.y,
        "mindtoedge": min(epoch.x, epoch.y, width - epoch.x, height - epoch.y),
        "ra": round(epoch.ra, 7),
        "dec": round(epoch.dec, 7),
        "magpsf": magnitude,
        "sigmapsf": sigma,
        "magap": magnitude + 0.05,
        "sigmagap": 1.2 * sigma,
        "magapbig": magnitude + 0.03,
        "sigmagapbig": 1.6 * sigma,
        "magdiff": 0.05,
        "magfromlim": columns["diffmaglim"] - magnitude,
        "distnr": target.distance + 0.1 * epoch.columns["elong"] if hosted else 9.4,
        "magnr": target.magnitude if hosted else 20.5,
        "ranr": round(target.ra, 7),
        "decnr": round(target.dec, 7),
        "nbad": 0 if epoch.snr >= DETECTION else 1,
        "rb": 0.3 + 0.65 * quality,
        "scorr": epoch.snr,
        "ssdistnr": 0.4 if known else -999.0,
        "ssmagnr": round(magnitude, 1) if known else -999.0,
        "ssnamenr": str(4371 + target.index) if known else "null",
    }


def ztf_row(alert: Alert) -> Row:
    """Return one alert as a row of the ``ztf`` schema."""
    target, epoch = alert.target, alert.epoch
    visit, population = epoch.visit, target.population
    fixed = SURVEY_TABLES["ztf"]["fixed"]
    columns = ztf_epoch_columns(target, epoch, archived=False)
    past = [ztf_epoch_columns(target, old, archived=True) for old in alert.history]
    detections = [old["jd"] for old in past if "candid" in old] + [columns["jd"]]
    candidate = {
        **fixed["candidate"],
        **target.constants,
        **visit.constants,
        **columns,
        **{f"objectidps{n}": int((target.dec + 90) * 1.2e15) + n for n in (1, 2, 3)},
        **{f"s{band}mag1": target.magnitude + 0.2 for band in "griz"},
        "maggaia": target.magnitude,
        "ndethist": len(detections),
        "jdstarthist": detections[0],
        "jdendhist": columns["jd"],
        "rfid": columns["field"] * 10**6 + 120000 + columns["fid"] * 100 + columns["rcid"],
        "dsnrms": epoch.snr,
        "ssnrms": 2.4 * epoch.snr,
        "dsdiff": -1.4 * epoch.snr,
        "drb": columns["rb"] ** 0.3,
    }
    created = int((visit.mjd - MJD_OF_UNIX_EPOCH) * 86400) + 900
    name, image = f"candid{columns['candid']}", f"pid{columns['pid']}_targ"
    sign = "scimref" if epoch.flux > 0 else "refmsci"
    files = {
        "Science": f"{name}_{image}_sci.fits.gz",
        "Template": f"{name}_ref.fits.gz",
        "Difference": f"{name}_{image}_{sign}.fits.gz",
    }
    stamps = {
        f"cutout{kind}": {"fileName": file, "stampData": write_ztf_stamp(alert, kind, created)}
        for kind, file in files.items()
    }
    supernova = population.name == "supernova"
    return {
        **fixed["row"],
        "candid": columns["candid"],
        "objectId": ztf_name(target.index, alert.discovered.night.year),
        "candidate": candidate,
        "prv_candidates": past or None,
        **stamps,
        "timestamp": datetime.fromtimestamp(created + 300, UTC).replace(tzinfo=None),
        "cdsxmatch": population.crossmatch,
        "rf_snia_vs_nonia": 0.8 if supernova else 0.02,
        "snn_snia_vs_nonia": 0.7 if supernova else 0.1,
        "snn_sn_vs_all": 0.9 if supernova else 0.05,
        "roid": 0 if population.stays else 3,
        "nalerthist": len(detections),
    }


def ztf_name(number: int, year: int) -> str:
    """Return an object's name; different numbers below 26^7 have different letters."""
    # Coprime with 26: a permutation of all names, so that neighbours do not look alike.
    scrambled = (number * 3141592653 + 2718281829) % 26**7
    letters = ""
    for _ in range(7):
        scrambled, letter = divmod(scrambled, 26)
        letters = chr(ord("a") + letter) + letters
    return f"ZTF{year % 100:02d}{letters}"


# --- LSST rows --------------------------------------------------------------------------------


def lsst_id(visit: Visit, counter: int) -> int:
    """Pack when and where something was measured into 18 digits, as Rubin's ids do."""
    days = (visit.night - date(2010, 1, 1)).days
    detector = visit.field.constants["detector"]
    return (((days << 15) + visit.sequence << 8) + int(detector) << 22) + counter


def lsst_source(target: Target, epoch: Epoch, ids: Row) -> Row:
    """Return one epoch as ``diaSource`` and ``prvDiaSources`` have it."""
    visit, band = epoch.visit, epoch.visit.band
    camera, genuine = CAMERAS["lsst"], target.population.genuine
    host = flux_of(target.magnitude) * visit.unit if target.population.host != "none" else 0.0
    tai = visit.mjd + TAI_MINUS_UTC_DAYS
    spread = visit.core / epoch.snr  # pixels
    return {
        **no_flags("diaSource"),
        **SURVEY_TABLES["lsst"]["fixed"]["source"],
        **epoch.columns,
        **ids,
        "diaSourceId": lsst_id(visit, target.index),
        "visit": int(f"{visit.night:%Y%m%d}{visit.sequence:05d}"),
        "detector": visit.field.constants["detector"],
        "band": band,
        "midpointMjdTai": tai,
        "timeProcessedMjdTai": tai + 90 / 86400,
        "ra": epoch.ra,
        "dec": epoch.dec,
        "x": epoch.x,
        "y": epoch.y,
        **dict.fromkeys(("raErr", "decErr"), spread * camera.pixel / 3600),
        **dict.fromkeys(("xErr", "yErr"), spread),
        **dict.fromkeys(("ixxPSF", "iyyPSF"), (camera.pixel * visit.core) ** 2),
        **dict.fromkeys(("psfFlux", "apFlux"), epoch.flux),
        "psfFluxErr": epoch.error,
        "apFluxErr": 1.7 * epoch.error,
        "snr": epoch.snr,
        "isNegative": epoch.flux < 0,
        "scienceFlux": host + epoch.flux,
        "scienceFluxErr": epoch.error,
        "templateFlux": host,
        "templateFluxErr": 0.2 * epoch.error,
        "isDipole": not genuine,
        "reliability": min(0.99, epoch.snr / 12) * (1.0 if genuine else 0.2),
        "bboxSize": target.size,
    }


@cache
def no_flags(column: str) -> Row:
    """Return False for each flag of a struct column."""
    members = read_schema("lsst_v10").field(column).type
    return {member.name: False for member in members if pa.types.is_boolean(member.type)}


def lsst_object(target: Target, number: int, epochs: list[Epoch]) -> Row:
    """Return the summary of an object's sources so far."""
    times = [epoch.visit.mjd + TAI_MINUS_UTC_DAYS for epoch in epochs]
    summary: Row = {
        "diaObjectId": number,
        "ra": target.ra,
        "dec": target.dec,
        **dict.fromkeys(("raErr", "decErr"), 1e-5),
        **dict.fromkeys(("validityStartMjdTai", "radecMjdTai", "lastDiaSourceMjdTai"), times[-1]),
        "firstDiaSourceMjdTai": times[0],
        "nDiaSources": len(epochs),
    }
    for band in "ugrizy":
        measured = [epoch for epoch in epochs if epoch.visit.band == band]
        summary[f"{band}_psfFluxNdata"] = len(measured)
        if measured:
            fluxes = np.array([epoch.flux for epoch in measured])
            error = float(np.mean([epoch.error for epoch in measured]))
            summary[f"{band}_psfFluxMean"] = float(fluxes.mean())
            summary[f"{band}_psfFluxMeanErr"] = error / math.sqrt(len(fluxes))
            summary[f"{band}_psfFluxErrMean"] = error
            summary[f"{band}_psfFluxSigma"] = float(fluxes.std())
            summary[f"{band}_psfFluxMin"] = float(fluxes.min())
            summary[f"{band}_psfFluxMax"] = float(fluxes.max())
    return summary


def lsst_row(alert: Alert, schema: str) -> Row:
    """Return one alert as a row of ``lsst_v10`` or ``lsst_v7``; each ignores what it lacks."""
    target, epoch, history = alert.target, alert.epoch, alert.history
    fixed = SURVEY_TABLES["lsst"]["fixed"]
    stamps = {
        f"cutout{kind}": write_lsst_stamp(alert, kind, rotpa=schema == "lsst_v10") for kind in KINDS
    }
    ids: Row = {}
    if target.population.stays:
        number = lsst_id(alert.discovered, 2**21 + target.index)
        detected = [past for past in history if past.snr >= DETECTION]
        ids = {"diaObjectId": number, "ssObjectId": 0 if schema == "lsst_v7" else None}
        forced = [
            lsst_source(target, past, ids)
            | {"diaForcedSourceId": lsst_id(past.visit, 2**20 + target.index)}
            for past in (*history, epoch)
        ]
        rest = {
            "prvDiaSources": [lsst_source(target, past, ids) for past in detected] or None,
            "prvDiaForcedSources": forced,
            "diaObject": lsst_object(target, number, [*detected, epoch]),
        }
    else:
        # What moves belongs to no diaObject. The id spells the designation, a byte a letter.
        designation = f"2026 R{target.index}"
        packed = int.from_bytes(f"K26R{target.index:03d}".encode("ascii"), "big")
        ids = {"diaObjectId": 0 if schema == "lsst_v7" else None, "ssObjectId": packed}
        identity = {"ssObjectId": packed, "designation": designation}
        place = {"ephRa": epoch.ra, "ephDec": epoch.dec, "ephVmag": epoch.magnitude}
        source = {"diaSourceId": lsst_id(epoch.visit, target.index)}
        rest = {
            "ssSource": fixed["ssSource"] | identity | place | source,
            "ssObject": fixed["ssObject"] | identity,
            "mpc_orbits": fixed["mpc_orbits"] | identity | {"id": target.index},
        }
    source = lsst_source(target, epoch, ids)
    return {
        **fixed["row"],
        **dict.fromkeys(("diaSourceId", "alertId"), source["diaSourceId"]),
        "target_name": f"field_{epoch.visit.field.number:02d}",
        "diaSource": source,
        **rest,
        **stamps,
        "brokerIngestMjd": epoch.visit.mjd + 120 / 86400,
        "brokerEndProcessMjd": epoch.visit.mjd + 180 / 86400,
        "cdsxmatch": target.population.crossmatch,
    }


# --- Tables -----------------------------------------------------------------------------------


def simulate_ztf(
    *,
    nights: int = 3,
    objects: int = 80,
    seed: int = 1,
    start: date = START,
    rows: int | None = None,
    null_stamps: float = 0.0,
) -> pa.Table:
    """Return a table of ZTF alerts in time order, some four per object.

    With ``rows`` it has just so many: those drawn, then copies of them under ids of their own
    (see ``multiply_alerts``). ``null_stamps`` is the share of alerts that lack one stamp: in turn
    the struct is null, and its stampData.
    """
    observed = observe(CAMERAS["ztf"], nights=nights, objects=objects, seed=seed, start=start)
    drawn = [ztf_row(alert) for alert in observed]
    for number, (row, column) in enumerate(choose_nulls(drawn, null_stamps, seed)):
        row[column] = None if number % 2 else row[column] | {"stampData": None}
    drawn.sort(key=lambda row: (row["candidate"]["jd"], row["candid"]))
    table = pa.Table.from_pylist(drawn, schema=read_schema("ztf"))
    return table if rows is None else multiply_alerts(table, rows)


def simulate_lsst(
    *,
    nights: int = 3,
    objects: int = 80,
    seed: int = 1,
    start: date = START,
    rows: int | None = None,
    null_stamps: float = 0.0,
    schema: str = "lsst_v10",
) -> pa.Table:
    """Return a table of LSST alerts in time order, some four per object.

    ``schema`` is ``lsst_v10``, with diaSourceId at the top level and ROTPA in the headers, or
    ``lsst_v7``, with neither. The other arguments are those of ``simulate_ztf``.
    """
    observed = observe(CAMERAS["lsst"], nights=nights, objects=objects, seed=seed, start=start)
    drawn = [lsst_row(alert, schema) for alert in observed]
    for row, column in choose_nulls(drawn, null_stamps, seed):
        row[column] = None
    drawn.sort(key=lambda row: (row["diaSource"]["midpointMjdTai"], row["diaSourceId"]))
    table = pa.Table.from_pylist(drawn, schema=read_schema(schema))
    return table if rows is None else multiply_alerts(table, rows)


SIMULATE: dict[str, Callable[..., pa.Table]] = {"ztf": simulate_ztf, "lsst": simulate_lsst}


def choose_nulls(rows: list[Row], share: float, seed: int) -> Iterator[tuple[Row, str]]:
    """Yield the rows that shall lack a stamp, and which column."""
    rng = np.random.default_rng([seed, 4])
    for row in rows:
        if rng.random() < share:
            yield row, f"cutout{rng.choice(KINDS)}"


# The columns that hold ids, and what a copy's are higher by: ZTF above the sequence number and
# below the image, LSST within the counter.
ID_STEPS = {
    "candid": 20_000,
    "candidate.candid": 20_000,
    "alertId": 2**12,
    "diaSourceId": 2**12,
    "diaSource.diaSourceId": 2**12,
    "diaSource.diaObjectId": 2**12,
    "diaObject.diaObjectId": 2**12,
    "ssSource.diaSourceId": 2**12,
}
# Where a stamp may be marked: in gzip's time; in the last bits of two corner pixels.
MARKS = {"cutout{}.stampData": (4, 5), "cutout{}": (FITS_BLOCK + 3, FITS_BLOCK + 7)}


def multiply_alerts(table: pa.Table, rows: int) -> pa.Table:
    """Return ``rows`` alerts: those of ``table``, then copies of them, each under its own ids.

    For benchmarks: thousands a second, up to 500 copies of up to 4096 objects. A copy shows the
    same sky and has the same columns; only its ids are its own, and two bytes of each stamp that
    nobody looks at, so that no dictionary folds the copies into one.
    """
    copy, original = np.divmod(np.arange(rows), table.num_rows)
    names = table["objectId"].to_pylist() if "objectId" in table.column_names else []
    table = table.take(pa.array(original)).combine_chunks()
    for column, step in ID_STEPS.items():
        table = change_column(table, column, partial(pc.add, pa.array(copy * step)))
    if names:
        number = {name: rank for rank, name in enumerate(dict.fromkeys(names))}
        renamed = [
            ztf_name(10**6 * int(n) + number[names[row]], int(names[row][3:5])) if n else names[row]
            for n, row in zip(copy, original, strict=True)
        ]
        table = change_column(table, "objectId", lambda _: pa.array(renamed))
    for template, places in MARKS.items():
        for kind in KINDS:
            mark = partial(mark_stamps, copy=copy, places=places)
            table = change_column(table, template.format(kind), mark)
    return table


def change_column(table: pa.Table, name: str, change: Callable[[pa.Array], pa.Array]) -> pa.Table:
    """Return the table with a column, or ``column.member``, changed; as it is if it has none."""
    column, _, member = name.partition(".")
    place = table.schema.get_field_index(column)
    if place < 0 or pa.types.is_struct(table.schema.field(place).type) != bool(member):
        return table
    values = table.column(place).combine_chunks()
    if not member:
        return table.set_column(place, table.schema.field(place), change(values))
    members = [values.field(n) for n in range(values.type.num_fields)]
    at = values.type.get_field_index(member)
    members[at] = change(members[at])
    changed = pa.StructArray.from_arrays(members, fields=list(values.type), mask=values.is_null())
    return table.set_column(place, table.schema.field(place), changed)


def mark_stamps(stamps: pa.Array, copy: Array, places: tuple[int, int]) -> pa.Array:
    """Return binary cells with the number of their copy laid over two bytes of each."""
    validity, offsets, data = stamps.buffers()
    starts = np.frombuffer(offsets, np.int32)[stamps.offset :][: len(stamps)]
    chosen = (copy > 0) & stamps.is_valid().to_numpy(zero_copy_only=False)
    marked = np.frombuffer(data, np.uint8).copy()
    for place, byte in zip(places, (copy & 255, copy >> 8), strict=True):
        marked[starts[chosen] + place] ^= byte[chosen].astype(np.uint8)
    buffers = [validity, offsets, pa.py_buffer(marked)]
    return pa.Array.from_buffers(stamps.type, len(stamps), buffers, offset=stamps.offset)


# --- Files ------------------------------------------------------------------------------------

ROW_GROUP_BYTES = 128 << 20
SPARK: dict[str, Any] = {
    "compression": "snappy",
    "version": "1.0",
    # parquet-mr looks at a page's size after every 100 rows and closes it beyond 1 MiB.
    "write_batch_size": 100,
    "data_page_size": 1 << 20,
    "store_schema": False,
    "use_deprecated_int96_timestamps": True,
}
WRITERS: dict[str, dict[str, Any]] = {
    "spark": SPARK,  # parquet-mr up to 1.10
    "spark-indexed": SPARK | {"write_page_index": True},  # parquet-mr from 1.11 on
    "pyarrow": {},
}


def write_file(path: Path, table: pa.Table, writer: str = "spark", **overrides: Any) -> None:
    """Write a parquet file laid out as one of ``WRITERS`` does, all of it or nothing.

    ``overrides`` are arguments of ``pyarrow.parquet.write_table``.
    """
    options, metadata = dict(WRITERS[writer]), {}
    if writer != "pyarrow":
        leaves = leaf_names(table.schema)
        options["use_dictionary"] = [leaf for leaf in leaves if not leaf.startswith("cutout")]
        row_bytes = max(1, table.nbytes // max(1, table.num_rows))
        options["row_group_size"] = max(100, ROW_GROUP_BYTES // row_bytes)
        metadata = spark_metadata(table.schema)
    options |= overrides
    row_group_size = options.pop("row_group_size", None)
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path) as part, pq.ParquetWriter(part, table.schema, **options) as file:
        file.write_table(table, row_group_size)
        # Apart from the schema's own, which is dropped together with the Arrow schema.
        file.add_key_value_metadata(metadata)


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Give a path to write to, and rename it once it is whole."""
    # Spark, Hive and pyarrow pass over names with a leading underscore.
    part = path.with_name(f"_{path.name}.{os.getpid()}.tmp")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def drop_parts(path: Path) -> None:
    """Drop what runs that were killed left of a file."""
    for part in path.parent.glob(f"_{path.name}.*.tmp"):
        part.unlink(missing_ok=True)


def leaf_names(schema: pa.Schema) -> Iterator[str]:
    """Yield the parquet paths of a schema's leaf columns."""

    def walk(name: str, kind: pa.DataType) -> Iterator[str]:
        if pa.types.is_struct(kind):
            for member in kind:
                yield from walk(f"{name}.{member.name}", member.type)
        elif pa.types.is_list(kind):
            yield from walk(f"{name}.list.element", kind.value_type)
        else:
            yield name

    for column in schema:
        yield from walk(column.name, column.type)


def spark_metadata(schema: pa.Schema) -> dict[str, str]:
    """Return what Spark writes beside the schema: its own, as JSON."""
    names = {"int32": "integer", "int64": "long", "bool": "boolean", "timestamp[ns]": "timestamp"}

    def describe(kind: pa.DataType) -> Any:
        if pa.types.is_struct(kind):
            return {"type": "struct", "fields": [describe_field(member) for member in kind]}
        if pa.types.is_list(kind):
            element = describe(kind.value_type)
            return {"type": "array", "elementType": element, "containsNull": True}
        return names.get(str(kind), str(kind))

    def describe_field(column: pa.Field) -> Row:
        kind = describe(column.type)
        return {"name": column.name, "type": kind, "nullable": column.nullable, "metadata": {}}

    columns = {"type": "struct", "fields": [describe_field(column) for column in schema]}
    return {
        "org.apache.spark.version": "3.4.3",
        "org.apache.spark.sql.parquet.row.metadata": json.dumps(columns, separators=(",", ":")),
    }


# --- The archive ------------------------------------------------------------------------------

NIGHT_WRITERS = ("spark", "pyarrow", "spark-indexed")  # in turn
PART_ROWS = 150
RECORD = "_demo.json"  # beside a survey's archive: what it is; its files alone until it is finished


@dataclass(frozen=True)
class Archive:
    """The simulated archive of one survey. Paths are relative to ``Summary.folder``.

    The example is the last alert of what erupts, in the file ``example_path``.
    """

    survey: str
    seed: int
    nights: int
    objects: int
    alerts: int
    bytes: int
    files: list[str]
    example_path: str
    example_object: str
    example_alert: str


@dataclass(frozen=True)
class Summary:
    """What ``make_archive`` made, or found made."""

    folder: Path
    archives: tuple[Archive, ...]
    made: bool
    seconds: float

    def __str__(self) -> str:
        return "\n".join(
            f"{archive.survey}: {archive.alerts} alerts, {archive.bytes / 1e6:.0f} MB, below "
            f"{self.folder / archive.survey}; try alert {archive.example_alert} of object "
            f"{archive.example_object} in {archive.example_path}"
            for archive in self.archives
        )


def make_archive(
    folder: Path,
    *,
    nights: int = 3,
    objects: int = 80,
    seed: int = 1,
    start: date = START,
    surveys: Iterable[str] = tuple(SIMULATE),
    overwrite: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Summary:
    """Simulate some nights of each survey below ``folder``.

    The files are ``<survey>/archive/science/year=YYYY/month=MM/day=DD/part-*.parquet``, written in
    turn as Spark and as pyarrow write them. A survey that was finished before is left alone unless
    ``overwrite``; one that was interrupted is made anew. No half file ever bears the name of a
    whole one.
    """
    began = time.monotonic()
    tell = progress or (lambda line: None)
    archives, made = [], False
    for survey in surveys:
        archive = None if overwrite else find_archive(folder, survey)
        if archive is None:
            tell(f"{survey}: simulating {objects} objects over {nights} nights")
            table = SIMULATE[survey](nights=nights, objects=objects, seed=seed, start=start)
            plan = plan_files(survey, table, seed)
            begin_record(folder, survey, plan)
            for path, (rows, writer) in plan.items():
                write_file(folder / path, rows, writer)
                tell(f"{survey}: {rows.num_rows} alerts in {path}, as {writer} writes")
            settings = {"seed": seed, "nights": nights, "objects": objects}
            archive = record_archive(folder, survey, plan, settings)
            made = True
        else:
            tell(
                f"{survey}: {archive.alerts} alerts of {archive.nights} nights stand there already"
            )
        archives.append(archive)
    return Summary(folder, tuple(archives), made, time.monotonic() - began)


Plan = dict[str, tuple[pa.Table, str]]
BY_NAME = {survey.name: survey for survey in SURVEYS}


def find_column(table: pa.Table, names: Iterable[str]) -> pa.ChunkedArray:
    """Return the first of some columns, or fields of structs, that a table has."""
    for name in names:
        column, _, member = name.partition(".")
        if column not in table.column_names:
            continue
        if not member:
            return table[column]
        if table.schema.field(column).type.get_field_index(member) >= 0:
            return pc.struct_field(table[column], member)
    raise KeyError(f"none of {', '.join(names)}")


def plan_files(survey: str, table: pa.Table, seed: int) -> Plan:
    """Return which rows go to which file of the archive, and who seems to write it."""
    known = BY_NAME[survey]
    later = TAI_MINUS_UTC_DAYS if known.time_scale == "tai" else 0.0
    times = find_column(table, known.time_columns).to_pylist()
    days = [day_of(time - known.mjd_offset - later) for time in times]
    plan: Plan = {}
    for night, day in enumerate(dict.fromkeys(days)):
        rows = table.slice(days.index(day), days.count(day))
        writer = NIGHT_WRITERS[night % len(NIGHT_WRITERS)]
        job = uuid.uuid5(uuid.NAMESPACE_URL, f"{survey} {day} {seed}")
        home = f"{survey}/archive/science/year={day:%Y}/month={day:%m}/day={day:%d}"
        for part in range(-(-rows.num_rows // PART_ROWS)):
            spark = f"part-{part:05d}-{job}-c000.snappy.parquet"
            name = f"part-{part}.parquet" if writer == "pyarrow" else spark
            plan[f"{home}/{name}"] = (rows.slice(part * PART_ROWS, PART_ROWS), writer)
    return plan


def begin_record(folder: Path, survey: str, plan: Plan) -> None:
    """Write down that a survey is not finished, and every file that may be there until it is."""
    files = sorted(recorded_files(folder, survey) | set(plan))
    (folder / survey).mkdir(parents=True, exist_ok=True)
    write_record(folder, survey, {"files": files})


def record_archive(folder: Path, survey: str, plan: Plan, settings: dict[str, int]) -> Archive:
    """Write down that a survey's files are all there, and drop what earlier runs left."""
    for name in recorded_files(folder, survey):
        if name not in plan:
            (folder / name).unlink(missing_ok=True)
        drop_parts(folder / name)
    drop_parts(folder / survey / RECORD)
    path, object_id, alert_id = choose_example(survey, plan)
    archive = Archive(
        survey=survey,
        **settings,
        alerts=sum(rows.num_rows for rows, _ in plan.values()),
        bytes=sum((folder / name).stat().st_size for name in plan),
        files=list(plan),
        example_path=path,
        example_object=object_id,
        example_alert=alert_id,
    )
    write_record(folder, survey, asdict(archive))
    return archive


def write_record(folder: Path, survey: str, content: Row) -> None:
    with writing(folder / survey / RECORD) as part:
        part.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def recorded_files(folder: Path, survey: str) -> set[str]:
    """Return the files that runs have made, or begun to make, as far as they wrote it down."""
    try:
        return set(json.loads((folder / survey / RECORD).read_text("utf-8"))["files"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return set()


def find_archive(folder: Path, survey: str) -> Archive | None:
    """Return a survey's archive if it was finished before and its files are still there."""
    try:
        archive = Archive(**json.loads((folder / survey / RECORD).read_text("utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return archive if all((folder / name).is_file() for name in archive.files) else None


def choose_example(survey: str, plan: Plan) -> tuple[str, str, str]:
    """Return path, object and alert of the last of the object that changed most while it shone."""
    known = BY_NAME[survey]
    seen: dict[str, list[tuple[float, str, str]]] = defaultdict(list)
    for path, (rows, _) in plan.items():
        columns = [
            find_column(rows, names).to_pylist()
            for names in (
                known.brightness_columns,
                known.sign_columns,
                known.object_key.columns,
                known.alert_key.columns,
            )
        ]
        for bright, sign, name, number in zip(*columns, strict=True):
            if name is not None:  # null: what moves
                size = flux_of(bright) if known.brightness_unit == "mag" else abs(bright)
                lost = known.signs.get(sign) is False
                seen[str(name)].append((-size if lost else size, path, str(number)))

    def change(name: str) -> tuple[bool, float]:
        fluxes = [flux for flux, *_ in seen[name]]
        return len(fluxes) > 3 and min(fluxes) > 0, max(fluxes) / abs(min(fluxes))

    name = max(seen, key=change)
    return seen[name][-1][1], name, seen[name][-1][2]
