"""Which bytes of an answer are asked for: the headers ``Range`` and ``If-Range`` of RFC 9110.

werkzeug's own reading of them takes a suffix longer than the answer for one that is beyond it,
and a weak tag for a strong one.
"""

from __future__ import annotations

import re

from .errors import RangeNotSatisfiable

_ONE_RANGE = re.compile(r"bytes\s*=\s*(\d{0,400})-(\d{0,400})\s*", re.ASCII | re.IGNORECASE)


def find_part(asked: str, if_range: str | None, tag: str, length: int) -> range | None:
    """Return the places of the bytes that ``Range`` asks for, None for all of them.

    All are what is answered to several ranges, to another unit than bytes, to what cannot be
    read (RFC 9110, section 14.2), and where ``If-Range`` has another tag than the answer, or a
    date, which it does not have. ``length`` is in bytes.

    Raises RangeNotSatisfiable where the range holds no byte of the answer.
    """
    if if_range is not None and if_range.strip() != tag:
        return None
    match = _ONE_RANGE.fullmatch(asked.strip())
    if match is None or not any(match.groups()):
        return None
    first, last = match.groups()
    if not first:
        part = range(max(length - int(last), 0), length)
    elif last and int(last) < int(first):
        return None
    else:
        part = range(int(first), min(int(last) + 1, length) if last else length)
    if not part:
        raise RangeNotSatisfiable(length)
    return part
