"""Stamps -> the bytes of the answer: one row of ``FORMATS`` for each way to answer."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import orjson
from astropy.io import fits
from PIL import Image

from .errors import StampTooLarge
from .render import Rendering, render, triptych
from .stamp import Alert, Stamp, open_fits, read_pixels
from .surveys import Survey


@dataclass(frozen=True)
class Layout:
    """What a format needs to know of the request besides the stamps."""

    survey: Survey
    by_name: bool
    """Array answers: an object by column name (public dialect) or a plain list (internal)."""
    rendering: Rendering
    image_pixels: int
    """The most pixels that a picture may have."""
    kinds: tuple[str, ...] = ()
    """What was asked for, of which an alert among many may lack some."""


@dataclass(frozen=True)
class Format:
    """One way to answer."""

    media_type: str
    suffix: str
    """Of the file name that a browser saves the answer under; empty: shown, not saved."""
    write: Callable[[Sequence[Stamp], Layout], bytes]
    write_epochs: Callable[[Sequence[Alert], Layout], bytes] | None = None
    """Writes many alerts; None: one answer holds one."""


def write_array(stamps: Sequence[Stamp], layout: Layout) -> bytes:
    """Write the pixels as JSON, each the shortest decimal that reads back to the same float32.

    NaN and infinities are ``null``: no JSON parser outside Python accepts the bare words.
    """
    arrays = [read_pixels(stamp) for stamp in stamps]
    if not layout.by_name:
        return orjson.dumps(arrays, option=orjson.OPT_SERIALIZE_NUMPY)
    names = [layout.survey.response_key.format(kind=stamp.kind) for stamp in stamps]
    return orjson.dumps(dict(zip(names, arrays, strict=True)), option=orjson.OPT_SERIALIZE_NUMPY)


def write_array_of_epochs(alerts: Sequence[Alert], layout: Layout) -> bytes:
    """Write a list with an object for each alert: its id as a string, its time, its stamps.

    The stamps stand there by column name (public dialect) or as the list ``stamps`` (internal);
    ``null`` stands for one that the alert does not have.
    """
    survey = layout.survey
    written = []
    for alert in alerts:
        pixels = {stamp.kind: read_pixels(stamp) for stamp in alert.stamps}
        entry: dict[str, Any] = {
            survey.alert_key.name: None if alert.alert_id is None else str(alert.alert_id),
            survey.time_name: alert.time,
        }
        if layout.by_name:
            for kind in layout.kinds:
                entry[survey.response_key.format(kind=kind)] = pixels.get(kind)
        else:
            entry["stamps"] = [pixels.get(kind) for kind in layout.kinds]
        written.append(entry)
    return orjson.dumps(written, option=orjson.OPT_SERIALIZE_NUMPY)


def write_fits(stamps: Sequence[Stamp], _layout: Layout) -> bytes:
    """Write the stored FITS file byte for byte; of several, one multi-extension file.

    The latter is an empty primary HDU, then every HDU of each stamp with its header, named
    ``SCIENCE``, ``TEMPLATE``, ``DIFFERENCE``, and further planes ``SCIENCE_UNCERT``, ...
    """
    if len(stamps) == 1:
        return stamps[0].fits
    merged = fits.HDUList([fits.PrimaryHDU()])
    buffer = io.BytesIO()
    with ExitStack() as opened:
        for stamp in stamps:
            merged.extend(_extensions(stamp, opened))
        merged.writeto(buffer, output_verify="silentfix+ignore")
    return buffer.getvalue()


def write_fits_of_epochs(alerts: Sequence[Alert], layout: Layout) -> bytes:
    """Write one file: an empty primary HDU, then every HDU of each alert in turn.

    They are named as in the file of one alert; EXTVER counts the alerts from 1. The cards
    ALERTID (text, since it exceeds what many readers take for an integer), ALERTMJD and TIMESYS
    tell which alert it is.
    """
    merged = fits.HDUList([fits.PrimaryHDU()])
    buffer = io.BytesIO()
    with ExitStack() as opened:
        for version, alert in enumerate(alerts, 1):
            for stamp in alert.stamps:
                for part in _extensions(stamp, opened):
                    part.ver = version
                    if alert.alert_id is not None:
                        part.header["ALERTID"] = (str(alert.alert_id), "alert id")
                    if alert.time is not None:
                        mjd = alert.time - layout.survey.mjd_offset
                        part.header["ALERTMJD"] = (mjd, "time of the alert")
                        part.header["TIMESYS"] = layout.survey.time_scale.upper()
                    merged.append(part)
        merged.writeto(buffer, output_verify="silentfix+ignore")
    return buffer.getvalue()


def _extensions(stamp: Stamp, opened: ExitStack) -> Iterator[fits.ImageHDU]:
    """Yield every HDU of a stamp as an extension: SCIENCE, SCIENCE_UNCERT, ..."""
    # Scaling is undone by whoever opens the file, not here.
    hdus = opened.enter_context(open_fits(stamp, scaled=False))
    for number, hdu in enumerate(hdus):
        name = stamp.kind.upper() + (f"_{hdu.name or number}" if number else "")
        part = _as_extension(hdu) if number == 0 else hdu
        part.name = name
        yield part


def _as_extension(hdu: fits.PrimaryHDU) -> fits.ImageHDU:
    """Return a primary image as an extension; astropy drops the scale that it did not apply."""
    part = fits.ImageHDU(hdu.data, hdu.header.copy(strip=True))
    for keyword in ("BSCALE", "BZERO", "BLANK"):
        if keyword in hdu.header:
            part.header[keyword] = hdu.header[keyword]
    return part


def write_png(stamps: Sequence[Stamp], layout: Layout) -> bytes:
    """Write an 8-bit picture, grayscale or with a colormap RGBA; several side by side."""
    pictures = [render(read_pixels(stamp), layout.rendering) for stamp in stamps]
    width = sum(picture.shape[1] for picture in pictures)
    if max(picture.shape[0] for picture in pictures) * width > len(pictures) * layout.image_pixels:
        raise StampTooLarge(f"side by side, the stamps exceed {layout.image_pixels} pixels each")
    picture = pictures[0] if len(pictures) == 1 else triptych(pictures)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    return buffer.getvalue()


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
    "PNG": Format("image/png", suffix=".png", write=write_png),
}


def format_stamps(stamps: Sequence[Stamp], name: str, layout: Layout) -> tuple[bytes, str]:
    """Return the answer's body and media type.

    Raises StampUnreadable where a stamp's pixels cannot be read.
    """
    chosen = FORMATS[name]
    return chosen.write(stamps, layout), chosen.media_type


def format_epochs(alerts: Sequence[Alert], name: str, layout: Layout) -> tuple[bytes, str]:
    """Return the answer's body and media type for many alerts.

    Raises ValueError for a format that holds one, StampUnreadable.
    """
    chosen = FORMATS[name]
    if chosen.write_epochs is None:
        raise ValueError(f"{name} holds one alert")
    return chosen.write_epochs(alerts, layout), chosen.media_type
