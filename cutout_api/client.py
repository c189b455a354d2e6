"""Stamps and alert data of a running service, for notebooks and scripts.

    from cutout_api.client import Client

    client = Client("http://127.0.0.1:24000")
    stamp = client.cutout("ZTF26efbhfef")   # the newest alert of the object, its Science stamp
    stamp.array, stamp.wcs, stamp.id        # stamp alone shows itself in Jupyter

This imports none of what the service itself is made of (tests/unit/test_layers.py).
"""

from __future__ import annotations

import base64
import html
import io
import json
import operator
import os
import re
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, SupportsIndex

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from .celestial import make_wcs, select_cards
from .fetch import (
    AmbiguousId,
    Answer,
    NotFound,
    Params,
    ServiceError,
    Session,
    service_error,
)
from .planes import Role, find_role
from .surveys import CURVES, KEYS, KINDS, SURVEYS, Survey, key_meant

if TYPE_CHECKING:
    from astropy.table import Table
    from astropy.time import Time
    from astropy.wcs import WCS
    from matplotlib.axes import Axes

Id = str | SupportsIndex
DEFAULT_ADDRESS = "http://127.0.0.1:24000"
DEFAULT_CACHE_BYTES = 500_000_000
DEFAULT_KIND, ALL = "Science", "All"
CUTOUTS = "/api/v1/cutouts"
CHOICES = ("which", "band", "date")
"""Options that choose the alert."""
OF_PIXELS = ("hdfsPath", "plane", "diffsign")
"""Options that hold for the pixels; all others are of pictures."""
OWN = (
    *("kind", "epochs", "wcs", "explain", "nan", "strict"),
    *("return_type", "output-format", "output_format"),
)
STRICT = {"strict": "1"}
"""A misspelt option is an error, and not passed over."""
"""What the methods themselves say."""
_SURVEYS: Mapping[str, Survey] = {survey.name: survey for survey in SURVEYS}
_SHOWN_PIXELS = 252
_PRESENT = ("stamp_missing", "stamp_unreadable", "stamp_too_large")
"""Errors that say that the alert is there."""
_WARNINGS = threading.Lock()
"""Which warnings are shown is a matter of the process: who changes it must be alone."""
_EXTENSION = re.compile(rf"({'|'.join(KINDS)})(?:_(.+))?", re.IGNORECASE)


