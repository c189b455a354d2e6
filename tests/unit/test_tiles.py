"""Tile-compressed images, against astropy, which wrote them."""

from __future__ import annotations

import gzip
import io
import itertools
import time
import warnings

import numpy as np
import pytest
from astropy.io import fits

from cutout_api import tiles
from cutout_api.errors import StampTooLarge, StampUnreadable
from cutout_api.stamp import Stamp, read_pixels
from cutout_api.surveys import LSST, ZTF
from cutout_api.views import View, write_view
from cutout_api.wcs import read_header

from ..pictures import LSST_MATRIX, entry, lsst_header

ALGORITHMS = ("RICE_1", "GZIP_1", "GZIP_2", "NOCOMPRESS")
DTYPES = ("u1", "i1", "i2", "u2", "i4", "u4", "f4", "f8")


def compressed(image: np.ndarray, header: fits.Header | None = None, **options: object) -> bytes:
    buffer = io.BytesIO()
    hdu = fits.CompImageHDU(image, header, name="IMAGE", **options)
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(buffer)
    return buffer.getvalue()


def sample(dtype: str, shape: tuple[int, int] = (31, 33)) -> np.ndarray:
    rng = np.random.default_rng(7)
    if dtype[0] == "f":
        image = rng.normal(0, 100, shape).astype(dtype)
        image[0, :2] = 0, np.nan
        return image
    limits = np.iinfo(dtype)
    image = rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    image[: shape[0] // 2] = rng.integers(0, 50, (shape[0] // 2, shape[1]), dtype)
    image[-1] = 3  # a block without any difference
    return image


def by_astropy(content: bytes) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with fits.open(io.BytesIO(content)) as hdus:
            return np.array(hdus[1].data)


@pytest.mark.parametrize(
    ("algorithm", "dtype", "tile"), list(itertools.product(ALGORITHMS, DTYPES, (None, (4, 5))))
)
def test_tiles_of_any_kind_are_read_as_astropy_reads_them(
    algorithm: str, dtype: str, tile: tuple[int, int] | None
) -> None:
    content = compressed(sample(dtype), compression_type=algorithm, tile_shape=tile)
    found = read_pixels(Stamp("Science", content))
    expected = by_astropy(content)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == expected.dtype.newbyteorder("=")


@pytest.mark.parametrize("method", [-1, 1, 2])
@pytest.mark.parametrize("level", [16, -0.5, 0])
@pytest.mark.parametrize("seed", [1, 9_990])
def test_quantized_floats_are_read_as_astropy_reads_them(
    method: int, level: float, seed: int
) -> None:
    """The seed 9990 comes to the end of the table of random numbers, as do tiles of 12,000."""
    for shape, tile in (((31, 33), None), ((120, 100), (120, 100))):
        content = compressed(
            sample("f4", shape),
            quantize_method=method,
            quantize_level=level,
            dither_seed=seed,
            tile_shape=tile,
        )
        np.testing.assert_array_equal(read_pixels(Stamp("S", content)), by_astropy(content))


def test_the_random_numbers_are_those_of_the_standard() -> None:
    table = tiles._random_table()
    assert table[-1] == np.float32(1043618065 / 2147483647)  # FITS 4.0, appendix I


@pytest.mark.parametrize("algorithm", ["HCOMPRESS_1", "PLIO_1"])
def test_what_is_not_read_says_so_and_stays_a_file(algorithm: str) -> None:
    content = compressed(np.ones((20, 20), np.int16), compression_type=algorithm)
    stamp = Stamp("Science", content)
    with pytest.raises(StampUnreadable, match=f"compressed as {algorithm}"):
        read_pixels(stamp)
    assert write_view(stamp, LSST, View(), None) is content


def changed(content: bytes, keyword: str, value: str) -> bytes:
    place = content.index(keyword.ljust(8).encode() + b"=")
    return content[:place] + f"{keyword:8}= {value}".ljust(80).encode() + content[place + 80 :]


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("ZVAL2", "8"),
        ("ZVAL2", "3"),
        ("ZVAL1", "0"),
        ("ZVAL1", "-5"),
        ("ZTILE1", "0"),
        ("ZTILE2", "7"),
        ("ZNAXIS2", "30"),
        ("TFORM1", "'1PE(9)'"),
        ("TFORM1", "'999999999J'"),
        ("ZDITHER0", "'x'"),
        ("ZQUANTIZ", "'OTHER'"),
        ("ZCMPTYPE", "'OTHER'"),
    ],
)
def test_a_table_that_contradicts_itself_is_unreadable(keyword: str, value: str) -> None:
    content = compressed(sample("f4"), quantize_method=1, dither_seed=3)
    with pytest.raises(StampUnreadable):
        read_pixels(Stamp("Science", changed(content, keyword, value)))


