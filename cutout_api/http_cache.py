"""Answers kept on disk by whoever asks the service, for CacheControl, which knows their rules.

CacheControl's own folder has no bound and does not notice a byte that changed on disk; this one
has both, and no locks: an entry is written aside and renamed, so several processes may share it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import threading
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from cachecontrol.cache import BaseCache

log = logging.getLogger("cutout_api.client")

LARGEST_SHARE = 8
"""An answer larger than this part of the folder is not kept: it would drive out all others."""
LOOK_SHARE = 16
"""How much of its size is written by one process until the folder is looked through."""
KEPT_SHARE = 0.9
ABANDONED_SECONDS = 3600.0
_DIGEST = hashlib.sha256().digest_size


class FolderCache(BaseCache):
    """Answers in a folder of about ``most_bytes``; those used longest ago go first.

    A folder that cannot be written to keeps nothing, and a damaged entry is dropped.
    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self._folder = folder
        self._most = most_bytes
        self._lock = threading.Lock()
        self._unseen = most_bytes  # look at what others left with the first entry
        self._failed = False

    def _path(self, key: str) -> Path:
        return self._folder / hashlib.sha256(key.encode()).hexdigest()

    def get(self, key: str) -> bytes | None:
        """Return what was kept, if it still is what was written."""
        path = self._path(key)
        try:
            entry = path.read_bytes()
        except OSError:
            return None
        digest, value = entry[:_DIGEST], entry[_DIGEST:]
        if hashlib.sha256(value).digest() != digest:
            self.delete(key)
            return None
        with suppress(OSError):
            os.utime(path)  # used just now
        return value

    def set(self, key: str, value: bytes, expires: int | datetime | None = None) -> None:
        """Keep an answer. How long it is good for, its own headers say."""
        if len(value) > self._most // LARGEST_SHARE:
            self.delete(key)
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._write(self._path(key), hashlib.sha256(value).digest() + value)
        except OSError as error:
            if not self._failed:
                log.warning("answers are not kept in %s: %s", self._folder, error)
            self._failed = True
            return
        with self._lock:
            self._unseen += len(value)
            due = self._unseen > self._most // LOOK_SHARE
            self._unseen = 0 if due else self._unseen
        if due:
            self._make_room()

    def _write(self, path: Path, entry: bytes) -> None:
        handle, aside = tempfile.mkstemp(prefix=".", dir=self._folder)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(entry)
            Path(aside).replace(path)
        except BaseException:
            Path(aside).unlink(missing_ok=True)
            raise

    def delete(self, key: str) -> None:
        """Forget an answer, if it is there."""
        with suppress(OSError):
            self._path(key).unlink()

    def _make_room(self) -> None:
        entries = []
        long_ago = time.time() - ABANDONED_SECONDS
        with suppress(OSError), os.scandir(self._folder) as listed:
            for entry in listed:
                with suppress(OSError):  # another process was faster
                    status = entry.stat()
                    if not entry.name.startswith("."):
                        entries.append((status.st_mtime, status.st_size, entry.path))
                    elif status.st_mtime < long_ago:
                        Path(entry.path).unlink()
        total = sum(size for _, size, _ in entries)
        if total <= self._most:
            return
        for _, size, path in sorted(entries):
            with suppress(OSError):
                Path(path).unlink()
            total -= size
            if total <= KEPT_SHARE * self._most:
                return
