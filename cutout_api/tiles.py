"""Images that a table holds as compressed tiles, as ``.fits.fz`` files do: RICE_1 and gzip.

The tiles are decoded here and not by astropy, whose C code believes what it is given: for an odd
BYTEPIX or a tile that ends early it reads beyond its buffers, and a gzipped tile may inflate to any
size. Its Python code is the oracle of the tests. Source: FITS 4.0, section 10.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import StampTooLarge, StampUnreadable
from .gunzip import inflate
from .hdus import BITPIX, MOST_AXES, Hdu

MOST_PIXELS = 1 << 20
"""Of a compressed image: a pixel takes a microsecond."""
MOST_TILES = 1 << 14
_DTYPES = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}

Array = NDArray[Any]

# --- the table ---------------------------------------------------------------------------------

_FORM = re.compile(r"(\d{0,9})([LXBIJKAEDCMPQ])([BIJ]?).*")
_BYTES = dict(zip("LBIJKAEDCMPQ", (1, 1, 2, 4, 8, 1, 4, 8, 8, 16, 8, 16), strict=True))
_DESCRIPTORS = {"P": ">i4", "Q": ">i8"}
_NUMBERS = {"B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8"}


@dataclass(frozen=True)
class _Column:
    values: Array
    """Numbers, one a row; or (elements, offset in the heap) of each row."""
    size: int
    """Bytes of an element in the heap; 0: there is none."""


def _read_columns(hdu: Hdu) -> dict[str, _Column]:
    """Return the columns of numbers and of arrays in the heap by name."""
    width, rows = hdu.axes
    table = np.frombuffer(hdu.data, np.uint8, width * rows).reshape(rows, width)
    columns: dict[str, _Column] = {}
    start = 0
    for number in range(1, min(hdu.integer("TFIELDS") or 0, MOST_AXES) + 1):
        form = _FORM.fullmatch(hdu.text(f"TFORM{number}"))
        if form is None:
            raise _damaged(f"TFORM{number}")
        count, letter = int(form[1] or 1), form[2]
        length = -(-count // 8) if letter == "X" else count * _BYTES[letter]
        cells = table[:, start : start + length]
        start += length
        if start > width:
            raise _damaged(f"TFORM{number}")
        if count != 1 or letter not in _NUMBERS | _DESCRIPTORS:
            continue
        name = hdu.text(f"TTYPE{number}").upper()
        values = np.ascontiguousarray(cells).view((_NUMBERS | _DESCRIPTORS)[letter])
        if letter in _DESCRIPTORS:
            columns[name] = _Column(values, _BYTES.get(form[3], 0))
        else:
            columns[name] = _Column(values[:, 0], 0)
    return columns


def _damaged(what: str) -> StampUnreadable:
    return StampUnreadable(f"the stored stamp's compressed image is damaged: {what}")


# --- the image ---------------------------------------------------------------------------------


def find_layout(hdu: Hdu) -> tuple[int, tuple[int, ...]] | None:
    """Return BITPIX and (NAXIS1, NAXIS2, ...) of the image that a table holds, if it says so."""
    bitpix, naxis = hdu.integer("ZBITPIX"), hdu.integer("ZNAXIS")
    if bitpix not in BITPIX or naxis is None or not 0 <= naxis <= MOST_AXES:
        return None
    axes = [hdu.integer(f"ZNAXIS{axis}") for axis in range(1, naxis + 1)]
    known = tuple(size for size in axes if size is not None)
    return (bitpix, known) if len(known) == naxis and min(known, default=0) >= 0 else None


def decode_tiles(hdu: Hdu, bitpix: int, shape: tuple[int, int]) -> Array:
    """Return the image that the tiles hold, (ny, nx), as BITPIX says, BSCALE not applied.

    Masked pixels of an image that was quantized are NaN. Raises StampUnreadable for tiles that are
    damaged or compressed in a way that is not read, StampTooLarge.
    """
    if shape[0] * shape[1] > MOST_PIXELS:
        raise StampTooLarge(f"a compressed image of more than {MOST_PIXELS} pixels is not read")
    tile = _tile_shape(hdu, shape)
    across = tuple(-(-size // part) for size, part in zip(shape, tile, strict=True))
    if len(hdu.axes) != 2 or across[0] * across[1] != hdu.axes[1]:
        raise _damaged("it has not a row for each tile")
    if hdu.axes[1] > MOST_TILES:
        raise StampTooLarge(f"a compressed image of more than {MOST_TILES} tiles is not read")
    decoder = _Decoder(hdu, bitpix)
    image = np.empty(shape, _DTYPES[bitpix])
    for row in range(hdu.axes[1]):
        y, x = (place * part for place, part in zip(divmod(row, across[1]), tile, strict=True))
        part = image[y : y + tile[0], x : x + tile[1]]
        with np.errstate(all="ignore"):
            part[...] = decoder.decode(row, part.size).reshape(part.shape)
    return image


def _tile_shape(hdu: Hdu, shape: tuple[int, int]) -> tuple[int, int]:
    nx, ny = hdu.integer("ZTILE1", shape[1]), hdu.integer("ZTILE2", 1)
    if not nx or not ny or nx < 1 or ny < 1:
        raise _damaged("ZTILE")
    return min(ny, shape[0]), min(nx, shape[1])


class _Decoder:
    """Decodes the tiles of one table."""

    def __init__(self, hdu: Hdu, bitpix: int) -> None:
        self._bitpix = bitpix
        self._columns = _read_columns(hdu)
        theap = hdu.integer("THEAP", hdu.axes[0] * hdu.axes[1])
        if theap is None or theap < 0:
            raise _damaged("THEAP")
        self._heap = hdu.data[theap:]
        self._uncompress = _find_algorithm(hdu)
        self._scale = self._of_tiles(hdu, "ZSCALE")
        self._zero = self._of_tiles(hdu, "ZZERO")
        blank = self._of_tiles(hdu, "ZBLANK")
        self._blank = self._of_tiles(hdu, "BLANK") if blank is None else blank
        self._dither = hdu.text("ZQUANTIZ").upper() or "NO_DITHER"
        self._seed = hdu.integer("ZDITHER0", 1)
        if self._dither not in _DITHERS or self._seed is None:
            raise _damaged("ZQUANTIZ")

    def _of_tiles(self, hdu: Hdu, name: str) -> Callable[[int], float] | None:
        """Return what gives a number for each tile: a column, or else one card for all."""
        column = self._columns.get(name)
        if column is not None and column.size == 0 and column.values.ndim == 1:
            values = column.values
            return lambda row: float(values[row])
        card = hdu.number_of(name)
        return None if card is None else lambda row: card

    def decode(self, row: int, pixels: int) -> Array:
        """Return the pixels of a tile, in one row."""
        stored = self._read("COMPRESSED_DATA", row)
        if stored:
            found = self._uncompress(stored, pixels)
            if self._scale is not None and self._zero is not None and self._bitpix < 0:
                return self._unquantize(_as_numbers(found, pixels, "i"), row)
            return _as_numbers(found, pixels, "f" if self._bitpix < 0 else "i")
        # What cannot be quantized is stored otherwise, without loss.
        for name, uncompress in (("GZIP_COMPRESSED_DATA", _gunzip), ("UNCOMPRESSED_DATA", _copy)):
            stored = self._read(name, row)
            if stored:
                kind = "f" if self._bitpix < 0 else "i"
                return _as_numbers(uncompress(stored, pixels), pixels, kind)
        raise _damaged(f"there is nothing in tile {row + 1}")

    def _read(self, name: str, row: int) -> bytes:
        column = self._columns.get(name)
        if column is None or column.values.ndim != 2:
            return b""
        count, start = (int(number) for number in column.values[row])
        size = column.size or abs(self._bitpix) // 8
        end = start + count * size
        if count < 0 or start < 0 or end > len(self._heap):
            raise _damaged(f"tile {row + 1} is not in its heap")
        return self._heap[start:end]

    def _unquantize(self, stored: Array, row: int) -> Array:
        assert self._scale is not None and self._zero is not None  # noqa: S101, PT018
        values = stored.astype(np.float64)
        if self._dither != "NO_DITHER":
            values += 0.5 - _random_numbers((row + (self._seed or 0) - 1) % _RANDOM, stored.size)
        values = values * self._scale(row) + self._zero(row)
        if self._dither == "SUBTRACTIVE_DITHER_2":
            values[stored == _EXACT_ZERO] = 0.0
        if self._blank is not None:
            values[stored == self._blank(row)] = np.nan
        return values


def _as_numbers(found: bytes | Array, pixels: int, kind: str) -> Array:
    """Return the pixels that were stored big-endian, of whatever size they have."""
    if not isinstance(found, bytes):
        return found
    size, rest = divmod(len(found), pixels)
    if rest or f"{kind}{size}" not in ("i1", "i2", "i4", "i8", "f4", "f8"):
        raise _damaged("a tile has not as many pixels as it should")
    return np.frombuffer(found, "u1" if size == 1 else f">{kind}{size}")


# --- how tiles are compressed ------------------------------------------------------------------


def _find_algorithm(hdu: Hdu) -> Callable[[bytes, int], bytes | Array]:
    name = hdu.text("ZCMPTYPE").upper()
    if name not in _ALGORITHMS:
        raise StampUnreadable(
            f"the stored stamp's image is compressed as {name or 'nothing known'}, and only "
            f"{', '.join(_ALGORITHMS)} are read; FITS answers it as it is stored"
        )
    if _ALGORITHMS[name] is not decode_rice:
        return _ALGORITHMS[name]
    options = {"BLOCKSIZE": 32, "BYTEPIX": 4}
    for number in range(1, 10):
        option = hdu.text(f"ZNAME{number}").upper()
        if option in options:
            options[option] = hdu.integer(f"ZVAL{number}") or 0
    if options["BYTEPIX"] not in _RICE or not 1 <= options["BLOCKSIZE"] <= 1024:
        raise _damaged("BYTEPIX or BLOCKSIZE")
    return partial(decode_rice, size=options["BYTEPIX"], block=options["BLOCKSIZE"])


def _copy(stored: bytes, pixels: int) -> bytes:
    return stored


def _gunzip(stored: bytes, pixels: int) -> bytes:
    return inflate(stored, 8 * pixels)


def _gunzip_shuffled(stored: bytes, pixels: int) -> bytes:
    """Return pixels whose bytes are stored the most significant ones of all first."""
    found = inflate(stored, 8 * pixels)
    if len(found) % pixels:
        raise _damaged("a tile has not as many pixels as it should")
    return np.frombuffer(found, np.uint8).reshape(-1, pixels).T.tobytes()


# Bytes of a pixel -> bits that say how a block is coded, and the code of one that is not.
_RICE: Mapping[int, tuple[int, int]] = {1: (3, 6), 2: (4, 14), 4: (5, 25)}


def decode_rice(stored: bytes, pixels: int, *, size: int = 4, block: int = 32) -> Array:
    """Decode ``pixels`` integers of ``size`` bytes that were coded in blocks by RICE_1."""
    code_bits, uncoded = _RICE[size]
    # No encoder writes more than what is not coded takes; bits take a byte each here.
    stored = stored[: pixels * (size + 1) + 8]
    bits = bin(int.from_bytes(b"\1" + stored))[3:]
    try:
        steps = [int(bits[: 8 * size], 2)]
        place = 8 * size
        for start in range(0, pixels, block):
            count = min(block, pixels - start)
            code = int(bits[place : place + code_bits], 2) - 1
            place += code_bits
            if code < 0:
                steps += [0] * count
            elif code == uncoded:
                width = 8 * size
                steps += [
                    int(bits[at : at + width], 2)
                    for at in range(place, place + count * width, width)
                ]
                place += count * width
            else:
                for _ in range(count):
                    one = bits.index("1", place)
                    low = int(bits[one + 1 : one + 1 + code], 2) if code else 0
                    steps.append((one - place) << code | low)
                    place = one + 1 + code
    except ValueError:  # a bit that is not there
        place = len(bits) + 1
    if place > len(bits):
        raise _damaged("a tile is cut short")
    # Differences are folded: 0, -1, 1, -2, 2, ... They are of the size of a pixel, and wrap.
    folded = np.array(steps[1:], np.uint64)
    differences = (folded >> np.uint64(1)).astype(np.int64)
    differences = np.where(folded & np.uint64(1), ~differences, differences)
    with np.errstate(over="ignore"):
        return (steps[0] + np.cumsum(differences)).astype({1: "u1", 2: "i2", 4: "i4"}[size])


_ALGORITHMS: Mapping[str, Callable[..., bytes | Array]] = {
    "RICE_1": decode_rice,
    "RICE_ONE": decode_rice,
    "GZIP_1": _gunzip,
    "GZIP_2": _gunzip_shuffled,
    "NOCOMPRESS": _copy,
}

# --- what is added before numbers are rounded, and taken away again ------------------------------

_DITHERS = ("NO_DITHER", "SUBTRACTIVE_DITHER_1", "SUBTRACTIVE_DITHER_2")
_EXACT_ZERO = -2147483646
_RANDOM = 10_000


@cache
def _random_table() -> Array:
    """Return the numbers of FITS 4.0, appendix I; float32, as the C code keeps them."""
    seed, found = 1, []
    for _ in range(_RANDOM):
        seed = 16807 * seed % 2147483647
        found.append(seed / 2147483647)
    return np.array(found, np.float32)


def _random_numbers(first: int, count: int) -> Array:
    """Return the random numbers of the pixels of a tile."""
    table = _random_table()
    pieces, there = [], 0
    while there < count:
        pieces.append(table[int(table[first] * 500) :])
        there += len(pieces[-1])
        first = (first + 1) % _RANDOM
    return np.concatenate(pieces)[:count].astype(np.float64)