class Client:
    """One service. Threads may share it; ``close`` it, or use it with ``with``.

    ``cache`` is the folder that answers are kept in, about ``cache_bytes`` of them; None keeps
    none. Answers that never change are taken from there without asking, others after the service
    said that they still hold. What is worth another try is tried ``retries`` times, after as
    long as ``Retry-After`` says. ``timeout`` is in seconds, for connecting and between two bytes.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        cache: str | Path | None = "",
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        timeout: float = 60.0,
        retries: int = 4,
    ) -> None:
        folder = default_cache() if cache == "" else cache and Path(cache)
        self._session = Session(
            address,
            cache=folder or None,
            cache_bytes=cache_bytes,
            timeout=timeout,
            retries=retries,
        )

    @property
    def address(self) -> str:
        return self._session.address

    def __repr__(self) -> str:
        return f"Client({self.address!r})"

    def close(self) -> None:
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _cls: type[BaseException] | None,
        _error: BaseException | None,
        _t: TracebackType | None,
    ) -> None:
        self.close()

    # --- stamps

    def cutout(self, id: Id | None = None, kind: str = DEFAULT_KIND, **options: Any) -> Cutout:
        """Return one stamp of one alert.

        ``id`` is an object's name, whose latest alert is meant, or an alert's number; a number
        is looked for in all surveys, which ``candid=`` and ``diaSourceId=`` spare.
        ``diaObjectId=`` is the latest alert of an LSST object. The options are the parameters of
        ``/api/v1/cutouts``; those of pictures hold for ``.png`` and for what a notebook shows.

        Raises a ServiceError, above all NotFound, BadRequest and Unavailable.
        """
        kind = kind.strip().capitalize()
        if kind == ALL:
            raise ValueError("a cutout is one stamp; cutouts(id) has all three")
        survey, params, drawing = self._prepare(id, kind, options)
        answer = self._fetch_fits(params)
        found = _Found(self, survey, params, drawing, answer)
        cutout = Cutout(found, kind, answer.content)
        if drawing:
            _ = cutout.png  # a mistake in what is asked shows where it is asked
        return cutout

    def cutouts(self, id: Id | None = None, **options: Any) -> Cutouts:
        """Return the three stamps of one alert, by one request; arguments as for ``cutout``."""
        survey, params, drawing = self._prepare(id, ALL, options)
        answer = self._fetch_fits(params)
        found = _Found(self, survey, params, drawing, answer)
        parts = _split(answer.content)
        cutouts = Cutouts(found, {p.kind: Cutout(found, p.kind, p.content) for p in parts})
        if drawing:
            _ = cutouts.png
        return cutouts

    def epochs(self, id: Id | None = None, kind: str = DEFAULT_KIND, **options: Any) -> Epochs:
        """Return a stamp of every alert of an object, oldest first, by one request.

        A number is an LSST object's. ``band=`` leaves some out; alerts without such a stamp are
        left out.
        """
        kind = kind.strip().capitalize()
        survey, keys = self._object(id, options)
        params, drawing = self._split_options(options)
        params = {**keys, **params, "kind": kind}
        answer = self._fetch_fits({**params, "epochs": "all"})
        whole = _Found(self, survey, {**params, "epochs": "all"}, drawing, answer)
        cutouts = [
            Cutout(whole.of(part.alert_id, part.mjd), part.kind, part.content)
            for part in _split(answer.content)
        ]
        return Epochs(whole, kind, cutouts)

    def batch(
        self, ids: Iterable[Id], kind: str = DEFAULT_KIND, *, key: str | None = None, **options: Any
    ) -> Iterator[BatchItem]:
        """Yield the stamps of many ids in the order given, as they arrive, by one request.

        ``ids`` are names of ZTF objects, or numbers that ``key`` tells what they are of:
        ``candid``, ``diaSourceId``, ``diaObjectId``; without it the first one is looked for. An id
        that has no answer is an item with its ``error``. The options are those that choose alerts
        and pixels.

        Raises ServiceError, also where the answer breaks off before its end.
        """
        texts = [_id_text(one) for one in ids]
        if not texts:
            return
        params, drawing = self._split_options(options)
        if drawing:
            raise ValueError(f"a batch has no pictures: leave out {', '.join(drawing)}")
        if key is None:
            _, keys = self._alert(texts[0], {}, kind, params.get("hdfsPath"))
            key = next(iter(keys))
        key = key_meant(key, texts[0])
        surveys = [survey for survey, _ in KEYS[key]]
        asked = {**params, **STRICT, key: texts, "kind": kind}
        asked |= {"output-format": "array", "package": "ndjson"}
        count = 0
        for line in self._session.stream(f"{CUTOUTS}/batch", asked):
            yield _batch_item(surveys, json.loads(line))
            count += 1
        if count < len(texts):
            detail = f"the answer broke off after {count} of {len(texts)} ids"
            raise ServiceError(0, {"code": "broken_off", "detail": detail})

    # --- tables

    def object(
        self,
        id: Id | Sequence[Id] | None = None,
        columns: str | Iterable[str] | None = None,
        **options: Any,
    ) -> Table:
        """Return ``/api/v1/objects`` as an astropy Table.

        That is a row for each alert of a ZTF object, newest first, and a row for an LSST object.
        Integers are integers, ids too; a null is masked. ``.to_pandas()`` keeps both.
        """
        return self._table("objects", id, columns, options)

    def sources(
        self,
        id: Id | Sequence[Id] | None = None,
        columns: str | Iterable[str] | None = None,
        **options: Any,
    ) -> Table:
        """Return a row for each alert of an object, newest first, as an astropy Table."""
        survey, _ = self._object(id, dict(options))
        route = CURVES[survey.name].table.rpartition("/")[2]
        return self._table(route, id, columns, options)

    def _table(
        self, route: str, id: Any, columns: str | Iterable[str] | None, options: dict[str, Any]
    ) -> Table:
        _, keys = self._object(id, options)
        params = {name: _spell(name, value) for name, value in options.items()}
        if columns is not None:
            params["columns"] = columns if isinstance(columns, str) else ",".join(columns)
        asked = {**keys, **params, **STRICT, "output-format": "votable"}
        answer = self.fetch(f"/api/v1/{route}", asked)
        unknown = answer.headers.get("X-Unknown-Columns")
        if unknown:
            warnings.warn(f"there are no such columns: {unknown}", stacklevel=3)
        return _read_table(answer.content)

    # --- what is asked

    def fetch(self, path: str, params: Params) -> Answer:
        """Return the answer of any address of the service. Raises ServiceError."""
        return self._session.get(path, params)

    def _fetch_fits(self, params: Params) -> Answer:
        answer = self.fetch(CUTOUTS, {**params, **STRICT, "output-format": "FITS"})
        if not answer.content.startswith(b"SIMPLE"):
            raise _not_fits(f"what {self.address} answered is not a FITS file: is it this service?")
        return answer

    def _prepare(
        self, id: Id | None, kind: str, options: dict[str, Any]
    ) -> tuple[Survey, dict[str, str], dict[str, str]]:
        params, drawing = self._split_options(options)
        survey, keys = self._alert(id, options, kind, params.get("hdfsPath"))
        return survey, {**keys, **params, "kind": kind}, drawing

    def _split_options(self, options: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
        """Return the options that choose alerts and pixels, and those of pictures."""
        params: dict[str, str] = {}
        drawing: dict[str, str] = {}
        for name, value in options.items():
            if name in OWN:
                raise ValueError(f"{name} is not an option here; see docs/client.md")
            if name in KEYS or value is None:
                continue
            kept = params if name in CHOICES + OF_PIXELS else drawing
            kept[name] = _spell(name, value)
        return params, drawing

    def _object(self, id: Any, options: dict[str, Any]) -> tuple[Survey, dict[str, str]]:
        """Return the objects that are meant: every number is an LSST object's."""
        given = _take_keys(options)
        if id is not None:
            many = [id] if isinstance(id, str | SupportsIndex) else list(id)
            texts = [_id_text(one) for one in many]
            for survey in SURVEYS:
                key = survey.object_key
                if texts and all(key.takes(text) for text in texts):
                    return survey, given | {key.name: ",".join(texts)}
            raise ValueError(f"not the ids of objects of one survey: {many!r}")
        if not given:
            raise ValueError("which object? Give its id")
        return _find_survey(given), given

    def _alert(
        self, id: Id | None, options: dict[str, Any], kind: str, path: str | None
    ) -> tuple[Survey, dict[str, str]]:
        given = _take_keys(options)
        if id is not None:
            text = _id_text(id)
            keys = (key for meant in KEYS.values() for _, key in meant)
            named = next((key.name for key in keys if key.takes(text)), None)
            if named is None:
                raise ValueError(f"{id!r} is neither an object's name nor an alert's number")
            if not _is_number(text):
                given[named] = text
            elif not given:
                given[self._recognise(text, kind, path)] = text
            else:
                raise ValueError(f"{id} and {next(iter(given))}: give one of them")
        if not given:
            raise ValueError("which alert? Give its id, or the name of its object")
        return _find_survey(given), given

    def _recognise(self, number: str, kind: str, path: str | None) -> str:
        """Return the name of the key that a bare number is: of one survey's alert, or another's.

        All have up to 19 digits, so only the service can tell. What it answers for the right one
        is kept on disk, and not asked again.
        """
        names = list(dict.fromkeys(survey.alert_key.name for survey in SURVEYS))
        found = [name for name in names if self._is_alert(name, number, kind, path)]
        if not found:
            detail = f"no alert {number}, neither as {' nor as '.join(names)}"
            if not path:
                keys = [survey.object_key for survey in SURVEYS if survey.object_key.is_number]
                detail += f"; an object is named by {' or '.join(f'{it.name}=' for it in keys)}"
            raise NotFound(404, {"code": "alert_not_found", "detail": detail})
        if len(found) > 1:
            detail = f"{number} is both {' and '.join(found)}: say which, as {found[0]}={number}"
            raise AmbiguousId(400, {"code": "ambiguous_id", "detail": detail})
        return found[0]

    def _is_alert(self, key: str, number: str, kind: str, path: str | None) -> bool:
        params = {key: number, **({"hdfsPath": path} if path else {}), "kind": kind}
        try:
            self._fetch_fits(params)
        except ServiceError as error:
            if error.code == "alert_not_found":
                return False
            if error.code not in _PRESENT:
                raise
        return True


