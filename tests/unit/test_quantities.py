"""MJD, UTC and AB magnitudes, against astropy."""

from __future__ import annotations

import math

import astropy.units as u
import numpy as np
import pytest
from astropy.time import Time

from cutout_api.explorer import describe_surveys
from cutout_api.quantities import find_magnitude, find_mjd, find_utc, leap_seconds
from cutout_api.recipe import describe_entry
from cutout_api.surveys import LSST, ZTF

from ..pictures import entry

MJDS = [41_317.5, 50_630.0, 57_753.9, 57_754.2, 60_488.26251980322, 61_000.0]


@pytest.mark.parametrize("mjd", MJDS)
def test_utc_is_astropy_s(mjd: float) -> None:
    tai = Time(mjd, format="mjd", scale="tai")
    assert find_utc(mjd, LSST) == tai.utc.isot + "Z"
    jd = mjd + 2_400_000.5
    assert find_utc(jd, ZTF) == Time(2_400_000.5, jd - 2_400_000.5, format="jd").isot + "Z"
    assert find_mjd(jd, ZTF) == pytest.approx(mjd, abs=1e-9)


def test_a_leap_second_has_a_sixtieth_second() -> None:
    assert find_utc(57_754 + 36.25 / 86400, LSST) == "2016-12-31T23:59:60.250Z"


@pytest.mark.parametrize("time", [math.nan, math.inf, -math.inf, 1e300, -1e12, 5e6])
def test_what_is_no_time_is_none(time: float) -> None:
    assert find_utc(time, LSST) is find_mjd(time, LSST) is None


def test_years_that_have_no_leap_seconds_are_told_without_a_warning(
    recwarn: pytest.WarningsRecorder,
) -> None:
    assert str(find_utc(90_000.0, LSST)).startswith("2105-")
    assert find_utc(-20_000.0, LSST) is not None
    assert not recwarn.list


@pytest.mark.parametrize("flux", [1.0, 3631e9, 10_223.3, 1e-3])
def test_magnitudes_are_ab(flux: float) -> None:
    # 1 nJy is 31.4 as the issue of units rounds it; exactly it is 31.4001.
    exact = (flux * u.nJy).to_value(u.ABmag)
    assert find_magnitude(flux, "nJy") == pytest.approx(exact, abs=2e-4)


@pytest.mark.parametrize("flux", [0.0, -5.0, math.nan, math.inf, -math.inf])
def test_a_flux_not_above_zero_has_no_magnitude(flux: float) -> None:
    assert find_magnitude(flux, "nJy") is None


def test_the_page_s_leap_seconds_are_astropy_s() -> None:
    for mjd in MJDS:
        tai = Time(mjd, format="mjd", scale="tai")
        ahead = [seconds for since, seconds in leap_seconds() if since <= mjd][-1]
        # Read as a date, in days of 86,400 s, as scripts do.
        assert Time(mjd - ahead / 86400, format="mjd", scale="tai").isot == tai.utc.isot
    told = describe_surveys()
    assert told["lsst"]["leapSeconds"] == leap_seconds()
    assert (told["ztf"]["leapSeconds"], told["ztf"]["zeroPoint"]) == ((), None)


def test_an_alert_is_described_with_its_units() -> None:
    lsst = describe_entry(entry(time=60_488.26251980322, brightness=10_223.3), LSST)
    assert lsst["mjd"] == lsst["midpointMjdTai"] == 60_488.26251980322
    assert (lsst["time_scale"], lsst["utc"]) == ("tai", "2024-06-27T06:17:24.711Z")
    assert lsst["magnitude"] == pytest.approx(21.376, abs=1e-3)
    ztf = describe_entry(entry(), ZTF)
    assert (ztf["mjd"], ztf["utc"], ztf["magnitude"]) == (60_410, "2024-04-10T00:00:00.000Z", 18.5)
    bare = describe_entry(entry(time=np.nan, brightness=-3.0), LSST)
    assert bare["date"] is bare["mjd"] is bare["utc"] is bare["magnitude"] is None
    assert bare["brightness"] == -3
