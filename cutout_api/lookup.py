"""A request that names an object, or no file -> the alerts it means and where they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime

from .alert_columns import read_alert_columns
from .catalog import HOW_TO_FILL, Catalog
from .epochs import PLAIN, Choice, Entry, choose_epochs, drop_repeats
from .errors import AlertNotFound, shorten
from .request import CutoutRequest
from .storage import Archive, FileId, OpenFile, file_name


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
        known = self._from_catalog(request) if request.path is None else self._from_files(request)
        chosen = choose_epochs(request.survey, known, request.choice)
        if chosen:
            return chosen
        if known:
            raise AlertNotFound(f"{_sought(request)} has no alert{_told(request.choice)}")
        if request.path is not None:
            raise AlertNotFound(f"no alert with {_sought(request)} in {shorten(request.path)}")
        raise self._unknown(f"no alert with {_sought(request)} is in the catalog")

    def other_copies(self, request: CutoutRequest, entry: Entry) -> list[Entry]:
        """Return where else the catalog knows an alert, if that is what was asked."""
        if request.path is not None or entry.alert_id is None:
            return []
        copies = self._catalog.copies(request.survey, entry.alert_id)
        return [copy for copy in copies if copy.file.path != entry.file.path]

    def stale(self, entry: Entry) -> AlertNotFound:
        """Return the error for an alert that is no longer where the catalog knows it."""
        return self._unknown(
            f"alert {entry.alert_id} was in {file_name(entry.file.path)}, which is gone or was "
            "rewritten without it"
        )

    def _from_catalog(self, request: CutoutRequest) -> list[Entry]:
        survey, keys = request.survey, request.keys
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
        found: list[Entry] = []
        for file_id in self._archive.locate(request.path or ""):
            with self._opened(file_id) as file:
                for alerts in read_alert_columns(file):
                    if alerts.survey is request.survey:
                        found += alerts.entries(file_id, object_id)
        return drop_repeats(found)

    def _unknown(self, what: str) -> AlertNotFound:
        """Return the error that says how fresh the catalog is."""
        fresh: datetime | None = self._catalog.freshness()
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
