"""What is measured in a stamp."""

from __future__ import annotations

import json

import numpy as np
import pytest
from astropy.io import fits
from astropy.stats import sigma_clipped_stats
from astropy.wcs import WCS

from cutout_api.epochs import Alert
from cutout_api.info import describe_shot, describe_stamp, measure
from cutout_api.panels import Layout
from cutout_api.render import Rendering
from cutout_api.surveys import LSST, ZTF

from ..pictures import entry, lsst_header, lsst_stamp, stamp, star
from ..samples import ztf_fits

ZTF_LAYOUT = Layout(ZTF, by_name=False, rendering=Rendering(), image_pixels=10_000)
LSST_LAYOUT = Layout(LSST, by_name=False, rendering=Rendering(), image_pixels=10_000)
CENTRE = (31.0, 31.0)


def measured(image: np.ndarray, **cards: object) -> dict:
    return measure(image.astype(np.float64), CENTRE, fits.Header(cards))


def test_background_noise_and_peak_are_those_of_the_image() -> None:
    found = measured(star())  # background 100, noise 5, a star of 900
    assert found["background"] == pytest.approx(100, abs=1)
    assert found["noise"] == pytest.approx(5, rel=0.1)
    assert found["peak"]["x"] == found["peak"]["y"] == 31
    assert found["peak_snr"] == pytest.approx(180, rel=0.12)
    assert found["nan_fraction"] == 0
    assert found["flags"] == []


@pytest.mark.parametrize("flux", [900, -900])
def test_the_centroid_is_where_the_source_is_bright_or_faded(flux: float) -> None:
    found = measured(star(flux=flux, at=(32.5, 30.0)))["centroid_offset"]
    assert found["x"] == pytest.approx(1.5, abs=0.1)
    assert found["y"] == pytest.approx(-1, abs=0.1)


def test_the_centroid_is_counted_from_the_alert_along_columns_and_rows() -> None:
    image = star(at=(21.0, 42.0)).astype(np.float64)
    found = measure(image, (20.0, 40.0), fits.Header())["centroid_offset"]
    assert found["x"] == pytest.approx(1, abs=0.1)
    assert found["y"] == pytest.approx(2, abs=0.1)


def holes(where: tuple[object, ...]) -> np.ndarray:
    image = star()
    image[where] = np.nan
    return image


FLAGGED = [
    (holes((slice(None), slice(60, None))), ["edge"]),
    (holes((31, 31)), ["nan_at_centre"]),
    (star()[:, :62], ["odd_shape"]),
    (np.full((63, 63), 7.0), ["constant"]),
    (np.full((63, 63), np.nan), ["edge", "nan_at_centre", "no_finite_pixel"]),
    (np.minimum(star(), 500), ["saturated"]),
    (np.full((1, 1), np.nan), ["edge", "nan_at_centre", "no_finite_pixel"]),
]


@pytest.mark.parametrize(("image", "flags"), FLAGGED)
def test_each_flag_is_raised_for_what_it_says(image: np.ndarray, flags: list[str]) -> None:
    assert measured(image)["flags"] == flags


def test_saturation_is_that_of_the_header_where_it_has_one() -> None:
    assert measured(star(), SATURATE=800.0)["flags"] == ["saturated"]
    assert measured(star(), SATURATE=5000.0)["flags"] == []


@pytest.mark.parametrize(
    "image",
    [
        np.full((5, 5), np.nan),
        np.full((5, 5), np.inf),
        np.full((5, 5), 3e38),
        np.zeros((1, 1)),
        np.array([[np.nan, 1.0]]),
    ],
    ids=["nan", "inf", "huge", "one", "half"],
)
def test_what_cannot_be_measured_is_null(image: np.ndarray) -> None:
    content = ztf_fits(image.astype(np.float32))
    found = describe_stamp(stamp(content=content), entry(), ZTF_LAYOUT)
    json.dumps(found, allow_nan=False)
    assert found["centroid_offset"] is None


