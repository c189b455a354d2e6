"""Files written aside and renamed: there whole or not at all, and readable as the umask says."""

from __future__ import annotations

import secrets
import time
from contextlib import suppress
from pathlib import Path

ABANDONED_SECONDS = 3600.0


def write_whole(path: Path, content: bytes, *, overwrite: bool = True) -> None:
    """Write a file so that it is there whole or not at all.

    Raises FileExistsError where it is there and not to be replaced, and other OSErrors.
    """
    # Not by tempfile, whose files nobody else may read, whatever the umask says.
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with aside.open("xb") as file:
            file.write(content)
        if overwrite:
            aside.replace(path)
            return
        try:
            path.hardlink_to(aside)  # unlike a renaming, replaces nothing
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            if path.exists():
                raise FileExistsError(path) from None
            aside.replace(path)
    finally:
        with suppress(FileNotFoundError):
            aside.unlink()


def remove_abandoned(folder: Path) -> None:
    """Remove what processes that were killed as they wrote have left in a folder."""
    long_ago = time.time() - ABANDONED_SECONDS
    for part in folder.glob(".*.part"):
        with suppress(OSError):  # another process was faster
            if part.stat().st_mtime < long_ago:
                part.unlink()
