"""The surveys as data: what callers name, and where the parquet files keep it.

A column may have moved between versions of a schema, so each thing is looked for under
several dotted names and the first that a file has is taken. A further survey is one more row.
Sources: the ZTF alert schema 3.3 (ztf-avro-alert), the LSST alert schemas 7.4 to 10.0
(lsst/alert_packet), and the column names that the Fink broker writes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

KINDS = ("Science", "Template", "Difference")

_INT64 = re.compile(r"-?[0-9]{1,19}", re.ASCII)
_ZTF_NAME = re.compile(r"ZTF[0-9]{2}[a-z]{7}", re.ASCII)

KeyValue = int | str


def parse_int64(value: object) -> int:
    """Return ``value``, a JSON integer or a string of digits, as an int64.

    Raises ValueError for anything else, floats above all: an id exceeds 2^53 and would
    come out of a float as another alert's.
    """
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("must be a whole number, sent as a string or a JSON integer")
    if isinstance(value, str):
        value = value.strip()
        if not _INT64.fullmatch(value):
            raise ValueError("must be a whole number, digits only")
        value = int(value)
    if not -(2**63) <= value < 2**63:
        raise ValueError("must fit 64 bits")
    return value


def parse_ztf_name(value: object) -> str:
    """Return ``value`` as a ZTF object name, e.g. ``ZTF24abssjsb``; raises ValueError."""
    if not isinstance(value, str) or not _ZTF_NAME.fullmatch(value.strip()):
        raise ValueError(
            "must be a ZTF object name: ZTF, two digits, seven lower-case letters, "
            "e.g. ZTF24abssjsb"
        )
    return value.strip()


# int() reads digits of base 26 as 0-9 and a-p; names count with a-z.
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_DIGITS = "0123456789abcdefghijklmnop"
_TO_DIGITS = str.maketrans(_LETTERS, _DIGITS)


def pack_ztf_name(name: KeyValue) -> int:
    """Return a ZTF object name as a number below 2^40: its year, then its letters in base 26.

    Raises ValueError for anything that is not spelled as one.
    """
    if not isinstance(name, str) or not _ZTF_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a ZTF object name")
    return int(name[3:5]) * 26**7 + int(name[5:].translate(_TO_DIGITS), 26)


def unpack_ztf_name(number: int) -> str:
    """Return the name that ``pack_ztf_name`` made this number of."""
    year, rest = divmod(number, 26**7)
    letters = "".join(_LETTERS[rest // 26**place % 26] for place in range(6, -1, -1))
    return f"ZTF{year:02d}{letters}"


@dataclass(frozen=True)
class Key:
    """A name that callers look alerts up by, and the columns that may hold it."""

    name: str
    columns: tuple[str, ...]
    read: Callable[[object], KeyValue]
    description: str
    example: str
    pack: Callable[[KeyValue], int] = int
    """The value as an int64, for the catalog; raises ValueError for what is not one."""
    unpack: Callable[[int], KeyValue] = int
    least: int = 1
    """Of numbers: those below it stand for no alert or no object, as 0 and -1 do in LSST files."""

    @property
    def is_number(self) -> bool:
        return self.pack is int

    @property
    def least_packed(self) -> int:
        return self.least if self.is_number else 0

    def parse(self, value: object) -> KeyValue:
        """Return what a caller sent as a value of this key; raises ValueError for what is none."""
        found = self.read(value)
        if isinstance(found, int) and found < self.least:
            raise ValueError(f"must be at least {self.least}: 0 and below stand for none")
        return found

    def takes(self, text: str) -> bool:
        """Whether a text may be one of its values."""
        try:
            self.parse(text)
        except ValueError:
            return False
        return True


@dataclass(frozen=True)
class Survey:
    """One survey's columns and names."""

    name: str
    alert_key: Key
    """Names one alert."""
    object_key: Key
    """Names an object, which has one alert per epoch."""
    moving_key: Key | None
    """Names what moves through the sky, whose alerts belong to no object."""
    time_columns: tuple[str, ...]
    """Orders an object's alerts, in days; the alert id breaks ties and stands in for it."""
    stamp_columns: tuple[str, ...]
    """Templates of the column that holds a stamp: the usual one, then what other writers make."""
    id_names: tuple[str, ...]
    """Last names of columns that hold ids, which no answer shows as floats."""
    file_key: str
    """The key that names a saved file, where the caller gave it; the alert id otherwise."""
    response_key: str
    """Template of the member that holds a stamp in the public dialect's JSON."""
    time_scale: str
    """``utc`` or ``tai``."""
    mjd_offset: float
    """A time in its column minus this is a Modified Julian Date."""
    band_columns: tuple[str, ...]
    bands: Mapping[int | str, str]
    """What the column of bands holds -> the band's name, from blue to red."""
    brightness_columns: tuple[str, ...]
    brightness_unit: str
    """``mag``, of which less is brighter, or ``nJy``."""
    ra_columns: tuple[str, ...]
    dec_columns: tuple[str, ...]
    """Degrees, ICRS."""
    sign_columns: tuple[str, ...]
    signs: Mapping[bool | int | str, bool]
    """What the column holds -> whether the source is brighter than in the template."""
    sky_matrix: tuple[tuple[float, float], tuple[float, float]] | None
    """Degrees (east, north) for one pixel along (columns, rows); None: the header says it."""
    planes: Mapping[str, str]
    """What a stamp's file holds besides its image -> the name of the HDU."""
    difference_follows_sign: bool
    """Whether a Difference stamp is template - science where the source is fainter."""

    @property
    def keys(self) -> tuple[Key, Key]:
        return (self.object_key, self.alert_key)

    @property
    def time_name(self) -> str:
        """The name of the time in answers: ``jd``, ``midpointMjdTai``."""
        return self.time_columns[0].rpartition(".")[2]

    @property
    def row_0_on_top(self) -> bool:
        """Whether a stamp has the parity of the sky with row 0 on top, and not at the bottom."""
        # LSST's headers turn each stamp otherwise, but never mirror it with row 0 at the bottom.
        return self.sky_matrix is not None and self.sky_matrix[1][1] < 0

    def stamp_column_names(self, kind: str) -> tuple[str, ...]:
        """Return the dotted names under which a file may hold the stamps of ``kind``."""
        return tuple(template.format(kind=kind) for template in self.stamp_columns)


