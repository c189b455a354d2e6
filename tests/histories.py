"""An archive whose alerts repeat earlier measurements, and forced photometry, of both surveys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from .samples import write

Row = dict[str, Any]
OBJECT = 170_032_882_292_621_431
FIRST, SECOND = 170_032_882_292_650_001, 170_032_882_292_660_003
"""The alerts, of two nights."""
EARLIER, TIMELESS, BARE = OBJECT + 2, OBJECT + 4, OBJECT + 6
"""Detections whose alerts are not here: as it should be, without a time, without band and flux."""
FORCED = (OBJECT + 101, OBJECT + 103, OBJECT + 105)
ZTF_OBJECT, ZTF_ALERT = "ZTF26aaaaaab", 3_542_285_413_715_015_005

_SOURCE: list[tuple[str, pa.DataType]] = [
    ("diaSourceId", pa.int64()),
    ("diaObjectId", pa.int64()),
    ("ssObjectId", pa.int64()),
    ("midpointMjdTai", pa.float64()),
    ("ra", pa.float64()),
    ("dec", pa.float64()),
    ("psfFlux", pa.float32()),
    ("psfFluxErr", pa.float32()),
    ("band", pa.string()),
]
_FORCED: list[tuple[str, pa.DataType]] = [
    ("diaForcedSourceId", pa.int64()),
    *(field for field in _SOURCE if field[0] not in ("diaSourceId", "ssObjectId")),
    ("scienceFlux", pa.float32()),
]
LSST_SCHEMA = pa.schema(
    [
        ("diaSource", pa.struct(_SOURCE)),
        ("prvDiaSources", pa.list_(pa.struct(_SOURCE))),
        ("prvDiaForcedSources", pa.list_(pa.struct(_FORCED))),
        ("diaObject", pa.struct([("diaObjectId", pa.int64()), ("ra", pa.float64())])),
        ("cdsxmatch", pa.string()),
    ]
)
# As another writer has the same: large lists, doubles, fields in another order, one more and less.
OTHER_SCHEMA = pa.schema(
    [
        ("diaSource", pa.struct(_SOURCE)),
        (
            "prvDiaSources",
            pa.large_list(
                pa.struct(
                    [
                        (name, pa.float64() if kind == pa.float32() else kind)
                        for name, kind in reversed(_SOURCE)
                    ]
                    + [("reliability", pa.float32())]
                )
            ),
        ),
        ("prvDiaForcedSources", pa.list_(pa.struct(_FORCED[:-1]))),
        ("diaObject", pa.struct([("diaObjectId", pa.int64()), ("ra", pa.float64())])),
        ("cdsxmatch", pa.string()),
    ]
)


def source(id_: int, mjd: float | None, flux: float | None = 500.0, **changes: Any) -> Row:
    return {
        "diaSourceId": id_,
        "diaObjectId": OBJECT,
        "midpointMjdTai": mjd,
        "ra": 53.1,
        "dec": -28.1,
        "psfFlux": flux,
        "psfFluxErr": 25.0,
        "band": "r",
        **changes,
    }


def forced(id_: int, mjd: float | None, flux: float | None = 40.0) -> Row:
    return source(0, mjd, flux) | {"diaForcedSourceId": id_, "scienceFlux": 1000.0}


def alert(own: Row, detections: list[Row] | None, photometry: list[Row] | None) -> Row:
    return {
        "diaSource": own,
        "prvDiaSources": detections,
        "prvDiaForcedSources": photometry,
        "diaObject": {"diaObjectId": own["diaObjectId"], "ra": 53.1},
        "cdsxmatch": "Unknown",
    }


def lsst_nights() -> tuple[list[Row], list[Row]]:
    """Return the alerts of two nights; another object's come first in each file."""
    other = alert(
        source(FIRST + 2, 61_000.1, diaObjectId=OBJECT + 8), [source(EARLIER + 64, 1)], None
    )
    first = alert(
        source(FIRST, 61_000.25, 800.0),
        [source(EARLIER, 60_990.5, 300.0)],
        [forced(FORCED[0], 60_990.5), forced(FORCED[1], 61_000.25, 41.0)],
    )
    second = alert(
        source(SECOND, 61_010.25, 900.0, band="i"),
        [
            source(EARLIER, 60_990.5, 301.0),
            source(FIRST, 61_000.25, 801.0),
            source(TIMELESS, None),
            source(BARE, 60_995.5, None, band=None, psfFluxErr=None),
        ],
        [forced(FORCED[1], 61_000.25, 42.0), forced(FORCED[2], 61_010.25, None)],
    )
    return [other, first], [
        alert(source(FIRST + 4, 61_010.1, diaObjectId=OBJECT + 8), None, []),
        second,
    ]


_MEASURED: list[tuple[str, pa.DataType]] = [
    ("jd", pa.float64()),
    ("fid", pa.int32()),
    ("candid", pa.int64()),
    ("magpsf", pa.float32()),
    ("sigmapsf", pa.float32()),
    ("diffmaglim", pa.float32()),
    ("rb", pa.float32()),
    ("nbad", pa.int32()),
]
_FORCED_ZTF: list[tuple[str, pa.DataType]] = [
    ("jd", pa.float64()),
    ("fid", pa.int32()),
    ("magzpsci", pa.float32()),
    ("diffmaglim", pa.float32()),
    ("forcediffimflux", pa.float32()),
    ("forcediffimfluxunc", pa.float32()),
    ("procstatus", pa.string()),
]
ZTF_SCHEMA = pa.schema(
    [
        ("objectId", pa.string()),
        ("candid", pa.int64()),
        ("candidate", pa.struct(_MEASURED)),
        ("prv_candidates", pa.list_(pa.struct(_MEASURED))),
        ("fp_hists", pa.list_(pa.struct(_FORCED_ZTF))),
    ]
)


def ztf_alert() -> Row:
    """Return an alert with an upper limit in its history, and three forced measurements."""
    measured = {"magpsf": 18.5, "sigmapsf": 0.1, "diffmaglim": 20.5, "rb": 0.9, "nbad": 0}
    jd = 2_461_000.75
    fluxes = [(jd - 2, 1000.0), (jd - 2, 1000.0), (jd - 1, 20.0), (jd, 1100.0)]
    return {
        "objectId": ZTF_OBJECT,
        "candid": ZTF_ALERT,
        "candidate": {"jd": jd, "fid": 2, "candid": ZTF_ALERT, **measured},
        "prv_candidates": [{"jd": jd - 1, "fid": 2, "diffmaglim": 20.25}],
        "fp_hists": [
            {
                "jd": time,
                "fid": 2,
                "magzpsci": 26.25,
                "diffmaglim": 20.0,
                "forcediffimflux": flux,
                "forcediffimfluxunc": 30.0,
                "procstatus": "0",
            }
            for time, flux in fluxes
        ],
    }


def make_histories(folder: Path) -> Path:
    first, second = lsst_nights()
    write(folder / "lsst/first.parquet", first, LSST_SCHEMA)
    write(folder / "lsst/second.parquet", second, OTHER_SCHEMA)
    write(folder / "ztf/night.parquet", [ztf_alert()], ZTF_SCHEMA)
    return folder
