"""Draws every option into docs/gallery/ and writes docs/gallery.md: `make gallery`.

The alerts are simulated (``cutout_api demo``, seed 1), so the pictures come out the same each time
and show nobody's data.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from cutout_api.facts import read_entries

from cutout_api.demo import make_archive
from cutout_api.epochs import Alert, Entry
from cutout_api.formatter import format_epochs
from cutout_api.panels import Frame, Layout
from cutout_api.render import Rendering
from cutout_api.request import parse_request
from cutout_api.settings import Archive, Settings
from cutout_api.surveys import LSST, SURVEYS, ZTF, Survey
from cutout_api.web import CUTOUTS, create_app

HERE = Path(__file__).parent
FOLDER = HERE / "gallery"
NIGHTS, SEED = 6, 1
SUFFIXES = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp", "image/gif": "gif"}

# A star that varies, a galaxy with a bright source beside it, a source with a neighbour.
ZTF_STAR, ZTF_HOST, LSST_HOST = "ZTF26iuukszd", "ZTF26bzrpzvs", "213463629027082263"
LSST_DIPOLE = "213604366318305356"
EARLIEST, LATEST, FADED = 0, -1, 2


@dataclass(frozen=True)
class Example:
    """One picture: what it shows, of which alert, and the parameters."""

    name: str
    text: str
    query: dict[str, str]
    survey: Survey = ZTF
    object_id: str = ZTF_HOST
    epoch: int = EARLIEST


@dataclass(frozen=True)
class Section:
    title: str
    text: str
    examples: Sequence[Example]


def _sized(query: str, **more: str) -> dict[str, str]:
    pairs = dict(pair.split("=", 1) for pair in query.split("&") if pair)
    return {"kind": "Science", "size": "189", **pairs, **more}


def _each(name: str, values: Sequence[str], more: str = "") -> tuple[Example, ...]:
    return tuple(
        Example(f"{name}-{value}", f"`{name}={value}`", _sized(f"{name}={value}&{more}"))
        for value in values
    )


LABELLED = {"kind": "All", "labels": "all", "preset": "ds9-zscale"}

SECTIONS = (
    Section(
        "All three, labelled",
        "`kind=All&labels=all`: titles, a crosshair that leaves the source free, a scale bar, "
        "a compass that knows both surveys, and what the alert says of itself. `labels` takes a "
        "list of `titles`, `crosshair`, `scale`, `compass`, `id`, `date`, `band`, `magnitude`.",
        (
            Example("all-ztf", "ZTF", LABELLED),
            Example("all-lsst", "LSST", LABELLED, LSST, LSST_HOST),
            Example(
                "labels-some",
                "`labels=crosshair,date,band`",
                {**LABELLED, "kind": "Science", "labels": "crosshair,date,band"},
            ),
            Example("kind-All", "`kind=All` without labels: as it is", {"kind": "All"}),
        ),
    ),
    Section(
        "North up",
        "`orient=north` turns an LSST stamp by the matrix of its header, mirroring included, and "
        "leaves a ZTF stamp alone, which has north up as it is. What lies beyond the stamp is "
        "blank.",
        (
            Example("orient-asis", "`orient=asis`", LABELLED, LSST, LSST_HOST, LATEST),
            Example(
                "orient-north",
                "`orient=north`",
                {**LABELLED, "orient": "north"},
                LSST,
                LSST_HOST,
                LATEST,
            ),
            Example(
                "orient-north-nearest",
                "`orient=north&resample=nearest`: every pixel of the stamp is a square",
                {**LABELLED, "orient": "north", "resample": "nearest"},
                LSST,
                LSST_HOST,
                LATEST,
            ),
        ),
    ),
    Section(
        "Presets",
        "Looks people know; what is given besides replaces a preset's own.",
        (
            *_each(
                "preset", ("fink", "ds9", "ds9-zscale", "ztf-notebook", "finding-chart", "faint")
            ),
            *_each("preset", ("difference",), "kind=Difference"),
        ),
    ),
    Section(
        "Intervals",
        "Which pixel values are drawn darkest and brightest.",
        (
            *_each("interval", ("percentile", "minmax", "zscale")),
            Example(
                "pmin-pmax", "`pmin=20&pmax=99`", _sized("interval=percentile&pmin=20&pmax=99")
            ),
            Example("vmin-vmax", "`vmin=150&vmax=600`", _sized("vmin=150&vmax=600")),
        ),
    ),
    Section(
        "Stretches",
        "How the values in between are curved; the first six are the public Fink API's, on an "
        "interval of its own unless one is given.",
        (
            *_each("stretch", ("sigmoid",)),
            *_each("stretch", ("linear", "sqrt", "power", "log", "asinh"), "interval=minmax"),
            Example("a-0.1", "`a=0.1`: astropy's asinh", _sized("interval=minmax&a=0.1")),
            Example("a-0.01", "`a=0.01`", _sized("interval=minmax&a=0.01")),
        ),
    ),
    Section(
        "Colours, smoothing, inversion",
        "`colormap` is any of matplotlib's.",
        (
            *_each("colormap", ("viridis", "magma"), "preset=ztf-notebook"),
            *_each("convolution_kernel", ("gauss", "box"), "preset=ztf-notebook"),
            *_each("invert", ("1",), "preset=ztf-notebook"),
        ),
    ),
    Section(
        "Sizes",
        "`size` is the pixels of the longer side, `zoom` a factor.",
        (
            Example("zoom-1", "as it is", {"kind": "Science", "preset": "ztf-notebook"}),
            Example(
                "zoom-3",
                "`zoom=3`",
                {"kind": "Science", "preset": "ztf-notebook", "zoom": "3"},
            ),
            *_each("resample", ("bicubic", "lanczos"), "preset=ztf-notebook"),
        ),
    ),
    Section(
        "Planes and sign",
        "LSST sends a variance and a PSF with each image, from which `plane=snr` is made. "
        "A ZTF Difference is template - science where the source has faded; `diffsign=sci-ref` "
        "makes it science - template always.",
        (
            *(
                Example(
                    f"plane-{plane}",
                    f"`plane={plane}`",
                    _sized(f"kind=Difference&plane={plane}&interval=minmax"),
                    LSST,
                    LSST_DIPOLE,
                )
                for plane in ("image", "variance", "psf", "snr")
            ),
            *(
                Example(
                    f"diffsign-{sign}",
                    f"`diffsign={sign}`",
                    _sized(f"kind=Difference&diffsign={sign}&preset=ds9-zscale"),
                    object_id=ZTF_STAR,
                    epoch=FADED,
                )
                for sign in ("as-delivered", "sci-ref")
            ),
        ),
    ),
    Section(
        "Formats",
        "`output-format=PNG`, `JPEG` (92 %, no chroma subsampling), `WebP` (without loss), `GIF`; "
        "each carries its recipe: how it was drawn, and the request that gives it again.",
        tuple(
            Example(
                f"format-{name}",
                f"`output-format={name}`",
                _sized("colormap=viridis&preset=ztf-notebook", **{"output-format": name}),
            )
            for name in ("PNG", "JPEG", "WebP", "GIF")
        ),
    ),
)


class Studio:
    """The service on a simulated archive, and the epochs of its objects."""

    def __init__(self, folder: Path) -> None:
        make_archive(folder, nights=NIGHTS, seed=SEED)
        self.folder = folder
        self.app = create_app(Settings(archive=Archive(uri=f"file://{folder}")))
        self.client = self.app.test_client()
        self.reader = self.app.extensions["cutout_reader"]
        self.entries = {survey.name: list(self._read(survey)) for survey in SURVEYS}

    def _read(self, survey: Survey) -> Iterator[Entry]:
        archive = self.reader.archive
        for file_id in archive.locate(survey.name):
            with archive.open(file_id) as file:
                yield from read_entries(file, survey)

    def epochs(self, survey: Survey, object_id: str) -> list[Entry]:
        """Return an object's alerts by time."""
        found = [e for e in self.entries[survey.name] if str(e.object_id) == object_id]
        return sorted(found, key=lambda entry: entry.time)

    def query(self, example: Example) -> dict[str, str]:
        entry = self.epochs(example.survey, example.object_id)[example.epoch]
        path = str(Path(entry.file.path).relative_to(self.folder))
        key = {"hdfsPath": path, example.survey.alert_key.name: str(entry.alert_id)}
        return {**key, "output-format": "PNG", **example.query}

    def shoot(self, example: Example) -> tuple[bytes, str]:
        """Return a picture and its media type."""
        answer = self.client.get(f"{CUTOUTS}?{urlencode(self.query(example))}")
        if answer.status_code != 200:
            raise SystemExit(f"{example.name}: {answer.text}")
        return answer.data, answer.mimetype

    def shots(self, survey: Survey, object_id: str, kind: str) -> list[Alert]:
        found = []
        for entry in self.epochs(survey, object_id):
            path = str(Path(entry.file.path).relative_to(self.folder))
            key = {survey.alert_key.name: entry.alert_id}
            asked = parse_request({"hdfsPath": path, "kind": kind, **key})
            found.append(Alert(self.reader.read(asked).stamps, entry))
        return found


