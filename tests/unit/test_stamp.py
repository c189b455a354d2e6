"""Unpacking what is stored, and the pixels in it."""

from __future__ import annotations

import contextlib
import gzip
import io
import subprocess
import time
import zlib

import numpy as np
import pytest
from astropy.io import fits

from cutout_api.epochs import Alert
from cutout_api.errors import StampTooLarge, StampUnreadable
from cutout_api.formatter import format_stamps
from cutout_api.panels import Layout
from cutout_api.render import Rendering
from cutout_api.stamp import Stamp, StampLimits, find_plain_image, inflate, read_pixels, unpack
from cutout_api.surveys import KINDS, LSST

from ..samples import image_of, lsst_fits, pixels, ztf_fits

LIMITS = StampLimits(stamp_bytes=200_000, image_pixels=10_000)


def test_a_gzipped_and_a_plain_stamp_unpack_to_the_same_bytes() -> None:
    content = ztf_fits(pixels(1))
    assert unpack("Science", content, LIMITS).fits == content
    assert unpack("Science", gzip.compress(content), LIMITS).fits == content


def test_several_gzip_members_and_padding_are_read_as_gzip_reads_them() -> None:
    content = ztf_fits(pixels(1))
    stored = gzip.compress(content[:5000]) + gzip.compress(content[5000:]) + b"\0" * 16
    assert gzip.decompress(stored) == content
    assert inflate(stored, len(content)) == content


@pytest.mark.parametrize("garbage", [b"\r\n", b"\n", b"x" * 3000, b"\0\0\r\n", b"\x1f", b"\x1fno"])
def test_bytes_after_the_gzip_are_ignored_as_gzip_ignores_them(garbage: bytes) -> None:
    content = ztf_fits(pixels(1))
    stored = gzip.compress(content) + garbage
    ended = subprocess.run(["gzip", "-dc"], input=stored, capture_output=True)
    assert ended.stdout == content
    assert ended.returncode == 2 or len(garbage) == 1  # 2 is a warning
    assert unpack("Science", stored, LIMITS).fits == content


@pytest.mark.parametrize(
    "rest", [b"\x1f\x8b", b"\x1f\x8b\x08garbage", gzip.compress(b"x", mtime=0)[:-3]]
)
def test_a_further_member_that_is_broken_is_no_garbage(rest: bytes) -> None:
    stored = gzip.compress(ztf_fits(pixels(1))) + rest
    ended = subprocess.run(["gzip", "-dc"], input=stored, capture_output=True)
    assert ended.returncode == 1
    with pytest.raises(StampUnreadable, match="gzip"):
        unpack("Science", stored, LIMITS)


def test_very_many_gzip_members_are_refused_in_linear_time() -> None:
    content = ztf_fits(pixels(1))
    some = b"".join(gzip.compress(content[at : at + 100]) for at in range(0, len(content), 100))
    assert inflate(some, len(content)) == content
    many = gzip.compress(b"") * 400_000  # 8 MB; each cost a copy of the rest, 100 s in all
    started = time.process_time()
    with pytest.raises(StampUnreadable, match="more than 1000 gzip members"):
        inflate(many, 10**6)
    assert time.process_time() - started < 2


def test_a_stamp_may_fill_the_limit_and_not_one_byte_more() -> None:
    stored = gzip.compress(bytes(1000))
    assert inflate(stored, 1000) == bytes(1000)
    with pytest.raises(StampTooLarge):
        inflate(stored, 999)


def test_a_bomb_is_refused_before_it_is_inflated() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    with pytest.raises(StampTooLarge):
        inflate(bomb * 20, 100_000)
    with pytest.raises(StampTooLarge):
        unpack("Science", ztf_fits(pixels(1, (300, 300))), LIMITS)


def test_an_image_of_too_many_pixels_is_refused() -> None:
    stamp = unpack("Science", ztf_fits(pixels(1, (100, 120))), LIMITS)  # its file can be answered
    with pytest.raises(StampTooLarge, match="120 x 100"):
        read_pixels(stamp)


@pytest.mark.parametrize("length", [*range(0, 40, 3), 100, 1000, 5000])
def test_a_stamp_cut_anywhere_is_unreadable(length: int) -> None:
    stored = gzip.compress(ztf_fits(pixels(1)))
    assert length < len(stored)
    with pytest.raises(StampUnreadable):
        unpack("Science", stored[:length], LIMITS)


@pytest.mark.parametrize("place", [3, 12, 500, -8, -7, -3, -1])
def test_a_flipped_bit_is_noticed(place: int) -> None:
    content = ztf_fits(pixels(1))
    stored = bytearray(gzip.compress(content))
    stored[place] ^= 0x40
    try:
        unpacked = unpack("Science", bytes(stored), LIMITS)
    except StampUnreadable:
        return
    assert unpacked.fits == content  # a bit of the header that says nothing of the content


