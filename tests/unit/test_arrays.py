"""Pixels as JSON: each number exact, and what is not finite as it is asked for."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cutout_api.arrays import NAN, NULL, join_list, join_object, write_pixels

IMAGES = hnp.arrays(
    st.sampled_from([np.float32, np.float64, np.int16, np.int32, np.int64, np.uint8]),
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=6),
)


@given(IMAGES)
def test_numbers_and_bare_words_are_those_of_pythons_json(image: np.ndarray) -> None:
    expected = json.loads(json.dumps(image.tolist()))
    read = json.loads(write_pixels(image, NAN))
    np.testing.assert_array_equal(read, expected)
    assert repr(read) == repr(expected)


@given(IMAGES)
def test_null_stands_for_whatever_is_not_finite(image: np.ndarray) -> None:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    read = json.loads(write_pixels(image, NULL), parse_constant=refuse)
    expected = [[x if math.isfinite(x) else None for x in row] for row in image.tolist()]
    assert read == expected


def test_a_float32_is_the_double_that_it_is() -> None:
    assert write_pixels(np.array([[352.54822]], np.float32), NULL) == b"[[352.5482177734375]]"


def test_each_infinity_stands_in_its_place() -> None:
    image = np.array([[np.inf, np.nan, 1], [-np.inf, 2, np.nan]], np.float32)
    assert write_pixels(image, NAN) == b"[[Infinity, NaN,1.0],[-Infinity,2.0, NaN]]"


def test_the_largest_numbers_are_no_infinities() -> None:
    largest = np.finfo(np.float64).max
    second = np.nextafter(largest, 0)
    image = np.array([[largest, -second, np.inf], [-np.inf, -largest, np.nan]])
    read = json.loads(write_pixels(image, NAN))
    np.testing.assert_array_equal(read, image)


@pytest.mark.parametrize("turn", [np.flipud, np.transpose, lambda image: image[::2, 1:]])
def test_an_image_need_not_lie_in_memory_row_by_row(turn: object) -> None:
    for kind in ("<f4", ">f4", "<f8", "<i2"):
        image = turn(np.arange(12).reshape(3, 4).astype(kind))  # type: ignore[operator]
        assert json.loads(write_pixels(image, NAN)) == image.tolist()


def test_lists_and_objects_are_joined_of_what_is_json_already() -> None:
    assert join_list([]) == b"[]"
    assert json.loads(join_list([b"1", b"null"])) == [1, None]
    assert json.loads(join_object([('a"b', b"[1]"), ("é", b"2")])) == {'a"b': [1], "é": 2}
