"""The answers of a batch -> the bytes it is sent as: one row of ``PACKAGES`` for each way.

Answers come one by one and leave as they come, so that no package is ever whole in memory.
"""

from __future__ import annotations

import base64
import io
import math
import re
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, TypeVar

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from . import metrics
from .epochs import Alert
from .errors import CutoutError, StampMissing
from .formatter import FORMATS, format_stamps
from .panels import Layout
from .surveys import Survey
from .table_formats import STAMP, Drain, image_lists
from .views import Pixels, read_view

T = TypeVar("T")
PIXELS, FILES, NUMBERS = "pixels", "files", "numbers"
"""What a package holds: arrays or files of any format; files; one array of numbers."""
NO_ALERT = -1
"""Stands in npz for the id of an alert that was not found."""
ROWS_AT_ONCE = 64
BYTES_AT_ONCE = 8 << 20
"""Of Arrow and parquet; a batch of rows, and a row group, ends with the row that reaches either."""
SEND_BYTES = 1 << 17
OK = 200


@dataclass(frozen=True)
class Answer:
    """What one id gave: an alert with its stamps, or an error."""

    asked: str
    """The id, as it was asked for."""
    alert: Alert | None
    layout: Layout
    error: CutoutError | None = None


@dataclass(frozen=True)
class Head:
    """What is known before the first answer."""

    survey: Survey
    kinds: tuple[str, ...]
    kind: str
    format: str
    asked: Sequence[str]
    """All ids, as they were asked for."""
    side: int
    normalise: str
    prefix: str = ""
    """The path of the service, for the addresses in errors."""


@dataclass(frozen=True)
class Package:
    """One way to send many answers."""

    media_type: str
    suffix: str
    holds: str
    write: Callable[[Head, Iterable[Answer]], Iterator[bytes]]


Image = NDArray[np.float64]


def normalise_none(pixels: Image) -> Image:
    return pixels


def normalise_minmax(pixels: Image) -> Image:
    """Return the pixels from 0 to 1; all 0 where they are equal."""
    low, high = float(np.nanmin(pixels)), float(np.nanmax(pixels))
    return (pixels - low) / (high - low) if high > low else pixels * 0.0


def normalise_zscore(pixels: Image) -> Image:
    """Return the pixels with mean 0 and (population) standard deviation 1, or all 0."""
    deviation = float(np.nanstd(pixels))
    centred = pixels - float(np.nanmean(pixels))
    return centred / deviation if deviation > 0 else pixels * 0.0


def normalise_l2(pixels: Image) -> Image:
    """Return the pixels divided by the root of the sum of their squares."""
    length = math.sqrt(float(np.nansum(pixels * pixels)))
    return pixels / length if length > 0 else pixels * 0.0


NORMALISATIONS: Mapping[str, Callable[[Image], Image]] = {
    "none": normalise_none,
    "minmax": normalise_minmax,
    "zscore": normalise_zscore,
    "l2": normalise_l2,
}


def _made(answer: Answer, format_name: str) -> tuple[bytes, str] | CutoutError:
    """Return the answer as ``/api/v1/cutouts`` gives it, with its media type, or why not."""
    return _counted(answer, lambda alert: format_stamps(alert, format_name, answer.layout))


def _pixels(answer: Answer) -> list[Pixels] | CutoutError:
    """Return the pixels of each kind, or why not."""
    survey, view = answer.layout.survey, answer.layout.view
    return _counted(
        answer,
        lambda alert: [read_view(stamp, survey, view, alert.entry) for stamp in alert.stamps],
    )


def _counted(answer: Answer, make: Callable[[Alert], T]) -> T | CutoutError:
    """Return what is made of an alert, or why nothing is, and count the one or the other."""
    made: T | CutoutError
    if answer.alert is None:
        made = answer.error or StampMissing("there is no stamp")
    else:
        try:
            made = make(answer.alert)
        except CutoutError as error:
            made = error
    metrics.count_item(made.status if isinstance(made, CutoutError) else OK)
    return made


def _facts(answer: Answer) -> tuple[int | None, float | None]:
    alert = answer.alert
    return (None, None) if alert is None else (alert.alert_id, alert.time)


def write_ndjson(head: Head, answers: Iterable[Answer]) -> Iterator[bytes]:
    """Write an object for each id on a line of its own.

    ``cutouts`` is what ``/api/v1/cutouts`` answers; a file stands there as ``base64``.
    """
    for answer in answers:
        alert_id, time = _facts(answer)
        made = _made(answer, head.format)
        line: dict[str, Any] = {"id": answer.asked}
        if isinstance(made, CutoutError):
            line |= {"status": made.status, "error": made.problem(head.prefix)}
        else:
            line |= {
                "status": OK,
                head.survey.alert_key.name: None if alert_id is None else str(alert_id),
                head.survey.time_name: time,
            }
            content, media_type = made
            if media_type == FORMATS["array"].media_type:
                line["cutouts"] = orjson.Fragment(content)
            else:
                line |= {"media_type": media_type, "base64": base64.b64encode(content).decode()}
        yield orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


