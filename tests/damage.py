"""Damaged parquet and FITS files: the same ones in every run."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

from .thrift_bytes import (
    BINARY,
    INTEGERS,
    LIST,
    STRUCT,
    Fields,
    Raw,
    chunks_of,
    decode,
    encode,
    encode_value,
    get,
    join,
    places,
    put,
    split,
    varint,
)

Random = random.Random

_NUMBERS = (0, 1, -1, 7, 127, 128, 2**15, 2**31 - 1, 2**31, -(2**31), 2**32, 2**40, 2**63 - 1)
# Thrift field ids of a column chunk, its metadata, and a page header.
_META, _UNCOMPRESSED, _COMPRESSED = 3, 6, 7
_PAGES = (9, 10, 11)
_INDEXES = (4, 6)
_PAGE_SIZE, _PAGE_CRC = 3, 4


def damage_parquet(source: Random, content: bytes) -> bytes:
    """Return a parquet file with something wrong in its footer, in a page, or in its length."""
    kinds = (flip_footer, change_footer, change_page, cut)
    (damage,) = source.choices(kinds, (2, 5, 5, 1))
    return damage(source, content)


def flip_footer(source: Random, content: bytes) -> bytes:
    changed = bytearray(content)
    (length,) = struct.unpack("<I", content[-8:-4])
    for _ in range(source.choice((1, 1, 2, 8))):
        changed[-8 - source.randrange(1, length)] ^= 1 << source.randrange(8)
    if source.random() < 0.1:
        changed[-8:-4] = struct.pack("<I", source.choice((0, length - 1, length + 1, 2**32 - 1)))
    return bytes(changed)


def change_footer(source: Random, content: bytes) -> bytes:
    pages, footer = split(content)
    for _ in range(source.choice((1, 1, 1, 2, 4))):
        change_fields(source, footer)
    return join(pages, footer)


def change_fields(source: Random, fields: Fields) -> None:
    """Change one value somewhere below a struct, whatever it is."""
    holder, at, kind = source.choice(list(places(fields)))
    value = holder[at]
    if isinstance(value, Raw):
        return
    if kind in INTEGERS:
        holder[at] = source.choice((source.choice(_NUMBERS), value + 1, value - 1, -value))
    elif kind == BINARY:
        longer = Raw(varint(source.choice((len(value) + 1, 10**6, 2**31 - 1))) + value)
        holder[at] = source.choice((b"", value[:-1], value * 20, source.randbytes(9), longer))
    elif kind == LIST:
        inner, values = value
        count = source.choice((len(values) + 1, 10**6, 2**31 - 1, 2**32 - 1))
        packed = b"".join(encode_value(inner, each) for each in values)
        holder[at] = source.choice(
            (
                Raw(bytes([0xF0 | inner]) + varint(count) + packed),
                [inner, values[1:]],
                [inner, values[:-1]],
                [inner, values + values],
                [inner, values[::-1]],
                [inner, []],
            )
        )
    elif kind == STRUCT:
        depth = source.choice((10, 100, 2000))
        nested = Raw(b"\x1c" * depth + bytes(depth + 1))
        holder[at] = source.choice(([], value[1:], value[:-1], nested))


def change_page(source: Random, content: bytes) -> bytes:
    """Change a page's header, or its bytes; the footer says where things are afterwards."""
    pages, footer = split(content)
    start, end = _chunk_range(source.choice(chunks_of(footer)))
    found = []
    while start < end:
        header, body = decode(pages, start)
        found.append((start, body, header))
        start = body + get(header, _PAGE_SIZE)
    start, body, header = source.choice(found)
    size = get(header, _PAGE_SIZE)
    header = [field for field in header if field[0] != _PAGE_CRC]
    payload = bytearray(pages[body : body + size])
    what = source.random()
    if what < 0.5:
        change_fields(source, header)
    elif what < 0.8 and payload:
        for _ in range(source.choice((1, 2, 16))):
            payload[source.randrange(min(size, source.choice((16, size))))] ^= (
                1 << source.randrange(8)
            )
    else:
        payload = payload[: source.randrange(9)] + source.randbytes(source.randrange(200))
        put(header, _PAGE_SIZE, len(payload))
    changed = encode(header) + payload
    longer = len(changed) - (body + size - start)
    _move(footer, start, longer)
    return join(pages[:start] + changed + pages[body + size :], footer)


def _chunk_range(chunk: Fields) -> tuple[int, int]:
    meta = get(chunk, _META)
    start = min(place for place in (get(meta, number) for number in _PAGES) if place)
    return start, start + get(meta, _COMPRESSED)


