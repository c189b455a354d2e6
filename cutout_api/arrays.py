"""Pixels -> JSON: every number exact, masked pixels as ``NaN`` or as ``null``.

A float32 is written as the double that it is (``352.5482177734375``): JSON's numbers are read as
doubles, and only that one equals the pixel. The shortest decimal of the float32 (``352.54822``)
is another double.
"""

from __future__ import annotations

import numpy as np
import orjson
from numpy.typing import NDArray

Pixels = NDArray[np.generic]

NULL, NAN = "null", "NaN"
"""How a masked pixel is written. ``null`` is JSON, ``NaN`` what Python's json reads as a float."""
AUTO = "auto"
"""Whichever of the two the caller reads."""


def widen(image: Pixels) -> Pixels:
    """Return an image as orjson writes it exactly: floats as float64, rows one after another."""
    return np.ascontiguousarray(image, np.float64 if image.dtype.kind == "f" else None)


def write_pixels(image: Pixels, masked: str) -> bytes:
    """Write an image of shape (ny, nx) as a list of rows, row 0 first.

    With ``masked`` NULL what is not finite is ``null``; with NAN it is ``NaN``, ``Infinity`` or
    ``-Infinity``, as Python's json writes it.
    """
    wide = widen(image)
    if masked == NULL or np.isfinite(image).all():
        return _dump(wide)
    infinite = np.isinf(image)
    if not infinite.any():
        return _name_nulls(_dump(wide))
    # A number that is no pixel stands for infinity until all is text.
    stand_in = np.finfo(np.float64).max
    while (np.abs(wide) == stand_in).any():
        stand_in = np.nextafter(stand_in, 0)
    text = _dump(np.where(infinite, np.copysign(stand_in, wide), wide))
    return _name_nulls(text).replace(orjson.dumps(float(stand_in)), b"Infinity")


def _dump(wide: Pixels) -> bytes:
    return orjson.dumps(wide, option=orjson.OPT_SERIALIZE_NUMPY)


def _name_nulls(text: bytes) -> bytes:
    """Return an image's text with NaN, behind a blank, in the place of null.

    orjson has no NaN, and Python's json takes ten times as long. The text holds numbers and
    nothing else, so each null in it is a masked pixel; both have four letters, so nothing moves:
    of a large image, pieces of text would take 80 bytes for each pixel.
    """
    letters = np.frombuffer(bytearray(text), np.uint8)
    starts = np.flatnonzero(letters == ord("n"))
    for place, letter in enumerate(b" NaN"):
        letters[starts + place] = letter
    return letters.tobytes()


def join_list(items: list[bytes]) -> bytes:
    """Return a JSON list of values that are JSON already."""
    return b"[" + b",".join(items) + b"]"


def join_object(members: list[tuple[str, bytes]]) -> bytes:
    """Return a JSON object of values that are JSON already."""
    return b"{" + b",".join(orjson.dumps(name) + b":" + value for name, value in members) + b"}"
