"""Where stamps are, against astropy, over headers of any projection, frame and spelling.

astropy reads the header itself here (``WCS(header)``), takes its frames from its own classes, and
north from ``directional_offset_by``.
"""

from __future__ import annotations

import io
import math
import warnings
from typing import Any

import astropy.units as u
import numpy as np
import pytest
from astropy import coordinates
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cutout_api.epochs import Alert
from cutout_api.errors import FactMissing
from cutout_api.info import describe_wcs
from cutout_api.panels import Frame, Layout, draw_panels
from cutout_api.render import Rendering
from cutout_api.surveys import LSST, ZTF, Survey
from cutout_api.views import View, write_view
from cutout_api.wcs import complete_header, find_sky

from ..pictures import entry, stamp

# As in wcslib's own tests: what a projection needs to be one, on the axis of latitude.
PROJECTIONS: dict[str, dict[int, float]] = {
    **{code: {} for code in ("TAN", "STG", "SIN", "ARC", "ZEA", "CAR", "MER", "SFL", "AIT", "MOL")},
    "AZP": {1: 2.0, 2: 10.0},
    "SZP": {1: 2.0, 2: 150.0, 3: 60.0},
    "ZPN": {1: 1.0, 3: 0.02},
    "AIR": {1: 60.0},
    "CEA": {1: 0.8},
    "COE": {1: 45.0, 2: 10.0},
    "BON": {1: 45.0},
}
FRAMES: list[tuple[dict[str, Any], tuple[str, str], Any]] = [
    ({}, ("RA--", "DEC-"), coordinates.ICRS()),
    ({"RADESYS": "ICRS"}, ("RA--", "DEC-"), coordinates.ICRS()),
    ({"RADESYS": "FK5"}, ("RA--", "DEC-"), coordinates.FK5()),
    ({"EQUINOX": 2015.5}, ("RA--", "DEC-"), coordinates.FK5(equinox="J2015.5")),
    ({"EPOCH": 1950.0}, ("RA--", "DEC-"), coordinates.FK4(equinox="B1950")),
    ({"RADECSYS": "FK4-NO-E"}, ("RA--", "DEC-"), coordinates.FK4NoETerms(equinox="B1950")),
    ({}, ("GLON", "GLAT"), coordinates.Galactic()),
    ({}, ("SLON", "SLAT"), coordinates.Supergalactic()),
    ({}, ("ELON", "ELAT"), coordinates.BarycentricMeanEcliptic(equinox="J2000")),
]
SPELLINGS = ("CD", "CD00i00j", "PC", "PC and CDELT", "PC00i00j and CDELT", "CROTA", "CDELT")
PIXELS = st.floats(0.05, 5.0)  # arcsec
ANGLES = st.floats(0.0, 360.0)


class Case:
    """A header, and what astropy makes of it."""

    def __init__(self, header: fits.Header, frame: Any, *, exchanged: bool) -> None:
        self.header, self.frame, self.exchanged = header, frame, exchanged
        self.shape = (header["NAXIS2"], header["NAXIS1"])
        self.middle = ((self.shape[1] - 1) / 2, (self.shape[0] - 1) / 2)
        with warnings.catch_warnings(action="ignore"):
            self.wcs = WCS(header, naxis=2)

    def __repr__(self) -> str:
        return repr(self.header)

    def places(self, x: Any, y: Any) -> SkyCoord:
        longitude, latitude = self.wcs.all_pix2world(x, y, 0)[:: -1 if self.exchanged else 1]
        return SkyCoord(longitude, latitude, unit="deg", frame=self.frame).icrs

    def pixels(self, place: SkyCoord) -> tuple[float, float]:
        there = place.transform_to(self.frame).spherical
        world = (there.lon.deg, there.lat.deg)[:: -1 if self.exchanged else 1]
        with warnings.catch_warnings(action="ignore"):
            x, y = self.wcs.all_world2pix(*world, 0, quiet=True)
        return float(x), float(y)


