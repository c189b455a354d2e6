"""Resizing and turning what is drawn, checked against reproject, which knows the sky."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.wcs import WCS
from reproject import reproject_interp

from cutout_api.geometry import NORTH_UP, RESAMPLINGS, Geometry

# What one real LSST stamp has, what a mirrored detector would have, and a camera on its side.
LSST = np.array([[-5.03e-05, 2.37e-05], [2.37e-05, 5.03e-05]])
SKIES = {
    "turned": LSST,
    "turned and mirrored": LSST @ np.diag([-1.0, 1.0]),
    "on its side": np.array([[0.0, 5e-5], [-5e-5, 0.0]]),
    "up is up": np.array([[-5e-5, 0.0], [0.0, 5e-5]]),
}


def celestial(matrix: np.ndarray, shape: tuple[int, int]) -> WCS:
    """Return the WCS of an image whose centre is at (250, 2) degrees."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [250.0, 2.0]
    wcs.wcs.crpix = [(shape[1] + 1) / 2, (shape[0] + 1) / 2]
    wcs.wcs.cd = matrix
    return wcs


def smooth_sky(shape: tuple[int, int] = (41, 41)) -> np.ndarray:
    """Return an image without any symmetry: two blobs, one of them near a corner."""
    y, x = np.indices(shape)
    far = np.exp(-((x - 8) ** 2 + (y - 14) ** 2) / 30)
    return 0.2 + 0.5 * far + 0.3 * np.exp(-((x - 26) ** 2 + (y - 24) ** 2) / 20)


@pytest.mark.parametrize("sky", SKIES)
def test_a_turned_picture_is_what_reproject_makes_of_it(sky: str) -> None:
    image, matrix = smooth_sky(), SKIES[sky]
    turned = Geometry(sky=matrix).reshape(image, blank=0.0)
    scale = np.sqrt(abs(np.linalg.det(matrix)))
    north_up = celestial(scale * NORTH_UP, image.shape)
    expected, covered = reproject_interp(
        (image, celestial(matrix, image.shape)), north_up, image.shape, order="bicubic"
    )
    inner = covered.astype(bool) & ~np.isnan(expected)
    inner[[0, -1]] = inner[:, [0, -1]] = False
    assert inner.mean() > 0.7
    assert np.abs(turned - expected)[inner].max() < 0.02


def test_an_image_that_is_north_up_stays_as_it_is_to_the_last_bit() -> None:
    image = np.random.default_rng(1).random((63, 62))
    ztf = np.array([[-1.01 / 3600, 0], [0, -1.01 / 3600]])
    np.testing.assert_array_equal(Geometry(sky=ztf).reshape(image, 0.0), image)


def test_a_half_turn_is_exact_and_fills_nothing() -> None:
    image = np.random.default_rng(2).random((31, 30))
    upside_down = Geometry(sky=-NORTH_UP, resample="nearest").reshape(image, 9.0)
    np.testing.assert_array_equal(upside_down, image[::-1, ::-1])


def test_what_lies_beyond_the_stamp_is_blank() -> None:
    turned = Geometry(sky=LSST).reshape(np.full((30, 30), 0.5), blank=1.0)
    assert turned[0, 0] == turned[-1, -1] == 1.0
    assert abs(turned[15, 15] - 0.5) < 1e-6


@pytest.mark.parametrize("resample", [None, "nearest"])
def test_a_whole_zoom_repeats_each_pixel(resample: str | None) -> None:
    image = np.random.default_rng(3).random((5, 7))
    zoomed = Geometry(3, resample).reshape(image, 0.0)
    np.testing.assert_array_equal(zoomed, image.repeat(3, axis=0).repeat(3, axis=1))


@pytest.mark.parametrize("resample", RESAMPLINGS)
@pytest.mark.parametrize("shape", [(1, 9), (9, 1), (1, 1), (63, 62)])
@pytest.mark.parametrize("factor", [0.01, 0.5, 1, 2.7])
def test_any_shape_and_factor_gives_a_picture_within_0_and_1(
    resample: str, shape: tuple[int, int], factor: float
) -> None:
    image = np.random.default_rng(4).integers(0, 2, shape).astype(float)
    geometry = Geometry(factor, resample, LSST)
    picture = geometry.reshape(image, 0.0)
    assert picture.shape == geometry.size(shape)
    assert picture.min() >= 0
    assert picture.max() <= 1


@pytest.mark.parametrize("sky", SKIES)
@pytest.mark.parametrize("factor", [1, 4])
def test_a_place_is_where_the_pixel_is_drawn(sky: str, factor: int) -> None:
    image = np.zeros((41, 41))
    image[12, 25] = 1
    geometry = Geometry(factor, "nearest", SKIES[sky])
    rows, columns = np.nonzero(geometry.reshape(image, 0.0))
    x, y = geometry.place(25, 12, (41, 41))
    assert abs(columns.mean() + 0.5 - x) < 1
    assert abs(rows.mean() + 0.5 - y) < 1


def test_a_turned_picture_has_north_up_and_east_left() -> None:
    drawn = Geometry(2, sky=LSST).drawn_sky(LSST, (30, 30))
    expected = np.sqrt(abs(np.linalg.det(LSST))) / 2 * NORTH_UP
    np.testing.assert_allclose(drawn, expected, rtol=1e-9, atol=1e-18)
