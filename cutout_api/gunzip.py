"""Inflating what a survey gzipped, within limits: of bytes, and of members."""

from __future__ import annotations

import re

from isal import igzip_lib, isal_zlib

from .errors import StampTooLarge, StampUnreadable

MAGIC = b"\x1f\x8b"
MOST_MEMBERS = 1000
"""A survey writes one; each costs some microseconds, however small it is."""
_WINDOW = 31  # zlib's way of saying: expect a gzip header and check its CRC
_PADDING = re.compile(rb"\0*")
_PIECE = 1 << 16


def inflate(stored: bytes, limit: int) -> bytes:
    """Return what the gzip members in ``stored`` hold, ``limit`` bytes at most.

    What follows the last member and does not begin as another one is ignored, as ``gzip -d`` does.
    Raises StampUnreadable for a damaged or short member (the CRC is checked), StampTooLarge.
    """
    pieces: list[bytes] = []
    room = limit
    start = 0
    for _ in range(MOST_MEMBERS):
        found, start = _inflate_member(stored, start, room, limit)
        pieces += found
        room -= sum(map(len, found))
        # Padding between members is allowed; gzip itself ignores zeros there.
        start = _PADDING.match(stored, start).end()  # type: ignore[union-attr]  # always matches
        if stored[start : start + 2] != MAGIC:
            return b"".join(pieces)
    raise StampUnreadable(f"the stored stamp has more than {MOST_MEMBERS} gzip members")


def _inflate_member(stored: bytes, start: int, room: int, limit: int) -> tuple[list[bytes], int]:
    """Return the content of the member at ``start``, in pieces, and where the next one begins."""
    member = isal_zlib.decompressobj(_WINDOW)
    pieces: list[bytes] = []
    while not member.eof:
        # In pieces: what is left over is copied, which must not be the whole rest each time.
        given = stored[start : start + _PIECE]
        if not given:
            raise StampUnreadable("the stored stamp is cut short: its gzip does not end")
        try:
            # One byte more than there is room for tells "too large" from "just fits".
            piece = member.decompress(given, room + 1)
        except igzip_lib.IsalError as error:  # type: ignore[misc]  # its stub lacks the base
            raise StampUnreadable("the stored stamp is damaged: its gzip is not valid") from error
        room -= len(piece)
        if room < 0:
            raise StampTooLarge(f"the stamp exceeds {limit} bytes when inflated")
        pieces.append(piece)
        start += len(given) - len(member.unused_data)
    return pieces, start
