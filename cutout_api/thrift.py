"""Thrift's compact protocol, as far as parquet's page headers and offset indexes need it.

A struct becomes a dict of field id -> value, so that a field which a newer writer added is
carried along instead of refused. Source: thrift-compact-protocol.md of Apache Thrift.
"""

from __future__ import annotations

import struct
from typing import Any

Struct = dict[int, Any]

_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET = range(1, 11)
_STRUCT = 12
_MAX_DEPTH = 16


class ThriftError(ValueError):
    """The bytes are not what the protocol allows."""


class ThriftShort(ThriftError):
    """The bytes end before the struct does."""


def read_struct(data: bytes, start: int = 0, *, after_field: int = 0) -> tuple[Struct, int]:
    """Read the struct at ``start``; return it and the place after it.

    ``after_field`` is the id of the field that was read before ``start``, where reading begins in
    the middle of a struct. Raises ThriftShort where ``data`` ends too early, ThriftError.
    """
    reader = _Reader(data, start)
    try:
        fields = reader.read_struct(after_field, 0)
    except (IndexError, struct.error) as error:
        raise ThriftShort("the struct is cut short") from error
    if reader.place > len(data):
        raise ThriftShort("the struct is cut short")
    return fields, reader.place


def write_varint(value: int) -> bytes:
    """Return a number as a varint, seven bits a byte, the lowest first."""
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


class _Reader:
    __slots__ = ("data", "place")

    def __init__(self, data: bytes, place: int) -> None:
        self.data = data
        self.place = place

    def read_varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.data[self.place]
            self.place += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if shift > 56 and value >> 64:
                    raise ThriftError("a number is longer than 64 bits")
                return value
            shift += 7
            if shift > 63:
                raise ThriftError("a number is longer than 64 bits")

    def read_number(self) -> int:
        value = self.read_varint()
        return (value >> 1) ^ -(value & 1)

    def read_struct(self, field: int, depth: int) -> Struct:
        if depth > _MAX_DEPTH:
            raise ThriftError("structs are nested too deep")
        fields: Struct = {}
        while True:
            head = self.data[self.place]
            self.place += 1
            if head == 0:
                return fields
            step = head >> 4
            field = field + step if step else self.read_number()
            fields[field] = self.read_value(head & 0x0F, depth)

    def read_value(self, kind: int, depth: int) -> Any:  # noqa: PLR0911
        if kind in (_I32, _I64, _I16):
            return self.read_number()
        if kind == _BINARY:
            length = self.read_varint()
            start = self.place
            self.place += length
            if self.place > len(self.data):
                raise ThriftShort("a string is cut short")
            return self.data[start : self.place]
        if kind == _STRUCT:
            return self.read_struct(0, depth + 1)
        if kind in (_LIST, _SET):
            return self.read_list(depth)
        if kind in (_TRUE, _FALSE):
            return kind == _TRUE
        if kind == _BYTE:
            self.place += 1
            return self.data[self.place - 1]
        if kind == _DOUBLE:
            self.place += 8
            return struct.unpack_from("<d", self.data, self.place - 8)[0]
        raise ThriftError(f"there is no type {kind} here")

    def read_list(self, depth: int) -> list[Any]:
        head = self.data[self.place]
        self.place += 1
        count, kind = head >> 4, head & 0x0F
        if count == 0x0F:
            count = self.read_varint()
        if count > len(self.data):
            raise ThriftShort("a list is longer than what holds it")
        if kind in (_TRUE, _FALSE):
            start = self.place
            self.place += count
            return [byte == _TRUE for byte in self.data[start : self.place]]
        return [self.read_value(kind, depth) for _ in range(count)]
