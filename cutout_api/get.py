"""The command ``cutout_api get``: stamps of many alerts, each as a file.

They come from the archive itself, or with ``--url`` from a running service; which of the two it
is changes neither the files' names nor what is in them.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, Self

from .answer import CUTOUTS, answer_request, file_stem, spell_masked
from .client import Client
from .errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, CutoutError
from .fetch import WORTH_ANOTHER_TRY, ServiceError
from .formatter import FORMATS
from .plain_text import say
from .progress import show_progress
from .reader import Reader
from .request import ALL, PARAMETERS, CutoutRequest, Parameter, parse_request
from .settings import load_settings
from .surveys import KEYS, SURVEYS, key_of_form
from .whole_files import write_whole

STDIN = STDOUT = "-"
FORMAT = "output-format"
SUFFIX_OF_ARRAYS = ".json"
MOST_FAILURES = 3
"""In a row, until the archive or the service is taken to be gone."""
AT_ONCE = 8
"""Alerts that are asked for at the same time, so that the way to a service is not waited for."""
_OWN = (*KEYS, "kind", FORMAT, "return_type", "explain", "strict")


class Failed(Exception):
    """One alert cannot be had; ``passing`` where another try might do."""

    def __init__(self, detail: str, code: str, *, passing: bool = False) -> None:
        super().__init__(detail)
        self.code = code
        self.passing = passing


class Source(Protocol):
    """Where stamps come from; threads may share it."""

    at_once: int
    """Alerts that may be asked for at the same time."""

    def fetch(self, asked: CutoutRequest, payload: Mapping[str, str]) -> tuple[bytes, int | None]:
        """Return the answer and the id of the alert that it holds. Raises Failed."""

    def close(self) -> None: ...


class ArchiveSource:
    """The archive that the settings name."""

    def __init__(self) -> None:
        settings = load_settings()
        self._most_pixels = settings.limits.image_pixels
        self._nan = settings.answers.nan
        self.at_once = min(AT_ONCE, settings.limits.concurrent_reads)
        self._reader = Reader(settings)

    def fetch(self, asked: CutoutRequest, payload: Mapping[str, str]) -> tuple[bytes, int | None]:
        del payload
        # As a service writes it for a program.
        asked = replace(asked, nan=spell_masked(asked.nan, self._nan, reads_json=False))
        try:
            made = answer_request(self._reader, asked, self._most_pixels)
        except CutoutError as error:
            passing = error.status in WORTH_ANOTHER_TRY
            raise Failed(error.detail, error.code, passing=passing) from error
        return made.body, made.alert_id

    def close(self) -> None:
        self._reader.close()


class ServiceSource:
    """A running service."""

    at_once = AT_ONCE

    def __init__(self, address: str) -> None:
        self._client = Client(address, cache=None)

    def fetch(self, asked: CutoutRequest, payload: Mapping[str, str]) -> tuple[bytes, int | None]:
        del asked
        try:
            answer = self._client.fetch(CUTOUTS, payload)
        except ServiceError as error:
            passing = error.status in (0, *WORTH_ANOTHER_TRY)
            raise Failed(error.detail, error.code, passing=passing) from error
        found = answer.headers.get("X-Cutout-Id")
        return answer.content, None if found is None else int(found)

    def close(self) -> None:
        self._client.close()


# --- the command line ---------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add an option for each parameter of the route, besides those of the command itself."""
    parser.add_argument(
        "ids",
        nargs="+",
        metavar="ID",
        help="an object's name, an alert's number, or NAME=NUMBER "
        f"({', '.join(KEYS)}); - reads them from standard input",
    )
    parser.add_argument(
        "-o",
        "--output",
        default=".",
        metavar="DIR",
        help="the folder for the files (default: this one); - writes one answer to standard output",
    )
    parser.add_argument("--url", metavar="ADDRESS", help="ask this service, not the archive")
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there")
    _add_parameter(parser, "kind", PARAMETERS["kind"], ALL)
    _add_parameter(parser, "format", PARAMETERS[FORMAT], "FITS", dest=FORMAT)
    group = parser.add_argument_group("how (docs/api.md)")
    for name, parameter in PARAMETERS.items():
        if name not in _OWN:
            _add_parameter(group, name, parameter, None)


