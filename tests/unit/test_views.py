"""Planes, signs, and the FITS files that are not the stored ones."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
from astropy.io import fits

from cutout_api.errors import FactMissing, PlaneMissing, StampUnreadable
from cutout_api.surveys import LSST, ZTF
from cutout_api.views import AS_STORED, View, has_plane, read_view, write_view

from ..pictures import entry, lsst_stamp, stamp, star
from ..samples import ztf_fits

REVERSED = View(diffsign="sci-ref")


def fits_with(*hdus: fits.ImageHDU, image: np.ndarray | None = None) -> bytes:
    buffer = io.BytesIO()
    primary = fits.PrimaryHDU(star((30, 30)) if image is None else image)
    fits.HDUList([primary, *hdus]).writeto(buffer)
    return buffer.getvalue()


def test_nothing_asked_is_the_stored_file_itself() -> None:
    stored = stamp()
    assert write_view(stored, ZTF, AS_STORED, None) is stored.fits


def test_only_lsst_has_planes() -> None:
    assert all(has_plane(LSST, plane) for plane in ("image", "variance", "psf", "snr"))
    assert [has_plane(ZTF, plane) for plane in ("image", "variance", "psf", "snr")] == [
        True,
        False,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("hdu", "error"),
    [
        (fits.ImageHDU(name="UNCERT"), StampUnreadable),
        (fits.ImageHDU(np.zeros(5), name="UNCERT"), StampUnreadable),
        (fits.ImageHDU(np.zeros((5, 5)), name="UNCERT"), StampUnreadable),
        (fits.ImageHDU(np.zeros((30, 30)), name="OTHER"), PlaneMissing),
        (
            fits.BinTableHDU.from_columns([fits.Column("x", "D", array=[1.0])], name="UNCERT"),
            StampUnreadable,
        ),
    ],
    ids=["empty", "a row", "another shape", "another name", "a table"],
)
def test_a_variance_that_is_none_is_an_error_of_its_own(
    hdu: fits.ImageHDU, error: type[Exception]
) -> None:
    with pytest.raises(error):
        read_view(stamp(content=fits_with(hdu)), LSST, View("snr"), None)


def test_signal_to_noise_is_nan_without_noise() -> None:
    variance = np.array([[4, 0], [-1, np.nan]], np.float32)
    image = np.array([[10, 10], [10, 10]], np.float32)
    content = fits_with(fits.ImageHDU(variance, name="UNCERT"), image=image)
    found = read_view(stamp(content=content), LSST, View("snr"), None)
    assert found[0, 0] == 5
    assert np.isnan(found.ravel()[1:]).all()


def test_a_sign_that_is_not_known_is_not_guessed() -> None:
    for unknown in (None, entry(positive=None)):
        with pytest.raises(FactMissing):
            read_view(stamp("Difference"), ZTF, REVERSED, unknown)
    read_view(stamp("Science"), ZTF, REVERSED, None)  # has none
    read_view(stamp("Difference", lsst_stamp()), LSST, REVERSED, None)  # never reversed


def test_turning_the_sign_of_integers_cannot_overflow() -> None:
    image = np.array([[-32768, 7]], np.int16)
    stored = stamp("Difference", ztf_fits(image))
    turned = read_view(stored, ZTF, REVERSED, entry(positive=False))
    assert turned.tolist() == [[32768, -7]]
    written = write_view(stored, ZTF, REVERSED, entry(positive=False))
    assert fits.getdata(io.BytesIO(written)).tolist() == [[32768, -7]]


@pytest.mark.parametrize("bzero", [0, 32768])
def test_scaled_pixels_stay_scaled_with_a_wcs_and_are_right_when_reversed(bzero: int) -> None:
    hdu = fits.PrimaryHDU(np.arange(6, dtype=np.int16).reshape(2, 3))
    hdu.header["BSCALE"], hdu.header["BZERO"] = 2.0, bzero
    buffer = io.BytesIO()
    hdu.writeto(buffer)
    stored = stamp("Difference", buffer.getvalue())
    expected = fits.getdata(io.BytesIO(stored.fits)).astype(float)
    fixed = write_view(stored, ZTF, View(wcs="fix"), entry())
    np.testing.assert_array_equal(fits.getdata(io.BytesIO(fixed)), expected)
    turned = write_view(stored, ZTF, REVERSED, entry(positive=False))
    np.testing.assert_array_equal(fits.getdata(io.BytesIO(turned)), -expected)


@pytest.mark.parametrize(
    ("plane", "wcs"), list(itertools.product(("image", "variance", "snr"), ("none", "fix")))
)
def test_every_file_made_here_is_valid_fits(plane: str, wcs: str) -> None:
    written = write_view(stamp(content=lsst_stamp()), LSST, View(plane, wcs=wcs), entry())
    with fits.open(io.BytesIO(written)) as hdus:
        hdus.verify("exception")
        assert len(hdus) == (3 if plane == "image" else 1)
        assert ("CTYPE1" in hdus[0].header) == (wcs == "fix")
        assert hdus[0].header.get("BUNIT") == {"image": "nJy", "variance": "nJy^2"}.get(plane)