@dataclass(frozen=True)
class BatchItem:
    """What a batch answers for one id."""

    id: str
    """As it was asked."""
    alert_id: int | None
    arrays: Mapping[str, NDArray[np.float32]]
    """By kind, of shape (ny, nx), row 0 first; NaN where a pixel is masked."""
    error: ServiceError | None

    @property
    def array(self) -> NDArray[np.float32]:
        """The one stamp that was asked for. Raises the item's error where it has one."""
        if self.error is not None:
            raise self.error
        (array,) = self.arrays.values()
        return array


def _batch_item(surveys: Sequence[Survey], line: Mapping[str, Any]) -> BatchItem:
    """Return an item of alerts of one of some surveys, whose keys have the same name."""
    if "error" in line:
        members = line["error"]
        return BatchItem(line["id"], None, {}, service_error(line["status"], members))
    kinds = {survey.response_name(kind): kind for survey in surveys for kind in KINDS}
    arrays = {
        kinds[name]: np.array(rows, np.float32)  # a masked pixel is NaN, or None and becomes it
        for name, rows in line["cutouts"].items()
    }
    ids = (line.get(survey.alert_key.name) for survey in surveys)
    alert_id = next((number for number in ids if number is not None), None)
    return BatchItem(line["id"], None if alert_id is None else int(alert_id), arrays, None)


