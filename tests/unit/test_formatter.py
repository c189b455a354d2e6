"""What several stamps become in one file or picture; single ones are in tests/contract."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from astropy.io import fits

from cutout_api.epochs import Alert
from cutout_api.errors import StampTooLarge, StampUnreadable
from cutout_api.formatter import format_stamps
from cutout_api.panels import Layout
from cutout_api.render import Rendering
from cutout_api.stamp import Stamp
from cutout_api.surveys import KINDS, LSST

from ..samples import pixels, ztf_fits

LAYOUT = Layout(LSST, by_name=False, rendering=Rendering(), image_pixels=40_000)


def fits_of(*hdus: fits.hdu.base.ExtensionHDU, image: np.ndarray | None = None) -> bytes:
    buffer = io.BytesIO()
    primary = fits.PrimaryHDU(pixels(1, (5, 6)) if image is None else image)
    fits.HDUList([primary, *hdus]).writeto(buffer)
    return buffer.getvalue()


def merge(content: bytes) -> fits.HDUList:
    body, media_type = format_stamps(
        Alert([Stamp(kind, content) for kind in KINDS]), "FITS", LAYOUT
    )
    assert media_type == "application/octet-stream"
    merged = fits.open(io.BytesIO(body))
    merged.verify("exception")
    return merged


def test_tables_are_carried_along() -> None:
    table = fits.BinTableHDU.from_columns([fits.Column("x", "D", array=np.arange(3.0))], name="T")
    merged = merge(fits_of(table))
    assert [hdu.name for hdu in merged][1:3] == ["SCIENCE", "SCIENCE_T"]
    assert list(merged["DIFFERENCE_T"].data["x"]) == [0, 1, 2]


def test_scaled_images_stay_scaled_as_they_were() -> None:
    scaled = fits.PrimaryHDU(np.arange(6, dtype=np.int16).reshape(2, 3))
    scaled.header["BSCALE"], scaled.header["BZERO"] = 2.0, 10.0
    buffer = io.BytesIO()
    scaled.writeto(buffer)
    content = buffer.getvalue()
    expected = fits.open(io.BytesIO(content))[0].data
    np.testing.assert_array_equal(merge(content)["TEMPLATE"].data, expected)


def test_extensions_without_a_name_are_numbered() -> None:
    merged = merge(fits_of(fits.ImageHDU(np.zeros((2, 2)))))
    assert [hdu.name for hdu in merged][1:3] == ["SCIENCE", "SCIENCE_1"]


def test_a_header_with_a_byte_that_is_no_text_is_unreadable_or_mended() -> None:
    content = bytearray(ztf_fits(pixels(1)))
    content[content.index(b"BUNIT") + 12] = 0xE9
    with contextlib.suppress(StampUnreadable):
        assert merge(bytes(content))["SCIENCE"].data.shape == (63, 63)


def test_a_picture_of_stamps_that_do_not_fit_together_is_refused() -> None:
    wide, tall = fits_of(image=pixels(1, (1, 15_000))), fits_of(image=pixels(1, (15_000, 1)))
    with pytest.raises(StampTooLarge):
        format_stamps(Alert([Stamp("Science", wide), Stamp("Template", tall)]), "PNG", LAYOUT)