# --- files -------------------------------------------------------------------------------------


def _name_files(head: Head, answers: Iterable[Answer]) -> Iterator[tuple[str, bytes]]:
    """Yield the files of a package and their names, none of them twice.

    A file is named after its id and kind; what went wrong is ``<id>_<kind>.error.json``, with the
    members of the error that ``/api/v1/cutouts`` answers.
    """
    stems = Counter(map(_stem, head.asked))
    repeated = {stem: 0 for stem, count in stems.items() if count > 1}
    del stems
    suffix = FORMATS[head.format].suffix
    for answer in answers:
        stem = _stem(answer.asked)
        if stem in repeated:
            repeated[stem] += 1
            number = repeated[stem]
            name = f"{stem}_{head.kind}" + (f"-{number}" if number > 1 else "")
        else:
            name = f"{stem}_{head.kind}"
        made = _made(answer, head.format)
        if isinstance(made, CutoutError):
            problem = {"id": answer.asked, **made.problem(head.prefix)}
            yield f"{name}.error.json", orjson.dumps(problem, option=orjson.OPT_INDENT_2)
        else:
            yield name + suffix, made[0]


def _stem(asked: str) -> str:
    """Return an id as it may stand in the name of a file, on any system."""
    return re.sub(r"[^A-Za-z0-9+-]", "_", asked) or "_"


def write_zip(head: Head, answers: Iterable[Answer]) -> Iterator[bytes]:
    """Write a zip whose files are stored as they are."""
    sink = Drain()
    with zipfile.ZipFile(_unseekable(sink), "w", zipfile.ZIP_STORED) as package:
        for name, content in _name_files(head, answers):
            info = zipfile.ZipInfo(name)  # of 1980: the same batch gives the same bytes
            info.external_attr = 0o644 << 16
            package.writestr(info, content)
            yield sink.take()
    yield sink.take()


def _unseekable(sink: Drain) -> IO[bytes]:
    found: Any = sink
    return found  # type: ignore[no-any-return]


def write_tar(head: Head, answers: Iterable[Answer]) -> Iterator[bytes]:
    """Write a tar, of POSIX.1-2001."""
    size = 0
    for name, content in _name_files(head, answers):
        info = tarfile.TarInfo(name)
        info.size = len(content)
        parts = (info.tobuf(tarfile.PAX_FORMAT), content, bytes(-len(content) % tarfile.BLOCKSIZE))
        size += sum(map(len, parts))
        yield b"".join(parts)
    end = 2 * tarfile.BLOCKSIZE
    yield bytes(end + -(size + end) % tarfile.RECORDSIZE)


# --- columns -----------------------------------------------------------------------------------


def _schema(head: Head) -> pa.Schema:
    fields = [
        ("id", pa.string()),
        ("status", pa.int16()),
        ("code", pa.string()),
        ("detail", pa.string()),
        (head.survey.alert_key.name, pa.int64()),
        (head.survey.time_name, pa.float64()),
    ]
    if head.format == "array":
        fields += [(f"cutout{kind}", STAMP) for kind in head.kinds]
    else:
        fields += [("file", pa.large_binary())]
    metadata = {"media_type": FORMATS[head.format].media_type, "kind": head.kind}
    return pa.schema(fields, metadata)


def _record_batches(
    head: Head, schema: pa.Schema, answers: Iterable[Answer]
) -> Iterator[pa.RecordBatch]:
    some: list[tuple[Answer, Any]] = []
    size = 0
    read: Callable[[Answer], Any] = (
        _pixels if head.format == "array" else lambda answer: _made(answer, head.format)
    )
    for answer in answers:
        content = read(answer)
        some.append((answer, content))
        size += _size(content)
        if len(some) == ROWS_AT_ONCE or size >= BYTES_AT_ONCE:
            yield _record_batch(head, schema, some)
            some, size = [], 0
    if some:
        yield _record_batch(head, schema, some)


def _size(content: list[Pixels] | tuple[bytes, str] | CutoutError) -> int:
    if isinstance(content, CutoutError):
        return 0
    if isinstance(content, tuple):
        return len(content[0])
    return sum(image.nbytes for image in content)