def default_cache() -> Path:
    """Return the folder that answers are kept in unless another is named."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cutout_api"


# --- ids and options ----------------------------------------------------------------------------


def _id_text(id: Id) -> str:
    """Return an id as text. A float is refused: it cannot hold one."""
    if isinstance(id, str):
        return id.strip()
    if isinstance(id, bool | np.bool_):
        raise TypeError("an id is text or a whole number, not a truth value")
    try:
        return str(operator.index(id))
    except TypeError:
        raise TypeError(
            f"an id is text or a whole number, not {type(id).__name__}: ids exceed 2^53, and come "
            "out of a float as others"
        ) from None


def _find_survey(given: Mapping[str, str]) -> Survey:
    """Return the first survey whose keys take what is given, else the first that has one."""
    for survey in SURVEYS:
        keys = {key.name: key for key in survey.keys}
        if all(
            name in keys and keys[name].takes(it.partition(",")[0]) for name, it in given.items()
        ):
            return survey
    return KEYS[next(iter(given))][0][0]


def _is_number(text: str) -> bool:
    return text.lstrip("-").isdigit()


def _take_keys(options: dict[str, Any]) -> dict[str, str]:
    """Take the ids that were given by name out of ``options``."""
    names = [name for name in KEYS if name in options]
    texts = {name: _id_text(it) for name in names if (it := options.pop(name)) is not None}
    return {key_meant(name, text): text for name, text in texts.items()}


def _spell(name: str, value: Any) -> str:
    """Return an option as it is sent."""
    if isinstance(value, bool | np.bool_):
        return str(int(value))
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, str | int | float | np.number):
        return str(value)
    if hasattr(value, "utc") and hasattr(value.utc, "isot"):  # an astropy Time
        return str(value.utc.isot)
    if isinstance(value, Iterable):
        return ",".join(map(str, value))
    raise TypeError(f"{name} cannot be a {type(value).__name__}")


# --- what is answered ---------------------------------------------------------------------------


class _Found:
    """The alert that was found, and how to ask more of this very one."""

    def __init__(
        self, client: Client, survey: Survey, params: Params, drawing: Params, answer: Answer | None
    ) -> None:
        headers: Mapping[str, str] = {} if answer is None else answer.headers
        self.client, self.drawing = client, drawing
        self.survey = _SURVEYS.get(headers.get("X-Cutout-Survey", ""), survey)
        self.id = int(headers["X-Cutout-Id"]) if "X-Cutout-Id" in headers else None
        self.time = float(headers["X-Cutout-Time"]) if "X-Cutout-Time" in headers else None
        self.params = dict(params)
        if self.id is not None:
            self._pin()

    def _pin(self) -> None:
        """Name the alert itself: the latest of its object may be another one tomorrow."""
        kept = {name: self.params[name] for name in OF_PIXELS if name in self.params}
        self.params = {self.survey.alert_key.name: str(self.id), **kept}

    def of(self, alert_id: int | None, mjd: float | None) -> _Found:
        """Return the same for one alert of many."""
        one = _Found(self.client, self.survey, self.params, self.drawing, None)
        one.params.pop("epochs", None)
        one.id = alert_id
        one.time = None if mjd is None else mjd + self.survey.mjd_offset
        if alert_id is not None:
            one._pin()
        return one

    def ask(self, kind: str, form: str, **more: str) -> bytes:
        params = {**self.params, **STRICT, "kind": kind, "output-format": form, **more}
        return self.client.fetch(CUTOUTS, params).content


class _Shown:
    """What shows itself in a notebook."""

    def __init__(self, found: _Found, kind: str) -> None:
        self._found = found
        self._png: bytes | None = None
        self.kind = kind

    @property
    def survey(self) -> str:
        """Its name in lower case: ``ztf``, ``lsst``."""
        return self._found.survey.name

    @property
    def id(self) -> int | None:
        """The ``candid`` or ``diaSourceId`` of the alert; None where the file has none."""
        return self._found.id

    @property
    def time(self) -> float | None:
        """When it was observed, as the survey says it: JD in UTC for ZTF, MJD in TAI for LSST."""
        return self._found.time

    @property
    def date(self) -> Time | None:
        """The same as an astropy Time."""
        from astropy.time import Time

        if self.time is None:
            return None
        survey = self._found.survey
        form = "jd" if survey.mjd_offset else "mjd"
        return Time(self.time, format=form, scale=survey.time_scale)

    @property
    def _when(self) -> str:
        if self.time is None:
            return "no time"
        survey = self._found.survey
        return f"{'JD' if survey.mjd_offset else 'MJD'} {self.time:.5f} {survey.time_scale.upper()}"

    # Not a cached_property, which in Python 3.11 has one lock for all objects: they would wait for
    # each other's answers.
    @property
    def png(self) -> bytes:
        """The picture, drawn as the options say; without any, as the public Fink API draws it."""
        if self._png is None:
            self._png = self._found.ask(self.kind, "PNG", **self._found.drawing)
        return self._png

    def _show(self) -> bytes | None:
        """Return a picture with north up and its labels, as far as the options do not say other."""
        drawing = {"labels": "all", "orient": "north", **self._found.drawing}
        for dropped in (None, "orient"):
            try:
                return self._found.ask(
                    self.kind, "PNG", **{k: v for k, v in drawing.items() if k != dropped}
                )
            except NotFound as error:
                if error.code != "fact_missing":  # its header does not say where north is
                    return None
            except ServiceError:
                return None
        return None

    def _repr_png_(self) -> bytes | None:
        return self._show()

    def _repr_html_(self) -> str:
        picture = self._show()
        caption = html.escape(repr(self))
        if picture is None:
            return f"<pre>{caption}</pre>"
        encoded = base64.b64encode(picture).decode()
        return (
            f'<figure><img alt="{caption}" src="data:image/png;base64,{encoded}" '
            f'style="min-width: {_SHOWN_PIXELS}px; image-rendering: pixelated">'
            f"<figcaption><code>{caption}</code></figcaption></figure>"
        )


class Cutout(_Shown):
    """One stamp of one alert."""

    def __init__(self, found: _Found, kind: str, content: bytes) -> None:
        super().__init__(found, kind)
        self._wcs: WCS | None = None
        self.fits = content
        """The FITS file: the survey's own, byte for byte, where it was asked for alone."""

    def __repr__(self) -> str:
        ny, nx = self.array.shape
        return f"<Cutout {self.survey.upper()} {self.id} {self.kind}, {ny} x {nx}, {self._when}>"

    @cached_property
    def hdul(self) -> fits.HDUList:
        """The FITS file as astropy's HDUList, read whole."""
        return _open(self.fits)

    @property
    def header(self) -> fits.Header:
        """That of the image, whose HDU is not the first one of every file."""
        return _find_image(self.hdul).header

    @cached_property
    def array(self) -> NDArray[np.float32]:
        """The pixels, float32 of shape (ny, nx), row 0 first as FITS has it, NaN where masked."""
        data = _find_image(_open(self.fits)).data
        return np.ascontiguousarray(data.reshape(data.shape[-2:]), np.float32)

    @property
    def wcs(self) -> WCS:
        """Where the pixels are on the sky, by ``wcs=fix``; ZTF's is approximate.

        Raises NotFound, ``fact_missing``, where neither the stamp nor the alert says it.
        """
        if self._wcs is None:
            hdu = _find_image(_open(self._found.ask(self.kind, "FITS", wcs="fix")))
            try:
                self._wcs = make_wcs(select_cards(hdu.header), hdu.shape[-2:])
            except ValueError as error:
                detail = f"the stamp's header has a WCS that cannot be used: {error}"
                raise service_error(404, {"code": "fact_missing", "detail": detail}) from error
        return self._wcs

    def plot(self, ax: Axes | None = None, *, percent: float = 99.0, **options: Any) -> Axes:
        """Draw the stamp with matplotlib, and return its axes.

        Row 0 is where it belongs: on top for ZTF, whose north is then up and east left; at the
        bottom for LSST, which then has the parity of the sky and is turned as it was observed.
        ``percent`` of the pixels lie within the limits; ``options`` are of ``imshow``.
        ``ax`` may have the sky on its axes: ``plt.subplot(projection=cutout.wcs)``.
        """
        import matplotlib.pyplot as plt
        from astropy.visualization import simple_norm

        if ax is None:
            _, ax = plt.subplots()
        finite = self.array[np.isfinite(self.array)]
        if finite.size and not {"norm", "vmin", "vmax"} & set(options):
            options["norm"] = simple_norm(finite, "asinh", percent=percent)
        # Pixel (x, y) of the stamp is (x, y) of the axes, as a WCS has it, and axes of the sky
        # refuse origin="upper": it is the axis that is turned.
        ax.imshow(self.array, **{"origin": "lower", "cmap": "gray", **options})
        if self._found.survey.row_0_on_top and "origin" not in options:
            bottom, top = sorted(ax.get_ylim())
            ax.set_ylim(top, bottom, auto=None)
        ax.set_title(f"{self.kind} {self.id or ''}".strip())
        return ax


