"""The plots of the report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from .datasets import SURVEYS

if TYPE_CHECKING:
    from .report import Results

NAMES = {"ztf": "ZTF", "lsst": "LSST"}
# Colour-blind safe: Okabe and Ito's.
COLOURS = {
    "ours": "#0072B2",
    "cold": "#56B4E9",
    "today": "#D55E00",
    "library": "#999999",
    "floor": "#009E73",
}
STYLES = ("-", "--", ":", "-.")
SETTINGS: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "axes.axisbelow": True,
}


def draw(results: Results, folder: Path) -> set[str]:
    """Draw what there are results for; return the names of the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = set()
    plots: list[tuple[str, Callable[[], Figure | None]]] = [("files", partial(_files, results))]
    for storage in ("hdfs", "local"):
        plots += [
            (f"{name}-{storage}", partial(plot, results, storage))
            for name, plot in (("stamps", _stamps), ("sizes", _sizes), ("http", _http))
        ]
    with mpl.rc_context(SETTINGS):
        for name, plot in plots:
            path = folder / f"{name}.png"
            figure = plot()
            if figure is None:
                path.unlink(missing_ok=True)
                continue
            FigureCanvasAgg(figure)
            figure.savefig(path, dpi=100, metadata={"Software": None})
            drawn.add(name)
    return drawn


def _panels(number: int, height: float, **more: Any) -> tuple[Figure, list[Any]]:
    figure = Figure(figsize=(10, height), layout="constrained")
    return figure, list(np.atleast_1d(figure.subplots(1, number, **more)))


def _group(method: str, about: dict[str, Any]) -> str:
    return "cold" if method.startswith(("cold", "stored")) else str(about["group"])


def _add_legend(figure: Figure, panels: Sequence[Any]) -> None:
    """Name the lines of all panels below them."""
    named: dict[str, Any] = {}
    for panel in panels:
        handles, labels = panel.get_legend_handles_labels()
        named |= dict(zip(labels, handles, strict=True))
    figure.legend(
        handles=list(named.values()),
        labels=list(named),
        loc="outside lower center",
        ncols=3,
        fontsize=7,
        frameon=False,
    )


def _scale_both(panel: Any, places: Sequence[int]) -> None:
    """Make both axes logarithmic, with plain numbers on them."""
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xticks(places, [str(place) for place in places])
    panel.xaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.yaxis.set_minor_locator(NullLocator())


def _stamps(results: Results, storage: str) -> Figure | None:
    from .report import titles

    methods = titles(results, storage)
    if not methods:
        return None
    figure, axes = _panels(2, 0.26 * len(methods) + 0.9, sharey=True)
    for panel, survey in zip(axes, SURVEYS, strict=True):
        found = [(m, results.times(storage, survey, m)) for m in reversed(methods)]
        for place, (method, ms) in enumerate(found):
            if not ms:
                continue
            median, worst = np.median(ms), np.percentile(ms, 95)
            panel.barh(place, median, color=COLOURS[_group(method, methods[method])])
            panel.plot([median, worst], [place, place], color="black", linewidth=0.8)
            panel.annotate(
                f" {median:.3g}", (worst, place), va="center", fontsize=7, annotation_clip=False
            )
        panel.set_xscale("log")
        panel.set_title(NAMES[survey])
        panel.set_xlabel("ms, median and p95")
        panel.set_yticks(range(len(found)), [methods[m]["title"] for m, _ in found])
        panel.grid(axis="y", visible=False)
    return figure


def _sizes(results: Results, storage: str) -> Figure | None:
    from .report import titles

    sizes = results.sizes(storage)
    if len(sizes) < 2:
        return None
    methods = titles(results, storage)
    figure, axes = _panels(2, 5, sharey=True)
    for panel, survey in zip(axes, SURVEYS, strict=True):
        seen: dict[str, int] = {}
        for method, about in methods.items():
            group = _group(method, about)
            medians = [results.median(storage, survey, method, size=size) for size in sizes]
            if not all(medians):
                continue
            turn = seen.setdefault(group, 0)
            seen[group] += 1
            panel.plot(
                sizes,
                medians,
                marker="os^vD"[turn // len(STYLES) % 5],
                markersize=4,
                linestyle=STYLES[turn % len(STYLES)],
                color=COLOURS[group],
                label=about["title"],
            )
        _scale_both(panel, sizes)
        panel.set_title(NAMES[survey])
        panel.set_xlabel("file, MB")
    axes[0].set_ylabel("one stamp, ms, median")
    _add_legend(figure, axes)
    return figure


def _http(results: Results, storage: str) -> Figure | None:
    part = results.get(storage, "http-ztf")
    if part is None:
        return None
    formats = list(dict.fromkeys(cell["format"] for cell in part["cells"]))
    figure, axes = _panels(len(formats), 3.8, sharey=True)
    for panel, form in zip(axes, formats, strict=True):
        turns = {"ours": 0, "today": 0}
        for service, about in part["services"].items():
            group = "today" if service.startswith("today") else "ours"
            cells = [c for c in part["cells"] if (c["service"], c["format"]) == (service, form)]
            panel.plot(
                [cell["clients"] for cell in cells],
                [max(cell["rate"], 0.1) for cell in cells],
                marker="o",
                markersize=4,
                linestyle=STYLES[turns[group] % len(STYLES)],
                color=COLOURS[group],
                label=about["title"],
            )
            turns[group] += 1
        clients = sorted({cell["clients"] for cell in part["cells"]})
        _scale_both(panel, clients)
        panel.set_title(f"ZTF, {form}")
        panel.set_xlabel("clients")
    axes[0].set_ylabel("requests per second")
    _add_legend(figure, axes)
    return figure


def _files(results: Results) -> Figure | None:
    titles = {
        "libhdfs": "ours, libhdfs",
        "native": "ours, native",
        "local": "ours, local disk",
        "today": "today's algorithm, local disk",
    }
    figure, axes = _panels(2, 3.6)
    found = False
    for turn, (driver, title) in enumerate(titles.items()):
        part = results.get("hdfs", f"files-{driver}") or results.get("local", f"files-{driver}")
        if part is None:
            continue
        found = True
        group = "today" if driver == "today" else "ours"
        files = [step["files"] for step in part["steps"]]
        for panel, key in zip(axes, ("resident_mb", "first_ms"), strict=True):
            panel.plot(
                files,
                [step[key] for step in part["steps"]],
                marker="o",
                markersize=4,
                linestyle=STYLES[turn % len(STYLES)],
                color=COLOURS[group],
                label=title,
            )
    if not found:
        return None
    for panel, label in zip(
        axes, ("memory of the worker, MB", "first touch, ms, four clients"), strict=True
    ):
        panel.set_xscale("log")
        panel.set_xlabel("files read")
        panel.set_ylabel(label)
    axes[0].set_ylim(bottom=0)
    axes[1].set_yscale("log")
    axes[0].legend(fontsize=7, frameon=False)
    return figure
