"""The HDUs of a FITS file: where they are, what their cards say, and files made of them.

Headers come from the archive and may hold anything. They are read here by their 80-byte cards, and
mended before astropy gets them: astropy raises on cards that it cannot print, and not when it reads
them. Source: FITS 4.0, sections 3 and 4.
"""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from astropy.io import fits

from .errors import StampUnreadable

BLOCK = 2880
"""Bytes of a FITS block; headers and data fill whole ones. Source: FITS 4.0, section 3.1."""
CARD = 80
MOST_HEADER_BYTES = 100 * BLOCK
"""Of one HDU: 3,600 cards. Headers of whole exposures have up to a thousand."""
MOST_CONTINUED = 100
"""Cards of one text; astropy takes a third of a millisecond for each."""
MOST_HDUS = 100
MOST_AXES = 999
WARNINGS = threading.RLock()
"""Python's warning filters belong to the process, so one thread at a time changes them."""
BITPIX = (8, 16, 32, 64, -32, -64)

Cards = Sequence[bytes]
"""Logical cards, mended: 80 bytes each, or a multiple where CONTINUE follows."""

_INTEGER = re.compile(rb"= *([+-]?\d{1,19}) *(?:/|$)")
_NUMBER = re.compile(rb"= *([+-]?\d[0-9.]{0,30}(?:[ED][+-]?\d{1,3})?) *(?:/|$)")
_TEXT = re.compile(rb"= *'((?:[^']|'')*)'")
_LOGICAL = re.compile(rb"= *([TF]) *(?:/|$)")
_STRUCTURE = re.compile(
    rb"SIMPLE|XTENSION|BITPIX|NAXIS\d*|EXTEND|PCOUNT|GCOUNT|GROUPS|TFIELDS|CHECKSUM|DATASUM"
)


@dataclass(frozen=True)
class Hdu:
    """One HDU of a file, as it is stored."""

    number: int
    stored: bytes
    """Its own bytes, padding included."""
    cards: Cards
    """The 80-byte cards as stored, without END."""
    offset: int
    """Of the data in ``stored``."""
    length: int
    """Of the data in bytes, without padding."""
    axes: tuple[int, ...]
    """NAXIS1, NAXIS2, ..."""

    @property
    def data(self) -> bytes:
        return self.stored[self.offset : self.offset + self.length]

    @cached_property
    def _values(self) -> dict[bytes, bytes]:
        """Keyword -> what follows it, from the first card that has it, as astropy takes it."""
        return {card[:8].rstrip(): card[8:] for card in reversed(self.cards)}

    def integer(self, keyword: str, default: int | None = None) -> int | None:
        """Return the value of a card, ``default`` without the card; None: not an integer."""
        return _read_integer(self._values, keyword.encode(), default)

    def number_of(self, keyword: str) -> float | None:
        found = _NUMBER.match(self._values.get(keyword.encode(), b""))
        return None if found is None else float(found[1].replace(b"D", b"E"))

    def text(self, keyword: str) -> str:
        """Return the string of a card, without spaces around it; empty: there is none."""
        found = _TEXT.match(self._values.get(keyword.encode(), b""))
        if found is None:
            return ""
        return found[1].replace(b"''", b"'").translate(_PRINTABLE).decode("ascii").strip()

    def is_true(self, keyword: str) -> bool:
        found = _LOGICAL.match(self._values.get(keyword.encode(), b""))
        return found is not None and found[1] == b"T"

    def __contains__(self, keyword: str) -> bool:
        return keyword.encode() in self._values

    @property
    def name(self) -> str:
        return self.text("EXTNAME").upper()

    @property
    def is_image(self) -> bool:
        """Whether it is an image that is stored as such, of whatever dimensions."""
        if self.number == 0:
            return not self.is_groups
        return self.text("XTENSION") in ("IMAGE", "IUEIMAGE")

    @property
    def is_groups(self) -> bool:
        return self.is_true("GROUPS") and self.axes[:1] == (0,)

    @property
    def is_compressed(self) -> bool:
        """Whether it is a table that holds the compressed tiles of an image."""
        return self.text("XTENSION") == "BINTABLE" and self.is_true("ZIMAGE")