class Cutouts(_Shown, Mapping[str, Cutout]):
    """The three stamps of one alert, by kind: ``cutouts["Science"].array``."""

    def __init__(self, found: _Found, stamps: Mapping[str, Cutout]) -> None:
        super().__init__(found, ALL)
        self._stamps = stamps

    def __getitem__(self, kind: str) -> Cutout:
        return self._stamps[kind.capitalize()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._stamps)

    def __len__(self) -> int:
        return len(self._stamps)

    def __repr__(self) -> str:
        return f"<Cutouts {self.survey.upper()} {self.id} {', '.join(self)}, {self._when}>"

    def plot(self, axes: Sequence[Axes] | None = None, **options: Any) -> Sequence[Axes]:
        """Draw the stamps side by side; ``options`` as for ``Cutout.plot``."""
        import matplotlib.pyplot as plt

        if axes is None:
            _, grid = plt.subplots(1, len(self), figsize=(4 * len(self), 4), squeeze=False)
            axes = list(grid[0])
        for stamp, ax in zip(self.values(), axes, strict=False):
            stamp.plot(ax, **options)
        return axes


class Epochs(_Shown, Sequence[Cutout]):
    """A stamp for each alert of an object, oldest first; shows itself as a contact sheet."""

    def __init__(self, found: _Found, kind: str, stamps: Sequence[Cutout]) -> None:
        super().__init__(found, kind)
        self._stamps = stamps

    def __getitem__(self, number: Any) -> Any:
        return self._stamps[number]

    def __len__(self) -> int:
        return len(self._stamps)

    def __repr__(self) -> str:
        return f"<Epochs {self.survey.upper()}, {len(self)} x {self.kind}>"