def _add_parameter(
    parser: Any, name: str, parameter: Parameter, default: str | None, **more: Any
) -> None:
    def check(text: str) -> str:
        try:
            parameter.parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return text

    more.setdefault("dest", name)
    told = parameter.description.replace("%", "%%") + (f" (default {default})" if default else "")
    parser.add_argument(f"--{name}", type=check, default=default, metavar="X", help=told, **more)


def run(options: argparse.Namespace) -> int:
    """Get every alert; return 1 if one could not be had."""
    ids = list(dict.fromkeys(_read_ids(options.ids)))
    if options.output == STDOUT and len(ids) != 1:
        return _usage(f"-o - writes one answer, and there are {len(ids)} ids")
    values = vars(options)
    asked = {name: values[name] for name in ("kind", FORMAT)}
    asked |= {
        name: values[name] for name in PARAMETERS if name not in _OWN and values[name] is not None
    }
    try:
        source = ServiceSource(options.url) if options.url else ArchiveSource()
    except ValueError as error:
        return _usage(str(error))
    with closing(source), _Interruption() as interruption:
        getting = _Getting(source, asked, options.output, options.overwrite, interruption)
        return getting.get_all(ids)


class _Interruption:
    """Ends the command at once on Ctrl-C and SIGTERM, but not while a file is being written."""

    def __init__(self) -> None:
        self._put_off = self._wanted = False

    def __enter__(self) -> Self:
        self._previous = {
            number: signal.signal(number, self._interrupt)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, cls: type[BaseException] | None, *_failure: object) -> None:
        if cls is KeyboardInterrupt:
            for number in self._previous:
                signal.signal(number, signal.SIG_IGN)  # asking twice changes nothing
            say("cutout_api: interrupted; the files that are there are whole", file=sys.stderr)
            sys.stdout.flush()
            sys.stderr.flush()
            # What is under way would be waited for, as long as a service that hangs is given.
            os._exit(EXIT_INTERRUPTED)
        for number, previous in self._previous.items():
            signal.signal(number, previous)

    def _interrupt(self, _number: int, _frame: object) -> None:
        self._wanted = True  # also for later: Python loses what is raised within a destructor
        if not self._put_off:
            raise KeyboardInterrupt

    @contextmanager
    def put_off(self) -> Iterator[None]:
        """Let what is within come to its end: it may be anywhere when the signal arrives."""
        self._put_off = True
        try:
            yield
        finally:
            self._put_off = False
            if self._wanted:
                raise KeyboardInterrupt


def _usage(sentence: str) -> int:
    say(f"cutout_api get: {sentence}", file=sys.stderr)
    return EXIT_USAGE


def _read_ids(arguments: Iterable[str]) -> Iterator[str]:
    for argument in arguments:
        if argument != STDIN:
            yield argument
            continue
        for line in sys.stdin:
            yield from line.partition("#")[0].split()


# --- getting ------------------------------------------------------------------------------------


