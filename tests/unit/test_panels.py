"""Pictures of one alert and of many: scales that are shared, sizes, contact sheets, animations."""

from __future__ import annotations

import io
import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from cutout_api.epochs import Alert
from cutout_api.errors import PictureTooLarge
from cutout_api.formatter import FORMATS, format_epochs, format_stamps
from cutout_api.panels import (
    MOST_EPOCHS,
    Frame,
    Layout,
    arrange_sheet,
    draw_epochs,
    draw_panels,
    find_factor,
)
from cutout_api.render import Rendering, choose_scale
from cutout_api.stamp import read_pixels
from cutout_api.surveys import LSST, ZTF

from ..pictures import CANDID, entry, lsst_stamp, stamp, star
from ..samples import KINDS, ztf_fits

LAYOUT = Layout(ZTF, by_name=False, rendering=Rendering(), image_pixels=4_000_000)
PLAIN = replace(LAYOUT, frame=Frame(labels=()))


def shot(number: int, *, flux: float = 900.0, kinds: tuple[str, ...] = ("Difference",)) -> Alert:
    content = ztf_fits(star(flux=flux))
    facts = entry(alert_id=CANDID + number, time=2_460_410.5 + number, brightness=18.0 + number)
    return Alert([stamp(kind, content) for kind in kinds], facts)


FADING = [shot(number, flux=900.0 / 2**number) for number in range(5)]


@pytest.mark.parametrize(
    "rendering",
    [
        Rendering(),
        Rendering("linear"),
        Rendering("linear", interval="minmax"),
        Rendering("linear", interval="zscale"),
        Rendering("linear", interval="percentile"),
        Rendering("linear", pmin=1.0),
        Rendering("linear", interval="manual", vmin=0.0, vmax=500.0),
    ],
    ids=str,
)
def test_epochs_share_one_scale_so_that_fading_is_seen(rendering: Rendering) -> None:
    panels = draw_panels(FADING, replace(PLAIN, rendering=rendering))
    light = [int(panel.tiles[0].picture.sum()) for panel in panels]
    assert all(later < earlier for earlier, later in itertools.pairwise(light))
    assert len({panel.scales for panel in panels}) == 1
    pixels = [read_pixels(shot.stamps[0]) for shot in FADING]
    assert panels[0].scales == (choose_scale(pixels, rendering),)


def test_a_shared_scale_is_that_of_all_pixels_together() -> None:
    dark, bright = np.zeros((3, 3)), np.full((3, 3), 8.0)
    minmax = choose_scale([dark, bright], Rendering("linear", interval="minmax"))
    assert (minmax.low, minmax.high) == (0, 8)
    sigmoid = choose_scale([dark, bright], Rendering())
    assert (sigmoid.low, sigmoid.high) == (4, 4)
    legacy = choose_scale([dark, bright], Rendering("linear"))
    assert (legacy.low, legacy.high) == (0, 8)


def test_each_kind_has_a_scale_of_its_own() -> None:
    faint = stamp("Difference", ztf_fits(star(flux=10)))
    (panel,) = draw_panels([Alert([stamp("Science"), faint])], PLAIN)
    assert panel.scales[0] != panel.scales[1]


@pytest.mark.parametrize(
    ("frame", "factor"),
    [
        (Frame(), 1),
        (Frame(labels=()), 1),
        (Frame(labels=("date",)), 4),
        (Frame(labels=("date",), zoom=2), 2),
        (Frame(size=126), 2),
        (Frame(size=63), 1),
    ],
)
def test_the_size_is_that_asked_for_or_one_that_can_be_read(frame: Frame, factor: float) -> None:
    assert find_factor([star()], frame) == factor


def test_a_large_stamp_is_not_enlarged_for_its_labels() -> None:
    assert find_factor([star((500, 400))], Frame(labels=("date",))) == 1


def open_image(body: bytes) -> Image.Image:
    return Image.open(io.BytesIO(body))


@pytest.mark.parametrize("name", ["PNG", "JPEG"])
def test_a_contact_sheet_holds_every_epoch(name: str) -> None:
    body, media_type = format_epochs(FADING, name, LAYOUT)
    image = open_image(body)
    assert media_type == f"image/{name.lower()}"
    cells = draw_epochs(FADING, LAYOUT)[0]
    assert image.size[0] * image.size[1] >= sum(cell.shape[0] * cell.shape[1] for cell in cells)
    if name == "PNG":
        sheet = np.asarray(image)
        np.testing.assert_array_equal(sheet[: cells[0].shape[0], : cells[0].shape[1]], cells[0])


