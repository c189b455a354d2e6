"""Stamps -> the bytes of the answer: one row of ``FORMATS`` for each way to answer."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from PIL import Image

from .arrays import join_list, join_object, write_pixels
from .epochs import Alert
from .errors import PictureTooLarge, StampMissing
from .hdus import EMPTY_PRIMARY, drop_structure, mend_cards, rewrite_hdu, set_card
from .labels import to_rgb
from .panels import FRAME_MILLISECONDS, Layout, arrange_sheet, draw_epochs, draw_panels
from .recipe import describe_panels, exif, explain, png_chunks
from .render import Picture
from .stamp import Stamp, seek_image
from .views import Pixels, read_view, write_view

Recipe = dict[str, Any]
JPEG_QUALITY = 92
WEBP_EFFORT = 25
"""Of 100. More takes up to twenty times as long, and files become 5 % smaller at best."""


@dataclass(frozen=True)
class Format:
    """One way to answer."""

    media_type: str
    suffix: str
    """Of the file name that a browser saves the answer under; empty: shown, not saved."""
    write: Callable[[Alert, Layout], bytes]
    is_picture: bool = False
    write_epochs: Callable[[Sequence[Alert], Layout], bytes] | None = None
    """Writes several alerts; None: one answer holds one."""


def write_array(shot: Alert, layout: Layout) -> bytes:
    """Write the pixels as JSON, each as it is stored, masked ones as ``layout.masked`` says."""
    written = [write_pixels(image, layout.masked) for image in _read(shot, layout)]
    if not layout.by_name:
        return join_list(written)
    names = [layout.survey.response_name(stamp.kind) for stamp in shot.stamps]
    return join_object(list(zip(names, written, strict=True)))


def write_array_of_epochs(alerts: Sequence[Alert], layout: Layout) -> bytes:
    """Write a list with an object for each alert: its id as a string, its time, its stamps.

    The stamps stand there by column name (public dialect) or as the list ``stamps`` (internal);
    ``null`` stands for one that the alert does not have.
    """
    survey = layout.survey
    written = []
    for alert in alerts:
        stamps = {
            stamp.kind: write_pixels(image, layout.masked)
            for stamp, image in zip(alert.stamps, _read(alert, layout), strict=True)
        }
        alert_id = None if alert.alert_id is None else str(alert.alert_id)
        members = [
            (survey.alert_key.name, orjson.dumps(alert_id)),
            (survey.time_name, orjson.dumps(alert.time)),
        ]
        if layout.by_name:
            members += [
                (survey.response_name(kind), stamps.get(kind, b"null")) for kind in layout.kinds
            ]
        else:
            members.append(
                ("stamps", join_list([stamps.get(kind, b"null") for kind in layout.kinds]))
            )
        written.append(join_object(members))
    return join_list(written)


def _read(shot: Alert, layout: Layout) -> list[Pixels]:
    return [read_view(stamp, layout.survey, layout.view, shot.entry) for stamp in shot.stamps]


def write_npy(shot: Alert, layout: Layout) -> bytes:
    """Write one array of shape (ny, nx), or of several stamps (kinds, ny, nx), padded with NaN.

    What is padded is at the end of rows and columns.
    """
    arrays = _read(shot, layout)
    shapes = {array.shape for array in arrays}
    if len(arrays) > 1 and len(shapes) > 1:
        ny, nx = (max(shape[axis] for shape in shapes) for axis in (0, 1))
        padded = np.full((len(arrays), ny, nx), np.nan, np.result_type(*arrays, np.float32))
        for place, array in enumerate(arrays):
            padded[place, : array.shape[0], : array.shape[1]] = array
        content: Pixels = padded
    else:
        content = arrays[0] if len(arrays) == 1 else np.stack(arrays)
    buffer = io.BytesIO()
    np.save(buffer, content, allow_pickle=False)
    return buffer.getvalue()


def write_npz(shot: Alert, layout: Layout) -> bytes:
    """Write the arrays by kind: ``numpy.load(...)["Science"]``."""
    arrays = dict(zip((stamp.kind for stamp in shot.stamps), _read(shot, layout), strict=True))
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def write_fits(shot: Alert, layout: Layout) -> bytes:
    """Write the stored FITS file byte for byte, unless ``layout.view`` changes it; of several one.

    The latter is an empty primary HDU, then every HDU of each stamp with its header, named
    ``SCIENCE``, ``TEMPLATE``, ``DIFFERENCE``, and further planes ``SCIENCE_UNCERT``, ...
    """
    files = [write_view(stamp, layout.survey, layout.view, shot.entry) for stamp in shot.stamps]
    if len(files) == 1:
        return files[0]
    parts = [EMPTY_PRIMARY]
    for stamp, content in zip(shot.stamps, files, strict=True):
        parts += _extensions(Stamp(stamp.kind, content, stamp.limits))
    return b"".join(parts)


def write_fits_of_epochs(alerts: Sequence[Alert], layout: Layout) -> bytes:
    """Write one file: an empty primary HDU, then every HDU of each alert in turn.

    They are named as in the file of one alert; EXTVER counts the alerts from 1. The cards
    ALERTID (text, since it exceeds what many readers take for an integer), ALERTMJD and TIMESYS
    tell which alert it is.
    """
    parts = [EMPTY_PRIMARY]
    for version, alert in enumerate(alerts, 1):
        cards: list[tuple[str, Any, str]] = [("EXTVER", version, "number of the alert")]
        if alert.alert_id is not None:
            cards.append(("ALERTID", str(alert.alert_id), "alert id"))
        if alert.time is not None:
            mjd = alert.time - layout.survey.mjd_offset
            cards.append(("ALERTMJD", mjd, "time of the alert"))
            cards.append(("TIMESYS", layout.survey.time_scale.upper(), ""))
        for stamp in alert.stamps:
            content = write_view(stamp, layout.survey, layout.view, alert.entry)
            parts += _extensions(Stamp(stamp.kind, content, stamp.limits), cards)
    return b"".join(parts)


def _extensions(stamp: Stamp, cards: Sequence[tuple[str, Any, str]] = ()) -> Iterator[bytes]:
    """Yield every HDU of a stamp as an extension, its image first: SCIENCE, SCIENCE_UNCERT, ...

    Their data are those that are stored, byte for byte; of the cards, those that are not valid
    are mended, and the checksums are left out.
    """
    image = seek_image(stamp)
    first = 0 if image is None else image.number
    for hdu in sorted(stamp.hdus, key=lambda hdu: hdu.number != first):
        name = stamp.kind.upper()
        if hdu.number != first:
            name += f"_{hdu.name or hdu.number}"
        header = drop_structure(mend_cards(hdu.cards))
        for keyword, value, comment in (("EXTNAME", name[:LONGEST_NAME], ""), *cards):
            header = set_card(header, keyword, value, comment)
        yield rewrite_hdu(hdu, header, primary=False)


LONGEST_NAME = 68
"""Characters of a string in one card."""


# --- pictures ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Encoder:
    """How one kind of file holds a picture, several pictures, and the recipe."""

    encode: Callable[[Picture, Recipe], bytes]
    encode_epochs: Callable[[Sequence[Picture], Recipe], bytes] | None = None
    longest: int = 2**31 - 1
    """The most pixels that the format has for a side."""

    def write(self, shot: Alert, layout: Layout) -> bytes:
        """Write the picture of one alert; its stamps are side by side."""
        panel = draw_panels([shot], layout)[0]
        picture = panel.picture(layout)
        self._check([picture])
        return self.encode(picture, describe_panels([panel], layout))

    def write_epochs(self, shots: Sequence[Alert], layout: Layout) -> bytes:
        """Write the alerts on one shared scale, in the order given: a contact sheet or animation.

        Those that lack a kind are left out. Raises PictureTooLarge, StampMissing.
        """
        if self.encode_epochs is None:
            raise TypeError("this format has no pictures of several epochs")
        pictures, panels, chosen = draw_epochs(_complete(shots, layout), layout)
        self._check(pictures)
        return self.encode_epochs(pictures, describe_panels(panels, chosen))

    def _check(self, pictures: Sequence[Picture]) -> None:
        longest = max(max(picture.shape[:2]) for picture in pictures)
        if longest > self.longest:
            raise PictureTooLarge(
                f"a side of {longest} pixels is more than the {self.longest} of this format: "
                "ask for PNG, or a smaller size"
            )


def encode_png(picture: Picture, recipe: Recipe) -> bytes:
    """Encode an 8-bit picture: grayscale, with a colormap RGBA, with labels RGB."""
    return _save(Image.fromarray(picture), "PNG", pnginfo=png_chunks(recipe))


def encode_jpeg(picture: Picture, recipe: Recipe) -> bytes:
    """Encode without chroma subsampling, which would smear the colours of single pixels."""
    image = Image.fromarray(picture) if picture.ndim == 2 else to_rgb(picture)
    return _save(image, "JPEG", quality=JPEG_QUALITY, subsampling=0, exif=exif(recipe))


def encode_webp(picture: Picture, recipe: Recipe) -> bytes:
    """Encode without loss, always RGB or RGBA: the format has no grayscale."""
    options = {"lossless": True, "exact": True, "quality": WEBP_EFFORT}
    return _save(Image.fromarray(picture), "WEBP", **options, exif=exif(recipe))


def encode_gif(picture: Picture, recipe: Recipe) -> bytes:
    image = Image.fromarray(picture) if picture.ndim == 2 else to_rgb(picture)
    return _save(image, "GIF", comment=orjson.dumps(recipe))


def encode_sheet(pictures: Sequence[Picture], recipe: Recipe) -> bytes:
    return encode_png(arrange_sheet(pictures), recipe)


def encode_jpeg_sheet(pictures: Sequence[Picture], recipe: Recipe) -> bytes:
    return encode_jpeg(arrange_sheet(pictures), recipe)


def encode_gif_animation(pictures: Sequence[Picture], recipe: Recipe) -> bytes:
    return _save_frames(pictures, "GIF", optimize=False, comment=orjson.dumps(recipe))


def encode_webp_animation(pictures: Sequence[Picture], recipe: Recipe) -> bytes:
    return _save_frames(pictures, "WEBP", lossless=True, quality=WEBP_EFFORT, exif=exif(recipe))


def _save_frames(pictures: Sequence[Picture], format_name: str, **options: Any) -> bytes:
    first, *others = [Image.fromarray(picture) for picture in pictures]
    shown = {"append_images": others, "duration": FRAME_MILLISECONDS, "loop": 0}
    return _save(first, format_name, save_all=True, **shown, **options)


def _save(image: Image.Image, name: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=name, **options)
    return buffer.getvalue()


def _picture(media_type: str, suffix: str, encoder: Encoder) -> Format:
    epochs = encoder.write_epochs if encoder.encode_epochs else None
    return Format(media_type, suffix, encoder.write, is_picture=True, write_epochs=epochs)


FORMATS = {
    "array": Format(
        "application/json", suffix="", write=write_array, write_epochs=write_array_of_epochs
    ),
    "FITS": Format(
        "application/octet-stream",
        suffix=".fits",
        write=write_fits,
        write_epochs=write_fits_of_epochs,
    ),
    "PNG": _picture("image/png", ".png", Encoder(encode_png, encode_sheet)),
    "JPEG": _picture("image/jpeg", ".jpg", Encoder(encode_jpeg, encode_jpeg_sheet, 65_500)),
    "WebP": _picture("image/webp", ".webp", Encoder(encode_webp, encode_webp_animation, 16_383)),
    "GIF": _picture("image/gif", ".gif", Encoder(encode_gif, encode_gif_animation, 65_535)),
    "NPY": Format("application/x-npy", suffix=".npy", write=write_npy),
    "NPZ": Format("application/x-npz", suffix=".npz", write=write_npz),
}


def format_stamps(shot: Alert, name: str, layout: Layout) -> tuple[bytes, str]:
    """Return the answer's body and media type.

    Raises StampUnreadable where a stamp's pixels cannot be read, PlaneMissing, FactMissing,
    PictureTooLarge.
    """
    chosen = FORMATS[name]
    return chosen.write(shot, layout), chosen.media_type


def format_epochs(shots: Sequence[Alert], name: str, layout: Layout) -> tuple[bytes, str]:
    """Return several alerts, with the same kinds each, in one answer, in the order given.

    ``FORMATS[name].write_epochs`` must not be None, and there must be an alert.
    """
    chosen = FORMATS[name]
    if chosen.write_epochs is None:
        raise ValueError(f"{name} has no answer of several epochs")
    return chosen.write_epochs(shots, layout), chosen.media_type


def explain_stamps(shot: Alert, layout: Layout) -> Recipe:
    """Return how the picture of an alert is drawn, as JSON: limits, stretch, orientation, ids."""
    return explain(draw_panels([shot], layout), layout)


def explain_epochs(shots: Sequence[Alert], layout: Layout) -> Recipe:
    """Return the same of the picture of several alerts."""
    _, panels, chosen = draw_epochs(_complete(shots, layout), layout)
    return explain(panels, chosen)


def _complete(shots: Sequence[Alert], layout: Layout) -> Sequence[Alert]:
    """Return the alerts that have every kind: pictures of others would not line up."""
    complete = [shot for shot in shots if len(shot.stamps) >= len(layout.kinds)]
    if not complete:
        kinds = ", ".join(layout.kinds)
        raise StampMissing(f"none of the {len(shots)} alerts has all of {kinds}", parameter="kind")
    return complete
