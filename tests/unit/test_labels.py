"""What is written on pictures, and where it is drawn."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cutout_api.geometry import NORTH_UP
from cutout_api.labels import LABELS, Tile, describe_alert, draw_panel, format_time
from cutout_api.surveys import LSST, ZTF

from ..pictures import CANDID, OBJECT, entry

GREY = np.full((252, 252), 90, np.uint8)
TILE = Tile("Science", GREY, (126.0, 126.0), NORTH_UP / 3600 / 4)


def drawn(*labels: str, tile: Tile = TILE) -> np.ndarray:
    return np.asarray(draw_panel([tile], entry(), ZTF, labels))


def test_an_alert_is_described_in_one_order_whatever_was_asked_first() -> None:
    assert describe_alert(entry(), ZTF, ("magnitude", "date", "id", "band")) == [
        OBJECT,
        str(CANDID),
        "2024-04-10 00:00:00 UTC",
        "r",
        "18.50 mag",
    ]


@pytest.mark.parametrize(
    ("brightness", "text"),
    [
        (10_223.3, ["21.38 mag (10223 nJy)"]),
        (-2_578.0, ["-2578 nJy"]),
        (0.0, ["0 nJy"]),
        (np.nan, []),
        (np.inf, []),
    ],
)
def test_fluxes_are_magnitudes_where_they_have_one(brightness: float, text: list[str]) -> None:
    assert describe_alert(entry(brightness=brightness), LSST, ("magnitude",)) == text


@pytest.mark.parametrize("time", [np.nan, np.inf, -np.inf, 1e300, -1e12])
def test_a_time_that_is_none_has_no_date(time: float) -> None:
    assert format_time(time, ZTF) is None
    assert format_time(time, LSST) is None


def test_dates_are_in_the_scale_of_the_survey() -> None:
    assert format_time(60_488.26251980322, LSST) == "2024-06-27 06:18:02 TAI"
    assert format_time(2_459_541.0484028, ZTF) == "2021-11-22 13:09:42 UTC"


@pytest.mark.parametrize(
    ("mjd", "caption"),
    [
        (60_488.26251980322, "2024-06-27 06:18:02 TAI (06:17:25 UTC)"),
        (60_488.0001, "2024-06-27 00:00:09 TAI (2024-06-26 23:59:32 UTC)"),
        (math.inf, "no time"),
    ],
)
def test_utc_stands_beside_tai(mjd: float, caption: str) -> None:
    assert describe_alert(entry(time=mjd), LSST, ("date",)) == [caption]


def test_what_is_not_known_is_left_out() -> None:
    bare = entry(object_id=None, time=np.nan, band=None, brightness=np.nan)
    assert describe_alert(bare, ZTF, LABELS) == [str(CANDID), "no time"]
    assert describe_alert(bare, ZTF, ("id", "band")) == [str(CANDID)]
    assert describe_alert(None, ZTF, LABELS) == []


@pytest.mark.parametrize("label", LABELS)
def test_each_label_alone_changes_the_picture(label: str) -> None:
    bare = drawn()
    one = drawn(label)
    assert one.shape != bare.shape or (one != bare).any()
    np.testing.assert_array_equal(bare, np.repeat(GREY[..., None], 3, axis=2))


def test_the_crosshair_leaves_the_source_free() -> None:
    picture = drawn("crosshair")
    assert (picture[116:137, 116:137] == 90).all()
    assert (picture[126, 100:116] != 90).any()


def test_scale_and_compass_need_a_known_sky() -> None:
    unknown = Tile("Science", GREY, (126.0, 126.0), None)
    np.testing.assert_array_equal(drawn("scale", "compass", tile=unknown), drawn())


def test_the_scale_bar_has_the_length_it_says() -> None:
    changed = (drawn("scale") != 90).any(axis=2)
    row = changed[240:246].any(axis=0)  # 20 arcsec are 80 pixels
    length = int(np.flatnonzero(row)[-1] - np.flatnonzero(row)[0])
    assert 78 <= length <= 86


def test_the_compass_points_north_and_east() -> None:
    upright = (drawn("compass") != 90).any(axis=2)
    mirrored = Tile("Science", GREY, (126.0, 126.0), NORTH_UP @ np.diag([-1.0, 1.0]) / 3600 / 4)
    flipped = (drawn("compass", tile=mirrored) != 90).any(axis=2)
    # Around the foot of the arrows, east is on the left, and on the right where mirrored.
    columns = np.flatnonzero(upright.any(axis=0)), np.flatnonzero(flipped.any(axis=0))
    assert columns[0].min() < columns[1].min()
    assert columns[0].max() < columns[1].max()


@pytest.mark.parametrize("side", [1, 3, 10, 40])
def test_small_pictures_are_labelled_without_an_error(side: int) -> None:
    tile = Tile("Science", GREY[:side, :side], (side / 2, side / 2), NORTH_UP / 3600)
    assert drawn(*LABELS, tile=tile).shape[1] == side
