"""A stamp: one kind of one alert, as FITS bytes; unpacking it; its pixels."""

from __future__ import annotations

import io
import math
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from astropy.io import fits
from isal import igzip_lib, isal_zlib
from numpy.typing import NDArray

from .errors import StampTooLarge, StampUnreadable

BLOCK = 2880
"""Bytes of a FITS block; headers and data fill whole ones. Source: FITS 4.0, section 3.1."""
CARD = 80
WARNINGS = threading.RLock()
_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_WINDOW = 31  # zlib's way of saying: expect a gzip header and check its CRC
MAX_AXES = 999
_COUNTS = re.compile(rb"(NAXIS\d*|PCOUNT|GCOUNT|TFIELDS) *= *([+-]?\d+)")
_INTEGER = re.compile(rb" *([+-]?\d+) *(?:/|$)")


@dataclass(frozen=True)
class Stamp:
    """The uncompressed FITS file of one kind, exactly as the survey made it."""

    kind: str
    fits: bytes


@dataclass(frozen=True)
class StampLimits:
    """How large a stamp may be before it is refused instead of held in memory."""

    stamp_bytes: int
    image_pixels: int


def unpack(kind: str, stored: bytes, limits: StampLimits) -> Stamp:
    """Return the stamp in ``stored``: a FITS file, gzipped or not, whatever the survey.

    Raises StampUnreadable for bytes that are not gzip or not a whole FITS image, StampTooLarge.
    """
    content = inflate(stored, limits.stamp_bytes) if stored[:2] == _GZIP_MAGIC else stored
    if len(content) > limits.stamp_bytes:
        raise StampTooLarge(f"the {kind} stamp exceeds {limits.stamp_bytes} bytes")
    stamp = Stamp(kind, content)
    check_image(stamp, limits)
    return stamp


def inflate(stored: bytes, limit: int) -> bytes:
    """Return what the gzip members in ``stored`` hold, ``limit`` bytes at most.

    Raises StampUnreadable for a damaged or short member (the CRC is checked), StampTooLarge.
    """
    pieces: list[bytes] = []
    room = limit
    while stored:
        member = isal_zlib.decompressobj(_GZIP_WINDOW)
        try:
            # One byte more than there is room for tells "too large" from "just fits".
            piece = member.decompress(stored, room + 1)
        except igzip_lib.IsalError as error:  # type: ignore[misc]  # its stub lacks the base
            raise StampUnreadable("the stored stamp is damaged: its gzip is not valid") from error
        room -= len(piece)
        if room < 0:
            raise StampTooLarge(f"the stamp exceeds {limit} bytes when inflated")
        if not member.eof:
            raise StampUnreadable("the stored stamp is cut short: its gzip does not end")
        pieces.append(piece)
        # Padding after the last member is allowed; gzip itself ignores zeros there.
        stored = member.unused_data.lstrip(b"\0")
    return b"".join(pieces)


@dataclass(frozen=True)
class PlainImage:
    """An image that needs no library: unscaled, two axes, all of it there."""

    offset: int
    bitpix: int
    shape: tuple[int, int]
    """(ny, nx)"""

    @property
    def length(self) -> int:
        return self.shape[0] * self.shape[1] * abs(self.bitpix) // 8


def find_plain_image(content: bytes) -> PlainImage | None:
    """Return where the primary HDU's pixels are, or None for what astropy has to look at.

    Reads the few mandatory cards instead of the whole header: a hundredth of a millisecond
    where ``fits.open`` takes a quarter. Source: FITS 4.0, section 4.4.1.
    """
    values: dict[bytes, int] = {}
    for start in range(0, len(content) - CARD + 1, CARD):
        keyword = content[start : start + 8].rstrip()
        if keyword == b"END":
            offset = math.ceil((start + CARD) / BLOCK) * BLOCK
            break
        if keyword in (b"BSCALE", b"BZERO", b"BLANK"):
            return None
        if keyword in (b"BITPIX", b"NAXIS", b"NAXIS1", b"NAXIS2"):
            number = _INTEGER.match(content[start + 10 : start + CARD])
            if number is None or keyword in values:
                return None
            values[keyword] = int(number.group(1))
    else:
        return None
    if values.get(b"BITPIX") not in _DTYPES or values.get(b"NAXIS") != 2:
        return None
    shape = (values.get(b"NAXIS2", 0), values.get(b"NAXIS1", 0))
    image = PlainImage(offset, values[b"BITPIX"], shape)
    if min(shape) < 1 or offset + image.length > len(content):
        return None
    return image


