"""Planes, signs, and the FITS files that are not the stored ones."""

from __future__ import annotations

import io
import itertools
import warnings

import numpy as np
import pytest
from astropy.io import fits

from cutout_api.epochs import Alert
from cutout_api.errors import FactMissing, PlaneMissing, StampUnreadable
from cutout_api.formatter import format_epochs, format_stamps
from cutout_api.info import describe_stamp
from cutout_api.panels import Layout
from cutout_api.render import Rendering
from cutout_api.surveys import LSST, ZTF, Survey
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


# --- planes by their own cards -----------------------------------------------------------------

# What is stored for a noise of 2, a variance of 4: (cards of the HDU, value, what it is).
UNCERTAINTIES = [
    ({"EXTNAME": "UNCERT"}, 4, "variance"),  # the survey's name for it
    ({"EXTNAME": "UNCERT", "UTYPE": "VarianceUncertainty"}, 4, "variance"),
    ({"EXTNAME": "UNCERT", "UTYPE": "StdDevUncertainty"}, 2, "standard deviation"),
    ({"EXTNAME": "UNCERT", "UTYPE": "InverseVariance"}, 0.25, "inverse variance"),
    ({"EXTNAME": "UNCERT", "BUNIT": "nJy"}, 2, "standard deviation"),
    ({"EXTNAME": "UNCERT", "BUNIT": "nJy2"}, 4, "variance"),
    ({"EXTNAME": "UNCERT", "BUNIT": "nJy**2"}, 4, "variance"),
    ({"EXTNAME": "UNCERT", "BUNIT": "1 / nJy^2"}, 0.25, "inverse variance"),
    ({"EXTNAME": "UNCERT", "BUNIT": "nJy", "UTYPE": "VarianceUncertainty"}, 4, "variance"),
    ({"EXTNAME": "NOISE", "BUNIT": "nJy"}, 2, "standard deviation"),
    ({"EXTNAME": "VARIANCE"}, 4, "variance"),
    ({"EXTNAME": "VARIANCE", "BUNIT": "nJy"}, 4, "variance"),  # copied from the image
    ({"EXTNAME": "ERR"}, 2, "standard deviation"),
    ({"EXTNAME": "stddev"}, 2, "standard deviation"),
    ({"EXTNAME": "IVAR"}, 0.25, "inverse variance"),
    ({"UTYPE": "StdDevUncertainty"}, 2, "standard deviation"),
]


def plane_hdu(cards: dict[str, str], value: float) -> fits.ImageHDU:
    data = np.full((30, 30), value, np.float32)
    data[0, 0] = -1
    return fits.ImageHDU(data, fits.Header(list(cards.items())))


