"""Where stamps are on the sky, against astropy and by the arithmetic of the headers."""

from __future__ import annotations

import io

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from cutout_api.errors import FactMissing
from cutout_api.surveys import LSST, ZTF
from cutout_api.wcs import complete_header, find_sky_matrix, find_wcs, has_position, pixel_scale

from ..pictures import DEC, LSST_MATRIX, RA, entry, lsst_header, lsst_stamp, stamp


def test_a_complete_header_stays_as_it_is() -> None:
    header = lsst_header()
    complete_header(header, LSST, None)
    again = header.copy()
    complete_header(again, LSST, None)
    assert again == header


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
    x, _ = find_wcs(header, ZTF, entry()).world_to_pixel_values(RA, DEC)
    assert x == pytest.approx(centre, abs=1e-6)


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
    found = find_sky_matrix(stamp(content=lsst_stamp()), LSST)
    np.testing.assert_allclose(found, LSST_MATRIX)
    assert pixel_scale(found) == pytest.approx(0.2002, abs=1e-4)
    ztf = find_sky_matrix(stamp(), ZTF)
    assert pixel_scale(ztf) == pytest.approx(1.01)


def test_a_matrix_of_cd_and_of_scaled_pc_is_understood() -> None:
    scaled = lsst_stamp(PC1_1=-1.0, PC1_2=0.0, PC2_1=0.0, PC2_2=1.0, CDELT1=5e-5, CDELT2=5e-5)
    np.testing.assert_allclose(
        find_sky_matrix(stamp(content=scaled), LSST), [[-5e-5, 0], [0, 5e-5]], atol=1e-12
    )


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
    ],
    ids=str,
)
def test_a_header_that_makes_no_sense_on_the_sky_is_refused(cards: dict[str, object]) -> None:
    with pytest.raises(FactMissing):
        find_sky_matrix(stamp(content=lsst_stamp(**cards)), LSST)


def test_a_header_with_a_position_needs_reference_and_matrix() -> None:
    assert has_position(lsst_header())
    assert not has_position(lsst_header(CRPIX2=None))
    assert not has_position(fits.Header())


def test_what_is_written_is_read_back_by_astropy(tmp_path: object) -> None:
    content = io.BytesIO(lsst_stamp())
    with fits.open(content) as hdus:
        complete_header(hdus[0].header, LSST, None)
        assert WCS(hdus[0].header).has_celestial
        assert hdus[0].header["RADESYS"] == "ICRS"
