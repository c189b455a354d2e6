"""Text of others, the archive's, a caller's or a service's, on a terminal and in a log.

It may hold what moves the cursor, colours the screen, turns the direction of writing or begins a
line that looks like one of ours. Such characters are written as Python writes them: ``\\x1b``.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, TextIO

LOG_LINE = "%(asctime)s %(levelname)s %(message)s"


def printable(text: object) -> str:
    """Return text without control, format and surrogate characters, on one line."""
    text = str(text)
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def say(*words: object, file: TextIO | None = None) -> None:
    """Print one line, as ``print`` does, and nothing but its words."""
    print(*map(printable, words), file=sys.stdout if file is None else file)


class LineFormatter(logging.Formatter):
    """Writes one line a message; a trace follows, indented, so that none of it begins a line."""

    def __init__(self) -> None:
        super().__init__(LOG_LINE)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        lines = super().formatException(ei).split("\n")
        return "\n".join(f"  {printable(line)}" for line in lines)