# --- files --------------------------------------------------------------------------------------


def _open(content: bytes, *, scaled: bool = True) -> fits.HDUList:
    """Return every HDU, read. A ZTF file's first card is malformed, which is no news."""
    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore", fits.verify.VerifyWarning)
        try:
            hdus = fits.open(
                io.BytesIO(content),
                ignore_missing_simple=True,
                lazy_load_hdus=False,
                memmap=False,
                do_not_scale_image_data=not scaled,
            )
            for hdu in hdus:
                _ = hdu.data
        except (OSError, ValueError, TypeError) as error:
            raise _not_fits("the FITS file that was answered cannot be read") from error
    return hdus


def _find_image(hdus: fits.HDUList) -> Any:
    """Return the HDU that the service takes for the image of a stamp."""
    for hdu in hdus:
        cards = hdu.header
        role = find_role(str(cards.get("EXTNAME", "")), str(cards.get("UTYPE", "")))
        flat = hdu.is_image and len(hdu.shape) >= 2 and set(hdu.shape[:-2]) <= {1}
        if flat and 0 not in hdu.shape and role is Role.IMAGE:
            return hdu
    raise _not_fits("the FITS file that was answered holds no 2-D image")


def _not_fits(detail: str) -> ServiceError:
    return ServiceError(200, {"code": "not_fits", "detail": detail})


