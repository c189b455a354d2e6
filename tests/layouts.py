"""The same alerts in the physical layouts that writers make of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from .samples import KINDS

STAMP_BYTES = 24
"""Of every stamp here: one layout has bytes of a fixed length."""


def _signed(stamp: bytes) -> list[int]:
    return [byte - 256 if byte > 127 else byte for byte in stamp]


def _as_text(stamps: Sequence[bytes | None]) -> pa.Array:
    return pa.array(stamps, pa.binary()).view(pa.string())


def _lists(kind: pa.DataType, values: Callable[[bytes], Any]) -> Callable[..., pa.Array]:
    return lambda stamps: pa.array([it if it is None else values(it) for it in stamps], kind)


STAMPS: Mapping[str, Callable[[Sequence[bytes | None]], pa.Array]] = {
    "binary": lambda stamps: pa.array(stamps, pa.binary()),
    "large": lambda stamps: pa.array(stamps, pa.large_binary()),
    "view": lambda stamps: pa.array(stamps, pa.binary_view()),
    "fixed": lambda stamps: pa.array(stamps, pa.binary(STAMP_BYTES)),
    "text": _as_text,
    "dictionary": lambda stamps: pa.array(stamps, pa.binary()).dictionary_encode(),
    "list of uint8": _lists(pa.list_(pa.uint8()), list),
    "list of int8": _lists(pa.list_(pa.int8()), _signed),
    "list of int32": _lists(pa.list_(pa.int32()), list),
    "large list": _lists(pa.large_list(pa.uint8()), list),
    "fixed list": _lists(pa.list_(pa.uint8(), STAMP_BYTES), list),
}


def _texts(ids: Sequence[int | None]) -> list[str | None]:
    return [it if it is None else str(it) for it in ids]


NUMBERS: Mapping[str, Callable[[Sequence[int | None]], pa.Array]] = {
    "int64": lambda ids: pa.array(ids, pa.int64()),
    "uint64": lambda ids: pa.array(ids, pa.uint64()),
    "text": lambda ids: pa.array(_texts(ids), pa.string()),
    "bytes": lambda ids: pa.array(_texts(ids), pa.string()).cast(pa.binary()),
    "dictionary": lambda ids: pa.array(_texts(ids), pa.string()).dictionary_encode(),
    "decimal": lambda ids: pa.array(
        [it if it is None else Decimal(it) for it in ids], pa.decimal128(20, 0)
    ),
}
NAMES: Mapping[str, Callable[[Sequence[str | None]], pa.Array]] = {
    "text": lambda names: pa.array(names, pa.string()),
    "bytes": lambda names: pa.array(names, pa.string()).cast(pa.binary()),
    "large": lambda names: pa.array(names, pa.large_string()),
    "view": lambda names: pa.array(names, pa.string_view()),
    "dictionary": lambda names: pa.array(names, pa.string()).dictionary_encode(),
}
SPELLINGS: Mapping[str, Callable[[str], str]] = {
    "usual": str,
    "lower": str.lower,
    "upper": str.upper,
    "swapped": str.swapcase,
}


@dataclass(frozen=True)
class Layout:
    """One way to store alerts."""

    stamps: str = "binary"
    in_struct: bool = True
    spelling: str = "usual"
    numbers: str = "int64"
    names: str = "text"
    writer: str = "pyarrow"
    """Or ``plain``: pyarrow, which does not keep its own types; or ``duckdb``."""


def _struct(fields: Mapping[str, pa.Array]) -> pa.Array:
    return pa.StructArray.from_arrays(list(fields.values()), names=list(fields))


def _stamp_column(layout: Layout, stamps: Sequence[bytes | None]) -> pa.Array:
    spell = SPELLINGS[layout.spelling]
    held = STAMPS[layout.stamps](stamps)
    if not layout.in_struct:
        return held
    names = pa.array(["a.fits"] * len(stamps))
    return _struct({spell("fileName"): names, spell("stampData"): held})


def ztf_table(alerts: Sequence[Mapping[str, Any]], layout: Layout) -> pa.Table:
    """Return alerts (``objectId``, ``candid``, ``jd``, ``fid``, a stamp for each kind)."""
    spell = SPELLINGS[layout.spelling]

    def values(name: str) -> list[Any]:
        return [alert[name] for alert in alerts]

    candidate = {
        spell("jd"): pa.array(values("jd"), pa.float64()),
        spell("fid"): pa.array(values("fid"), pa.int32()),
    }
    columns = {
        "objectId": NAMES[layout.names](values("objectId")),
        "candid": NUMBERS[layout.numbers](values("candid")),
        "candidate": _struct(candidate),
        **{f"cutout{kind}": _stamp_column(layout, values(kind)) for kind in KINDS},
    }
    return pa.table({spell(name): column for name, column in columns.items()})


def lsst_table(alerts: Sequence[Mapping[str, Any]], layout: Layout) -> pa.Table:
    """Return alerts (``diaSourceId``, ``diaObjectId``, ``midpointMjdTai``, stamps).

    Their objects' ids are doubles in ``diaObject``, next to those in ``diaSource``.
    """
    spell = SPELLINGS[layout.spelling]

    def values(name: str) -> list[Any]:
        return [alert[name] for alert in alerts]

    objects = values("diaObjectId")
    source = {
        spell("diaSourceId"): NUMBERS[layout.numbers](values("diaSourceId")),
        spell("diaObjectId"): NUMBERS[layout.numbers](objects),
        spell("midpointMjdTai"): pa.array(values("midpointMjdTai"), pa.float64()),
    }
    floats = pa.array([it if it is None else float(it) for it in objects], pa.float64())
    columns = {
        "diaObject": _struct({spell("diaObjectId"): floats}),
        "diaSource": _struct(source),
        **{f"cutout{kind}": _stamp_column(layout, values(kind)) for kind in KINDS},
    }
    return pa.table({spell(name): column for name, column in columns.items()})


def write_layout(path: Path, table: pa.Table, layout: Layout, **options: Any) -> None:
    """Write a table as the writer of the layout does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if layout.writer == "duckdb":
        with duckdb.connect() as connection:
            connection.register("alerts", table)
            connection.execute(f"COPY (SELECT * FROM alerts) TO '{path}' (FORMAT parquet)")
        return
    if "view" in (layout.stamps, layout.names):  # pyarrow does not cut these into row groups
        options = {**options, "row_group_size": max(1, len(table))}
    pq.write_table(table, path, store_schema=layout.writer == "pyarrow", **options)


def as_bytes(value: Any) -> bytes | None:
    """Return a stamp as pyarrow reads it, as the bytes that it stands for."""
    if isinstance(value, dict):
        (value,) = (held for name, held in value.items() if name.lower() == "stampdata")
    if value is None or isinstance(value, bytes):
        return value
    return bytes(byte % 256 for byte in value)