def iterate_hdus(content: bytes) -> Iterator[Hdu]:
    """Yield the HDUs of a FITS file in turn.

    What follows the last one and is not an extension is ignored, as FITS wants it. Raises
    StampUnreadable, when it comes there, for a header that does not end or does not say how much
    data follows, and for data that is not there.
    """
    start = 0
    for number in range(MOST_HDUS):
        if content[start : start + 8] != (b"XTENSION" if number else b"SIMPLE  "):
            if number:
                return
            raise StampUnreadable("the stored stamp is not a FITS file")
        hdu = _read_hdu(content, start, number)
        yield hdu
        start += len(hdu.stored)
    if content[start : start + 8] == b"XTENSION":
        raise StampUnreadable(f"the stored stamp has more than {MOST_HDUS} HDUs")


def _read_hdu(content: bytes, start: int, number: int) -> Hdu:
    block = content[start : start + MOST_HEADER_BYTES]
    cards: list[bytes] = []
    for place in range(0, len(block) - CARD + 1, CARD):
        card = block[place : place + CARD]
        if card[:8] == b"END     ":
            break
        cards.append(card)
    else:
        most = " within the 3,600 cards that are read" if len(block) == MOST_HEADER_BYTES else ""
        raise StampUnreadable(f"HDU {number} of the stored stamp has a header without END{most}")
    offset = _whole_blocks((len(cards) + 1) * CARD)
    values = {card[:8].rstrip(): card[8:] for card in reversed(cards)}
    axes, length = _measure(values, number, len(content) - start - offset)
    stored = content[start : start + _whole_blocks(offset + length)]
    return Hdu(number, stored, cards, offset, length, axes)