@st.composite
def headers(draw: st.DrawFn) -> Case:
    """Draw a header whose reference is in the stamp, near it, or degrees away."""
    cards, names, frame = draw(st.sampled_from(FRAMES))
    code = draw(st.sampled_from(sorted(PROJECTIONS)))
    exchanged, distorted = draw(st.booleans()), code == "TAN" and draw(st.booleans())
    ctype = [f"{name}-{code}" + "-SIP" * distorted for name in names]
    crval = [draw(ANGLES), draw(st.floats(-89.9, 89.9))]
    scale = draw(PIXELS) / 3600
    away = draw(st.sampled_from([0.0, 0.01, 5.0])) / scale  # degrees, as pixels
    header = fits.Header({"NAXIS": 2, "NAXIS1": draw(st.integers(2, 70)), "NAXIS2": 40, **cards})
    for axis in (1, 2):
        header[f"CTYPE{axis}"] = ctype[axis - 1 if not exchanged else 2 - axis]
        header[f"CRVAL{axis}"] = crval[axis - 1 if not exchanged else 2 - axis]
        header[f"CRPIX{axis}"] = draw(st.floats(-1.0, 1.0)) * away + draw(st.floats(1.0, 40.0))
    turn = math.radians(draw(ANGLES))
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    matrix = rotation @ np.diag([draw(st.sampled_from([-1.0, 1.0])), draw(st.floats(0.8, 1.2))])
    _write_matrix(header, draw(st.sampled_from(SPELLINGS)), matrix, scale, exchanged=exchanged)
    for m, value in PROJECTIONS[code].items():
        header[f"PV{1 if exchanged else 2}_{m}"] = value
    if draw(st.booleans()):
        header["LONPOLE"] = draw(ANGLES)
    if distorted:
        header.update({"A_ORDER": 2, "A_2_0": 1e-6, "B_ORDER": 3, "B_1_1": -2e-6, "B_0_3": 1e-9})
    try:
        case = Case(header, frame, exchanged=exchanged)
        on_sky = np.isfinite(case.wcs.all_pix2world(*case.middle, 0)).all()
    except ValueError:  # no native pole fits the reference
        on_sky = False
    assume(on_sky)
    return case


def _write_matrix(
    header: fits.Header, spelling: str, matrix: np.ndarray, scale: float, *, exchanged: bool
) -> None:
    if "CDELT" in spelling or spelling == "CROTA":
        header["CDELT1"], header["CDELT2"] = -scale, scale
        scale = 1.0
    if spelling == "CROTA":
        header["CROTA1" if exchanged else "CROTA2"] = math.degrees(
            math.atan2(matrix[1, 0], matrix[0, 0])
        )
    elif spelling != "CDELT":
        between = ("00", "00") if "00" in spelling else ("", "_")
        for i in (1, 2):
            for j in (1, 2):
                name = f"{spelling[:2]}{between[0]}{i}{between[1]}{j}"
                header[name] = float(matrix[i - 1, j - 1]) * scale


def angle_between(one: float, other: float) -> float:
    return abs((one - other + 180) % 360 - 180)


def known(case: Case, survey: Survey) -> dict[str, Any]:
    """Return what ``/info`` says; a stamp at the edge of its projection is not known."""
    found = describe_wcs(case.header, survey, entry())
    x, y = case.middle
    steps = case.places([x - 0.5, x + 0.5, x, x], [y, y, y - 0.5, y + 0.5])
    sides = [float(steps[0].separation(steps[1]).deg), float(steps[2].separation(steps[3]).deg)]
    if found is None:
        assert not max(sides) < 10 * min(sides), "an ordinary stamp is known"
    assume(found is not None)
    assert found is not None
    return found


@settings(max_examples=150, deadline=None)
@given(headers(), st.sampled_from([ZTF, LSST]))
def test_north_scale_and_corners_are_those_of_astropy(case: Case, survey: Survey) -> None:
    found = known(case, survey)
    x, y = case.middle
    centre = case.places(x, y)
    assert centre.separation(SkyCoord(*found["centre"], unit="deg")).arcsec < 1e-6
    right, down = case.pixels(centre.directional_offset_by(0 * u.deg, 0.1 * u.arcsec))
    north = math.degrees(math.atan2(x - right, y - down))
    assert angle_between(found["north_angle"], north) < 0.01
    ends = case.places([x - 0.5, x + 0.5, x, x], [y, y, y - 0.5, y + 0.5])
    along, across = ends[0].separation(ends[1]), ends[2].separation(ends[3])
    skew = ends[0].position_angle(ends[1]) - ends[2].position_angle(ends[3])
    scale = math.sqrt(along.arcsec * across.arcsec * abs(math.sin(skew.rad)))
    assert found["pixel_scale"] == pytest.approx(scale, rel=1e-4, abs=1e-6)
    (ny, nx) = case.shape
    corners = case.places([-0.5, nx - 0.5, nx - 0.5, -0.5], [-0.5, -0.5, ny - 0.5, ny - 0.5])
    seen = [corner for corner in found["corners"] if None not in corner]
    assert len(seen) == np.isfinite(corners.ra.deg).sum()
    if len(seen) == 4:
        assert corners.separation(SkyCoord(seen, unit="deg")).arcsec.max() < 1e-6


