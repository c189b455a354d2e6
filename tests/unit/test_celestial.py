"""Which cards of a header become a WCS, and that wcslib survives whatever they hold."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import PRJ_CODES, WCS

from cutout_api.celestial import PROJECTIONS, make_wcs, read_frame, select_cards

SHAPE = (31, 33)
GOOD = {
    "CTYPE1": "RA---TAN",
    "CTYPE2": "DEC--TAN",
    "CRPIX1": 17.0,
    "CRPIX2": 16.0,
    "CRVAL1": 150.0,
    "CRVAL2": 2.0,
    "CD1_1": -5e-5,
    "CD1_2": 1e-5,
    "CD2_1": 1e-5,
    "CD2_2": 5e-5,
}


def header(**changes: Any) -> fits.Header:
    """Return a good header; a card given as None is left out."""
    cards = {**GOOD, **changes}
    return fits.Header([(name, value) for name, value in cards.items() if value is not None])


def positions(wcs: WCS) -> np.ndarray:
    return np.array(wcs.all_pix2world([0.0, 32.0, 16.0], [0.0, 30.0, 3.0], 0))


def made(cards: fits.Header) -> WCS:
    return make_wcs(select_cards(cards), SHAPE)


SPELLINGS = [
    {},
    {"CD1_2": None, "CD2_1": None},
    {f"CD{i}_{j}": None for i in (1, 2) for j in (1, 2)} | {"CDELT1": -5e-5, "CDELT2": 5e-5},
    {f"CD{i}_{j}": None for i in (1, 2) for j in (1, 2)}
    | {"CDELT1": -5e-5, "CDELT2": 5e-5, "CROTA2": 30.0},
    {f"CD{i}_{j}": None for i in (1, 2) for j in (1, 2)}
    | {"CDELT1": 5e-5, "CDELT2": 5e-5, "PC001001": -0.8, "PC001002": 0.6, "PC002001": 0.6},
    {"CDELT1": 7.0, "CROTA2": 30.0},
    {"CUNIT1": "arcsec", "CUNIT2": "arcsec", "CRVAL1": 540000.0, "CRVAL2": 7200.0}
    | {"CD1_1": -0.2, "CD2_2": 0.2, "CD1_2": 0.0, "CD2_1": 0.0},
    {"CTYPE1": "DEC--SIN", "CTYPE2": "RA---SIN", "CRVAL1": 2.0, "CRVAL2": 150.0},
    {"LONPOLE": 90.0, "LATPOLE": 10.0},
    {"PV1_3": 90.0},
    {"CTYPE1": "RA---ZPN", "CTYPE2": "DEC--ZPN", "PV2_1": 1.0, "PV2_3": 0.3},
    {"CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV", "PV1_1": 1.0, "PV2_1": 1.0, "PV1_4": 20.0},
    {"PV1_1": 1.0, "PV2_1": 1.0, "PV1_5": 20.0},  # SCAMP before TPV had a name
    {"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "A_ORDER": 2, "A_2_0": 1e-3}
    | {"B_ORDER": 3, "B_1_2": -1e-4, "AP_ORDER": 2, "AP_2_0": -1e-3, "BP_ORDER": 2},
    {"CTYPE1": "GLON-CAR", "CTYPE2": "GLAT-CAR"},
    {"WCSAXES": 3, "CTYPE3": "FREQ", "CRPIX3": 1.0, "CD3_3": 5.0},
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("changes", SPELLINGS, ids=str)
def test_a_wcs_is_that_which_astropy_reads_in_the_header(changes: dict[str, Any]) -> None:
    np.testing.assert_allclose(
        positions(made(header(**changes))),
        positions(WCS(header(**changes), naxis=2)),
        rtol=1e-12,
        atol=1e-12,
    )


REFUSED = [
    {"CTYPE1": None},
    {"CTYPE1": "DEC--TAN"},
    {"CTYPE1": "RA---XXX", "CTYPE2": "DEC--XXX"},
    {"CTYPE1": "RA---TAN" + "x" * 60, "CTYPE2": "DEC--TAN" + "x" * 60},
    {"CTYPE1": "GLON-TAN"},
    {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--SIN"},
    {"CTYPE1": "WAVE"},
    {"CTYPE1": 5},
    {"CUNIT1": "km"},
    {"CRPIX1": None},
    {"CRPIX1": "here"},
    {"CRPIX1": True},
    {"CRVAL2": None},
    {"CRVAL2": 95.0},
    {"CD1_1": 1e13},
    {"CD1_1": 0.0, "CD1_2": 0.0},
    {"CD1_2": "x"},
    {"PC1_1": 1.0},
    {"CD1_3": 1e-5},
    {"RADESYS": "MARS"},
    {"EQUINOX": "2000"},
    {"EQUINOX": 1e300},
    {"CTYPE1": "ELON-TAN", "CTYPE2": "ELAT-TAN", "EQUINOX": 1950.0},
    {"A_ORDER": 2, "B_ORDER": 2, "A_2_0": 1e-5},
    {"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP"},
    *(
        {"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "A_ORDER": a, "B_ORDER": b}
        for a, b in ((2, None), (2, 10**9), (-1, 2), (2.0, 2), ("2", "2"))
    ),
    {"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "A_ORDER": 2, "B_ORDER": 2, "PV1_5": 1.0},
    {"CPDIS1": "LOOKUP"},
    {"D2IMDIS1": "LOOKUP"},
]


@pytest.mark.parametrize("changes", REFUSED, ids=str)
def test_what_is_not_understood_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"[a-z]"):
        made(header(**changes))


def test_a_keyword_with_two_values_is_refused_and_one_said_twice_is_not() -> None:
    twice = header()
    twice.append(("CRVAL1", 150.0))
    made(twice)
    twice.append(("CRVAL1", 151.0))
    with pytest.raises(ValueError, match="two values of CRVAL1"):
        made(twice)


def test_cards_that_are_not_of_the_wcs_do_not_matter() -> None:
    full = header(CTYPE1A="RA---XXX", CRVAL3="x", PV1_99=1.0, CNAME1="x" * 60, OBSGEO="x")
    assert select_cards(full) == GOOD


@pytest.mark.parametrize(
    ("changes", "frame"),
    [
        ({}, ("RA--", "ICRS", None)),
        ({"RADESYS": "ICRS", "EQUINOX": "J2000"}, ("RA--", "ICRS", None)),
        ({"EQUINOX": 2000.0}, ("RA--", "FK5", 2000.0)),
        ({"EPOCH": 1950.0}, ("RA--", "FK4", 1950.0)),
        ({"EPOCH": 1950.0, "EQUINOX": 2000}, ("RA--", "FK5", 2000.0)),
        ({"RADECSYS": "FK5"}, ("RA--", "FK5", None)),
        ({"CTYPE1": "GLON-TAN", "CTYPE2": "GLAT-TAN", "RADESYS": "x"}, ("GLON", "ICRS", None)),
    ],
    ids=str,
)
def test_the_frame_is_that_of_the_standard(changes: dict[str, Any], frame: Any) -> None:
    assert read_frame(select_cards(header(**changes))) == frame


HOSTILE = """
import sys
import numpy as np
from astropy.io import fits
from cutout_api.celestial import PROJECTIONS, make_wcs, select_cards

