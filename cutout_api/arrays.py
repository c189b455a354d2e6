"""Pixels -> JSON: every number exact, masked pixels as ``NaN`` or as ``null``.

A float32 is written as the double that it is (``352.5482177734375``): JSON's numbers are read as
doubles, and only that one equals the pixel. The shortest decimal of the float32 (``352.54822``)
is another double.
"""

from __future__ import annotations

from itertools import chain

import numpy as np
import orjson
from numpy.typing import NDArray

Pixels = NDArray[np.generic]

NULL, NAN = "null", "NaN"
"""How a masked pixel is written. ``null`` is JSON, ``NaN`` what Python's json reads as a float."""
AUTO = "auto"
"""Whichever of the two the caller reads."""
_WORDS = {"nan": b"NaN", "inf": b"Infinity", "-inf": b"-Infinity"}


def widen(image: Pixels) -> Pixels:
    """Return an image as orjson writes it exactly: floats as float64, rows one after another."""
    return np.ascontiguousarray(image, np.float64 if image.dtype.kind == "f" else None)


def write_pixels(image: Pixels, masked: str) -> bytes:
    """Write an image of shape (ny, nx) as a list of rows, row 0 first.

    With ``masked`` NULL what is not finite is ``null``; with NAN it is ``NaN``, ``Infinity`` or
    ``-Infinity``, as Python's json writes it.
    """
    text = orjson.dumps(widen(image), option=orjson.OPT_SERIALIZE_NUMPY)
    if masked == NULL:
        return text
    finite = np.isfinite(image)
    if finite.all():
        return text
    # orjson has no NaN, and Python's json takes ten times as long. The text holds the numbers of
    # this image and nothing else, so each null in it is a pixel that is not finite, in order.
    # Splitting and joining takes half as long as replacing.
    between = text.split(b"null")
    odd = np.asarray(image[~finite], np.float64)
    if np.isnan(odd).all():
        return b"NaN".join(between)
    words = [_WORDS[str(value)] for value in odd.tolist()]
    return b"".join(chain.from_iterable(zip(between, [*words, b""], strict=True)))


def join_list(items: list[bytes]) -> bytes:
    """Return a JSON list of values that are JSON already."""
    return b"[" + b",".join(items) + b"]"


def join_object(members: list[tuple[str, bytes]]) -> bytes:
    """Return a JSON object of values that are JSON already."""
    return b"{" + b",".join(orjson.dumps(name) + b":" + value for name, value in members) + b"}"