@pytest.mark.parametrize("name", ["GIF", "WebP"])
@pytest.mark.parametrize("kinds", [("Difference",), KINDS])
def test_an_animation_has_a_frame_for_each_epoch(name: str, kinds: tuple[str, ...]) -> None:
    shots = [shot(number, flux=900 / 2**number, kinds=kinds) for number in range(4)]
    image = open_image(format_epochs(shots, name, LAYOUT)[0])
    assert image.n_frames == 4
    frames = []
    for number in range(4):
        image.seek(number)
        frames.append(np.asarray(image.convert("RGB")))
        assert image.info["duration"] == 600
    assert len({frame.shape for frame in frames}) == 1
    assert all((one != other).any() for one, other in itertools.pairwise(frames))


@pytest.mark.parametrize("name", ["PNG", "JPEG", "GIF", "WebP"])
def test_one_epoch_alone_is_drawn_too(name: str) -> None:
    assert open_image(format_epochs(FADING[:1], name, LAYOUT)[0]).size[0] >= 126


def test_the_recipe_of_many_names_each_of_them() -> None:
    recipe = json.loads(open_image(format_epochs(FADING, "PNG", LAYOUT)[0]).text["Description"])
    assert [alert["candid"] for alert in recipe["alerts"]] == [
        str(CANDID + number) for number in range(5)
    ]


def test_formats_without_epochs_say_so() -> None:
    assert [name for name in FORMATS if FORMATS[name].write_epochs is None] == ["NPY", "NPZ"]
    with pytest.raises(ValueError, match="NPZ"):
        format_epochs(FADING, "NPZ", LAYOUT)


def test_too_many_epochs_are_refused_with_the_remedy() -> None:
    with pytest.raises(PictureTooLarge, match="band or by date"):
        format_epochs([FADING[0]] * (MOST_EPOCHS + 1), "PNG", LAYOUT)
    with pytest.raises(PictureTooLarge, match="smaller size"):
        format_epochs([FADING[0]] * 20, "GIF", replace(LAYOUT, frame=Frame(size=2000)))


@pytest.mark.parametrize("name", ["PNG", "JPEG", "GIF", "WebP"])
def test_as_many_epochs_as_are_drawn_fit_every_format(name: str) -> None:
    small = replace(LAYOUT, frame=Frame(size=63))
    open_image(format_epochs([FADING[0]] * MOST_EPOCHS, name, small)[0]).load()


@pytest.mark.parametrize("name", ["JPEG", "GIF", "WebP"])
def test_a_side_longer_than_a_format_has_is_refused(name: str) -> None:
    row = Alert([stamp(content=ztf_fits(star((1, 70_000))))], entry())
    with pytest.raises(PictureTooLarge, match="PNG"):
        format_stamps(row, name, LAYOUT)
    open_image(format_stamps(row, "PNG", LAYOUT)[0]).load()


def test_stamps_of_several_shapes_and_without_facts_fit_one_sheet() -> None:
    shots = [
        Alert([stamp(content=lsst_stamp(star((30, 30))))], entry(time=np.nan, band=None)),
        Alert([stamp(content=lsst_stamp(star((46, 45))))], None),
        Alert([stamp(content=lsst_stamp(star((1, 1))))], entry(brightness=np.nan)),
    ]
    layout = replace(LAYOUT, survey=LSST, frame=Frame(orient="north"))
    for name in ("PNG", "GIF"):
        open_image(format_epochs(shots, name, layout)[0]).load()


@pytest.mark.parametrize(("count", "grid"), [(1, (1, 1)), (4, (2, 2)), (5, (3, 2)), (9, (3, 3))])
def test_a_sheet_is_about_as_wide_as_high(count: int, grid: tuple[int, int]) -> None:
    sheet = arrange_sheet([np.full((10, 10, 3), 200, np.uint8)] * count)
    rows, columns = grid
    assert sheet.shape == (rows * 16 - 6, columns * 16 - 6, 3)
    assert (sheet == 200).sum() == count * 300
