"""Where the HDUs of a file are, and headers that are wrong or without end."""

from __future__ import annotations

import io
import time

import numpy as np
import pytest
from astropy.io import fits

from cutout_api.errors import CutoutError, StampTooLarge, StampUnreadable
from cutout_api.hdus import MOST_HDUS, iterate_hdus, make_header, mend_cards
from cutout_api.stamp import Stamp, StampLimits, read_pixels, unpack

from ..samples import lsst_fits, pixels, ztf_fits

LIMITS = StampLimits(stamp_bytes=1 << 25, image_pixels=10_000)


def card(text: str | bytes) -> bytes:
    return (text.encode() if isinstance(text, str) else text).ljust(80)


def header(*cards: str | bytes) -> bytes:
    block = b"".join(map(card, (*cards, "END")))
    return block.ljust(-(-len(block) // 2880) * 2880)


PRIMARY = header("SIMPLE  =  T", "BITPIX  = 8", "NAXIS   = 0")


@pytest.mark.parametrize("make", [ztf_fits, lsst_fits])
def test_hdus_are_where_astropy_finds_them(make) -> None:
    content = make(pixels(1, (30, 31)))
    found = list(iterate_hdus(content))
    with fits.open(io.BytesIO(content), ignore_missing_simple=True) as hdus:
        assert [hdu.axes[::-1] for hdu in found] == [hdu.shape for hdu in hdus]
        assert [hdu.length for hdu in found] == [hdu.size for hdu in hdus]
    assert b"".join(hdu.stored for hdu in found) == content


def test_what_follows_the_last_hdu_and_is_none_is_ignored() -> None:
    assert len(list(iterate_hdus(lsst_fits(pixels(1, (5, 5))) + b"\r\n" + bytes(3000)))) == 3


@pytest.mark.parametrize(
    ("cards", "message"),
    [
        (("BITPIX  = 8", "NAXIS   = 2", "NAXIS1  = 10"), "how much data"),
        (("BITPIX  = 8", "NAXIS   = 2", "NAXIS1  = 10", "NAXIS2  = -1"), "how much data"),
        (("BITPIX  = 8", "NAXIS   = 1000000000"), "how much data"),
        (("BITPIX  = 7", "NAXIS   = 0"), "how much data"),
        (("BITPIX  = 8", f"NAXIS   = {'9' * 65}"), "how much data"),
        (("BITPIX  = 8", "NAXIS   = 1", "NAXIS1  = 9999999999999999999"), "cut short"),
        (("BITPIX  = 64", "NAXIS   = 1", "NAXIS1  = 1", "GCOUNT  = 999999999"), "cut short"),
        (("BITPIX  = 8", "NAXIS   = 1", "NAXIS1  = 1", "PCOUNT  = 999999999"), "cut short"),
        (("BITPIX  = 8", "NAXIS   = 999", *(f"NAXIS{n:<3}= 999999999999" for n in range(1, 1000))),
         "cut short"),
    ],
    ids=str,
)  # fmt: skip
def test_a_header_with_an_impossible_size_is_unreadable(
    cards: tuple[str, ...], message: str
) -> None:
    with pytest.raises(StampUnreadable, match=message):
        unpack("Science", header("SIMPLE  =                    T", *cards), LIMITS)


HOSTILE = {
    "no END": PRIMARY[:240] + card("HISTORY x") * 400_000,
    "no END after an extension": PRIMARY + card("XTENSION= 'IMAGE'") + card("X = 1") * 400_000,
    "100,000 cards": header(
        "SIMPLE  =  T", "BITPIX  = 8", "NAXIS   = 0", *("NAXIS1  = 1" for _ in range(100_000))
    ),
    "digits": PRIMARY[:240] + b"NAXIS1  = " + b"1" * 30_000_000,
    "counts in the data": header("SIMPLE  =  T", "BITPIX  = 8", "NAXIS   = 1", "NAXIS1  = 30000000")
    + (b"NAXIS1  = " + b"7" * 70) * 375_000,
    "continued without end": header(
        "SIMPLE  =  T", "BITPIX  = 8", "NAXIS   = 0", "LONG    = 'x&'", *["CONTINUE  'x&'"] * 3_500
    ),
    "very many HDUs": PRIMARY
    + header("XTENSION= 'IMAGE'", "BITPIX  = 8", "NAXIS   = 0", "PCOUNT  = 0") * 10_000,
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_file_costs_little(what: str) -> None:
    """The bound is ten times what it costs; with a pattern on the whole file it was minutes."""
    started = time.process_time()
    try:
        stamp = unpack("Science", HOSTILE[what], LIMITS)
        make_header(mend_cards(stamp.hdus[0].cards)).tostring()
        read_pixels(stamp)
    except CutoutError:
        pass
    assert time.process_time() - started < 2


def test_as_many_hdus_as_are_read_are_read() -> None:
    extension = header("XTENSION= 'IMAGE'", "BITPIX  = 8", "NAXIS   = 0")
    assert len(list(iterate_hdus(PRIMARY + extension * (MOST_HDUS - 1)))) == MOST_HDUS
    with pytest.raises(StampUnreadable, match="more than 100 HDUs"):
        list(iterate_hdus(PRIMARY + extension * MOST_HDUS))


@pytest.mark.parametrize(
    ("stored", "keyword", "value"),
    [
        (b"ORIGIN  = 'PIPELINE 4.7.0\n'", "ORIGIN", "PIPELINE 4.7.0"),
        (b"ORIGIN  = 'a\tb'", "ORIGIN", "a b"),
        (b"AUTHOR  = 'Jos\xe9'", "AUTHOR", "Jos?"),
        (b"ALTITUDE=                 12.5 / [\xb0]", "ALTITUDE", 12.5),
        (b"NOVALUE =", "NOVALUE", None),
        (b"HIERARCH ESO TEL ALT = 55.5", "ESO TEL ALT", 55.5),
        (b"crval1  = 1.5", "CRVAL1", 1.5),
        (b"EXPTIME = 3.0d1", "EXPTIME", 30.0),
        (b"BAD KEY = 3", "COMMENT", "BAD KEY = 3"),
        (b"EXTNAME = 5", "COMMENT", "EXTNAME = 5"),
        (b"HISTORY a\x00b\x7f", "HISTORY", "a b?"),
    ],
    ids=str,
)
def test_a_card_is_mended_or_becomes_a_comment(stored: bytes, keyword: str, value: object) -> None:
    mended = make_header(mend_cards([card(stored)]))
    found = mended[keyword]
    assert (str(found) if keyword in ("COMMENT", "HISTORY") else found) == value
    for each in mended.cards:
        each.verify("exception")


def test_long_strings_and_repeated_keywords_stay() -> None:
    made = fits.Header([("LONG", "x" * 200, "a comment"), ("TWICE", 1)])
    made.append(("TWICE", 2), end=True)
    stored = made.tostring(padding=False, endcard=False).encode()
    cards = [stored[place : place + 80] for place in range(0, len(stored), 80)]
    assert b"".join(mend_cards(cards)) == stored
    assert make_header(mend_cards(cards))["LONG"] == "x" * 200


def test_a_compressed_image_that_claims_much_is_refused_before_it_is_made() -> None:
    buffer = io.BytesIO()
    image = fits.CompImageHDU(np.zeros((20, 20), np.float32))
    fits.HDUList([fits.PrimaryHDU(), image]).writeto(buffer)
    content = buffer.getvalue()
    for keyword in (b"ZNAXIS1", b"ZNAXIS2", b"ZTILE1", b"ZTILE2"):
        place = content.index(keyword.ljust(8) + b"=")
        for number in ("100000", "1000000000", "9" * 60):
            claimed = card(keyword.decode().ljust(8) + "= " + number)
            changed = content[:place] + claimed + content[place + 80 :]
            stamp = unpack("Science", changed, LIMITS)
            assert stamp.fits == changed
            try:
                assert read_pixels(stamp).shape == (20, 20)
                assert keyword[:5] == b"ZTILE"
            except (StampTooLarge, StampUnreadable):
                pass
    assert read_pixels(Stamp("Science", content)).shape == (20, 20)
