"""Where stamps are on the sky, against astropy and by the arithmetic of the headers."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from cutout_api.errors import FactMissing
from cutout_api.surveys import LSST, ZTF, Survey
from cutout_api.wcs import (
    complete_header,
    find_matrix,
    find_sky,
    has_wcs,
    pixel_scale,
    read_header,
)

from ..pictures import DEC, LSST_MATRIX, RA, entry, lsst_header, lsst_stamp, stamp


def image_header(**changes: Any) -> fits.Header:
    """Return the cards of an LSST stamp of 30 x 30 pixels; a card given as None is left out."""
    return lsst_header(**{"NAXIS1": 30, "NAXIS2": 30, **changes})


COMPLETE = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"EQUINOX": 1950.0},
        {"RADESYS": "FK5"},
        {"CTYPE1": "GLON-CAR", "CTYPE2": "GLAT-CAR"},
        {
            "PC1_1": None,
            "PC1_2": None,
            "PC2_1": None,
            "PC2_2": None,
            "CDELT1": 5e-5,
            "CDELT2": 5e-5,
        },
    ],
    ids=str,
)
@pytest.mark.parametrize("survey", [ZTF, LSST], ids=lambda survey: survey.name)
def test_a_celestial_header_stays_as_it_is(changes: dict[str, Any], survey: Survey) -> None:
    header = image_header(**{**COMPLETE, **changes})
    before = header.copy()
    complete_header(header, survey, entry())
    assert header.tostring() == before.tostring()


def test_a_header_that_was_completed_stays_as_it_is() -> None:
    header = image_header()
    complete_header(header, LSST, None)
    again = header.copy()
    complete_header(again, LSST, None)
    assert again.tostring() == header.tostring()


@pytest.mark.parametrize(
    ("changes", "added"),
    [
        ({}, ["CTYPE1", "CTYPE2", "CUNIT1", "CUNIT2", "RADESYS"]),
        ({"EQUINOX": 2000.0}, ["CTYPE1", "CTYPE2", "CUNIT1", "CUNIT2"]),
        ({"RADECSYS": "FK5"}, ["CTYPE1", "CTYPE2", "CUNIT1", "CUNIT2"]),
        ({"CUNIT1": "deg", "CUNIT2": "deg"}, ["CTYPE1", "CTYPE2", "RADESYS"]),
    ],
    ids=str,
)
def test_only_what_is_missing_is_added(changes: dict[str, Any], added: list[str]) -> None:
    header = image_header(**changes)
    before = set(header)
    complete_header(header, LSST, None)
    assert sorted(set(header) - before - {"HISTORY"}) == added
    assert find_sky(header, LSST, None).wcs.has_celestial


def test_a_survey_that_has_no_wcs_is_not_believed_where_the_header_has_one() -> None:
    """Unit matrix, CDELT of 0.2 arcsec: not the 1.01 arcsec of ZTF, and not the alert's place."""
    cards = {"CRPIX1": 17.0, "CRPIX2": 16.0, "CRVAL1": 150.0, "CRVAL2": 2.0, **COMPLETE}
    cards |= {"NAXIS1": 33, "NAXIS2": 31, "CDELT1": -0.2 / 3600, "CDELT2": 0.2 / 3600}
    sky = find_sky(fits.Header(cards), ZTF, entry())
    assert sky.approximate is None
    assert pixel_scale(sky.matrix) == pytest.approx(0.2)
    np.testing.assert_allclose(sky.centre, (150.0, 2.0))


@pytest.mark.parametrize("cards", [{"CRPIX1": 3.0}, {"LONPOLE": 10.0}, {"EQUINOX": 1950.0}])
def test_parts_of_a_wcs_are_not_mixed_with_the_surveys(cards: dict[str, float]) -> None:
    header = fits.Header({"NAXIS1": 63, "NAXIS2": 63, **cards})
    with pytest.raises(FactMissing):
        complete_header(header, ZTF, entry())


def test_the_approximate_wcs_of_ztf_has_north_up_with_row_0_on_top() -> None:
    header = fits.Header([("NAXIS1", 63), ("NAXIS2", 63)])
    complete_header(header, ZTF, entry())
    wcs = WCS(header)
    above, right = wcs.pixel_to_world_values(31, 30), wcs.pixel_to_world_values(32, 31)
    assert above[1] - DEC == pytest.approx(1.01 / 3600, rel=1e-4)  # row 30 is to the north of 31
    assert (right[0] - RA) * np.cos(np.radians(DEC)) == pytest.approx(-1.01 / 3600, rel=1e-4)


@pytest.mark.parametrize(("nx", "centre"), [(63, 31), (62, 31), (30, 15), (1, 0)])
def test_the_alert_is_in_the_central_pixel_of_any_shape(nx: int, centre: int) -> None:
    header = fits.Header([("NAXIS1", nx), ("NAXIS2", 63)])
    found = find_sky(header, ZTF, entry()).find_pixel(RA, DEC)
    assert found == pytest.approx((centre, 31), abs=1e-6)