# Floats only: FITS integers are big-endian too, but small kinds are unsigned by convention.
_DTYPES = {-32: ">f4", -64: ">f8"}


def check_image(stamp: Stamp, limits: StampLimits) -> None:
    """Raise unless the primary HDU holds a whole 2-D image of a size that is served."""
    if stamp.fits[:6] != b"SIMPLE":
        raise StampUnreadable(f"the {stamp.kind} stamp is not a FITS file")
    image = find_plain_image(stamp.fits)
    shape = image.shape if image else _shape_by_astropy(stamp)
    if shape[0] * shape[1] > limits.image_pixels:
        raise StampTooLarge(
            f"the {stamp.kind} stamp has {shape[1]} x {shape[0]} pixels, "
            f"more than {limits.image_pixels} in all"
        )
    if image is None:
        _open_image(stamp)  # is all of it there?


def read_pixels(stamp: Stamp) -> NDArray[np.generic]:
    """Decode the primary HDU's image.

    Returns a native, contiguous array of shape (ny, nx) in the survey's own units, row 0 as
    FITS stores it first; float32 for both surveys, masked pixels NaN. Images that are stored
    otherwise (integers, scaled) come out as astropy reads them.

    Raises StampUnreadable if there is no 2-D image. Source: FITS 4.0, section 3.3.
    """
    image = find_plain_image(stamp.fits)
    if image is None:
        return _open_image(stamp)
    stored = np.frombuffer(
        stamp.fits, _DTYPES[image.bitpix], image.shape[0] * image.shape[1], image.offset
    )
    return stored.astype(stored.dtype.newbyteorder("="), copy=True).reshape(image.shape)


@contextmanager
def open_fits(stamp: Stamp, *, scaled: bool = True) -> Iterator[fits.HDUList]:
    """Open the stamp with astropy, forgiving ZTF's first card (``T`` at the wrong column).

    ``scaled`` False leaves BSCALE and BZERO to whoever opens what is made of it.
    Raises StampUnreadable for anything that astropy finds wrong inside the block.
    """
    _refuse_endless(stamp)
    try:
        # Python's warning filters belong to the process, so one thread at a time changes them.
        with (
            WARNINGS,
            warnings.catch_warnings(action="ignore"),
            fits.open(
                io.BytesIO(stamp.fits),
                ignore_missing_simple=True,
                memmap=False,
                lazy_load_hdus=False,
                do_not_scale_image_data=not scaled,
            ) as hdus,
        ):
            yield hdus
    except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        # astropy raises all of these on damaged headers.
        raise StampUnreadable(f"the {stamp.kind} stamp is not a readable FITS file") from error
    except (fits.VerifyError, ArithmeticError, MemoryError, RecursionError) as error:
        raise StampUnreadable(f"the {stamp.kind} stamp is not a readable FITS file") from error


def _refuse_endless(stamp: Stamp) -> None:
    """Raise StampUnreadable for a header that would keep astropy busy for ever."""
    for found in _COUNTS.finditer(stamp.fits):
        name, number = found.group(1), int(found.group(2))
        most = MAX_AXES if name in (b"NAXIS", b"TFIELDS") else 2**63
        if found.start() % CARD == 0 and not 0 <= number <= most:
            raise StampUnreadable(f"the {stamp.kind} stamp's header has an impossible size")


def _shape_by_astropy(stamp: Stamp) -> tuple[int, int]:
    """Return (ny, nx) from the header, before anything of that size is made."""
    with open_fits(stamp) as hdus:
        shape = hdus[0].shape
        if len(shape) != 2 or min(shape) < 1:
            raise StampUnreadable(f"the {stamp.kind} stamp holds no 2-D image")
        return int(shape[0]), int(shape[1])


def _open_image(stamp: Stamp) -> NDArray[np.generic]:
    with open_fits(stamp) as hdus:
        data = hdus[0].data
        if data is None or data.ndim != 2 or data.size == 0:
            raise StampUnreadable(f"the {stamp.kind} stamp holds no 2-D image")
        return np.ascontiguousarray(data, dtype=data.dtype.newbyteorder("="))