@settings(max_examples=60, deadline=None)
@given(headers(), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_an_alert_is_found_where_astropy_has_it(case: Case, right: float, down: float) -> None:
    known(case, LSST)
    (ny, nx) = case.shape
    x, y = right * (nx - 1), down * (ny - 1)
    place = case.places(x, y)
    assume(np.isfinite(place.ra.deg))
    found = find_sky(case.header, LSST, None).find_pixel(place.ra.deg, place.dec.deg)
    assert found == pytest.approx((x, y), abs=0.01)


@settings(max_examples=40, deadline=None)
@given(headers())
def test_a_picture_that_is_turned_has_north_up_and_east_left(case: Case) -> None:
    """Of three stars one is in the middle, one north and one east of it, by astropy."""
    found = known(case, LSST)
    header = case.header.copy()
    ny, nx = case.shape = (61, 61)
    header["NAXIS1"] = header["NAXIS2"] = 61
    case = Case(header, case.frame, exchanged=case.exchanged)
    middle = case.places(30.0, 30.0)
    assume(describe_wcs(header, LSST, None) is not None)
    away = 15 * found["pixel_scale"] * u.arcsec
    rows, columns = np.indices((ny, nx))
    for angle, up, left in ((0.0, 15.0, 0.0), (90.0, 0.0, 15.0)):
        x, y = case.pixels(middle.directional_offset_by(angle * u.deg, away))
        assume(0 <= x < nx and 0 <= y < ny)
        image = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 8.0).astype(np.float32)
        content = fits.HDUList([fits.PrimaryHDU(image, header)])
        picture = draw_north_up(content)
        light = picture - picture.min()
        light[light < 0.5 * light.max()] = 0
        seen = (light * rows).sum() / light.sum(), (light * columns).sum() / light.sum()
        assert seen == pytest.approx((30 - up, 30 - left), abs=0.6)


def draw_north_up(content: fits.HDUList) -> np.ndarray:
    layout = Layout(
        LSST,
        by_name=False,
        rendering=Rendering("linear", interval="minmax"),
        image_pixels=1_000_000,
        frame=Frame(orient="north", resample="bicubic"),
    )
    shot = Alert([stamp(content=to_bytes(content))], None)
    return np.asarray(draw_panels([shot], layout)[0].tiles[0].picture, np.float64)


def to_bytes(content: fits.HDUList) -> bytes:
    buffer = io.BytesIO()
    content.writeto(buffer)
    return buffer.getvalue()


@settings(max_examples=60, deadline=None)
@given(headers(), st.sampled_from([ZTF, LSST]))
def test_fixing_a_wcs_that_is_there_moves_no_pixel(case: Case, survey: Survey) -> None:
    known(case, survey)
    content = to_bytes(
        fits.HDUList([fits.PrimaryHDU(np.zeros(case.shape, np.float32), case.header)])
    )
    fixed = fits.Header.fromstring(
        write_view(stamp(content=content), survey, View(wcs="fix"), entry()).decode(
            "ascii", "replace"
        )
    )
    again = Case(fixed, case.frame, exchanged=case.exchanged)
    np.testing.assert_array_equal(
        again.wcs.all_pix2world([0.0, 5.0], [0.0, 9.0], 0),
        case.wcs.all_pix2world([0.0, 5.0], [0.0, 9.0], 0),
    )
    assert again.wcs.wcs.radesys == case.wcs.wcs.radesys
    assert "HISTORY" not in fixed


@settings(max_examples=60, deadline=None)
@given(headers(), st.data())
def test_what_is_left_of_a_wcs_is_completed_or_refused_but_not_moved(
    case: Case, data: st.DataObject
) -> None:
    """With some cards gone, the position is that of astropy, where astropy has one."""
    header = case.header.copy()
    own = [name for name in header if name[:2] in ("CT", "CR", "CD", "PC", "LO", "EQ", "RA")]
    for name in data.draw(st.lists(st.sampled_from(own), min_size=1, max_size=3, unique=True)):
        del header[name]
    survey = data.draw(st.sampled_from([ZTF, LSST]))
    before = header.copy()
    try:
        complete_header(header, survey, entry())
    except FactMissing:
        assert header.tostring() == before.tostring()
        return
    for name in before:
        assert header[name] == before[name]
    with warnings.catch_warnings(action="ignore"):
        after = WCS(header, naxis=2)
        if WCS(before, naxis=2).has_celestial:
            assert header.tostring() == before.tostring()
    assert after.has_celestial
