"""An archive of objects with many epochs, in files of two versions of each schema."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from .samples import KINDS, ZTF_SCHEMA, lsst_alert, lsst_fits, pixels, write, ztf_alert

Row = dict[str, Any]

OLD_NIGHT = "archive/science/year=2021/month=05/day=20/part-0.parquet"
NIGHT = "archive/science/year=2021/month=06/day=01/part-0.parquet"
NEXT_NIGHT = "archive/science/year=2021/month=06/day=02/part-0.parquet"
LSST_OLD = "lsst/old.parquet"
LSST_NEW = "lsst/new.parquet"

# The ids that the pages for users name.
DOCUMENTED = ("ZTF21aaxtctv", "ZTF21abfmbix", "ZTF21abfaohe", "ZTF24abssjsb")
DOCUMENTED_SOURCE = 169_936_132_527_095_844
DOCUMENTED_OBJECT = 169_830_579_938_263_176

_CANDIDATE: list[tuple[str, pa.DataType]] = [
    ("jd", pa.float64()),
    ("fid", pa.int32()),
    ("candid", pa.int64()),
    ("magpsf", pa.float32()),
    ("sigmapsf", pa.float32()),
    ("diffmaglim", pa.float32()),
    ("ra", pa.float64()),
    ("dec", pa.float64()),
    ("rb", pa.float32()),
    ("nbad", pa.int32()),
    ("isdiffpos", pa.string()),
]
_OF_ALERTS: list[tuple[str, pa.DataType]] = [
    ("drb", pa.float32()),
    ("classtar", pa.float32()),
    ("ndethist", pa.int32()),
    ("jdstarthist", pa.float64()),
    ("objectidps1", pa.int64()),
]
_HISTORY = pa.list_(pa.struct(_CANDIDATE))
_SCORES: list[tuple[str, pa.DataType]] = [
    ("cdsxmatch", pa.string()),
    ("roid", pa.int32()),
    ("snn_snia_vs_nonia", pa.float64()),
    ("snn_sn_vs_all", pa.float64()),
    ("rf_snia_vs_nonia", pa.float64()),
    ("rf_kn_vs_nonkn", pa.float64()),
]
_STAMPS = [ZTF_SCHEMA.field(f"cutout{kind}") for kind in KINDS]


def _schema(candidate: list[tuple[str, pa.DataType]], *added: tuple[str, pa.DataType]) -> pa.Schema:
    return pa.schema(
        [
            ("objectId", pa.string()),
            ("candid", pa.int64()),
            ("publisher", pa.string()),
            ("candidate", pa.struct(candidate)),
            ("prv_candidates", _HISTORY),
            *_STAMPS,
            *_SCORES,
            *added,
        ]
    )


OLD_SCHEMA = _schema(
    [*_CANDIDATE, *_OF_ALERTS],
    ("mulens", pa.struct([("class_1", pa.string()), ("class_2", pa.string())])),
    ("timestamp", pa.timestamp("us")),
)
# As pandas writes: wide integers, doubles, and an id with nulls as a float.
_WIDE = {pa.int32(): pa.int64(), pa.float32(): pa.float64()}
NEW_SCHEMA = _schema(
    [
        *((name, _WIDE.get(kind, kind)) for name, kind in _CANDIDATE),
        *((name, _WIDE.get(kind, kind)) for name, kind in _OF_ALERTS[:-1]),
        ("objectidps1", pa.float64()),
        ("exptime", pa.float64()),
    ],
    ("mulens", pa.float64()),
    ("tracklet", pa.string()),
    ("lc_features_g", pa.struct([("mean", pa.float64()), ("skew", pa.float64())])),
)


def measurement(jd: float, fid: int = 1, **changes: Any) -> Row:
    """Return a measurement of a history; without ``magpsf`` it is an upper limit."""
    found: Row = {name: None for name, _ in _CANDIDATE}
    found |= {"jd": jd, "fid": fid, "diffmaglim": 20.5, **changes}
    if found["magpsf"] is not None:
        found = {"rb": 0.9, "nbad": 0, "sigmapsf": 0.1, "isdiffpos": "t"} | {
            name: value for name, value in found.items() if value is not None
        }
    return found


def epoch(number: int, object_id: str, **changes: Any) -> Row:
    """Return a whole alert; ``number`` sets its candid, its time and its pixels."""
    row = ztf_alert(number, object_id, shape=changes.pop("shape", (63, 63)), nan=number % 3 == 0)
    jd = 2_459_355.5 + number / 8
    candidate = {
        "jd": jd,
        "fid": 1 + number % 2,
        "candid": row["candid"],
        "magpsf": 18.25 + number / 100,
        "sigmapsf": 0.1,
        "diffmaglim": 20.5,
        "ra": 193.8 + number / 1000,
        "dec": 2.9,
        "rb": 0.9,
        "nbad": 0,
        "isdiffpos": "t",
        "drb": 0.99,
        "classtar": 0.95,
        "ndethist": 12,
        "jdstarthist": jd - 30,
        "objectidps1": 111_111_938_000_000_001 if number % 2 else None,
        "exptime": 30.0,
    }
    row |= {
        "publisher": "Fink",
        "candidate": candidate,
        "prv_candidates": [],
        "cdsxmatch": "Unknown",
        "roid": 0,
        "snn_snia_vs_nonia": 0.7,
        "snn_sn_vs_all": 0.8,
        "rf_snia_vs_nonia": 0.1,
        "rf_kn_vs_nonkn": 0.0,
    }
    candidate |= {name: changes.pop(name) for name in list(changes) if name in candidate}
    return row | changes


@dataclass
class EpochsArchive:
    """The folder, and the rows of each file in it by name."""

    folder: Path
    rows: dict[str, list[Row]] = field(default_factory=dict)

    def write(self, name: str, rows: list[Row], schema: pa.Schema, **options: Any) -> None:
        write(self.folder / name, rows, schema, **options)
        self.rows[name] = rows

    def alerts(self, object_id: str) -> list[Row]:
        """Return the alerts of an object, newest first."""
        found = [row for rows in self.rows.values() for row in rows]
        found = [row for row in found if row.get("objectId") == object_id]
        return sorted(found, key=lambda row: (-row["candidate"]["jd"], -row["candid"]))

    def sources(self, object_id: int) -> list[Row]:
        """Return the alerts of an LSST object, newest first."""
        found = [row for rows in self.rows.values() for row in rows if "diaSource" in row]
        found = [row for row in found if row["diaSource"]["diaObjectId"] == object_id]
        return sorted(found, key=lambda row: -row["diaSource"]["midpointMjdTai"])


def make_epochs_archive(folder: Path) -> EpochsArchive:
    archive = EpochsArchive(folder)
    first, second, third, fourth = DOCUMENTED
    old = [epoch(n, first) for n in (2, 0, 3, 1)] + [epoch(10, second, mulens=None)]
    for row in old:
        row["mulens"] = {"class_1": "ML", "class_2": "ML"} if row["candid"] % 10 == 1 else None
    archive.write(OLD_NIGHT, old, OLD_SCHEMA)
    new = [epoch(n, (first, second)[n % 2], mulens=0.0, tracklet=None) for n in range(20, 32)]
    new += [epoch(40, third), epoch(41, fourth)]
    for row in new:
        # What is left of an id beyond 2^53 in a float.
        row["candidate"]["objectidps1"] = 1.1111193800000000e17
    new[0]["prv_candidates"] = _history(new[0], old[0])
    new[2]["prv_candidates"] = _history(new[2], old[0])
    new[1]["lc_features_g"] = {"mean": 18.5, "skew": float("nan")}
    new[1]["tracklet"] = "TRCK_2021_1"
    new[3]["cdsxmatch"] = "QSO"
    new[5]["roid"] = 3
    archive.write(NIGHT, new, NEW_SCHEMA)
    archive.write(
        NEXT_NIGHT,
        [epoch(n, first) for n in range(50, 54)],
        OLD_SCHEMA,
        use_dictionary=True,
        compression="zstd",
    )
    _write_lsst(archive)
    return archive


def _history(alert: Row, earlier: Row) -> list[Row]:
    jd = alert["candidate"]["jd"]
    known = earlier["candidate"]
    return [
        measurement(jd - 1.0, 1),
        measurement(jd - 1.5, 2, magpsf=19.0, rb=0.3),
        measurement(jd - 2.0, 1, magpsf=19.25, nbad=2),
        measurement(jd - 2.5, 2, magpsf=19.5, candid=alert["candid"] + 900_000_000),
        # This one is an alert of its own, and its time has lost a digit on the way.
        measurement(known["jd"] + 1e-8, known["fid"], magpsf=known["magpsf"]),
    ]


_SOURCE_FIELDS: list[tuple[str, pa.DataType]] = [
    ("diaSourceId", pa.int64()),
    ("diaObjectId", pa.int64()),
    ("ssObjectId", pa.int64()),
    ("midpointMjdTai", pa.float64()),
    ("ra", pa.float64()),
    ("dec", pa.float64()),
    ("psfFlux", pa.float32()),
    ("band", pa.string()),
]
_OBJECT_FIELDS: list[tuple[str, pa.DataType]] = [
    ("diaObjectId", pa.int64()),
    ("ra", pa.float64()),
    ("g_psfFluxMean", pa.float32()),
]


def _lsst_schema(*more: tuple[str, pa.DataType], top: bool = False) -> pa.Schema:
    ids = [("diaSourceId", pa.int64())] if top else []
    return pa.schema(
        [
            *ids,
            ("diaSource", pa.struct([*_SOURCE_FIELDS, *more])),
            ("prvDiaSources", pa.list_(pa.struct(_SOURCE_FIELDS))),
            ("diaObject", pa.struct(_OBJECT_FIELDS)),
            *((f"cutout{kind}", pa.binary()) for kind in KINDS),
            ("cdsxmatch", pa.string()),
        ]
    )


def source(number: int, source_id: int, object_id: int | None) -> Row:
    row = lsst_alert(number, **{kind: lsst_fits(pixels(number, (30, 31))) for kind in KINDS})
    row["diaSourceId"] = source_id
    row["diaSource"] |= {
        "diaSourceId": source_id,
        "diaObjectId": object_id,
        "ssObjectId": None,
        "ra": 53.1,
        "dec": -28.1,
        "psfFlux": 1234.5 + number,
        "band": "ugrizy"[number % 6],
        "snr": 7.5,
    }
    row["diaObject"] = {"diaObjectId": object_id, "ra": 53.1, "g_psfFluxMean": 1000.25 + number}
    return row | {"prvDiaSources": [], "cdsxmatch": "Unknown"}


def _write_lsst(archive: EpochsArchive) -> None:
    old = [source(n, DOCUMENTED_SOURCE - 10 + n, DOCUMENTED_OBJECT) for n in (1, 0, 2)]
    new = [source(9, DOCUMENTED_SOURCE, DOCUMENTED_OBJECT)]
    new += [source(n, DOCUMENTED_SOURCE + n, DOCUMENTED_OBJECT + 1) for n in (3, 4)]
    archive.write(LSST_OLD, old, _lsst_schema())
    archive.write(LSST_NEW, new, _lsst_schema(("snr", pa.float32()), top=True))


def copy_of(archive: EpochsArchive, folder: Path) -> EpochsArchive:
    """Return the same archive in another folder, to be changed by a test."""
    shutil.copytree(archive.folder, folder)
    return EpochsArchive(folder, dict(archive.rows))
