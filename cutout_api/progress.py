"""How far a command is: a bar on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SAY_SECONDS = 5.0


@contextmanager
def show_progress(
    steps: int, unit: str, say: Callable[[str], None], *, sum_up: bool = False
) -> Iterator[Callable[[str], None]]:
    """Lend what is to be called after each step, with what there is to tell of those so far.

    Lines go to ``say``: none of what ends soon, but for a last one with ``sum_up``.
    """
    if steps > 1 and sys.stderr.isatty():
        with _bar(steps, unit) as advance:
            yield advance
        return
    start = said = time.monotonic()
    done = 0

    def count(told: str) -> None:
        nonlocal done, said
        done, now = done + 1, time.monotonic()
        rate = done / max(now - start, 1e-9)
        if now - said >= SAY_SECONDS or (sum_up and done == steps):
            said, left = now, (steps - done) / rate
            say(f"{done} of {steps} {unit}, {told}, {rate:.1f} {unit}/s, {left:.0f} s left")

    yield count


@contextmanager
def _bar(steps: int, unit: str) -> Iterator[Callable[[str], None]]:
    from rich import progress
    from rich.console import Console

    columns = (
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn(unit + ", {task.fields[told]}, {task.fields[rate]:.1f}/s,"),
        progress.TimeRemainingColumn(),
        progress.TextColumn("left"),
    )
    start = time.monotonic()
    # Where standard output is a pipe, it gets the command's summary only, and never the bar.
    with progress.Progress(*columns, console=Console(stderr=True)) as shown:
        task = shown.add_task("", total=steps, told="", rate=0.0)
        done = 0

        def count(told: str) -> None:
            nonlocal done
            done += 1
            rate = done / max(time.monotonic() - start, 1e-9)
            shown.update(task, completed=done, told=told, rate=rate)

        yield count