def _record_batch(
    head: Head, schema: pa.Schema, some: Sequence[tuple[Answer, Any]]
) -> pa.RecordBatch:
    contents = [None if isinstance(content, CutoutError) else content for _, content in some]
    errors = [content if isinstance(content, CutoutError) else None for _, content in some]
    facts = [_facts(answer) for answer, _ in some]
    arrays = [
        pa.array([answer.asked for answer, _ in some], pa.string()),
        pa.array([error.status if error else OK for error in errors], pa.int16()),
        pa.array([error and error.code for error in errors], pa.string()),
        pa.array([error and error.detail for error in errors], pa.string()),
        pa.array([alert_id for alert_id, _ in facts], pa.int64()),
        pa.array([time for _, time in facts], pa.float64()),
    ]
    if head.format == "array":
        for place in range(len(head.kinds)):
            arrays.append(image_lists([images and images[place] for images in contents]))
    else:
        arrays.append(pa.array([made and made[0] for made in contents], pa.large_binary()))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def write_arrow(head: Head, answers: Iterable[Answer]) -> Iterator[bytes]:
    """Write one Arrow IPC stream: a row for each id, stamps as lists of lists of float32."""
    schema = _schema(head)
    sink = Drain()
    with pa.ipc.new_stream(pa.PythonFile(sink, mode="w"), schema) as writer:
        for batch in _record_batches(head, schema, answers):
            writer.write_batch(batch)
            yield sink.take()
    yield sink.take()


def write_parquet(head: Head, answers: Iterable[Answer]) -> Iterator[bytes]:
    """Write a parquet file of the same columns."""
    schema = _schema(head)
    sink = Drain()
    with pq.ParquetWriter(pa.PythonFile(sink, mode="w"), schema, compression="snappy") as writer:
        for batch in _record_batches(head, schema, answers):
            writer.write_batch(batch)
            yield sink.take()
    yield sink.take()


# --- a tensor ----------------------------------------------------------------------------------


def write_npz(head: Head, answers: Iterable[Answer]) -> Iterator[bytes]:
    """Write one tensor and what belongs to its rows, for ``numpy.load``.

    ``stamps`` is float32 of shape (ids, side, side, kinds), NaN where there is nothing;
    ``ids`` int64, ``times`` float64, ``status`` int16 and ``errors``, the code or nothing.
    """
    count, side = len(head.asked), head.side
    ids, times = np.full(count, NO_ALERT, np.int64), np.full(count, np.nan)
    status, errors = np.full(count, OK, np.int16), np.zeros(count, "U32")
    shape = (count, side, side, len(head.kinds))
    sink = Drain()
    with zipfile.ZipFile(_unseekable(sink), "w", zipfile.ZIP_STORED) as package:
        with package.open(zipfile.ZipInfo("stamps.npy"), "w", force_zip64=True) as part:
            described = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(part, described)
            for number, answer in enumerate(answers):
                alert_id, time = _facts(answer)
                images = _pixels(answer)
                block = np.full(shape[1:], np.nan, "<f4")
                if isinstance(images, CutoutError):
                    status[number], errors[number] = images.status, images.code
                else:
                    ids[number] = NO_ALERT if alert_id is None else alert_id
                    times[number] = np.nan if time is None else time
                    for place, image in enumerate(images):
                        _put(image, block[:, :, place], NORMALISATIONS[head.normalise])
                part.write(block.tobytes())
                yield sink.take()
        arrays: dict[str, NDArray[Any]] = {"ids": ids, "times": times, "status": status}
        arrays |= {"errors": errors, "kinds": np.array(head.kinds)}
        for name, values in arrays.items():
            with package.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as part:
                np.lib.format.write_array(part, values, allow_pickle=False)
            yield sink.take()
    yield sink.take()


def _put(image: Pixels, into: NDArray[Any], normalise: Callable[[Image], Image]) -> None:
    """Lay an image into a square, centre on centre: padded where smaller, cut where larger.

    The centre of n pixels is the one at n // 2, where the alert is.
    """
    pixels = np.where(np.isfinite(image), image, np.nan).astype(np.float64)
    if np.isnan(pixels).all():
        return
    with np.errstate(all="ignore"):
        pixels = normalise(pixels)
    side = len(into)
    target, source = [], []
    for length in pixels.shape:
        before = side // 2 - length // 2
        target.append(slice(max(before, 0), min(before + length, side)))
        source.append(slice(max(-before, 0), min(side - before, length)))
    with np.errstate(over="ignore"):
        into[tuple(target)] = pixels[tuple(source)]


PACKAGES: Mapping[str, Package] = {
    "ndjson": Package("application/x-ndjson", ".ndjson", PIXELS, write_ndjson),
    "zip": Package("application/zip", ".zip", FILES, write_zip),
    "tar": Package("application/x-tar", ".tar", FILES, write_tar),
    "arrow": Package("application/vnd.apache.arrow.stream", ".arrows", PIXELS, write_arrow),
    "parquet": Package("application/vnd.apache.parquet", ".parquet", PIXELS, write_parquet),
    "npz": Package("application/x-npz", ".npz", NUMBERS, write_npz),
}


def write_batch(name: str, head: Head, answers: Iterable[Answer]) -> Iterator[bytes]:
    """Yield a package in pieces of a size that is worth sending."""
    buffer = io.BytesIO()
    for part in PACKAGES[name].write(head, answers):
        buffer.write(part)
        if buffer.tell() >= SEND_BYTES:
            yield buffer.getvalue()
            buffer = io.BytesIO()
    if buffer.tell():
        yield buffer.getvalue()
