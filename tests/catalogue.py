"""What the tables ask for the alerts of an object, answered by the files' own indexes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cutout_api.epochs import Entry
from cutout_api.errors import CutoutError
from cutout_api.index import NO_ID, SurveyKeys, _rows_of, build_index
from cutout_api.settings import Settings
from cutout_api.storage import Archive, FileId
from cutout_api.surveys import KeyValue, Survey


class IndexedFolder:
    """The alerts of a folder, as the indexes of its files know them."""

    def __init__(self, settings: Settings, *folders: str) -> None:
        self._files: list[tuple[FileId, dict[str, SurveyKeys]]] = []
        archive = Archive(settings)
        for folder in folders or (settings.archive.address.folder,):
            for file_id in archive.locate(folder):
                try:
                    with archive.open(file_id) as file:
                        self._files.append((file_id, dict(build_index(file).surveys)))
                except CutoutError:
                    continue
        archive.close()

    def alerts_of(self, survey: Survey, object_ids: Sequence[KeyValue]) -> list[Entry]:
        return [
            self._entry(file_id, keys, int(row), object_id)
            for file_id, surveys in self._files
            for keys in [surveys.get(survey.name)]
            if keys is not None
            for object_id in object_ids
            for row in _rows_of(keys.objects, keys.object_rows, object_id)
        ]

    @staticmethod
    def _entry(file_id: FileId, keys: SurveyKeys, row: int, object_id: KeyValue) -> Entry:
        alert_id, time = int(keys.row_alerts[row]), float(keys.row_times[row])
        return Entry(
            file_id,
            row,
            None if alert_id == NO_ID else alert_id,
            object_id,
            time if np.isfinite(time) else np.nan,
        )

    def latest_file(self, survey: Survey) -> FileId | None:
        """Return the file written last that holds alerts of the survey and their objects."""
        there = [
            file_id
            for file_id, surveys in self._files
            if survey.name in surveys and len(surveys[survey.name].row_times)
        ]
        return max(there, key=lambda file_id: (file_id.modified, file_id.path), default=None)