random = np.random.default_rng(int(sys.argv[1]))
odd = [0.0, 1.0, 90.0, -90.0, 180.0, 1e-300, 5e-324, 1e12, -1e12, 1e300, "x", 45.0]
names = [f"PV{axis}_{m}" for axis in (1, 2) for m in range(99)]
names += [f"{name}{axis}" for name in ("CRPIX", "CRVAL", "CDELT", "CROTA") for axis in (1, 2)]
names += [f"{name}{i}_{j}" for name in ("CD", "PC") for i in (1, 2) for j in (1, 2)]
names += ["LONPOLE", "LATPOLE", "EQUINOX", "A_ORDER", "B_ORDER", "A_0_2", "B_9_9", "CUNIT1"]
codes = [*sorted(PROJECTIONS), "TAN-SIP", "TAB", "X" * 60]
used = 0
for number in range(3000):
    code = codes[number % len(codes)]
    header = fits.Header()
    header["CTYPE1"], header["CTYPE2"] = f"RA---{code}", f"DEC--{code}"
    header["CRPIX1"] = header["CRPIX2"] = 16.0
    header["CRVAL1"], header["CRVAL2"] = 150.0, float(random.choice([0.0, 2.0, 90.0]))
    header["CDELT1"], header["CDELT2"] = -5e-5, 5e-5
    for name in random.choice(names, random.choice([0, 1, 3, 10])):
        value = random.choice(len(odd) * 2)
        header[str(name)] = odd[value] if value < len(odd) else float(random.normal())
    if number % 50 == 0:
        for m in range(400):
            header.append((f"PV{1 + m % 2}_{m % 40}", "text"))
    try:
        wcs = make_wcs(select_cards(header), (30, 30))
        for size in (30, 1e12):
            wcs.all_pix2world(size * random.random(50), size * random.random(50), 0)
    except ValueError:
        continue
    used += 1
print(used)
"""


def test_wcslib_survives_what_it_is_given() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", HOSTILE, "1"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert int(ended.stdout) > 500


@pytest.mark.parametrize("count", [60, 400])
def test_any_number_of_cards_that_wcslib_rejects_changes_nothing(count: int) -> None:
    full = header()
    for number in range(count):
        full[f"PV1_{number}"] = "not a number"
    np.testing.assert_array_equal(positions(made(full)), positions(made(header())))


def test_every_projection_of_wcslib_is_known() -> None:
    assert set(PRJ_CODES) | {"TPV"} == PROJECTIONS