@dataclass
class _Getting:
    source: Source
    asked: Mapping[str, str]
    output: str
    overwrite: bool
    interruption: _Interruption

    def get_all(self, ids: list[str]) -> int:
        if self.output != STDOUT:
            try:
                Path(self.output).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                return _usage(f"{self.output} cannot be a folder: {error.strerror}")
        written = in_vain = 0
        with (
            show_progress(len(ids), "alerts", partial(say, file=sys.stderr)) as advance,
            closing(self._fetch_ahead(ids)) as fetched,
        ):
            for done, (id_, answer) in enumerate(fetched, 1):
                try:
                    self._write(*answer.result())
                    written, in_vain = written + 1, 0
                except Failed as error:
                    say(f"{id_}: {error}", file=sys.stderr)
                    in_vain = in_vain + 1 if error.passing else 0
                except OSError as error:
                    say(f"{id_}: cannot be written: {error.strerror}", file=sys.stderr)
                    in_vain = MOST_FAILURES
                advance(f"{done - written:,} failed")
                if in_vain >= MOST_FAILURES and done < len(ids):
                    say(f"cutout_api: given up on {len(ids) - done} more", file=sys.stderr)
                    break
        if self.output != STDOUT:
            say(f"{len(ids)} asked for, {written} written to {self.output}")
        return EXIT_FAILED if written < len(ids) else 0

    def _fetch_ahead(
        self, ids: Iterable[str]
    ) -> Generator[tuple[str, Future[tuple[bytes, str]]], None, None]:
        """Yield each id in its turn with its answer, those after it being under way."""
        pool = ThreadPoolExecutor(self.source.at_once)
        begun: deque[tuple[str, Future[tuple[bytes, str]]]] = deque()
        try:
            for id_ in ids:
                begun.append((id_, pool.submit(self._fetch_one, id_)))
                if len(begun) > self.source.at_once:
                    yield begun.popleft()
            while begun:
                yield begun.popleft()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _write(self, content: bytes, name: str) -> None:
        """Write one alert's file. Raises Failed, OSError."""
        if self.output == STDOUT:
            sys.stdout.buffer.write(content)
            sys.stdout.buffer.flush()
            return
        self._refuse_existing(name)
        try:
            with self.interruption.put_off():
                write_whole(Path(self.output) / name, content, overwrite=self.overwrite)
        except FileExistsError:
            self._refuse_existing(name)

    def _refuse_existing(self, name: str) -> None:
        path = Path(self.output) / name
        if path.exists() and not self.overwrite:
            raise Failed(f"{path} is there; --overwrite replaces it", "exists")

    def _fetch_one(self, id_: str) -> tuple[bytes, str]:
        """Return the answer for an id, and its file's name. Raises Failed.

        A bare number is an alert's of one survey or of the other, and only asking tells; an option
        that one survey does not have tells too.
        """
        payloads = [{name: text, **self.asked} for name, text in keys_of(id_)]
        found: list[tuple[bytes, str]] = []
        absent: list[Failed] = []
        refused: list[Failed] = []
        for payload in payloads:
            try:
                found.append(self._fetch(payload))
            except Failed as error:
                kept = {"alert_not_found": absent, "conflicting_parameters": refused}
                if error.code not in kept or len(payloads) == 1:
                    raise
                kept[error.code].append(error)
        if len(found) > 1:
            names = " and as ".join(next(iter(payload)) for payload in payloads)
            key = next(iter(payloads[0]))
            raise Failed(f"there is an alert as {names}: say which, as {key}={id_}", "ambiguous_id")
        if found:
            return found[0]
        if len(absent) == len(payloads):
            names = " nor as ".join(next(iter(payload)) for payload in payloads)
            raise Failed(f"no alert {id_}, neither as {names}", "alert_not_found")
        raise refused[0]

    def _fetch(self, payload: Mapping[str, str]) -> tuple[bytes, str]:
        try:
            asked = parse_request(payload)
        except CutoutError as error:
            raise Failed(error.detail, error.code) from error
        suffix = FORMATS[asked.format].suffix or SUFFIX_OF_ARRAYS
        if asked.survey.file_key in asked.keys and self.output != STDOUT:
            self._refuse_existing(file_stem(asked, None) + suffix)  # before it is read in vain
        content, alert_id = self.source.fetch(asked, payload)
        return content, file_stem(asked, alert_id) + suffix


def keys_of(id_: str) -> list[tuple[str, str]]:
    """Return what an id may be: names and values of keys. Raises Failed."""
    name, told, text = id_.rpartition("=")
    if told:
        if name not in KEYS:
            raise Failed(f"{name} is not one of {', '.join(KEYS)}", "invalid_parameter")
        return [(name, text)]
    named = key_of_form(text)
    if named is not None:
        return [(named, text)]
    alerts = [survey.alert_key for survey in SURVEYS]
    taking = dict.fromkeys(key.name for key in alerts if key.takes(text))
    if taking:
        return [(name, text) for name in taking]
    raise Failed(
        "neither an object's name, nor an alert's number, nor NAME=NUMBER", "invalid_parameter"
    )
