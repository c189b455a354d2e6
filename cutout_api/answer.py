"""A ``CutoutRequest`` -> the bytes of its answer, whoever asks: the route, or the terminal."""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from . import metrics
from .arrays import AUTO, NAN, NULL
from .epochs import Alert
from .formatter import FORMATS, explain_epochs, explain_stamps, format_epochs, format_stamps
from .panels import Layout
from .reader import Reader
from .request import PUBLIC, CutoutRequest

CUTOUTS = "/api/v1/cutouts"
JSON = "application/json"
LONGEST_ADDRESS = 8_000
"""What is longer cannot be asked by GET, nor told in the EXIF of a picture."""


@dataclass(frozen=True)
class CutoutAnswer:
    """What is answered, and of which alert; None where it holds many."""

    body: bytes
    media_type: str
    alert: Alert | None
    asked: CutoutRequest
    """As one of the survey that the alert is of."""

    @property
    def alert_id(self) -> int | None:
        return None if self.alert is None else self.alert.alert_id


def answer_request(reader: Reader, asked: CutoutRequest, most_pixels: int) -> CutoutAnswer:
    """Return the answer to a checked request. Raises a CutoutError."""
    if asked.choice.every:
        asked = reader.settle(asked)
        alerts = reader.read_epochs(asked)
        layout = make_layout(asked, None, most_pixels)
        if asked.explain:
            return CutoutAnswer(orjson.dumps(explain_epochs(alerts, layout)), JSON, None, asked)
        with metrics.stage("format"):
            body, media_type = format_epochs(alerts, asked.format, layout)
        return CutoutAnswer(body, media_type, None, asked)
    asked, alert = reader.read_settled(asked)
    layout = make_layout(asked, alert.alert_id, most_pixels)
    if asked.explain:
        return CutoutAnswer(orjson.dumps(explain_stamps(alert, layout)), JSON, alert, asked)
    with metrics.stage("format"):
        body, media_type = format_stamps(alert, asked.format, layout)
    return CutoutAnswer(body, media_type, alert, asked)


def spell_masked(said: str | None, setting: str, *, reads_json: bool) -> str:
    """Return how masked pixels are written: as the request says, else the setting, else the caller.

    Every client of the services of today is Python, for which NaN is a float and null is none;
    ``reads_json`` is whether the caller is known to read nothing but JSON.
    """
    if said is not None:
        return said
    if setting != AUTO:
        return setting
    return NULL if reads_json else NAN


def make_layout(asked: CutoutRequest, alert_id: int | None, most_pixels: int) -> Layout:
    """Return how the answer is to be drawn and written."""
    again = ""
    if asked.explain or FORMATS[asked.format].is_picture:
        again = f"{CUTOUTS}?{asked.query(alert_id)}"
    return Layout(
        asked.survey,
        asked.dialect == PUBLIC,
        asked.rendering,
        most_pixels,
        asked.view,
        asked.frame,
        again if len(again) <= LONGEST_ADDRESS else "",
        asked.kinds,
        asked.nan or NAN,
    )


def file_stem(asked: CutoutRequest, alert_id: int | None) -> str:
    """Return the id that users of each dialect expect in the file's name."""
    known = asked.keys.get(asked.survey.file_key, alert_id)
    stem = str(next(iter(asked.keys.values())) if known is None else known)
    return f"{stem}_{asked.kind}" if asked.dialect == PUBLIC else stem