ZTF = Survey(
    name="ztf",
    alert_key=Key(
        "candid",
        columns=("candid", "candidate.candid"),
        read=parse_int64,
        description="ZTF alert id. Without it, the latest alert of the object.",
        example="2656254792815010011",
    ),
    object_key=Key(
        "objectId",
        columns=("objectId",),
        read=parse_ztf_name,
        description="ZTF object name: ZTF, two digits, seven letters.",
        example="ZTF24abssjsb",
        pack=pack_ztf_name,
        unpack=unpack_ztf_name,
    ),
    moving_key=None,  # each of its alerts has an object of its own
    time_columns=("candidate.jd", "jd"),
    # The alert packet ships fits.gz, with the name of the file; brokers drop the name.
    stamp_columns=("cutout{kind}.stampData", "cutout{kind}"),
    id_names=("objectId", "candid", "pid"),
    file_key="objectId",
    response_key="b:cutout{kind}_stampData",
    time_scale="utc",
    mjd_offset=2400000.5,
    band_columns=("candidate.fid", "fid"),
    bands={1: "g", 2: "r", 3: "i"},
    brightness_columns=("candidate.magpsf", "magpsf"),
    brightness_unit="mag",
    ra_columns=("candidate.ra", "ra"),
    dec_columns=("candidate.dec", "dec"),
    sign_columns=("candidate.isdiffpos", "isdiffpos"),
    # The schema has text; broker files have it as a number or a truth value too (1 == True here).
    signs={"t": True, "1": True, "f": False, "0": False, 1: True, 0: False},
    # Row 0 at the top is north up, east left; 1.01 arcsec a pixel.
    sky_matrix=((-1.01 / 3600, 0.0), (0.0, -1.01 / 3600)),
    planes={},
    difference_follows_sign=True,
)

LSST = Survey(
    name="lsst",
    alert_key=Key(
        "diaSourceId",
        columns=("diaSourceId", "diaSource.diaSourceId"),
        read=parse_int64,
        description="LSST alert id.",
        example="169936132527095844",
    ),
    object_key=Key(
        "diaObjectId",
        columns=("diaObjectId", "diaSource.diaObjectId", "diaObject.diaObjectId"),
        read=parse_int64,
        description="LSST object id: the latest diaSource of that object.",
        example="169830579938263176",
    ),
    moving_key=Key(
        "ssObjectId",
        columns=("ssObjectId", "diaSource.ssObjectId", "ssSource.ssObjectId"),
        read=parse_int64,
        description="LSST id of a solar system object.",
        example="22552096084275251",
    ),
    time_columns=("midpointMjdTai", "diaSource.midpointMjdTai"),
    stamp_columns=("cutout{kind}", "cutout{kind}.stampData"),
    id_names=(
        "diaSourceId",
        "diaObjectId",
        "ssObjectId",
        "parentDiaSourceId",
        "diaForcedSourceId",
        "alertId",
    ),
    file_key="diaSourceId",
    response_key="b:cutout{kind}",
    time_scale="tai",
    mjd_offset=0.0,
    band_columns=("diaSource.band", "band"),
    bands={band: band for band in "ugrizy"},
    brightness_columns=("diaSource.psfFlux", "psfFlux"),
    brightness_unit="nJy",
    ra_columns=("diaSource.ra", "ra"),
    dec_columns=("diaSource.dec", "dec"),
    sign_columns=("diaSource.isNegative", "isNegative"),
    signs={False: True, True: False},
    sky_matrix=None,
    planes={"variance": "UNCERT", "psf": "PSFIMAGE"},
    difference_follows_sign=False,
)

SURVEYS = (ZTF, LSST)
