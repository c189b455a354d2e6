"""A request that names an object, or no file -> the alerts it means and where they are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from functools import cache

from .alert_columns import AlertColumns, make_entry, pack_object, read_alert_columns
from .catalog import HOW_TO_FILL, Catalog
from .epochs import PLAIN, Choice, Entry, choose_epochs, drop_repeats
from .errors import AlertNotFound, NotParquet, shorten
from .request import CutoutRequest, IdentifyRequest, Meaning
from .storage import Archive, FileId, OpenFile, file_name
from .surveys import SURVEYS, KeyValue, Survey

OBJECTS_AT_ONCE = 200
"""Whose alerts are looked up together; an object may have thousands."""


class Lookup:
    """Finds alerts by the catalog, or by the columns of the files that a request names."""

    def __init__(
        self,
        catalog: Catalog,
        archive: Archive,
        opened: Callable[[FileId], AbstractContextManager[OpenFile]],
    ) -> None:
        self._catalog = catalog
        self._archive = archive
        self._opened = opened

    def choose(self, request: CutoutRequest) -> Sequence[Entry]:
        """Return the alerts that a request means, at least one, in the order of time.

        Raises AlertNotFound, and what reading the files may.
        """
        if request.path is None:
            known = self._from_catalog(request.survey, request.keys)
        else:
            known = self._from_files(request)
        return self._choose(request, known, self._catalog.freshness)

    def choose_many(self, requests: Sequence[CutoutRequest]) -> Iterator[Entry | AlertNotFound]:
        """Yield of each request the one alert that it means, or that there is none.

        The requests differ in the value of their one key alone.
        """
        freshness = cache(self._catalog.freshness)
        for start in range(0, len(requests), OBJECTS_AT_ONCE):
            some = requests[start : start + OBJECTS_AT_ONCE]
            values = [next(iter(request.keys.values())) for request in some]
            known = self._known(some[0], values)
            for request, value in zip(some, values, strict=True):
                try:
                    (entry,) = self._choose(request, known.get(value, ()), freshness)
                except AlertNotFound as error:
                    yield error
                else:
                    yield entry

    def _choose(
        self,
        request: CutoutRequest,
        known: Sequence[Entry],
        freshness: Callable[[], datetime | None],
    ) -> Sequence[Entry]:
        chosen = choose_epochs(request.survey, known, request.choice)
        if chosen:
            return chosen
        if known:
            raise AlertNotFound(f"{_sought(request)} has no alert{_told(request.choice)}")
        if request.path is not None:
            raise AlertNotFound(f"no alert with {_sought(request)} in {shorten(request.path)}")
        raise _unknown(f"no alert with {_sought(request)} is in the catalog", freshness())

    def _known(
        self, request: CutoutRequest, values: Sequence[KeyValue]
    ) -> dict[KeyValue, list[Entry]]:
        """Return the alerts with these values of the request's key, by value."""
        survey = request.survey
        if request.path is None and request.names_one_alert:
            ids = [int(value) for value in values]
            return {id_: [it] for id_, it in self._catalog.find_alerts(survey, ids).items()}
        if request.path is None:
            entries = self._catalog.alerts_of(survey, values)
        else:
            entries = self._objects_in_files(survey, request.path, set(values))
        known: dict[KeyValue, list[Entry]] = {}
        for entry in entries:
            if entry.object_id is not None:
                known.setdefault(entry.object_id, []).append(entry)
        return known

    def identify(self, request: IdentifyRequest) -> list[tuple[Meaning, Sequence[Entry]]]:
        """Return what an id names, each with the alerts of its object in the order of time.

        Raises AlertNotFound where it names nothing, and what reading the files may.
        """
        known = None
        if request.path is not None:
            known = self._entries_near(request.path, request.meanings)
        found = []
        for meaning in request.meanings:
            entries = self._alerts_of_meaning(meaning, known)
            if entries:
                ordered = choose_epochs(meaning.survey, entries, Choice(every=True))
                found.append((meaning, ordered))
        if found:
            return found
        if request.path is not None:
            raise AlertNotFound(f"no alert or object {request.text} in {shorten(request.path)}")
        raise _unknown(
            f"no alert or object {request.text} is in the catalog", self._catalog.freshness()
        )

    def _alerts_of_meaning(
        self, meaning: Meaning, known: Mapping[str, list[Entry]] | None
    ) -> list[Entry]:
        """Return the alerts of the object that an id names, or one of whose alerts it names."""
        survey = meaning.survey
        near = [] if known is None else known[survey.name]
        if meaning.key is survey.alert_key:
            number = int(meaning.value)
            if known is None:
                named = self._catalog.find_alert(survey, number)
            else:
                named = next((entry for entry in near if entry.alert_id == number), None)
            if named is None:
                return []
            if known is None:
                return self._catalog.alerts_like(survey, named)
            packed = pack_object(survey, named)
            if packed is None:
                return [named]
            return [entry for entry in near if pack_object(survey, entry) == packed]
        if known is None:
            return self._catalog.alerts_of(survey, [meaning.value])
        return [entry for entry in near if entry.object_id == meaning.value]

    def _entries_near(self, path: str, meanings: Sequence[Meaning]) -> dict[str, list[Entry]]:
        """Return, by survey, the alerts of the objects that the meanings may be about.

        The columns of the files are read twice, rather than kept.
        """
        named: dict[str, set[int]] = {survey.name: set() for survey in SURVEYS}
        objects: dict[str, set[int]] = {survey.name: set() for survey in SURVEYS}
        for meaning in meanings:
            wanted = named if meaning.key is meaning.survey.alert_key else objects
            wanted[meaning.survey.name].add(meaning.key.pack(meaning.value))
        found: dict[str, list[Entry]] = {}
        for _ in range(2):
            found = {survey.name: [] for survey in SURVEYS}
            for file_id, alerts in self._columns_below(path):
                name = alerts.survey.name
                for number, row in enumerate(alerts.rows()):
                    if row[0] in named[name] or row[1] in objects[name]:
                        found[name].append(make_entry(alerts.survey, file_id, number, row))
                        if row[1] is not None:
                            objects[name].add(row[1])
            if not any(named.values()):
                break
        return {name: drop_repeats(entries) for name, entries in found.items()}

    def _columns_below(self, path: str) -> Iterator[tuple[FileId, AlertColumns]]:
        files = self._archive.locate(path)
        for file_id in files:
            try:
                with self._opened(file_id) as file:
                    columns = read_alert_columns(file)
            except NotParquet:  # a summary of the others
                if len(files) == 1:
                    raise
                continue
            for alerts in columns:
                yield file_id, alerts

    def other_copies(self, request: CutoutRequest, entry: Entry) -> list[Entry]:
        """Return where else the catalog knows an alert, if that is what was asked."""
        if request.path is not None or entry.alert_id is None:
            return []
        copies = self._catalog.copies(request.survey, entry.alert_id)
        return [copy for copy in copies if copy.file.path != entry.file.path]

    def stale(self, entry: Entry) -> AlertNotFound:
        """Return the error for an alert that is no longer where the catalog knows it."""
        return _unknown(
            f"alert {entry.alert_id} was in {file_name(entry.file.path)}, which is gone or was "
            "rewritten without it",
            self._catalog.freshness(),
        )

    def knows(self, survey: Survey, keys: Mapping[str, KeyValue]) -> bool:
        """Whether the catalog has an alert of a survey with these keys."""
        return self._catalog.has_alerts(survey) and bool(self._from_catalog(survey, keys))

    def _from_catalog(self, survey: Survey, keys: Mapping[str, KeyValue]) -> list[Entry]:
        alert_id, object_id = keys.get(survey.alert_key.name), keys.get(survey.object_key.name)
        if alert_id is None:
            assert object_id is not None  # a request names one of them  # noqa: S101
            return self._catalog.alerts_of(survey, [object_id])
        found = self._catalog.find_alert(survey, int(alert_id))
        if found is None or (object_id is not None and found.object_id != object_id):
            return []
        return [found]

    def _from_files(self, request: CutoutRequest) -> list[Entry]:
        """Return the object's alerts in the files of a path, each alert once."""
        object_id = request.keys[request.survey.object_key.name]
        return self._objects_in_files(request.survey, request.path or "", {object_id})

    def _objects_in_files(
        self, survey: Survey, path: str, object_ids: Collection[KeyValue]
    ) -> list[Entry]:
        found: list[Entry] = []
        for file_id, alerts in self._columns_below(path):
            if alerts.survey is survey:
                found += alerts.entries(file_id, object_ids)
        return drop_repeats(found)


def _unknown(what: str, fresh: datetime | None) -> AlertNotFound:
    """Return the error that says how fresh the catalog is."""
    if fresh is None:
        return AlertNotFound(
            f"{what}: nothing is indexed yet, {HOW_TO_FILL}; or name its file by hdfsPath"
        )
    return AlertNotFound(
        f"{what}; the catalog was brought up to date at {fresh:%Y-%m-%dT%H:%M:%SZ}, "
        "and hdfsPath reads files that are newer",
        freshness=f"{fresh:%Y-%m-%dT%H:%M:%SZ}",
    )


def _sought(request: CutoutRequest) -> str:
    return " and ".join(f"{name} {value}" for name, value in request.keys.items())


def _told(choice: Choice) -> str:
    """Return in words what no alert of an object fits."""
    band = f" in band {choice.band}" if choice.band else ""
    measured = " of known brightness" if choice.which != PLAIN.which and not choice.every else ""
    dates = " between these dates" if choice.is_bounded else ""
    return f"{measured}{band}{dates}"