def _whole_blocks(length: int) -> int:
    return -(-length // BLOCK) * BLOCK


def _read_integer(values: dict[bytes, bytes], name: bytes, default: int | None) -> int | None:
    if name not in values:
        return default
    found = _INTEGER.match(values[name])
    return None if found is None else int(found[1])


def _measure(values: dict[bytes, bytes], number: int, there: int) -> tuple[tuple[int, ...], int]:
    """Return the axes of an HDU and the bytes of its data, of which ``there`` follow at most."""
    bitpix = _read_integer(values, b"BITPIX", None)
    naxis = _read_integer(values, b"NAXIS", None)
    if bitpix not in BITPIX or naxis is None or not 0 <= naxis <= MOST_AXES:
        raise _unclear(number)
    sizes = [_read_integer(values, b"NAXIS%d" % axis, None) for axis in range(1, naxis + 1)]
    counts = [_read_integer(values, b"PCOUNT", 0), _read_integer(values, b"GCOUNT", 1), *sizes]
    known = [count for count in counts if count is not None and count >= 0]
    if len(known) < len(counts):
        raise _unclear(number)
    extra, groups, *axes = known
    # Random groups say by an axis of 0 that they are some; it counts for nothing.
    is_groups = axes[:1] == [0] and _LOGICAL.match(values.get(b"GROUPS", b"")) is not None
    pixels = _multiply(axes[1:] if is_groups else axes, there)
    length = abs(bitpix) // 8 * groups * (extra + pixels) if axes else 0
    if length > there:
        raise StampUnreadable(
            f"the stored stamp is cut short: HDU {number} has less data than its header says"
        )
    return tuple(axes), length


def _multiply(sizes: Iterable[int], enough: int) -> int:
    """Return the product, or any number beyond ``enough`` where it is beyond."""
    sizes = list(sizes)
    product = 0 if 0 in sizes else 1
    for size in sizes:
        if product > enough:
            break  # the product of 999 axes has 19,000 digits
        product *= size
    return product


def _unclear(number: int) -> StampUnreadable:
    return StampUnreadable(
        f"HDU {number} of the stored stamp does not say how much data follows its header"
    )


# --- cards -------------------------------------------------------------------------------------

# A control character has no place in a header, nor any other byte that is not ASCII.
_PRINTABLE = bytes(
    number if 32 <= number < 127 else ord(" " if number < 32 else "?") for number in range(256)
)
_COMMENTARY = (b"COMMENT ", b"HISTORY ", b"        ")
# Every card of most headers: what astropy need not be asked about, which takes 20 times as long.
_PLAIN = re.compile(
    rb"(?!CONTINUE|HIERARCH|COMMENT |HISTORY |END )(?=[A-Z0-9_-]+ *= )(?=.{8}= )[A-Z0-9_-]+ *= +"
    rb"(?:'(?:[ -&(-9;-~]|'')*'|[TF]|[+-]?\d{1,40}(?:\.\d{0,40})?(?:E[+-]?\d{1,3})?)"
    rb" *(?:/[ -~]*)?"
)


def mend_cards(cards: Cards) -> list[bytes]:
    """Return cards that astropy takes without a warning, in their order.

    Control characters become spaces, other bytes that are not ASCII question marks; what astropy
    can put right is put right; any other card becomes a COMMENT, so that its text is not lost.
    """
    mended: list[bytes] = []
    place = 0
    while place < len(cards):
        end = place + 1
        while end < len(cards) and cards[end][:8] == b"CONTINUE":
            end += 1
        card = b"".join(cards[place:end]).translate(_PRINTABLE)
        mended += _mend(card) if end - place <= MOST_CONTINUED else _as_comments(card)
        place = end
    return mended


@lru_cache(maxsize=1024)
def _mend(card: bytes) -> Cards:
    """Return what stands for one logical card: printable, one card and those that continue it."""
    is_plain = card[:8] in _COMMENTARY or (card[:8] not in _KINDS and _PLAIN.fullmatch(card))
    if len(card) == CARD and is_plain:
        return (card,)
    with WARNINGS, warnings.catch_warnings(action="error"):
        if _is_valid(card):
            return (card,)
    with WARNINGS, warnings.catch_warnings(action="ignore"):
        fixed = _fix(card[:CARD])
    with WARNINGS, warnings.catch_warnings(action="error"):
        is_fixed = _is_valid(fixed)
    return (fixed, *_as_comments(card[CARD:])) if is_fixed else _as_comments(card)


def _as_comments(card: bytes) -> Cards:
    """Return the text of a logical card that is not valid, without the word CONTINUE."""
    texts = []
    for place in range(0, len(card), CARD):
        text = card[place : place + CARD].removeprefix(b"CONTINUE")
        texts += [text[:72].ljust(72), text[72:].ljust(72)]
    return [b"COMMENT " + text for text in texts if text.strip()]


# What an HDU is called, which astropy verifies.
_KINDS = {b"EXTNAME ": _TEXT, b"EXTVER  ": _INTEGER, b"EXTLEVEL": _INTEGER}
# What astropy raises for cards, by trial: it promises nothing.
_CARD_ERRORS = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    ArithmeticError,
    fits.VerifyError,
    RecursionError,
    Warning,
)


def _is_valid(image: bytes) -> bool:
    kind = _KINDS.get(image[:8])
    if not image or (kind is not None and not kind.match(image[8:])):
        return False
    try:
        card = fits.Card.fromstring(image)
        _ = card.keyword, card.value, card.comment
        card.verify("exception")
        return len(image) % CARD == 0 and str(card).encode("ascii") == image
    except _CARD_ERRORS:
        return False


def _fix(image: bytes) -> bytes:
    try:
        card = fits.Card.fromstring(image)
        _ = card.value
        card.verify("silentfix")
        return str(card).encode("ascii")
    except _CARD_ERRORS:
        return b""


def make_card(keyword: str, value: object, comment: str = "") -> bytes:
    return str(fits.Card(keyword, value, comment)).encode("ascii")


def make_header(cards: Cards) -> fits.Header:
    """Return mended cards as astropy's header, which then raises for none of them."""
    with WARNINGS, warnings.catch_warnings(action="ignore"):
        return fits.Header.fromstring(b"".join(cards))


# --- files -------------------------------------------------------------------------------------


