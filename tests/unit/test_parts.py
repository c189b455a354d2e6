"""Which bytes ``Range`` and ``If-Range`` ask for."""

from __future__ import annotations

import pytest

from cutout_api.errors import RangeNotSatisfiable
from cutout_api.parts import find_part

TAG, LENGTH = '"tag"', 100


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        ("bytes=0-0", range(0, 1)),
        ("bytes=0-", range(0, 100)),
        ("bytes=10-19", range(10, 20)),
        ("bytes=99-", range(99, 100)),
        ("bytes=90-1000", range(90, 100)),
        ("bytes=-10", range(90, 100)),
        ("bytes=-100", range(0, 100)),
        ("bytes=-101", range(0, 100)),
        (f"bytes=0-{'9' * 300}", range(0, 100)),
        (f"bytes=-{'9' * 300}", range(0, 100)),
        ("Bytes=0-4", range(0, 5)),
        ("  bytes = 0-4 ", range(0, 5)),
    ],
)
def test_one_range_is_the_places_of_its_bytes(asked: str, part: range) -> None:
    assert find_part(asked, None, TAG, LENGTH) == part


@pytest.mark.parametrize(
    "asked",
    [
        *("", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=5", "bytes=--5", "bytes=+1-2"),
        *("bytes=20-10", "bytes=0-1,5-6", "bytes=0-1,", "bytes=1.5-2", "bytes=0-1 2", "rows=0-1"),
        *("bytes=\u0660-\u0669", "bytes=0x0-0x1", f"bytes={'9' * 5000}-", "bytes=0-1\nbytes=2-3"),
    ],
)
def test_what_is_not_one_range_of_bytes_is_passed_over(asked: str) -> None:
    assert find_part(asked, None, TAG, LENGTH) is None


@pytest.mark.parametrize(
    "asked", ["bytes=100-", "bytes=100-200", "bytes=-0", f"bytes={'9' * 300}-"]
)
def test_a_range_without_a_byte_cannot_be_answered(asked: str) -> None:
    with pytest.raises(RangeNotSatisfiable) as caught:
        find_part(asked, None, TAG, LENGTH)
    assert caught.value.length == LENGTH


def test_nothing_can_be_a_part_of_nothing() -> None:
    for asked in ("bytes=0-", "bytes=0-0", "bytes=-1"):
        with pytest.raises(RangeNotSatisfiable):
            find_part(asked, None, TAG, 0)


@pytest.mark.parametrize(
    "if_range",
    ['"other"', 'W/"tag"', "tag", "*", "", '"tag", "other"', "Thu, 01 Jan 2099 00:00:00 GMT"],
)
def test_a_part_of_another_answer_is_no_use(if_range: str) -> None:
    assert find_part("bytes=0-1", if_range, TAG, LENGTH) is None
    assert find_part("bytes=100-", if_range, TAG, LENGTH) is None


def test_a_part_of_the_same_answer_is() -> None:
    assert find_part("bytes=0-1", f" {TAG} ", TAG, LENGTH) == range(2)
