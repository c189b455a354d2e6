"""Random FITS files, whole, odd and damaged, against what astropy makes of them."""

from __future__ import annotations

import io
import itertools
import json
import string
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from cutout_api.epochs import Alert
from cutout_api.errors import CutoutError, StampTooLarge, StampUnreadable
from cutout_api.formatter import format_epochs, format_stamps
from cutout_api.hdus import mend_cards
from cutout_api.info import describe_stamp
from cutout_api.panels import Layout
from cutout_api.render import Rendering
from cutout_api.stamp import Stamp, StampLimits, read_pixels, unpack
from cutout_api.surveys import LSST, ZTF, Survey
from cutout_api.views import AS_STORED, PLANES, View

from ..pictures import entry, lsst_header

LIMITS = StampLimits(stamp_bytes=1 << 22, image_pixels=10_000)
DTYPES = ("u1", "i2", "u2", "i4", "u4", "f4", "f8")
NOT_IMAGES = ("MASK", "VARIANCE", "UNCERT", "PSFIMAGE")
TEXT = st.text(string.ascii_letters + string.digits + " '/&-+.:", max_size=150)
VALUES = st.one_of(
    TEXT,
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.just(fits.card.UNDEFINED),
)
KEYWORDS = st.one_of(
    st.text("ABCDEFGHXYZ_-0123456789", min_size=1, max_size=8).map(lambda text: f"Q{text}"[:8]),
    st.sampled_from(("COMMENT", "HISTORY", "HIERARCH ESO TEL ALT", "HIERARCH a lower case one")),
)