class _Part:
    """One stamp of a FITS file that holds several."""

    def __init__(self, kind: str, hdus: list[Any]) -> None:
        self.kind = kind
        header = hdus[0].header
        self.alert_id = int(header["ALERTID"]) if "ALERTID" in header else None
        self.mjd = float(header["ALERTMJD"]) if "ALERTMJD" in header else None
        buffer = io.BytesIO()
        fits.HDUList([_as_primary(hdus[0]), *hdus[1:]]).writeto(
            buffer, output_verify="silentfix+ignore"
        )
        self.content = buffer.getvalue()


def _split(content: bytes) -> list[_Part]:
    """Return the stamps of a file of several kinds, or of several alerts, in its order."""
    found: dict[tuple[int, str], list[Any]] = {}
    for hdu in _open(content, scaled=False)[1:]:
        match = _EXTENSION.fullmatch(hdu.name)
        if match is None:
            continue
        hdu.name = match[2] or ""
        found.setdefault((hdu.ver, match[1].capitalize()), []).append(hdu)
    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore", fits.verify.VerifyWarning)
        return [_Part(kind, hdus) for (_, kind), hdus in found.items()]


def _as_primary(hdu: fits.ImageHDU) -> fits.PrimaryHDU:
    """Return an extension as a primary HDU; astropy drops the scale that it did not apply."""
    part = fits.PrimaryHDU(hdu.data, hdu.header.copy(strip=True))
    for keyword in ("EXTNAME", "EXTVER"):
        part.header.remove(keyword, ignore_missing=True)
    for keyword in ("BSCALE", "BZERO", "BLANK"):
        if keyword in hdu.header:
            part.header[keyword] = hdu.header[keyword]
    return part


def _read_table(content: bytes) -> Table:
    from astropy.io import votable
    from astropy.table import Table

    first = votable.parse(io.BytesIO(content)).get_first_table()
    return first.to_table(use_names_over_ids=True) if first.fields else Table()