def _draw_epochs(studio: Studio) -> list[str]:
    """Draw an object's epochs as a contact sheet and as animations; return their file names."""
    layout = Layout(ZTF, True, Rendering("linear", interval="zscale"), 4_194_304, frame=Frame())
    shots = studio.shots(ZTF, ZTF_STAR, "Difference")[:9]
    north = Layout(
        LSST,
        True,
        Rendering("linear", interval="zscale"),
        4_194_304,
        frame=Frame(orient="north"),
    )
    lsst = studio.shots(LSST, LSST_HOST, "Science")[:6]
    names = []
    for stem, chosen, some in (("epochs-ztf", layout, shots), ("epochs-lsst-north", north, lsst)):
        for name in ("PNG", "GIF", "WebP"):
            body, media_type = format_epochs(some, name, chosen)
            names.append(f"{stem}.{SUFFIXES[media_type]}")
            (FOLDER / names[-1]).write_bytes(body)
    return names


def main() -> int:
    """Write the pictures and the page; say how large they are."""
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.iterdir():
        old.unlink()
    lines = [
        "# Gallery",
        "",
        "Every option, on simulated alerts; made by `make gallery`. What each takes is in the",
        "[API](api.md). A caption is what is added to",
        "`/api/v1/cutouts?hdfsPath=...&objectId=...&kind=Science&output-format=PNG`.",
        "",
    ]
    with tempfile.TemporaryDirectory() as folder:
        studio = Studio(Path(folder))
        for section in SECTIONS:
            lines += [f"## {section.title}", "", section.text, ""]
            for example in section.examples:
                body, media_type = studio.shoot(example)
                file = f"{example.name}.{SUFFIXES[media_type]}"
                (FOLDER / file).write_bytes(body)
                lines += [f"{example.text}", "", f"![{example.name}](gallery/{file})", ""]
        lines += ["## Epochs", "", EPOCHS, ""]
        for file in _draw_epochs(studio):
            lines += [f"![{file}](gallery/{file})", ""]
        studio.reader.close()
    (HERE / "gallery.md").write_text("\n".join(lines).rstrip() + "\n")
    size = sum(file.stat().st_size for file in FOLDER.iterdir())
    print(f"{len(list(FOLDER.iterdir()))} pictures, {size / 1e6:.2f} MB", file=sys.stderr)
    return 0


EPOCHS = (
    "All epochs of an object on one shared scale, each with its date, band and brightness: a "
    "contact sheet (PNG, JPEG), or an animation (GIF, WebP)."
)

if __name__ == "__main__":
    sys.exit(main())
