"""Small parquet files with known contents: every peculiarity of the real ones, one at a time."""

from __future__ import annotations

import base64
import gzip
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.io import fits
from pyarrow.parquet import encryption

REAL_DATA = Path(__file__).parents[2] / "shared" / "data"

KINDS = ("Science", "Template", "Difference")

# The first card as ZTF writes it, T at the wrong column.
ZTF_FIRST_CARD = b"SIMPLE  =  T".ljust(80)


def pixels(seed: int, shape: tuple[int, int] = (63, 63), *, nan: bool = False) -> np.ndarray:
    """Return float32 pixels of shape (ny, nx) that no other seed gives."""
    rng = np.random.default_rng(seed)
    image = rng.normal(150, 12, shape).astype(np.float32)
    image[shape[0] // 2, shape[1] // 2] += 500
    if nan:
        image[:, -3:] = np.nan
    return image


def ztf_fits(image: np.ndarray, **cards: Any) -> bytes:
    """Return a FITS file as ZTF makes it: one HDU, a few cards, the first malformed."""
    buffer = io.BytesIO()
    header = fits.Header([("BUNIT", "DN"), *cards.items()])
    fits.PrimaryHDU(image, header).writeto(buffer)
    return ZTF_FIRST_CARD + buffer.getvalue()[80:]


def lsst_fits(image: np.ndarray) -> bytes:
    """Return a FITS file as LSST makes it: image, variance and PSF, a WCS without CTYPE."""
    header = fits.Header(
        [("BUNIT", "nJy"), ("CRPIX1", 15.0), ("CRVAL1", 250.2), ("PC1_1", -4.98e-05)]
    )
    hdus = fits.HDUList(
        [
            fits.PrimaryHDU(image, header),
            fits.ImageHDU(np.abs(image) + 1, name="UNCERT"),
            fits.ImageHDU(np.outer(*[np.hanning(41)] * 2), name="PSFIMAGE"),
        ]
    )
    buffer = io.BytesIO()
    hdus.writeto(buffer)
    return buffer.getvalue()


def ztf_alert(number: int, object_id: str = "ZTF24aaaaaaa", **changes: Any) -> dict[str, Any]:
    """Return one row; ``number`` makes candid, time and pixels distinct.

    ``Science``, ``Template``, ``Difference`` replace the stored bytes of a stamp (None: a null
    field), ``null_struct`` names kinds whose whole struct is null.
    """
    row: dict[str, Any] = {
        "objectId": object_id,
        "candid": 2_656_254_792_815_010_000 + number,
        "candidate": {"jd": 2_460_410.5 + number, "fid": 1 + number % 2},
    }
    row.update({name: changes.pop(name) for name in list(changes) if name in row})
    shape = changes.pop("shape", (63, 63))
    nan = changes.pop("nan", False)
    null_struct = changes.pop("null_struct", ())
    for place, kind in enumerate(KINDS):
        stored = gzip.compress(ztf_fits(pixels(3 * number + place, shape, nan=nan)), 1, mtime=0)
        stored = changes.pop(kind, stored)
        row[f"cutout{kind}"] = {"fileName": f"{number}_{kind}.fits.gz", "stampData": stored}
        if kind in null_struct:
            row[f"cutout{kind}"] = None
    assert not changes, changes
    return row


_STAMP = pa.struct([("fileName", pa.string()), ("stampData", pa.binary())])
ZTF_SCHEMA = pa.schema(
    [
        ("objectId", pa.string()),
        ("candid", pa.int64()),
        ("candidate", pa.struct([("jd", pa.float64()), ("fid", pa.int32())])),
        *((f"cutout{kind}", _STAMP) for kind in KINDS),
    ]
)

_SOURCE = [
    ("diaSourceId", pa.int64()),
    ("diaObjectId", pa.int64()),
    ("midpointMjdTai", pa.float64()),
]
_OBJECT = pa.struct([("diaObjectId", pa.int64()), ("ra", pa.float64())])
LSST_SCHEMA = pa.schema(
    [
        ("diaSource", pa.struct(_SOURCE)),
        ("diaObject", _OBJECT),
        *((f"cutout{kind}", pa.binary()) for kind in KINDS),
    ]
)
LSST_TOP_LEVEL_SCHEMA = pa.schema([("diaSourceId", pa.int64()), *LSST_SCHEMA])


def lsst_alert(number: int, object_number: int | None = 1, **changes: Any) -> dict[str, Any]:
    """Return one row; ``object_number`` None is a solar system source without diaObject."""
    source = 3_068_429_599_923_765_000 + number
    object_id = None if object_number is None else 3_068_394_238_371_692_000 + object_number
    shape = changes.pop("shape", (30, 30))
    row: dict[str, Any] = {
        "diaSourceId": source,
        "diaSource": {
            "diaSourceId": source,
            "diaObjectId": object_id,
            "midpointMjdTai": 60_900.25 + number,
        },
        "diaObject": None if object_id is None else {"diaObjectId": object_id, "ra": 250.2},
    }
    for place, kind in enumerate(KINDS):
        image = pixels(1_000_000 + 3 * number + place, shape)
        row[f"cutout{kind}"] = changes.pop(kind, lsst_fits(image))
    assert not changes, changes
    return row


WINTER_SCHEMA = pa.schema(
    [
        ("objectid", pa.string()),
        ("candid", pa.int64()),
        (
            "candidate",
            pa.struct(
                [
                    ("candid", pa.int64()),
                    ("jd", pa.float64()),
                    ("fid", pa.int32()),
                    ("progname", pa.string()),
                    ("isdiffpos", pa.bool_()),
                    ("ra", pa.float64()),
                    ("dec", pa.float64()),
                    ("magpsf", pa.float32()),
                    ("sigmapsf", pa.float32()),
                    ("diffmaglim", pa.float32()),
                ]
            ),
        ),
        (
            "prv_candidates",
            pa.list_(
                pa.struct(
                    [
                        ("candid", pa.int64()),
                        ("jd", pa.float64()),
                        ("fid", pa.int32()),
                        ("magpsf", pa.float32()),
                        ("sigmapsf", pa.float32()),
                    ]
                )
            ),
        ),
        *((f"cutout_{kind.lower()}", pa.binary()) for kind in KINDS),
    ]
)


def winter_fits(image: np.ndarray) -> bytes:
    """Return a FITS file as WINTER makes it: one HDU, and no card but those that it must have."""
    buffer = io.BytesIO()
    fits.PrimaryHDU(image).writeto(buffer)
    return buffer.getvalue()


def winter_alert(
    number: int,
    object_id: str = "WNTR24aaaaa",
    *,
    positive: bool = True,
    past: Sequence[int] = (),
    **candidate: Any,
) -> dict[str, Any]:
    """Return one row, whose Difference is of float64; ``past`` are the numbers of its history."""
    row: dict[str, Any] = {
        "objectid": object_id,
        "candid": 3_608_000 + number,
        "candidate": {
            "candid": 3_608_000 + number,
            "jd": 2_460_381.5 + number,
            "fid": number % 3,
            "progname": "2024A001",
            "isdiffpos": positive,
            "ra": 262.5 + 0.01 * number,
            "dec": 7.25,
            "magpsf": 15.5 + 0.25 * number,
            "sigmapsf": 0.03,
            "diffmaglim": 17.7,
        }
        | candidate,
    }
    row["prv_candidates"] = [
        {
            "candid": 3_608_000 + before,
            "jd": 2_460_381.5 + before,
            "fid": before % 3,
            "magpsf": 15.5 + 0.25 * before,
            "sigmapsf": 0.03,
        }
        for before in past
    ]
    for place, kind in enumerate(KINDS):
        image = pixels(2_000_000 + 3 * number + place, (81, 81), nan=number % 2 == 1)
        if kind == "Difference":
            image = image.astype(np.float64) / 3 - 50
        row[f"cutout_{kind.lower()}"] = gzip.compress(winter_fits(image), 1, mtime=0)
    return row


def write(
    path: Path, rows: Sequence[dict[str, Any]], schema: pa.Schema = ZTF_SCHEMA, **options: Any
) -> Path:
    """Write rows as one parquet file, as Spark does unless ``options`` say otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = set(schema.names)
    kept = [{name: value for name, value in row.items() if name in names} for row in rows]
    table = pa.Table.from_pylist(kept, schema)
    options = {"compression": "snappy", "use_dictionary": False, "row_group_size": 4} | options
    pq.write_table(table, path, **options)
    return path


def stored_fits(row: dict[str, Any], kind: str) -> bytes:
    """Return the FITS file that a row's stamp holds, uncompressed."""
    value = row[f"cutout{kind}" if f"cutout{kind}" in row else f"cutout_{kind.lower()}"]
    stored = value["stampData"] if isinstance(value, dict) else value
    return gzip.decompress(stored) if stored[:2] == b"\x1f\x8b" else stored


def image_of(content: bytes) -> np.ndarray:
    """Return the primary image as astropy reads it: the independent path."""
    with fits.open(io.BytesIO(content), ignore_missing_simple=True) as hdus:
        return np.array(hdus[0].data)


class _Keys(encryption.KmsClient):  # type: ignore[misc]
    """A key service that hands the wrapped key back: enough to write files by."""

    def wrap_key(self, key_bytes: bytes, master_key_identifier: str) -> str:
        return base64.b64encode(key_bytes).decode()

    def unwrap_key(self, wrapped_key: str, master_key_identifier: str) -> bytes:
        return base64.b64decode(wrapped_key)


def write_encrypted(
    path: Path,
    rows: Sequence[dict[str, Any]],
    schema: pa.Schema = ZTF_SCHEMA,
    *,
    columns: Sequence[str] = ("cutoutScience.stampData",),
    plaintext_footer: bool = True,
    **options: Any,
) -> Path:
    """Write rows as ``write`` does, some columns encrypted, and the footer too or only signed."""
    configuration = encryption.EncryptionConfiguration(
        footer_key="footer",
        column_keys={"column": list(columns)},
        plaintext_footer=plaintext_footer,
        double_wrapping=False,
    )
    factory = encryption.CryptoFactory(lambda _: _Keys())
    properties = factory.file_encryption_properties(encryption.KmsConnectionConfig(), configuration)
    return write(path, rows, schema, encryption_properties=properties, **options)