def test_zlib_and_noise_are_unreadable() -> None:
    content = ztf_fits(pixels(1))
    for stored in (zlib.compress(content), b"noise", b"\x1f\x8b", b"\0" * 100):
        with pytest.raises(StampUnreadable):
            unpack("Science", stored, LIMITS)


@pytest.mark.parametrize("make", [ztf_fits, lsst_fits])
@pytest.mark.parametrize("shape", [(63, 63), (63, 62), (30, 30), (1, 1), (1, 9), (7, 1)])
def test_pixels_equal_what_astropy_reads(make, shape: tuple[int, int]) -> None:
    image = pixels(3, shape)
    image[0, 0] = np.nan
    found = read_pixels(Stamp("Science", make(image)))
    np.testing.assert_array_equal(found, image_of(make(image)))
    assert found.dtype == np.float32
    assert found.dtype.isnative
    assert found.flags.c_contiguous


@pytest.mark.parametrize("dtype", [">f8", ">i2", ">i4", "u1", ">u2", ">i8"])
def test_other_kinds_of_pixels_are_read_as_astropy_reads_them(dtype: str) -> None:
    content = ztf_fits(np.arange(12).reshape(3, 4).astype(dtype))
    found = read_pixels(Stamp("Science", content))
    np.testing.assert_array_equal(found, np.arange(12).reshape(3, 4))
    assert found.dtype.isnative


def test_scaled_images_are_read_scaled() -> None:
    content = bytearray(ztf_fits(pixels(1)))
    end = content.index(b"END" + b" " * 77)
    content[end : end + 240] = (
        b"BSCALE  =                  2.0".ljust(80)
        + b"BZERO   =                 10.0".ljust(80)
        + b"END".ljust(80)
    )
    assert find_plain_image(bytes(content)) is None
    np.testing.assert_allclose(
        read_pixels(Stamp("Science", bytes(content))), pixels(1) * 2 + 10, rtol=1e-6
    )


@pytest.mark.parametrize(
    "hdu",
    [
        fits.PrimaryHDU(),
        fits.PrimaryHDU(np.zeros((2, 3, 4), np.float32)),
        fits.PrimaryHDU(np.zeros(5, np.float32)),
    ],
)
def test_anything_but_a_2d_image_is_a_file_without_pixels(hdu: fits.PrimaryHDU) -> None:
    buffer = io.BytesIO()
    hdu.writeto(buffer)
    stamp = unpack("Science", buffer.getvalue(), LIMITS)
    layout = Layout(LSST, False, Rendering(), 10_000)
    assert format_stamps(Alert([stamp]), "FITS", layout)[0] == buffer.getvalue()
    with pytest.raises(StampUnreadable, match="no 2-D image"):
        read_pixels(stamp)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("NAXIS1", "-30"),
        ("NAXIS2", "-1"),
        ("NAXIS", "1000000000"),
        ("NAXIS", "-2"),
        ("TFIELDS", "99999999999999999999"),
        ("PCOUNT", "-5"),
        ("GCOUNT", "-5"),
        ("NAXIS1", "99999999999999999999999"),
    ],
)
def test_a_header_that_would_never_end_is_refused_at_once(keyword: str, value: str) -> None:
    card = f"{keyword:8}= {value:>20}".ljust(80).encode()
    content = ztf_fits(pixels(1))
    place = content.index(keyword.encode().ljust(8)) if keyword[:5] == "NAXIS" else 400
    with contextlib.suppress(StampUnreadable, StampTooLarge):
        unpack("Science", content[:place] + card + content[place + 80 :], LIMITS)
    # An extension is looked at when all three kinds are put into one file.
    content = lsst_fits(pixels(2, (30, 30)))
    place = content.index(keyword.encode().ljust(8), 5760) if keyword[:5] == "NAXIS" else 6500
    place -= place % 80
    stamps = [Stamp(kind, content[:place] + card + content[place + 80 :]) for kind in KINDS]
    with contextlib.suppress(StampUnreadable):
        format_stamps(Alert(stamps), "FITS", Layout(LSST, False, Rendering(), 10_000))


def test_headers_changed_at_random_never_escape_as_another_error() -> None:
    rng = np.random.default_rng(4)
    for content in (ztf_fits(pixels(1)), lsst_fits(pixels(2, (30, 30)))):
        for _ in range(150):
            damaged = bytearray(content)
            for place in rng.integers(0, 1200, rng.integers(1, 6)):
                damaged[place] = rng.integers(32, 127)
            try:
                stamp = unpack("Science", bytes(damaged), LIMITS)
                assert read_pixels(stamp).ndim == 2
            except (StampUnreadable, StampTooLarge):
                pass