def with_unit(*hdus: fits.ImageHDU) -> bytes:
    buffer = io.BytesIO()
    primary = fits.PrimaryHDU(star((30, 30)), fits.Header([("BUNIT", "nJy")]))
    fits.HDUList([primary, *hdus]).writeto(buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(("cards", "value", "role"), UNCERTAINTIES, ids=str)
def test_an_uncertainty_is_what_its_cards_say(
    cards: dict[str, str], value: float, role: str
) -> None:
    mask = fits.ImageHDU(np.ones((30, 30), np.int32), name="MASK")
    stored = stamp(content=with_unit(mask, plane_hdu(cards, value)))
    variance = read_view(stored, LSST, View("variance"), None)
    np.testing.assert_array_equal(variance.ravel()[1:], 4)
    assert variance.dtype == np.float32
    snr = read_view(stored, LSST, View("snr"), None)
    np.testing.assert_allclose(snr.ravel()[1:], star((30, 30)).ravel()[1:] / 2, rtol=1e-6)
    assert np.isnan(snr[0, 0])
    layout = Layout(LSST, by_name=False, rendering=Rendering(), image_pixels=10_000)
    planes = describe_stamp(stored, None, layout)["planes"]
    assert [plane["is"] for plane in planes] == ["mask", role]
    with fits.open(io.BytesIO(write_view(stored, LSST, View("variance"), None))) as hdus:
        assert hdus[0].header["BUNIT"] == "nJy^2"
        history = str(hdus[0].header["HISTORY"])
        assert (f"made of the {role}" in history) == (role != "variance")
        np.testing.assert_array_equal(hdus[0].data, variance)


@pytest.mark.parametrize(
    "cards",
    [
        {"EXTNAME": "UNCERTAINTY"},
        {"EXTNAME": "NOISE", "BUNIT": "DN"},
        {"EXTNAME": "UNCERT", "UTYPE": "UnknownUncertainty", "BUNIT": "x"},
        {"EXTNAME": "VARIANCE", "UTYPE": "StdDevUncertainty"},
    ],
    ids=str,
)
def test_an_uncertainty_that_does_not_say_what_it_is_is_not_guessed(cards: dict[str, str]) -> None:
    stored = stamp(content=with_unit(plane_hdu(cards, 4)))
    for plane in ("variance", "snr"):
        with pytest.raises(StampUnreadable, match="does not say"):
            read_view(stored, LSST, View(plane), None)
    np.testing.assert_array_equal(read_view(stored, LSST, AS_STORED, None), star((30, 30)))


def test_a_variance_goes_before_what_gives_one() -> None:
    hdus = [plane_hdu({"EXTNAME": "ERR"}, 9), plane_hdu({"EXTNAME": "VARIANCE"}, 4)]
    found = read_view(stamp(content=with_unit(*hdus)), LSST, View("variance"), None)
    assert found[1, 1] == 4


@pytest.mark.parametrize("name", ["MASK", "VARIANCE", "ERR", "PSF"])
def test_a_primary_hdu_that_is_called_a_plane_is_not_the_image(name: str) -> None:
    primary = fits.PrimaryHDU(np.ones((30, 30), np.float32), fits.Header([("EXTNAME", name)]))
    buffer = io.BytesIO()
    fits.HDUList([primary, fits.ImageHDU(star((30, 30)), name="SCI")]).writeto(buffer)
    found = read_view(stamp(content=buffer.getvalue()), LSST, AS_STORED, None)
    np.testing.assert_array_equal(found, star((30, 30)))


EVERY_VIEW = [
    pytest.param(survey, View(plane, sign, wcs), id=f"{survey.name}-{plane}-{sign}-{wcs}")
    for survey in (ZTF, LSST)
    for plane in ("image", "variance", "psf", "snr")
    for sign in ("as-delivered", "sci-ref")
    for wcs in ("none", "fix")
    if has_plane(survey, plane)
]


@pytest.mark.parametrize(("survey", "view"), EVERY_VIEW)
def test_no_view_leaves_a_stale_checksum(survey: Survey, view: View) -> None:
    buffer = io.BytesIO()
    with fits.open(io.BytesIO(lsst_stamp())) as hdus:
        hdus.writeto(buffer, checksum=True)
    stored = stamp("Difference", buffer.getvalue())
    written = write_view(stored, survey, view, entry(positive=False))
    assert (written == stored.fits) == (
        (view.plane, view.wcs) == ("image", "none")
        and (view.diffsign == "as-delivered" or survey is LSST)
    )
    shots = [Alert([stored, stored], entry(positive=False))]
    layout = Layout(survey, False, Rendering(), 10_000, view)
    for content in (
        written,
        format_stamps(shots[0], "FITS", layout)[0],
        format_epochs(shots * 2, "FITS", layout)[0],
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with fits.open(io.BytesIO(content), checksum=True) as hdus:
                hdus.verify("exception")
                assert all(hdu.data is None or hdu.data.ndim == 2 for hdu in hdus)
    with fits.open(io.BytesIO(written)) as hdus:
        assert ("CHECKSUM" in hdus[0].header) == (written == stored.fits)
        assert view.plane != "image" or "CHECKSUM" in hdus["UNCERT"].header


@pytest.mark.parametrize("survey", [LSST, ZTF], ids=["lsst", "ztf"])
def test_a_celestial_stamp_with_its_wcs_fixed_is_the_stored_file_itself(survey: Survey) -> None:
    stored = stamp(content=lsst_stamp(CTYPE1="RA---SIN", CTYPE2="DEC--SIN", RADESYS="FK5"))
    assert write_view(stored, survey, View(wcs="fix"), None) is stored.fits