@pytest.mark.parametrize(
    "facts",
    [
        {"ra": np.nan},
        {"dec": np.nan},
        {"ra": 361.0},
        {"dec": -91.0},
        {"ra": np.inf},
    ],
)
def test_an_alert_without_a_place_has_no_wcs(facts: dict[str, float]) -> None:
    header = fits.Header([("NAXIS1", 63), ("NAXIS2", 63)])
    with pytest.raises(FactMissing):
        complete_header(header, ZTF, entry(**facts))
    with pytest.raises(FactMissing):
        complete_header(header, ZTF, None)


def test_the_matrix_is_that_of_the_header_or_of_the_survey() -> None:
    found = find_matrix(read_header(stamp(content=lsst_stamp())), LSST)
    np.testing.assert_allclose(found, LSST_MATRIX, rtol=1e-6)
    assert pixel_scale(found) == pytest.approx(0.2002, abs=1e-4)
    ztf = find_matrix(read_header(stamp()), ZTF)
    assert pixel_scale(ztf) == pytest.approx(1.01)


def test_a_matrix_of_cd_and_of_scaled_pc_is_understood() -> None:
    scaled = image_header(PC1_1=-1.0, PC1_2=0.0, PC2_1=0.0, PC2_2=1.0, CDELT1=5e-5, CDELT2=5e-5)
    found = find_matrix(scaled, LSST)
    np.testing.assert_allclose(found, [[-5e-5, 0], [0, 5e-5]], atol=1e-11)


@pytest.mark.parametrize(
    "cards",
    [
        {"PC1_1": 5e-5, "PC1_2": 5e-5, "PC2_1": 5e-5, "PC2_2": 5e-5},
        {"PC1_1": 0.0, "PC1_2": 0.0, "PC2_1": 0.0, "PC2_2": 0.0},
        {"PC1_1": 1e-4, "PC1_2": 0.0, "PC2_1": 0.0, "PC2_2": 1e-8},
        {"PC1_1": 5.0, "PC1_2": 0.0, "PC2_1": 0.0, "PC2_2": 5.0},
        {"PC1_1": None, "PC1_2": None, "PC2_1": None, "PC2_2": None},
        {"CRVAL1": None},
        {"PC1_1": "east"},
        {"CTYPE1": "RA---XXX", "CTYPE2": "DEC--XXX"},
        {"CTYPE1": "WAVE", "CTYPE2": "DEC--TAN"},
        {"CTYPE1": "RA---TAN"},
        {"CRPIX1": 1e9},
        {"CTYPE1": "RA---QSC", "CTYPE2": "DEC--QSC", "CRPIX1": 15.5, "CRPIX2": 15.5},
        {"CTYPE1": "RA---AIT", "CTYPE2": "DEC--AIT", "CRPIX1": 4e6},
    ],
    ids=str,
)
def test_a_header_that_makes_no_sense_on_the_sky_is_refused(cards: dict[str, object]) -> None:
    with pytest.raises(FactMissing):
        find_matrix(image_header(**cards), LSST)
    with pytest.raises(FactMissing):
        complete_header(image_header(**cards), LSST, None)


def test_a_header_has_a_wcs_where_any_card_says_where_its_pixels_are() -> None:
    assert has_wcs(lsst_header())
    assert has_wcs(fits.Header({"PC001001": 1.0}))
    assert not has_wcs(fits.Header({"EQUINOX": 2000.0, "PV1_7": "text", "CRVAL": 5.0}))


@pytest.mark.parametrize("place", [(0.2, 29.4), (15.0, 15.0), (-0.4, 0.0)])
def test_a_place_is_found_in_the_pixel_that_it_is_in(place: tuple[float, float]) -> None:
    header = image_header(**COMPLETE)
    ra, dec = WCS(header).all_pix2world(*place, 0)
    assert find_sky(header, LSST, None).find_pixel(ra, dec) == pytest.approx(place, abs=1e-6)


@pytest.mark.parametrize(("ra", "dec"), [(RA, DEC + 1), (RA + 180, -DEC), (RA, -90.0), (RA, 90.0)])
def test_a_place_beyond_the_stamp_is_not_found(ra: float, dec: float) -> None:
    assert find_sky(image_header(), LSST, None).find_pixel(ra, dec) is None


@pytest.mark.parametrize(("ra", "dec"), [(0.0, 10.0), (359.99999, 0.0), (77.0, 90.0), (0.0, -90.0)])
def test_poles_and_the_meridian_are_places_as_any_other(ra: float, dec: float) -> None:
    sky = find_sky(image_header(CRVAL1=ra, CRVAL2=dec), LSST, None)
    x, y = sky.find_pixel(ra, dec) or (np.nan, np.nan)
    assert (x, y) == pytest.approx((15.0, 15.0), abs=1e-3)
    assert pixel_scale(sky.matrix) == pytest.approx(0.2002, abs=1e-4)


def test_what_is_written_is_read_back_by_astropy() -> None:
    with fits.open(io.BytesIO(lsst_stamp())) as hdus:
        complete_header(hdus[0].header, LSST, None)
        assert WCS(hdus[0].header).has_celestial
        assert hdus[0].header["RADESYS"] == "ICRS"