def _move(footer: Fields, start: int, longer: int) -> None:
    """Note in a footer that what stood behind ``start`` stands ``longer`` bytes further."""
    for chunk in chunks_of(footer):
        meta = get(chunk, _META)
        first, end = _chunk_range(chunk)
        if first <= start < end:
            put(meta, _COMPRESSED, get(meta, _COMPRESSED) + longer)
        for fields, numbers in ((meta, _PAGES), (chunk, _INDEXES)):
            for number in numbers:
                place = get(fields, number)
                if place is not None and place > start:
                    put(fields, number, place + longer)


def cut(source: Random, content: bytes) -> bytes:
    first = source.randrange(len(content))
    if source.random() < 0.5:
        return content[:first]
    return content[:first] + content[first + source.randrange(1, 500) :]


# --- FITS ---------------------------------------------------------------------------------------


def card(keyword: str, value: str) -> bytes:
    return f"{keyword:<8}= {value}"[:80].ljust(80).encode("latin-1", "replace")


_VALUES: tuple[Callable[[Random], str], ...] = (
    lambda source: str(source.choice(_NUMBERS)),
    lambda source: "9" * source.choice((20, 70)),
    lambda source: "1E" + "9" * source.choice((3, 60)),
    lambda source: source.choice(("NaN", "INF", "-", "", "T", "/", "'", "(1,2)", "0x10")),
    lambda source: "'" + "".join(map(chr, source.choices(range(32), k=20))) + "'",
    lambda source: "'" + "x" * 60 + "&'",
    lambda source: source.randbytes(30).decode("latin-1"),
)
_STRUCTURE = ["SIMPLE", "BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "NAXIS3", "BSCALE", "BZERO", "BLANK"]
_STRUCTURE += ["EXTEND", "PCOUNT", "GCOUNT", "GROUPS", "END", "CONTINUE", "HISTORY", "COMMENT"]
_STRUCTURE += ["BUNIT", "CHECKSUM", "DATASUM", "XTENSION", "EXTNAME", "INHERIT"]
_SKY = ["CTYPE1", "CUNIT1", "CRPIX1", "CRVAL1", "CRVAL2", "CDELT1", "CD1_1", "PC1_2", "CROTA2"]
_SKY += ["LONPOLE", "RADESYS", "EQUINOX"]


def damage_fits(source: Random, content: bytes, keywords: list[str] = _STRUCTURE) -> bytes:
    """Return a FITS file with odd cards, other bytes, or another length."""
    what = source.random()
    if what < 0.7:
        changed = bytearray(content)
        for _ in range(source.choice((1, 1, 2, 5, 60))):
            keyword = source.choice(keywords)
            odd = card(keyword, source.choice(_VALUES)(source))
            place = content.find(f"{keyword:<8}=".encode())
            if place < 0 or place % 80:
                place = 80 * source.randrange(36)
            changed[place : place + 80] = odd
        return bytes(changed)
    if what < 0.85:
        changed = bytearray(content)
        for _ in range(source.choice((1, 4, 50))):
            changed[source.randrange(min(len(content), 2880))] ^= 1 << source.randrange(8)
        return bytes(changed)
    return cut(source, content)


def damage_sky(source: Random, content: bytes) -> bytes:
    """Return a FITS file with odd cards about its place on the sky."""
    return damage_fits(source, content, _SKY)


def many_bad_sky_cards(source: Random, content: bytes) -> bytes:
    """Return a FITS file with up to some hundred cards that a WCS cannot be made of."""
    name = source.choice(("PV1_{}", "PV2_{}", "PS1_{}", "CD{}_1", "PC{}_1", "CRVAL{}", "CTYPE{}"))
    return add_cards(
        content,
        [
            card(name.format(n), source.choice(("'text'", "'1.5'", "T", "NaN", "1E999", "''")))
            for n in range(source.choice((20, 60, 99, 400)))
        ],
    )


def add_cards(content: bytes, cards: list[bytes]) -> bytes:
    """Return a FITS file with more cards at the end of its first header."""
    end = content.index(b"END".ljust(80))
    header = content[:end] + b"".join(cards) + b"END".ljust(80)
    header += b" " * (-len(header) % 2880)
    return header + content[-(-(end + 80) // 2880) * 2880 :]


def unique(content: bytes, replaced: dict[bytes, bytes]) -> bytes:
    """Return a file with other ids of the same length, which stand in it as they are."""
    for old, new in replaced.items():
        assert len(old) == len(new)
        content = content.replace(old, new)
    return content
