"""Thrift's compact protocol both ways, so that a footer or a page header can be written otherwise.

A struct is a list of fields ``[id, type, value]``, a list ``[type, values]``: what was read is
written back to the byte. Source: thrift-compact-protocol.md of Apache Thrift.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

BOOLEANS, INTEGERS = (1, 2), (4, 5, 6)
BYTE, DOUBLE, BINARY, LIST, SET, STRUCT = 3, 7, 8, 9, 10, 12

Fields = list[list[Any]]


class Raw(bytes):
    """What is to be written as it is in place of a value."""


def decode(data: bytes, place: int = 0) -> tuple[Fields, int]:
    """Return the struct at ``place``, and the place after it."""

    def varint() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = data[place]
            place += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7

    def number() -> int:
        value = varint()
        return (value >> 1) ^ -(value & 1)

    def take(length: int) -> bytes:
        nonlocal place
        place += length
        return data[place - length : place]

    def fields() -> Fields:
        nonlocal place
        found: Fields = []
        last = 0
        while True:
            (head,) = take(1)
            if head == 0:
                return found
            last = last + (head >> 4) if head >> 4 else number()
            found.append([last, head & 15, value(head & 15)])

    def value(kind: int) -> Any:  # noqa: PLR0911
        if kind in BOOLEANS:
            return kind
        if kind == BYTE:
            return take(1)[0]
        if kind in INTEGERS:
            return number()
        if kind == DOUBLE:
            return take(8)
        if kind == BINARY:
            return take(varint())
        if kind in (LIST, SET):
            (head,) = take(1)
            count = head >> 4 if head >> 4 < 15 else varint()
            if head & 15 in BOOLEANS:
                return [head & 15, list(take(count))]
            return [head & 15, [value(head & 15) for _ in range(count)]]
        assert kind == STRUCT, kind
        return fields()

    return fields(), place


def encode(fields: Fields) -> bytes:
    out = bytearray()
    last = 0
    for number, kind, value in fields:
        step = number - last
        out += bytes([step << 4 | kind]) if 0 < step < 16 else bytes([kind]) + zigzag(number)
        last = number
        if kind not in BOOLEANS:
            out += encode_value(kind, value)
    return bytes(out) + b"\0"


def encode_value(kind: int, value: Any) -> bytes:  # noqa: PLR0911
    if isinstance(value, Raw):
        return value
    if kind in (*BOOLEANS, BYTE):
        return bytes([value & 255])
    if kind in INTEGERS:
        return zigzag(value)
    if kind == DOUBLE:
        return bytes(value)
    if kind == BINARY:
        return varint(len(value)) + value
    if kind in (LIST, SET):
        inner, values = value
        count = len(values)
        head = bytes([count << 4 | inner]) if count < 15 else bytes([0xF0 | inner]) + varint(count)
        return head + b"".join(encode_value(inner, each) for each in values)
    return encode(value)


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def zigzag(value: int) -> bytes:
    value = max(min(value, 2**63 - 1), -(2**63))
    return varint(((value << 1) ^ (value >> 63)) & (2**64 - 1))


def get(fields: Fields, number: int) -> Any:
    """Return the value of a field, None where there is no such field."""
    return next((field[2] for field in fields if field[0] == number), None)


def put(fields: Fields, number: int, value: Any, kind: int = 6) -> None:
    """Set a field, adding it where there is none."""
    for field in fields:
        if field[0] == number:
            field[2] = value
            return
    fields.append([number, kind, value])
    fields.sort(key=lambda field: field[0])


def places(fields: Fields) -> Iterator[tuple[list[Any], int, int]]:
    """Yield every value below a struct: what holds it, where in that, and its type."""
    for field in fields:
        yield field, 2, field[1]
        yield from _inside(field[1], field[2])


def _inside(kind: int, value: Any) -> Iterator[tuple[list[Any], int, int]]:
    if isinstance(value, Raw):
        return
    if kind == STRUCT:
        yield from places(value)
    elif kind in (LIST, SET):
        inner, values = value
        for number, each in enumerate(values):
            yield values, number, inner
            yield from _inside(inner, each)


def split(content: bytes) -> tuple[bytes, Fields]:
    """Return the bytes before a parquet file's footer, and the footer."""
    (length,) = struct.unpack("<I", content[-8:-4])
    return content[: -8 - length], decode(content, len(content) - 8 - length)[0]


def join(pages: bytes, footer: Fields) -> bytes:
    """Return a parquet file with this footer."""
    packed = encode(footer)
    return pages + packed + struct.pack("<I", len(packed)) + b"PAR1"


def chunks_of(footer: Fields) -> list[Fields]:
    """Return every column chunk, row group by row group."""
    return [chunk for group in get(footer, 4)[1] for chunk in get(group, 1)[1]]