def test_a_tile_outside_its_heap_or_cut_short_is_unreadable() -> None:
    content = compressed(sample("f4"), compression_type="RICE_1")
    start = fits.open(io.BytesIO(content))[1]._bintable._data_offset
    for place, number in ((0, 2**31 - 1), (4, 2**31 - 1), (4, -1), (0, -1), (0, 6)):
        damaged = bytearray(content)
        damaged[start + place : start + place + 4] = number.to_bytes(4, "big", signed=True)
        with pytest.raises(StampUnreadable, match="damaged"):
            read_pixels(Stamp("Science", bytes(damaged)))


def test_a_tile_that_inflates_without_end_is_refused_before_it_does() -> None:
    content = compressed(
        np.zeros((40, 40), np.int32), compression_type="GZIP_1", tile_shape=(40, 40)
    )
    start = fits.open(io.BytesIO(content))[1]._bintable._data_offset
    bomb = gzip.compress(bytes(50_000_000))
    table = len(bomb).to_bytes(4, "big") + bytes(4)
    claimed = changed(content, "PCOUNT", str(len(bomb)))
    with pytest.raises(StampTooLarge):
        read_pixels(Stamp("Science", claimed[:start] + table + bomb))


def test_images_of_very_many_tiles_are_refused() -> None:
    content = compressed(
        np.zeros((200, 200), np.uint8), compression_type="NOCOMPRESS", tile_shape=(1, 1)
    )
    started = time.process_time()
    with pytest.raises(StampTooLarge, match="tiles"):
        read_pixels(Stamp("Science", content))
    assert time.process_time() - started < 1


def test_the_header_is_that_of_the_image() -> None:
    header = lsst_header(OBSERVER="x" * 90)
    stamp = Stamp("Science", compressed(sample("f4"), header))
    found = read_header(stamp)
    with fits.open(io.BytesIO(stamp.fits)) as hdus:
        expected = hdus[1].header
        assert dict(found) == {
            k: v for k, v in dict(expected).items() if k not in ("PCOUNT", "GCOUNT")
        }
    assert found["PC1_1"] == LSST_MATRIX[0][0]


@pytest.mark.parametrize("dtype", ["f4", "u2", "i4"])
@pytest.mark.parametrize("view", [View(wcs="fix"), View(diffsign="sci-ref")], ids=["wcs", "sign"])
def test_a_compressed_image_that_is_changed_is_written_as_an_image(dtype: str, view: View) -> None:
    stamp = Stamp("Difference", compressed(sample(dtype), lsst_header()))
    written = write_view(stamp, ZTF, view, entry(positive=False))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with fits.open(io.BytesIO(written), checksum=True) as hdus:
            hdus.verify("exception")
            image = by_astropy(stamp.fits)
            wanted = image if view.wcs == "fix" else -image.astype(np.result_type(image, "f4"))
            np.testing.assert_array_equal(hdus["IMAGE"].data, wanted)
            assert ("CTYPE1" in hdus["IMAGE"].header) == (view.wcs == "fix")
            assert not [keyword for keyword in hdus["IMAGE"].header if keyword[:1] == "Z"]