def open_strictly(content: bytes) -> fits.HDUList:
    """Open a file as astropy does that takes every warning for an error, checksums included."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hdus = fits.open(io.BytesIO(content), checksum=True, lazy_load_hdus=False)
        hdus.verify("exception")
        for hdu in hdus:
            _ = hdu.data, str(hdu.header)
        return hdus


def open_freely(content: bytes) -> fits.HDUList:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fits.open(io.BytesIO(content), lazy_load_hdus=False)


@st.composite
def headers(draw: st.DrawFn) -> fits.Header:
    header = lsst_header() if draw(st.booleans()) else fits.Header()
    for keyword, value in draw(st.lists(st.tuples(KEYWORDS, VALUES), max_size=6)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                header.append((keyword, value, "a comment"), end=True)
            except ValueError:  # astropy has no place for it
                continue
    return header


@st.composite
def images(draw: st.DrawFn, *, flat: bool = False) -> np.ndarray:
    shape = (draw(st.integers(1, 9)), draw(st.integers(1, 9)))
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    image = rng.integers(0, 200, shape).astype(dtype)
    if dtype.kind == "f":
        image[0, 0] = np.nan
    dimensions = 2 if flat else draw(st.sampled_from((2, 2, 2, 3, 4, 1)))
    if dimensions == 1:
        return image[0]
    cube = image.reshape((1,) * (dimensions - 2) + shape)
    return np.concatenate([cube] * draw(st.sampled_from((1, 1, 2)))) if dimensions > 2 else cube


@st.composite
def extensions(draw: st.DrawFn) -> Any:
    name = draw(st.sampled_from((None, "IMAGE", "SCI", *NOT_IMAGES)))
    kind = draw(st.sampled_from(("image", "image", "compressed", "table", "text", "empty")))
    header = draw(headers())
    if kind == "image":
        return fits.ImageHDU(draw(images()), header, name=name)
    if kind == "compressed":
        algorithm = draw(st.sampled_from(("RICE_1", "GZIP_1", "GZIP_2")))
        image = draw(images(flat=True))
        return fits.CompImageHDU(image, header, name=name, compression_type=algorithm)
    if kind == "empty":
        return fits.ImageHDU(None, header, name=name)
    columns = [fits.Column("x", "D", array=np.arange(3.0)), fits.Column("n", "10A", array=["a"])]
    if kind == "table":
        columns.append(fits.Column("v", "PJ()", array=np.array([[1], [2, 3], []], dtype=object)))
        return fits.BinTableHDU.from_columns(columns, header, name=name)
    return fits.TableHDU.from_columns([fits.Column("x", "E15.7", array=[1.0, 2.0])], name=name)


@st.composite
def files(draw: st.DrawFn) -> bytes:
    data = draw(st.none() | images())
    hdus = fits.HDUList([fits.PrimaryHDU(data, draw(headers()))])
    for extension in draw(st.lists(extensions(), max_size=4)):
        hdus.append(extension)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hdus.writeto(buffer, checksum=draw(st.booleans()), output_verify="silentfix+ignore")
    return buffer.getvalue()


def expected_image(content: bytes) -> np.ndarray | None:
    """Return the first 2-D image, or cube of one plane, that is not named as something else."""
    for hdu in open_freely(content):
        if isinstance(hdu, fits.BinTableHDU | fits.TableHDU) or hdu.name in NOT_IMAGES:
            continue
        if len(hdu.shape) >= 2 and set(hdu.shape[:-2]) <= {1}:
            return np.array(hdu.data).reshape(hdu.shape[-2:])
    return None


def layout(survey: Survey = LSST, view: View = AS_STORED) -> Layout:
    return Layout(survey, False, Rendering(), 10_000, view)


@settings(max_examples=70, deadline=None)
@given(files())
def test_any_file_is_answered_and_its_image_is_what_astropy_reads(content: bytes) -> None:
    stamp = unpack("Science", content, LIMITS)
    assert format_stamps(Alert([stamp]), "FITS", layout())[0] is content
    expected = expected_image(content)
    if expected is None:
        with pytest.raises(StampUnreadable, match="no 2-D image"):
            read_pixels(stamp)
        return
    found = read_pixels(stamp)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == expected.dtype.newbyteorder("=")
    assert found.flags.c_contiguous
    assert found.dtype.isnative
    described = describe_stamp(stamp, None, layout())
    json.dumps(described, allow_nan=False)
    hdus = open_freely(content)
    assert tuple(described["shape"]) == expected.shape
    assert hdus[described["hdu"]["number"]].shape[-2:] == expected.shape
    assert len(described["planes"]) == len(hdus) - 1


def _data_of(hdus: Sequence[Any]) -> list[bytes | None]:
    return [None if hdu.data is None else np.asarray(hdu.data).tobytes() for hdu in hdus]


@settings(max_examples=40, deadline=None)
@given(files(), files())
def test_files_put_together_are_valid_and_keep_all_data(first: bytes, second: bytes) -> None:
    stamps = [Stamp("Science", first), Stamp("Template", second)]
    merged = open_strictly(format_stamps(Alert(stamps), "FITS", layout())[0])
    alerts = [Alert(stamps[:1], entry()), Alert(stamps[1:], entry(time=float("nan")))]
    epochs = open_strictly(format_epochs(alerts, "FITS", layout())[0])
    for stored, kind in ((first, "SCIENCE"), (second, "TEMPLATE")):
        expected = open_freely(stored)
        for together in (merged, epochs):
            parts = [hdu for hdu in together if hdu.name.partition("_")[0] == kind]
            assert sorted(map(str, _data_of(parts))) == sorted(map(str, _data_of(expected)))
    image = expected_image(first)
    if image is not None:
        np.testing.assert_array_equal(merged["SCIENCE"].data.reshape(image.shape), image)
    assert {hdu.ver for hdu in epochs[1:]} == {1, 2}


VIEWS = [
    View(*options)
    for options in itertools.product(PLANES, ("as-delivered", "sci-ref"), ("none", "fix"))
]


@settings(max_examples=70, deadline=None)
@given(files(), st.sampled_from(VIEWS), st.sampled_from((ZTF, LSST)))
def test_what_any_view_changes_is_valid_and_its_checksums_are_right(
    content: bytes, view: View, survey: Survey
) -> None:
    stamp = Stamp("Difference", content)
    alert = Alert([stamp], entry(positive=False))
    try:
        written = format_stamps(alert, "FITS", layout(survey, view))[0]
    except CutoutError:
        return
    if written is content:
        return
    hdus = open_strictly(written)
    image = expected_image(content)
    assert image is not None
    if view.plane != "image":
        assert len(hdus) == 1
        assert hdus[0].header["PLANE"] == view.plane
        return
    before = open_freely(content)
    assert len(hdus) == len(before)
    number = next(
        n
        for n, hdu in enumerate(before)
        if hdu.data is not None and describe_stamp(stamp, None, layout())["hdu"]["number"] == n
    )
    reverse = survey is ZTF and view.diffsign == "sci-ref"
    wanted = -image.astype(np.result_type(image, "f4")) if reverse else image
    np.testing.assert_array_equal(np.array(hdus[number].data).reshape(image.shape), wanted)
    others = [n for n in range(len(before)) if n != number]
    assert _data_of([hdus[n] for n in others]) == _data_of([before[n] for n in others])


CARD_BYTES = st.one_of(
    st.binary(min_size=80, max_size=80),
    st.text(string.printable + "µ", max_size=80).map(lambda text: text.encode("latin-1")),
    st.sampled_from(
        (
            b"ORIGIN  = 'PIPELINE 4.7.0\n'",
            b"AUTHOR  = 'Jos\xe9\x00'",
            b"NOVALUE =",
            b"CONTINUE  'of nothing'",
            b"LONG    = 5\nCONTINUE  'x'",
            b"HIERARCH ESO x = 1\x07",
            b"HIERARCH =",
            b"HIERARCH",
            b"crval1  = 12,5",
            b"BAD KEY = 3",
            b"COMMENT \x1b[31m red",
            b"DP1     = 'AXIS.1: 2'",
            b"NUMBER  = " + b"9" * 70,
            b"COMPLEX = (1, x)",
            b"CHECKSUM= 'stale'",
            b"BITPIX  = 8",
            b"EXTNAME = 5",
            b"EXTVER  = 'x'",
            b"=",
            b"'",
        )
    ),
).map(lambda text: text[:80].ljust(80))


def with_cards(content: bytes, cards: Sequence[bytes]) -> bytes:
    """Return the file with further cards at the end of its first header."""
    end = content.index(b"END".ljust(80))
    header = content[:end] + b"".join(cards) + b"END".ljust(80)
    data = content[-(-end // 2880) * 2880 if end % 2880 else end + 2880 :]
    return header.ljust(-(-len(header) // 2880) * 2880) + data


@settings(max_examples=80, deadline=None)
@given(st.lists(CARD_BYTES, max_size=6))
def test_no_card_fails_an_answer_or_makes_an_invalid_file(cards: list[bytes]) -> None:
    cards = [card for card in cards if not card.startswith(b"END     ")]
    buffer = io.BytesIO()
    fits.PrimaryHDU(np.arange(6, dtype=np.float32).reshape(2, 3), lsst_header()).writeto(buffer)
    stamp = unpack("Science", with_cards(buffer.getvalue(), cards), LIMITS)
    described = describe_stamp(stamp, entry(), layout())
    assert all(text.isprintable() for text in _texts(described["header"]))
    json.dumps(described, allow_nan=False)
    both = Alert([stamp, Stamp("Template", stamp.fits)], entry())
    for content in (
        format_stamps(both, "FITS", layout())[0],
        format_epochs([both, both], "FITS", layout())[0],
        format_stamps(Alert([stamp], entry()), "FITS", layout(view=View(wcs="fix")))[0],
    ):
        hdus = open_strictly(content)
        image = next(hdu for hdu in hdus if hdu.data is not None)
        np.testing.assert_array_equal(image.data, np.arange(6).reshape(2, 3))


def _texts(cards: Sequence[dict[str, Any]]) -> list[str]:
    return [str(text) for card in cards for text in card.values()]


@settings(max_examples=300, deadline=None)
@given(st.lists(CARD_BYTES, max_size=6))
def test_mended_cards_stay_as_they_are(cards: list[bytes]) -> None:
    mended = mend_cards(cards)
    assert all(len(card) % 80 == 0 for card in mended)
    text = b"".join(mended)
    again = mend_cards([text[place : place + 80] for place in range(0, len(text), 80)])
    assert b"".join(again) == text


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(("RICE_1", "GZIP_1", "GZIP_2", "NOCOMPRESS")),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=8),
    st.booleans(),
)
def test_damaged_tiles_are_an_error_of_their_own(
    algorithm: str, changes: list[tuple[float, int]], in_header: bool
) -> None:
    image = np.random.default_rng(5).normal(100, 10, (20, 21)).astype(np.float32)
    buffer = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(image, compression_type=algorithm)]).writeto(
        buffer
    )
    damaged = bytearray(buffer.getvalue())
    tiles = len(damaged) - fits.open(io.BytesIO(damaged))[1].size // 2880 * 2880 - 2880
    start, end = (2880, tiles) if in_header else (tiles, len(damaged))
    for part, byte in changes:
        damaged[start + int(part * (end - start - 1))] = byte
    try:
        found = read_pixels(unpack("Science", bytes(damaged), LIMITS))
    except (StampUnreadable, StampTooLarge):
        return
    assert found.ndim == 2