def drop_structure(cards: Cards) -> list[bytes]:
    """Return the cards without those that say how the data are laid out, and the checksums.

    What writes an HDU makes the former anew; the latter are those of other bytes.
    """
    return [card for card in cards if not _STRUCTURE.fullmatch(card[:8].rstrip())]


def set_card(cards: Cards, keyword: str, value: object, comment: str = "") -> list[bytes]:
    """Return the cards with one of this keyword, in the place of the first that there was."""
    name = keyword.encode().ljust(8)
    made = make_card(keyword, value, comment)
    places = [place for place, card in enumerate(cards) if card[:8] == name]
    kept = [card for card in cards if card[:8] != name]
    kept.insert(places[0] if places else len(kept), made)
    return kept


def write_hdu(structure: Cards, cards: Cards, data: bytes, *, fill: bytes = b"\0") -> bytes:
    """Return an HDU: the cards, END, and the data, both padded to whole blocks."""
    header = b"".join([*structure, *cards, b"END".ljust(CARD)])
    padding = fill * (_whole_blocks(len(data)) - len(data))
    return header.ljust(_whole_blocks(len(header))) + data + padding


def write_image(
    bitpix: int, axes: Sequence[int], cards: Cards, data: bytes, *, primary: bool
) -> bytes:
    """Return an image as a primary HDU or an extension; ``axes`` are NAXIS1, NAXIS2, ..."""
    return write_hdu(_image_structure(bitpix, axes, primary=primary), cards, data)


def _image_structure(bitpix: int, axes: Sequence[int], *, primary: bool) -> list[bytes]:
    first = _SIMPLE if primary else make_card("XTENSION", "IMAGE", "image extension")
    last = [_EXTEND] if primary else [make_card("PCOUNT", 0), make_card("GCOUNT", 1)]
    return [
        first,
        make_card("BITPIX", bitpix),
        make_card("NAXIS", len(axes)),
        *(make_card(f"NAXIS{number}", size) for number, size in enumerate(axes, 1)),
        *last,
    ]


_SIMPLE = make_card("SIMPLE", True, "conforms to FITS standard")
_EXTEND = make_card("EXTEND", True)
EMPTY_PRIMARY = write_image(8, (), (), b"", primary=True)


def rewrite_hdu(hdu: Hdu, cards: Cards, *, primary: bool) -> bytes:
    """Return an HDU with the data that are stored, byte for byte, and other ``cards``.

    Raises StampUnreadable for random groups, which are no extension.
    """
    fill = b" " if hdu.text("XTENSION") == "TABLE" else b"\0"
    return write_hdu(_structure(hdu, primary=primary), cards, hdu.data, fill=fill)


def _structure(hdu: Hdu, *, primary: bool) -> list[bytes]:
    structure = _image_structure(hdu.integer("BITPIX") or 8, hdu.axes, primary=primary)
    if hdu.is_image:
        return structure
    if hdu.is_groups:
        raise StampUnreadable("the stored stamp holds random groups, which cannot be an extension")
    structure[0] = make_card("XTENSION", hdu.text("XTENSION"))
    for keyword, default in (("PCOUNT", 0), ("GCOUNT", 1)):
        structure = set_card(structure, keyword, hdu.integer(keyword, default))
    if "TFIELDS" in hdu:
        structure.append(make_card("TFIELDS", hdu.integer("TFIELDS") or 0))
    return structure


def copy_hdu(hdu: Hdu) -> bytes:
    """Return an HDU as it is stored where its header is valid, else with the header mended."""
    mended = mend_cards(hdu.cards)
    structure = _structure(hdu, primary=hdu.number == 0)
    names = [card[:8].rstrip() for card in mended]
    others = [name for name in names[len(structure) :] if _STRUCTURE.fullmatch(name)]
    header = b"".join([*mended, b"END".ljust(CARD)]).ljust(hdu.offset)
    if (
        len(hdu.stored) % BLOCK == 0
        and hdu.stored[: hdu.offset] == header
        and names[: len(structure)] == [card[:8].rstrip() for card in structure]
        and set(others) <= {b"CHECKSUM", b"DATASUM"}
    ):
        return hdu.stored
    return rewrite_hdu(hdu, drop_structure(mended), primary=hdu.number == 0)