def test_the_header_is_told_card_by_card_with_great_numbers_as_text() -> None:
    content = lsst_stamp(VISIT=2**60, ODD="it's", NOTHING=fits.card.UNDEFINED)
    found = describe_stamp(stamp(content=content), entry(), LSST_LAYOUT)
    cards = {card["keyword"]: card["value"] for card in found["header"]}
    assert cards["VISIT"] == str(2**60)
    assert cards["ODD"] == "it's"
    assert cards["BUNIT"] == found["unit"] == "nJy"
    assert [plane["name"] for plane in found["planes"]] == ["UNCERT", "PSFIMAGE"]


def test_the_wcs_says_whether_it_is_approximate() -> None:
    ztf = describe_stamp(stamp(), entry(), ZTF_LAYOUT)["wcs"]
    lsst = describe_stamp(stamp(content=lsst_stamp()), entry(), LSST_LAYOUT)["wcs"]
    assert (ztf["approximate"], lsst["approximate"]) == (True, False)
    assert ztf["pixel_scale"] == pytest.approx(1.01)
    assert len(lsst["corners"]) == 4
    assert describe_stamp(stamp(), None, ZTF_LAYOUT)["wcs"] is None


def test_ids_are_text() -> None:
    found = describe_shot(Alert([stamp()], entry()), ZTF_LAYOUT)
    assert isinstance(found["alert"]["candid"], str)
    assert found["stamps"][0]["kind"] == "Science"


# --- the signal at the alert -------------------------------------------------------------------


def test_the_signal_is_that_of_the_alert_and_not_of_a_brighter_neighbour() -> None:
    faint, bright = star(flux=60), star(flux=5000, at=(10.0, 50.0)) - star(flux=0)
    found = measured(faint + bright)
    assert (found["brightest_pixel"]["x"], found["brightest_pixel"]["y"]) == (10, 50)
    assert found["brightest_pixel"]["snr"] == found["peak_snr"] > 500
    assert 0 < found["at_alert"]["snr"] < 60
    assert (found["at_alert"]["x"], found["at_alert"]["y"]) == CENTRE


@pytest.mark.parametrize("place", [(31.0, 31.0), (20.3, 40.75), (0.0, 62.0), (61.9, 2.2)])
def test_the_sum_is_that_of_the_pixels_within_three_pixels(place: tuple[float, float]) -> None:
    image = star(at=place).astype(np.float64)
    image[31, 32] = image[40, 20] = np.nan
    found = measure(image, place, fits.Header())
    _, median, noise = sigma_clipped_stats(image[np.isfinite(image)], sigma=3)
    values = [
        image[y, x] - median
        for y in range(63)
        for x in range(63)
        if (x - place[0]) ** 2 + (y - place[1]) ** 2 <= 9 and np.isfinite(image[y, x])
    ]
    at_alert = found["at_alert"]
    assert at_alert["pixels"] == len(values)
    assert at_alert["sum"] == pytest.approx(sum(values))
    assert at_alert["snr"] == pytest.approx(sum(values) / noise / len(values) ** 0.5, abs=1e-3)


def test_an_alert_whose_pixels_are_all_masked_has_no_signal() -> None:
    found = measured(holes((slice(26, 37), slice(26, 37))))["at_alert"]
    assert (found["pixels"], found["sum"], found["snr"]) == (0, None, None)


def test_an_lsst_alert_is_where_its_position_is_in_the_stamp() -> None:
    image = star((30, 30), at=(8.0, 21.0))
    place = WCS(lsst_header(CTYPE1="RA---TAN", CTYPE2="DEC--TAN")).pixel_to_world_values(8.0, 21.0)
    there = entry(ra=float(place[0]), dec=float(place[1]))
    found = describe_stamp(stamp(content=lsst_stamp(image)), there, LSST_LAYOUT)["at_alert"]
    assert (found["x"], found["y"]) == pytest.approx((8, 21), abs=0.01)
    assert found["snr"] > 100
    elsewhere = describe_stamp(stamp(content=lsst_stamp(image)), None, LSST_LAYOUT)["at_alert"]
    assert (elsewhere["x"], elsewhere["y"]) == (15, 15)
    assert elsewhere["snr"] < 10
