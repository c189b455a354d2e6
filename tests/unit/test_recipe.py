"""Recipes: plain JSON, with ids as text, in every kind of file."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from cutout_api.epochs import Alert
from cutout_api.geometry import NORTH_UP
from cutout_api.panels import Frame, Layout, draw_panels
from cutout_api.recipe import describe_entry, describe_panels, exif, explain, north_angle
from cutout_api.render import Rendering
from cutout_api.surveys import LSST, ZTF

from ..pictures import CANDID, LSST_MATRIX, entry, lsst_stamp, stamp
from ..samples import ztf_fits

LAYOUT = Layout(ZTF, by_name=False, rendering=Rendering(), image_pixels=10**6, request="/x?y=1")


def turned(degrees: float) -> np.ndarray:
    """Return the matrix of a picture whose north is so far counter-clockwise from up."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return NORTH_UP @ np.array([[c, -s], [s, c]])


@pytest.mark.parametrize("degrees", [0, 30, 90, 179, -45, -120])
def test_the_angle_of_north_is_counted_counter_clockwise(degrees: float) -> None:
    assert north_angle(turned(degrees)) == pytest.approx(degrees, abs=1e-3)
    # To the same side where the picture is mirrored, as an LSST stamp with row 0 on top.
    right, down = np.linalg.solve(turned(degrees), (0, 1))
    assert math.degrees(math.atan2(-right, -down)) == pytest.approx(degrees, abs=1e-3)


def test_a_real_matrix_has_the_angle_that_its_compass_shows() -> None:
    assert north_angle(np.array(LSST_MATRIX)) == pytest.approx(-154.77, abs=0.01)


def test_a_recipe_is_json_whatever_the_stamp_holds() -> None:
    nothing = Alert(
        [stamp(content=ztf_fits(np.full((3, 3), np.nan, np.float32)))],
        entry(time=np.nan, brightness=np.inf, alert_id=None, positive=None),
    )
    for rendering in (Rendering(), Rendering("linear"), Rendering("linear", interval="minmax")):
        layout = replace(LAYOUT, rendering=rendering)
        json.dumps(explain(draw_panels([nothing], layout), layout), allow_nan=False)


def test_ids_are_text_and_what_is_not_known_is_null() -> None:
    facts = describe_entry(entry(time=np.nan, band=None), ZTF)
    assert facts["candid"] == str(CANDID)
    assert facts["jd"] is None
    assert facts["date"] is None
    assert facts["band"] is None
    assert describe_entry(None, ZTF) == {}


def test_only_what_was_asked_is_told_of_the_frame() -> None:
    shot = Alert([stamp()], entry())
    assert "frame" not in describe_panels(draw_panels([shot], LAYOUT), LAYOUT)
    framed = replace(LAYOUT, frame=Frame(size=100, orient="north"))
    told = describe_panels(draw_panels([shot], framed), framed)["frame"]
    assert told == {"size": 100, "orient": "north"}


def test_an_explained_picture_has_its_own_size_and_north() -> None:
    layout = replace(LAYOUT, survey=LSST, frame=Frame(zoom=2, orient="north"))
    shot = Alert([stamp(content=lsst_stamp())], entry())
    (kind,) = explain(draw_panels([shot], layout), layout)["kinds"]
    assert kind["picture"] == {"width": 60, "height": 60}
    assert kind["north_angle"] == 0


def test_exif_holds_the_recipe() -> None:
    buffer = io.BytesIO()
    Image.new("L", (2, 2)).save(buffer, "JPEG", exif=exif({"request": "/é"}))
    tags = Image.open(buffer).getexif()
    assert "request" in tags[0x010E]
    assert tags[0x0131].startswith("cutout_api")
