"""Alerts with everything that pictures need: a source, a place on the sky, a sign, planes."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from astropy.io import fits

from cutout_api.epochs import Entry
from cutout_api.stamp import Stamp
from cutout_api.storage import FileId

from .samples import KINDS, write, ztf_fits

LSST_MATRIX = ((-5.03e-05, 2.37e-05), (2.37e-05, 5.03e-05))
OFF_CENTRE = (22.0, 17.0)
"""Where (x, y) a star stands that is not in the middle of its stamp."""
RA, DEC = 250.141, 1.964
OBJECT = "ZTF24aaaaaaa"
CANDID = 2_656_254_792_815_010_000
SOURCE = 3_068_429_599_923_765_000


def star(
    shape: tuple[int, int] = (63, 63), *, flux: float = 900.0, at: tuple[float, float] | None = None
) -> np.ndarray:
    """Return a star on a noisy sky, float32; ``at`` is (x, y), the central pixel without it."""
    y, x = np.indices(shape)
    x0, y0 = at or (shape[1] // 2, shape[0] // 2)
    noise = np.random.default_rng(shape[0]).normal(100, 5, shape)
    image: np.ndarray = noise + flux * np.exp(-((x - x0) ** 2 + (y - y0) ** 2) / 5)
    return image.astype(np.float32)


def lsst_header(**changes: Any) -> fits.Header:
    """Return the cards of an LSST stamp: a position and a matrix, and no projection."""
    (a, b), (c, d) = LSST_MATRIX
    cards: dict[str, Any] = {
        "BUNIT": "nJy",
        "WCSAXES": 2,
        "CRPIX1": 16.0,
        "CRPIX2": 16.0,
        "PC1_1": a,
        "PC1_2": b,
        "PC2_1": c,
        "PC2_2": d,
        "CDELT1": 1.0,
        "CDELT2": 1.0,
        "CRVAL1": RA,
        "CRVAL2": DEC,
        "LATPOLE": 90.0,
    }
    cards.update(changes)
    return fits.Header([(name, value) for name, value in cards.items() if value is not None])


def lsst_stamp(image: np.ndarray | None = None, *, planes: bool = True, **changes: Any) -> bytes:
    """Return an LSST stamp; a card given as None is left out."""
    image = star((30, 30)) if image is None else image
    hdus = fits.HDUList([fits.PrimaryHDU(image, lsst_header(**changes))])
    if planes:
        variance = np.full(image.shape, 4.0, np.float32)
        variance[0, 0] = -1
        hdus.append(fits.ImageHDU(variance, name="UNCERT"))
        hdus.append(fits.ImageHDU(np.outer(*[np.hanning(41)] * 2), name="PSFIMAGE"))
    buffer = io.BytesIO()
    hdus.writeto(buffer)
    return buffer.getvalue()


def stamp(kind: str = "Science", content: bytes | None = None) -> Stamp:
    return Stamp(kind, ztf_fits(star()) if content is None else content)


def entry(**changes: Any) -> Entry:
    """Return what is known of an ordinary ZTF alert, but for ``changes``."""
    facts: dict[str, Any] = {
        "file": FileId("night.parquet", 1, 1),
        "row": 0,
        "alert_id": CANDID,
        "object_id": OBJECT,
        "time": 2_460_410.5,
        "band": "r",
        "brightness": 18.5,
        "ra": RA,
        "dec": DEC,
        "positive": True,
    }
    return Entry(**(facts | changes))


TURNED = {
    "CTYPE1": "RA---TAN",
    "CTYPE2": "DEC--TAN",
    "CRPIX1": 28.0,
    "CRPIX2": 36.0,
    "CRVAL1": RA,
    "CRVAL2": DEC,
    "CDELT1": -5.5e-05,
    "CDELT2": 5.5e-05,
    "CROTA2": 30.0,
}
"""The cards of a WCS without a matrix, 0.198 arcsec a pixel."""
_CANDIDATE = pa.struct(
    [
        ("jd", pa.float64()),
        ("fid", pa.int32()),
        ("magpsf", pa.float32()),
        ("ra", pa.float64()),
        ("dec", pa.float64()),
        ("isdiffpos", pa.string()),
    ]
)
_STAMP = pa.struct([("fileName", pa.string()), ("stampData", pa.binary())])
ZTF_FACTS = pa.schema(
    [
        ("objectId", pa.string()),
        ("candid", pa.int64()),
        ("candidate", _CANDIDATE),
        *((f"cutout{kind}", _STAMP) for kind in KINDS),
    ]
)
LSST_FACTS = pa.schema(
    [
        (
            "diaSource",
            pa.struct(
                [
                    ("diaSourceId", pa.int64()),
                    ("diaObjectId", pa.int64()),
                    ("midpointMjdTai", pa.float64()),
                    ("band", pa.string()),
                    ("psfFlux", pa.float32()),
                    ("ra", pa.float64()),
                    ("dec", pa.float64()),
                    ("isNegative", pa.bool_()),
                ]
            ),
        ),
        *((f"cutout{kind}", pa.binary()) for kind in KINDS),
    ]
)


def ztf_row(number: int, **stamps: Any) -> dict[str, Any]:
    """Return row ``number``; odd ones have faded, which ZTF delivers as template - science."""
    row: dict[str, Any] = {
        "objectId": OBJECT,
        "candid": CANDID + number,
        "candidate": {
            "jd": 2_460_410.5 + number,
            "fid": 1 + number % 2,
            "magpsf": 18.5 + number,
            "ra": RA,
            "dec": DEC,
            "isdiffpos": "ft"[number % 2 == 0],
        },
    }
    row["candidate"].update(stamps.pop("candidate", {}))
    for kind in KINDS:
        content = stamps.pop(kind, ztf_fits(star()))
        row[f"cutout{kind}"] = {"fileName": "", "stampData": gzip.compress(content, mtime=0)}
    assert not stamps, stamps
    return row


def lsst_row(number: int, **stamps: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "diaSource": {
            "diaSourceId": SOURCE + number,
            "diaObjectId": SOURCE + 7,
            "midpointMjdTai": 60_488.25 + number,
            "band": "i",
            "psfFlux": 10_223.3,
            "ra": RA,
            "dec": DEC,
            "isNegative": False,
        }
    }
    for kind in KINDS:
        row[f"cutout{kind}"] = stamps.pop(kind, lsst_stamp())
    assert not stamps, stamps
    return row


# One alert for each thing that a stamp may be, by candid and diaSourceId.
ZTF_ODD = {
    "ordinary": {},
    "faded": {},
    "only nan": {"Science": ztf_fits(np.full((63, 63), np.nan, np.float32))},
    "constant": {"Science": ztf_fits(np.full((63, 63), 7, np.float32))},
    "one row": {"Science": ztf_fits(star((1, 63)))},
    "one column": {"Science": ztf_fits(star((63, 1)))},
    "narrow": {"Science": ztf_fits(star((63, 62)))},
    "one pixel": {"Science": ztf_fits(star((1, 1)))},
    "huge values": {"Science": ztf_fits(star() / 2000 * np.float32(3e38))},
    "infinite": {"Science": ztf_fits(np.where(star() > 500, np.inf, star()).astype(np.float32))},
    "integers": {"Science": ztf_fits(star().astype(">i2"))},
    "half nan": {"Science": ztf_fits(np.where(np.arange(63) < 31, np.nan, star()))},
    "a wcs of its own": {"Science": ztf_fits(star(), **TURNED)},
    "no facts": {
        "candidate": dict.fromkeys(("jd", "fid", "magpsf", "ra", "dec", "isdiffpos")),
    },
}
LSST_ODD = {
    "ordinary": {},
    "no matrix": {"Science": lsst_stamp(PC1_1=None, PC1_2=None, PC2_1=None, PC2_2=None)},
    "singular": {"Science": lsst_stamp(PC1_1=5e-5, PC1_2=5e-5, PC2_1=5e-5, PC2_2=5e-5)},
    "matrix of zeros": {"Science": lsst_stamp(PC1_1=0.0, PC1_2=0.0, PC2_1=0.0, PC2_2=0.0)},
    "text for a matrix": {"Science": lsst_stamp(PC1_1="x")},
    "no planes": {"Science": lsst_stamp(planes=False)},
    "at a pole": {"Science": lsst_stamp(CRVAL2=90.0)},
    "beyond a pole": {"Science": lsst_stamp(CRVAL2=900.0)},
    "unknown projection": {"Science": lsst_stamp(CTYPE1="RA---XXX", CTYPE2="DEC--XXX")},
    "reference far away": {"Science": lsst_stamp(CRPIX1=1e9)},
    "off centre": {"Science": lsst_stamp(star((30, 30), at=OFF_CENTRE))},
    "many bad cards": {"Science": lsst_stamp(**{f"PV1_{m}": "none" for m in range(400)})},
}


def candid(what: str) -> str:
    return str(CANDID + list(ZTF_ODD).index(what))


def source(what: str) -> str:
    return str(SOURCE + list(LSST_ODD).index(what))


def make_pictures(folder: Path) -> Path:
    """Write ``ztf.parquet`` and ``lsst.parquet``, a row for each of the above."""
    ztf = [ztf_row(number, **changes) for number, changes in enumerate(ZTF_ODD.values())]
    write(folder / "ztf.parquet", ztf, ZTF_FACTS)
    lsst = [lsst_row(number, **changes) for number, changes in enumerate(LSST_ODD.values())]
    write(folder / "lsst.parquet", lsst, LSST_FACTS)
    return folder
