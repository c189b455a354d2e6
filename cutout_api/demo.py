"""A simulated archive of both surveys, for people who have none at hand, for tests and benchmarks.

The schemas, ids, FITS cards, gzip headers, page layouts and value ranges are those of real alert
files; the sky is invented: stars, galaxies, a point-spread function and noise, drawn as sums of
Gaussians. A mixture of Gaussians stays one when it is blurred, rotated or sheared, so the flux
that is drawn is known exactly, and the magnitudes in the alert are measured on the stamp itself.

    make_archive      nights of alerts, laid out as an archive
    simulate_ztf      a table of ZTF alerts
    simulate_lsst     a table of LSST alerts
    write_file        a table -> a parquet file as Spark or as pyarrow write it

Everything follows from the seed.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import cache, partial
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .surveys import KINDS

Array = np.ndarray[Any, np.dtype[Any]]
Row = dict[str, Any]

START = date(2026, 9, 11)
MJD_OF_UNIX_EPOCH = 40587
JD_OF_MJD_ZERO = 2400000.5
JD_OF_ZTF_NIGHT_ZERO = 2457754.5  # 2017-01-01
TAI_MINUS_UTC_DAYS = 37 / 86400
HISTORY_DAYS = 30  # what a ZTF alert carries of its object's past
DETECTION, MARGINAL = 5.0, 3.0  # signal to noise
SCENE_ZERO_POINT = 25.0  # magnitude of one unit of flux in a scene


# --- Schemas ----------------------------------------------------------------------------------


def load_json(name: str) -> Any:
    """Return one of the small tables that come with this module."""
    text = resources.files("cutout_api").joinpath(f"demo_data/{name}.json").read_text("utf-8")
    return json.loads(text)


@cache
def read_schema(name: str) -> pa.Schema:
    """Return the Arrow schema of ``ztf``, ``lsst_v7`` or ``lsst_v10`` alerts, all nullable.

    The files hold one member per column: a type, an object for a struct, a list of one for a
    list; a name in such a list stands for the type of that column.
    """
    types: dict[str, pa.DataType] = {}

    def parse(spec: Any) -> pa.DataType:
        if isinstance(spec, dict):
            return pa.struct([pa.field(key, parse(value)) for key, value in spec.items()])
        if isinstance(spec, list):
            return pa.list_(pa.field("element", types.get(str(spec[0])) or parse(spec[0])))
        return {"timestamp[ns]": pa.timestamp("ns")}.get(spec) or pa.type_for_alias(spec)

    for column, spec in load_json(name).items():
        types[column] = parse(spec)
    return pa.schema(types.items())


# --- The sky ----------------------------------------------------------------------------------

# (share of the flux, sigma in half-light radii): least-squares fits to Sersic profiles, n = 1, 4.
DISC = ((0.022, 0.2), (0.0774, 0.3578), (0.2266, 0.5894), (0.4687, 0.9711), (0.2053, 1.6))
BULGE = (
    (0.0349, 0.04),
    (0.0726, 0.1108),
    (0.1527, 0.2607),
    (0.2422, 0.6137),
    (0.2631, 1.4443),
    (0.2345, 3.6),
)
# (share of the flux, variance in units of the core's): a core in a halo, near a Moffat profile.
PSF = ((0.86, 1.0), (0.14, 4.5))
PIXEL_VARIANCE = 1 / 12  # a pixel integrates: to second order a blur by its own width

# One Gaussian per row: flux, east, north, then its covariance (east-east, east-north, north-north)
# in arcsec and arcsec^2.
POINT = np.array([[1.0, 0, 0, 0, 0, 0]])


def place_at(components: Array, flux: float, east: float, north: float) -> Array:
    """Return ``components``, whose fluxes sum to one, at a place of the sky with a flux."""
    placed = components.copy()
    placed[:, 0] *= flux
    placed[:, 1] += east
    placed[:, 2] += north
    return placed


def flux_of(magnitude: float) -> float:
    """Return the flux of a magnitude, in the units of a scene."""
    return float(10 ** (-0.4 * (magnitude - SCENE_ZERO_POINT)))


def draw_galaxy(rng: np.random.Generator, radius: float, *, arms: bool) -> Array:
    """Return a galaxy of unit flux: a disc, a bulge and perhaps two knotty arms."""
    angle, axis = rng.uniform(0, math.pi), rng.uniform(0.3, 1.0)
    in_bulge = float(rng.choice([0.1, 0.35, 0.9]))
    in_arms = 0.35 if arms and in_bulge < 0.2 else 0.0
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    rows = []
    for share, profile, ratio, extent in (
        (1 - in_bulge - in_arms, DISC, axis, 1.0),
        (in_bulge, BULGE, (1 + axis) / 2, 0.5),
    ):
        for weight, sigma in profile:
            size = (radius * extent * sigma) ** 2
            spread = turn @ np.diag([size, size * ratio**2]) @ turn.T
            rows.append([share * weight, 0, 0, spread[0, 0], spread[0, 1], spread[1, 1]])
    knots = 22 if in_arms else 0
    for knot in range(knots):
        along = 0.3 + 0.28 * (knot // 2) + rng.normal(0, 0.08)
        distance = radius * 0.4 * math.exp(0.38 * along)
        phase = along + math.pi * (knot % 2)
        east, north = turn @ [distance * math.cos(phase), distance * axis * math.sin(phase)]
        size = (radius * rng.uniform(0.07, 0.2)) ** 2
        rows.append([in_arms / knots, east, north, size, 0, size])
    return np.array(rows)


@dataclass(frozen=True)
class Frame:
    """How the sky lies on a stamp: ``to_pixels`` takes (east, north) in arcsec to (x, y)."""

    shape: tuple[int, int]
    centre: tuple[float, float]
    to_pixels: Array

    def draw(self, components: Array, core: float) -> Array:
        """Return float32 pixels of ``components`` blurred by a PSF of ``core`` pixels sigma."""
        x, y = self.to_pixels @ components[:, 1:3].T + np.array(self.centre)[:, None]
        a, b, c = components[:, 3:].T
        covariance = self.to_pixels @ np.array([[a, b], [b, c]]).transpose(2, 0, 1)
        covariance = covariance @ self.to_pixels.T
        image = np.zeros(self.shape, np.float32)
        rows = np.arange(self.shape[0], dtype=np.float32)[:, None]
        columns = np.arange(self.shape[1], dtype=np.float32)[None, :]
        for share, spread in PSF:
            extra = spread * core**2 + PIXEL_VARIANCE
            for flux, x0, y0, cov in zip(components[:, 0], x, y, covariance, strict=True):
                xx, xy, yy = cov[0, 0] + extra, cov[0, 1], cov[1, 1] + extra
                det = xx * yy - xy * xy
                dx, dy = columns - np.float32(x0), rows - np.float32(y0)
                height = np.float32(flux * share / (2 * math.pi * math.sqrt(det)))
                if abs(xy) < 1e-9 * xx:  # separable: two vectors instead of a plane of exp
                    profile = np.exp(dy * dy * np.float32(-0.5 / yy))
                    image += (height * profile) * np.exp(dx * dx * np.float32(-0.5 / xx))
                else:
                    form = np.float32(yy / det) * dx * dx + np.float32(xx / det) * dy * dy
                    form -= np.float32(2 * xy / det) * dx * dy
                    image += height * np.exp(np.float32(-0.5) * form)
        return image


# --- What varies ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Population:
    """A kind of object: what it sits on, and how its light differs from the template's.

    ``light(days, target)`` is the difference flux over the reference flux, which is that of
    magnitude ``peak`` where there is one, else the host's; ``days`` run from the middle of the
    simulated nights. Magnitudes are ZTF's; LSST's are ``Camera.fainter`` fainter.
    """

    name: str
    share: float
    host: str  # star, galaxy or none
    magnitude: tuple[float, float]  # of the host
    light: Callable[[float, Target], float]
    peak: tuple[float, float] | None = None
    crossmatch: str = "Unknown"
    misaligned: float = 0.02  # pixels between the science image and the matched template
    stays: bool = True  # False: one alert, then it is elsewhere
    genuine: bool = True


@dataclass(frozen=True)
class Target:
    """One object of the simulated sky."""

    index: int
    slot: int  # among the objects of its field
    population: Population
    field: Field
    ra: float
    dec: float
    magnitude: float  # of the host
    peak: float  # of what goes off in it, where something does
    distance: float  # from the host's centre, arcsec
    scene: Array  # what does not change, the object in the middle
    amplitude: float
    period: float  # days
    phase: float
    size: int  # of the stamp
    short: bool  # one row less
    edge: int  # columns or rows beyond the CCD, 0 for most
    side: int  # left, right, top, bottom
    block: tuple[int, int] | None  # first row and column of a masked rectangle, off the middle
    constants: Row


def pulsate(days: float, target: Target) -> float:
    """A fast rise and a slow fall, about the template's mean."""
    phase = (days / target.period + target.phase) % 1
    saw = 1 - phase / 0.075 if phase < 0.15 else -1 + (phase - 0.15) / 0.425
    return float(10 ** (-0.4 * target.amplitude * saw) - 1)


def erupt(days: float, target: Target) -> float:
    """Up within hours about the middle of the run, down by a magnitude a day."""
    since = days + 0.4 - 0.5 * target.phase
    return math.exp(since / 0.45) if since < 0 else math.exp(-since / 1.1)


def explode(days: float, target: Target) -> float:
    """A supernova: two weeks up, months down; the phase says how far it has come."""
    since = days + 45 * target.phase - 14
    if since < 0:
        return max(0.0, 1 + since / 16) ** 2
    return math.exp(-since / 28)


def flicker(days: float, target: Target) -> float:
    """The slow, irregular changes of a galactic nucleus."""
    angle = 2 * math.pi * (days / target.period + target.phase)
    waves = math.sin(angle) + 0.6 * math.sin(2.7 * angle + 1) + 0.3 * math.sin(7.1 * angle)
    return 0.3 * target.amplitude * waves


def stay(days: float, target: Target) -> float:
    """Constant light: of what moves, and of what is only badly subtracted."""
    return 1.0 if target.population.peak else 0.02


POPULATIONS = (
    Population("pulsating star", 0.36, "star", (14.5, 18.5), pulsate, crossmatch="RRLyr"),
    Population("dwarf nova", 0.10, "star", (20.5, 21.5), erupt, (16.0, 17.5), "CataclyV*"),
    Population("supernova", 0.18, "galaxy", (15.5, 18.5), explode, (17.0, 19.0)),
    Population("active nucleus", 0.14, "galaxy", (16.0, 18.5), flicker, crossmatch="QSO"),
    Population("asteroid", 0.12, "none", (0.0, 0.0), stay, (16.5, 19.3), stays=False),
    Population("bad subtraction", 0.10, "star", (13.5, 15.5), stay, misaligned=0.12, genuine=False),
)


# --- Cameras and visits -----------------------------------------------------------------------

Ranges = dict[str, tuple[float, float]]

# Per survey: its "camera"; and the columns that nothing here depends on. "random" has the least
# and the greatest value, whole numbers where both ends are, drawn anew per field, visit, object
# or detection; "fixed" has the value.
SURVEY_TABLES: dict[str, dict[str, Any]] = load_json("surveys")


@dataclass(frozen=True)
class Camera:
    """What makes one survey's images: scales in arcsec and pixels, levels in its own unit."""

    survey: str
    code: int  # keeps the random streams of the surveys apart
    pixel: float
    size: int
    detector: tuple[int, int]
    span: float  # degrees that a detector covers
    declination: tuple[float, float]
    hours: tuple[float, float]  # of the night, UTC
    bands: dict[str, float]  # flux of a scene in each, relative
    seeing: tuple[float, float]  # sigma of the PSF's core, pixels
    template_seeing: float
    noise: tuple[float, float]
    template_noise: float  # relative to the visit's
    sky_per_variance: float
    variance_per_flux: float
    zero_point: tuple[float, float]
    fainter: float  # magnitudes, against ZTF
    crowding: tuple[float, float]  # neighbours per stamp
    up: int  # 1: y grows northwards in an unturned image, -1: southwards
    turns: bool  # the camera rotates from one visit to the next
    wander: float  # pixels from the stamp's centre to the source, at most
    larger: float  # share of the stamps that are larger than ``size``
    masked: float  # share of the stamps with pixels that are NaN


CAMERAS = {
    survey: Camera(survey=survey, **tables["camera"]) for survey, tables in SURVEY_TABLES.items()
}


@dataclass(frozen=True)
class Field:
    """A patch of sky that the survey comes back to."""

    number: int
    ra: float
    dec: float
    crowding: float
    constants: Row


@dataclass(frozen=True)
class Visit:
    """One exposure of one field; every stamp cut from it shares these."""

    field: Field
    sequence: int  # within its night
    mjd: float  # UTC
    band: str
    core: float
    sky: float  # background level
    noise: float  # per pixel, of the background
    zero_point: float
    unit: float  # of a scene's flux, in this band
    rotation: float  # position angle of the image's y axis, degrees from north through east
    constants: Row

    @property
    def night(self) -> date:
        return day_of(self.mjd)

    @property
    def limit(self) -> float:
        """Magnitude of a point source at the detection limit."""
        return self.zero_point - 2.5 * math.log10(DETECTION * self.noise * self.core * 4)


@dataclass(frozen=True)
class Epoch:
    """What one visit measured of one object."""

    visit: Visit
    x: float  # on the detector
    y: float
    ra: float
    dec: float
    flux: float
    error: float
    columns: Row

    @property
    def snr(self) -> float:
        return abs(self.flux) / self.error

    @property
    def magnitude(self) -> float:
        return self.visit.zero_point - 2.5 * math.log10(abs(self.flux))


@dataclass(frozen=True)
class Picture:
    """The pixels of one alert, before they become stamps."""

    frame: Frame
    images: dict[str, Array]
    variances: dict[str, Array]
    cores: dict[str, float]


@dataclass(frozen=True)
class Alert:
    """One detection: its object, its measurement, what went before, and its pixels."""

    target: Target
    epoch: Epoch
    history: tuple[Epoch, ...]
    discovered: Visit  # when the object got its name
    picture: Picture


def day_of(mjd: float) -> date:
    """Return the calendar day (UTC) of a modified Julian date."""
    return date(1970, 1, 1) + timedelta(days=math.floor(mjd) - MJD_OF_UNIX_EPOCH)


def mjd_of(day: date) -> int:
    """Return the modified Julian date at which a day begins."""
    return (day - date(1970, 1, 1)).days + MJD_OF_UNIX_EPOCH


def uniform(rng: np.random.Generator, ranges: Ranges) -> Row:
    """Draw one value for each column of a table of ranges."""
    return {
        column: int(rng.integers(low, high + 1))
        if isinstance(low, int) and isinstance(high, int)
        else float(rng.uniform(low, high))
        for column, (low, high) in ranges.items()
    }


def plan_fields(camera: Camera, count: int, seed: int) -> list[Field]:
    """Return the fields that the simulated survey visits, from empty to crowded."""
    rng = np.random.default_rng([seed, camera.code, 1])
    low, high = camera.crowding
    return [
        Field(
            number=number,
            ra=float(rng.uniform(0, 360)),
            dec=float(rng.uniform(*camera.declination)),
            crowding=low * (high / low) ** (number / max(count - 1, 1)),
            constants=uniform(rng, SURVEY_TABLES[camera.survey]["random"]["field"]),
        )
        for number in range(count)
    ]


def plan_visits(
    camera: Camera, fields: list[Field], nights: int, seed: int, start: date
) -> dict[int, list[Visit]]:
    """Return each field's visits in time order: a sparse month, then two or three a night."""
    rng = np.random.default_rng([seed, camera.code, 2])
    visits: dict[int, list[Visit]] = {place.number: [] for place in fields}
    for day in range(-HISTORY_DAYS, nights):
        begin, end = (mjd_of(start) + day + hour / 24 for hour in camera.hours)
        slots: list[tuple[float, Field, str]] = []
        for place in fields:
            if day < 0 and rng.random() > 0.4:
                continue
            bands = [str(band) for band in rng.permutation(list(camera.bands))]
            for turn in range(1 if day < 0 else int(rng.integers(2, 4))):
                slots.append((float(rng.uniform(begin, end)), place, bands[turn % len(bands)]))
        slots.sort(key=lambda slot: slot[0])
        for sequence, (mjd, place, band) in enumerate(slots, start=40):
            noise = float(rng.uniform(*camera.noise))
            zero_point = float(rng.uniform(*camera.zero_point))
            visits[place.number].append(
                Visit(
                    field=place,
                    sequence=sequence,
                    mjd=mjd,
                    band=band,
                    core=float(rng.uniform(*camera.seeing)),
                    sky=camera.sky_per_variance * noise**2,
                    noise=noise,
                    zero_point=zero_point,
                    unit=camera.bands[band] * 10 ** (0.4 * (zero_point - SCENE_ZERO_POINT)),
                    rotation=float(rng.uniform(-180, 180)) if camera.turns else 0.0,
                    constants=uniform(rng, SURVEY_TABLES[camera.survey]["random"]["visit"]),
                )
            )
    return visits


def choose_population(index: int) -> Population:
    """Return a population so that any run of objects has each near its share."""
    # The golden ratio spreads consecutive objects evenly over [0, 1).
    place, reached = (0.02 + index * 0.6180339887) % 1, 0.0
    for population in POPULATIONS:
        reached += population.share
        if place < reached:
            return population
    return POPULATIONS[-1]


def draw_neighbours(camera: Camera, place: Field, rng: np.random.Generator) -> Array:
    """Return the stars and galaxies that happen to lie around an object."""
    reach = 0.7 * camera.size * camera.pixel
    drawn = [np.empty((0, 6))]
    for _ in range(rng.poisson(place.crowding)):
        magnitude = max(13.0, 21.0 - float(rng.exponential(1.7)))
        if rng.random() < 0.75:
            components = POINT
        else:
            components = draw_galaxy(rng, galaxy_radius(camera, magnitude), arms=False)
        east, north = (float(value) for value in rng.uniform(-reach, reach, 2))
        drawn.append(place_at(components, flux_of(magnitude + camera.fainter), east, north))
    return np.concatenate(drawn)


def galaxy_radius(camera: Camera, magnitude: float) -> float:
    """Return a galaxy's half-light radius in arcsec; bright ones are near, and large."""
    return camera.pixel * float(np.clip(6.5 * 10 ** (-0.2 * (magnitude - 15.5)), 1.0, 8.0))


def make_target(
    camera: Camera, place: Field, index: int, slot: int, rng: np.random.Generator
) -> Target:
    """Return an object of a field, with what lies around it."""
    population = choose_population(index)
    magnitude = float(rng.uniform(*population.magnitude))
    peak = float(rng.uniform(*(population.peak or population.magnitude))) + camera.fainter
    radius = galaxy_radius(camera, magnitude) * float(rng.uniform(0.7, 1.3))
    magnitude += camera.fainter
    distance, angle, components = 0.0, float(rng.uniform(0, 2 * math.pi)), POINT
    if population.host == "galaxy":
        components = draw_galaxy(rng, radius, arms=radius > 3 * camera.pixel)
        distance = radius * float(rng.uniform(0.3, 1.3)) if population.peak else 0.0
    # The source stands in the middle; what it sits in lies beside it.
    host = place_at(
        components,
        flux_of(magnitude) if population.host != "none" else 0.0,
        distance * math.cos(angle),
        distance * math.sin(angle),
    )
    masked, side = float(rng.random()), int(rng.integers(4))
    i, j = (int(value) for value in rng.integers(0, 12, 2))
    corner = ((i, j), (i, 50 - j), (50 - i, j), (50 - i, 50 - j))[side]
    ra, dec = (float(value) for value in rng.uniform(-camera.span / 2, camera.span / 2, 2))
    return Target(
        index=index,
        slot=slot,
        population=population,
        field=place,
        ra=(place.ra + ra / math.cos(math.radians(place.dec))) % 360,
        dec=place.dec + dec,
        magnitude=magnitude,
        peak=peak,
        distance=distance,
        scene=np.concatenate([host, draw_neighbours(camera, place, rng)]),
        amplitude=float(rng.uniform(0.15, 0.45)),
        period=float(rng.uniform(30, 50) if population.light is flicker else rng.uniform(0.4, 0.7)),
        phase=float(rng.random()),
        size=camera.size + (int(rng.integers(1, 17)) if rng.random() < camera.larger else 0),
        short=camera.masked > 0 and index % 30 == 11,
        edge=int(rng.integers(4, 26)) if masked < 0.6 * camera.masked else 0,
        side=side,
        block=corner if 0.6 * camera.masked <= masked < camera.masked else None,
        constants=uniform(rng, SURVEY_TABLES[camera.survey]["random"]["object"]),
    )


# --- From the sky to alerts -------------------------------------------------------------------


def frame_of(camera: Camera, target: Target, visit: Visit, rng: np.random.Generator) -> Frame:
    """Return how the sky lies on the stamps that one visit gives of an object."""
    shape = (target.size - target.short, target.size)
    middle = [(side - 1) / 2 + rng.uniform(-camera.wander, camera.wander) for side in shape]
    sine, cosine = (f(math.radians(visit.rotation)) for f in (math.sin, math.cos))
    to_pixels = np.array([[-cosine, sine], [camera.up * sine, camera.up * cosine]]) / camera.pixel
    return Frame(shape, (float(middle[1]), float(middle[0])), to_pixels)


def smooth(noise: Array) -> Array:
    """Return white noise as resampling leaves it: neighbouring pixels share some."""
    for axis in (0, 1):
        noise = 0.95 * noise + 0.22 * (np.roll(noise, 1, axis) + np.roll(noise, -1, axis))
    return noise


def photograph(
    camera: Camera, target: Target, visit: Visit, flux: float, rng: np.random.Generator
) -> tuple[Picture, float, float]:
    """Draw an object's three images in one visit and measure it on the difference.

    Returns the images, the flux that a PSF fitted to the difference has, and its error.
    """
    frame = frame_of(camera, target, visit, rng)
    core = visit.core * float(rng.normal(1, 0.01))  # the PSF varies over the focal plane
    psf = frame.draw(POINT, core)
    still = visit.unit * frame.draw(target.scene, core)
    sharp = visit.unit * frame.draw(target.scene, camera.template_seeing)
    # What matching the template to the visit does not get quite right.
    x, y = frame.centre
    dx, dy = rng.normal(0, target.population.misaligned, 2)
    shifted = replace(frame, centre=(x + dx, y + dy))
    matched = visit.unit * shifted.draw(target.scene, core * float(rng.normal(1, 0.004)))

    per_flux = camera.variance_per_flux
    template_variance = (camera.template_noise * visit.noise) ** 2 + 0.03 * per_flux * sharp
    science_variance = visit.noise**2 + per_flux * (still + max(flux, 0.0) * psf)
    grain = smooth(rng.standard_normal(frame.shape)) * np.sqrt(template_variance)
    science = still + flux * psf + rng.standard_normal(frame.shape) * np.sqrt(science_variance)
    difference = science - matched - grain

    variances = {
        "Science": science_variance,
        "Template": template_variance,
        "Difference": science_variance + template_variance,
    }
    power = float((psf * psf).sum())
    measured = float((psf * difference).sum()) / power
    error = math.sqrt(float((psf * psf * variances["Difference"]).sum())) / power
    images = {
        "Science": visit.sky + science,
        "Template": visit.sky + sharp + grain,
        "Difference": difference,
    }
    cores = {"Science": core, "Template": camera.template_seeing, "Difference": core}
    return Picture(frame, images, variances, cores), measured, error


def observe(
    camera: Camera, *, nights: int, objects: int, seed: int, start: date
) -> Iterator[Alert]:
    """Yield every alert that the simulated nights give, object by object."""
    fields = plan_fields(camera, 4 + objects // 400, seed)
    visits = plan_visits(camera, fields, nights, seed, start)
    run = (mjd_of(start), mjd_of(start) + nights)
    for index in range(objects):
        rng = np.random.default_rng([seed, camera.code, 3, index])
        slot, number = divmod(index, len(fields))
        target = make_target(camera, fields[number], index, slot, rng)
        yield from follow(camera, target, visits[number], run, rng)


def follow(
    camera: Camera,
    target: Target,
    visits: list[Visit],
    run: tuple[float, float],
    rng: np.random.Generator,
) -> Iterator[Alert]:
    """Yield the alerts of one object: each visit that detects it within ``run``, two MJDs."""
    begin, middle = run[0], sum(run) / 2
    if not target.population.stays:
        chances = [visit for visit in visits if visit.mjd >= begin]
        visits = [chances[target.index % len(chances)]]
    x, y = place_on_detector(camera, target, rng)
    history: list[Epoch] = []
    for visit in visits:
        flux = flux_of(target.peak if target.population.peak else target.magnitude) * visit.unit
        flux *= target.population.light(visit.mjd - middle, target)
        error = 4 * visit.noise * visit.core
        picture = None
        if visit.mjd >= begin and abs(flux) > DETECTION * error:
            picture, flux, error = photograph(camera, target, visit, flux, rng)
        else:
            flux += error * float(rng.standard_normal())
        jitter = rng.normal(0, 0.3 * camera.pixel / 3600 / max(abs(flux) / error, 3), 2)
        epoch = Epoch(
            visit=visit,
            x=x + float(rng.normal(0, 3)),
            y=y + float(rng.normal(0, 3)),
            ra=target.ra + float(jitter[0]) / math.cos(math.radians(target.dec)),
            dec=target.dec + float(jitter[1]),
            flux=flux,
            error=error,
            columns=uniform(rng, SURVEY_TABLES[camera.survey]["random"]["detection"]),
        )
        if picture is not None and epoch.snr >= DETECTION:
            recent = (past for past in history if past.visit.mjd > visit.mjd - HISTORY_DAYS)
            yield Alert(target, epoch, tuple(recent), visits[0], picture)
        history.append(epoch)


def place_on_detector(
    camera: Camera, target: Target, rng: np.random.Generator
) -> tuple[float, float]:
    """Return where an object falls: near the edge that its stamps reach over, or anywhere."""
    width, height = camera.detector
    x, y = float(rng.uniform(150, width - 150)), float(rng.uniform(150, height - 150))
    if target.edge:
        near = 85.0 - target.edge
        x, y = ((near, y), (width - near, y), (x, near), (x, height - near))[target.side]
    return x, y


# --- FITS -------------------------------------------------------------------------------------

# The headers of real stamps, byte for byte: ZTF's has the value of SIMPLE in the wrong column,
# LSST's no CTYPE.
CARDS: dict[str, list[str]] = load_json("cards")
UTYPE = "UTYPE   = 'VarianceUncertainty'"
FITS_BLOCK = 2880


def write_hdu(cards: Iterable[str], pixels: Array, **values: Any) -> bytes:
    """Return one FITS unit; cards that come out empty are left out."""
    ny, nx = pixels.shape
    written = [card.format(nx=nx, ny=ny, **values) for card in cards]
    header = "".join(card.ljust(80) for card in (*written, "END") if card).encode("ascii")
    data = pixels.astype(pixels.dtype.newbyteorder(">")).tobytes()
    fill_header, fill_data = (-len(part) % FITS_BLOCK for part in (header, data))
    return header + b" " * fill_header + data + bytes(fill_data)


def decimal(value: float) -> str:
    """Return a number as wcslib writes it into a card."""
    text = f"{value:.14G}"
    return text if "." in text or "E" in text else text + ".0"


def write_ztf_stamp(alert: Alert, kind: str, created: int) -> bytes:
    """Return a gzipped FITS file, as the alert packet ships it."""
    target, pixels = alert.target, alert.picture.images[kind].astype(np.float32)
    if kind == "Difference" and alert.epoch.flux < 0:
        pixels = -pixels  # template minus science: what is seen is bright in it
    if target.edge:
        lost = slice(None, target.edge) if target.side % 2 == 0 else slice(-target.edge, None)
        pixels[(slice(None), lost) if target.side < 2 else lost] = np.nan
    if target.block:
        row, column = target.block
        pixels[row : row + 13, column : column + 12] = np.nan
    packed = gzip.compress(write_hdu(CARDS["ztf"], pixels), 9, mtime=created)
    return packed[:9] + b"\x03" + packed[10:]  # made on Unix


def write_lsst_stamp(alert: Alert, kind: str, *, rotpa: bool) -> bytes:
    """Return a FITS file of three units: nJy, their variance, and the PSF."""
    picture, epoch = alert.picture, alert.epoch
    x, y = picture.frame.centre
    # Inverse of a reflection times a scale: from pixels to degrees.
    matrix = np.linalg.inv(picture.frame.to_pixels) / 3600
    # The telescope's word, a little off what the stars say.
    angle = round((epoch.visit.rotation + 0.8) % 360, 6)
    primary = write_hdu(
        CARDS["lsst"],
        picture.images[kind].astype(np.float32),
        cutminx=int(epoch.x - x),
        cutminy=int(epoch.y - y),
        rotpa=f"ROTPA   = {angle!r:>20}" if rotpa else "",
        crpix1=decimal(x + 1),
        crpix2=decimal(y + 1),
        pc11=decimal(matrix[0, 0]),
        pc12=decimal(matrix[0, 1]),
        pc21=decimal(matrix[1, 0]),
        pc22=decimal(matrix[1, 1]),
        crval1=decimal(epoch.ra),
        crval2=decimal(epoch.dec),
    )
    cards = CARDS["extension"]
    variance = picture.variances[kind].astype(np.float32)
    psf = draw_psf(picture.cores[kind], 47 if kind == "Template" else 41)
    return (
        primary
        + write_hdu(cards, variance, bitpix=-32, utype=UTYPE, name="UNCERT")
        + write_hdu(cards, psf, bitpix=-64, utype="", name="PSFIMAGE")
    )


def draw_psf(core: float, side: int) -> Array:
    """Return a PSF as float64 pixels that sum to one."""
    steps = np.arange(side) - side // 2
    image = np.zeros((side, side))
    for share, spread in PSF:
        profile = np.exp(-0.5 * steps**2 / (spread * core**2 + PIXEL_VARIANCE))
        image += share * np.outer(profile, profile) / profile.sum() ** 2
    return np.asarray(image / image.sum())


# --- ZTF rows ---------------------------------------------------------------------------------


def ztf_visit_columns(visit: Visit, *, archived: bool) -> Row:
    """Return what an image gives its candidates, detected or not."""
    field_number, rcid = visit.field.constants["field"], visit.field.constants["rcid"]
    days = visit.mjd + JD_OF_MJD_ZERO - JD_OF_ZTF_NIGHT_ZERO
    fraction = f"{visit.mjd % 1:.6f}"[2:]
    image = (
        f"ztf_{visit.night:%Y%m%d}{fraction}_{field_number:06d}_z{visit.band}"
        f"_c{rcid // 4 + 1:02d}_o_q{rcid % 4 + 1}_scimrefdiffimg.fits"
    )
    if archived:
        image = f"/ztf/archive/sci/{visit.night:%Y/%m%d}/{fraction}/{image}.fz"
    constants = ("magzpsciunc", "magzpscirms", "clrcoeff", "clrcounc")
    return {
        **SURVEY_TABLES["ztf"]["fixed"]["visit"],
        **{column: visit.constants[column] for column in constants},
        "jd": round(visit.mjd + JD_OF_MJD_ZERO, 7),
        "fid": "gri".index(visit.band) + 1,
        "pid": math.floor(days * 1e5) * 10000 + rcid * 100 + 15,
        "nid": math.floor(days),
        "rcid": rcid,
        "field": field_number,
        "diffmaglim": visit.limit,
        "magzpsci": visit.zero_point,
        "pdiffimfilename": image,
    }


def ztf_epoch_columns(target: Target, epoch: Epoch, *, archived: bool) -> Row:
    """Return one epoch as ``candidate`` and ``prv_candidates`` have it: measured, or a limit."""
    columns = ztf_visit_columns(epoch.visit, archived=archived)
    if epoch.snr < MARGINAL:
        return columns
    positive, magnitude, sigma = epoch.flux > 0, epoch.magnitude, 1.0857 / epoch.snr
    quality = min(1.0, epoch.snr / 12) * (1.0 if target.population.genuine else 0.4)
    hosted, known = target.population.host != "none", not target.population.stays
    width, height = CAMERAS["ztf"].detector
    return {
        **columns,
        **{column: target.constants[column] for column in ("sigmagnr", "chinr", "sharpnr")},
        **epoch.columns,
        "candid": columns["pid"] * 10**6 + (15000 if positive else 10000) + target.slot,
        "isdiffpos": "t" if positive else "f",
        "tblid": target.slot,
        "xpos": epoch.x,
        "ypos": epoch.y,
        "mindtoedge": min(epoch.x, epoch.y, width - epoch.x, height - epoch.y),
        "ra": round(epoch.ra, 7),
        "dec": round(epoch.dec, 7),
        "magpsf": magnitude,
        "sigmapsf": sigma,
        "magap": magnitude + 0.05,
        "sigmagap": 1.2 * sigma,
        "magapbig": magnitude + 0.03,
        "sigmagapbig": 1.6 * sigma,
        "magdiff": 0.05,
        "magfromlim": columns["diffmaglim"] - magnitude,
        "distnr": target.distance + 0.1 * epoch.columns["elong"] if hosted else 9.4,
        "magnr": target.magnitude if hosted else 20.5,
        "ranr": round(target.ra, 7),
        "decnr": round(target.dec, 7),
        "nbad": 0 if epoch.snr >= DETECTION else 1,
        "rb": 0.3 + 0.65 * quality,
        "scorr": epoch.snr,
        "ssdistnr": 0.4 if known else -999.0,
        "ssmagnr": round(magnitude, 1) if known else -999.0,
        "ssnamenr": str(4371 + target.index) if known else "null",
    }


def ztf_row(alert: Alert) -> Row:
    """Return one alert as a row of the ``ztf`` schema."""
    target, epoch = alert.target, alert.epoch
    visit, population = epoch.visit, target.population
    fixed = SURVEY_TABLES["ztf"]["fixed"]
    columns = ztf_epoch_columns(target, epoch, archived=False)
    past = [ztf_epoch_columns(target, old, archived=True) for old in alert.history]
    detections = [old["jd"] for old in past if "candid" in old] + [columns["jd"]]
    candidate = {
        **fixed["candidate"],
        **target.constants,
        **visit.constants,
        **columns,
        **{f"objectidps{n}": int((target.dec + 90) * 1.2e15) + n for n in (1, 2, 3)},
        **{f"s{band}mag1": target.magnitude + 0.2 for band in "griz"},
        "maggaia": target.magnitude,
        "ndethist": len(detections),
        "jdstarthist": detections[0],
        "jdendhist": columns["jd"],
        "rfid": columns["field"] * 10**6 + 120000 + columns["fid"] * 100 + columns["rcid"],
        "dsnrms": epoch.snr,
        "ssnrms": 2.4 * epoch.snr,
        "dsdiff": -1.4 * epoch.snr,
        "drb": columns["rb"] ** 0.3,
    }
    created = int((visit.mjd - MJD_OF_UNIX_EPOCH) * 86400) + 900
    name, image = f"candid{columns['candid']}", f"pid{columns['pid']}_targ"
    sign = "scimref" if epoch.flux > 0 else "refmsci"
    files = {
        "Science": f"{name}_{image}_sci.fits.gz",
        "Template": f"{name}_ref.fits.gz",
        "Difference": f"{name}_{image}_{sign}.fits.gz",
    }
    stamps = {
        f"cutout{kind}": {"fileName": file, "stampData": write_ztf_stamp(alert, kind, created)}
        for kind, file in files.items()
    }
    supernova = population.name == "supernova"
    return {
        **fixed["row"],
        "candid": columns["candid"],
        "objectId": ztf_name(target.index, alert.discovered.night.year),
        "candidate": candidate,
        "prv_candidates": past or None,
        **stamps,
        "timestamp": datetime.fromtimestamp(created + 300, UTC).replace(tzinfo=None),
        "cdsxmatch": population.crossmatch,
        "rf_snia_vs_nonia": 0.8 if supernova else 0.02,
        "snn_snia_vs_nonia": 0.7 if supernova else 0.1,
        "snn_sn_vs_all": 0.9 if supernova else 0.05,
        "roid": 0 if population.stays else 3,
        "nalerthist": len(detections),
    }


def ztf_name(number: int, year: int) -> str:
    """Return an object's name; different numbers below 26^7 have different letters."""
    # Coprime with 26: a permutation of all names, so that neighbours do not look alike.
    scrambled = (number * 3141592653 + 2718281829) % 26**7
    letters = ""
    for _ in range(7):
        scrambled, letter = divmod(scrambled, 26)
        letters = chr(ord("a") + letter) + letters
    return f"ZTF{year % 100:02d}{letters}"


# --- LSST rows --------------------------------------------------------------------------------


def lsst_id(visit: Visit, counter: int) -> int:
    """Pack when and where something was measured into 18 digits, as Rubin's ids do."""
    days = (visit.night - date(2010, 1, 1)).days
    detector = visit.field.constants["detector"]
    return (((days << 15) + visit.sequence << 8) + int(detector) << 22) + counter


def lsst_source(target: Target, epoch: Epoch, ids: Row) -> Row:
    """Return one epoch as ``diaSource`` and ``prvDiaSources`` have it."""
    visit, band = epoch.visit, epoch.visit.band
    camera, genuine = CAMERAS["lsst"], target.population.genuine
    host = flux_of(target.magnitude) * visit.unit if target.population.host != "none" else 0.0
    tai = visit.mjd + TAI_MINUS_UTC_DAYS
    spread = visit.core / epoch.snr  # pixels
    return {
        **no_flags("diaSource"),
        **SURVEY_TABLES["lsst"]["fixed"]["source"],
        **epoch.columns,
        **ids,
        "diaSourceId": lsst_id(visit, target.index),
        "visit": int(f"{visit.night:%Y%m%d}{visit.sequence:05d}"),
        "detector": visit.field.constants["detector"],
        "band": band,
        "midpointMjdTai": tai,
        "timeProcessedMjdTai": tai + 90 / 86400,
        "ra": epoch.ra,
        "dec": epoch.dec,
        "x": epoch.x,
        "y": epoch.y,
        **dict.fromkeys(("raErr", "decErr"), spread * camera.pixel / 3600),
        **dict.fromkeys(("xErr", "yErr"), spread),
        **dict.fromkeys(("ixxPSF", "iyyPSF"), (camera.pixel * visit.core) ** 2),
        **dict.fromkeys(("psfFlux", "apFlux"), epoch.flux),
        "psfFluxErr": epoch.error,
        "apFluxErr": 1.7 * epoch.error,
        "snr": epoch.snr,
        "isNegative": epoch.flux < 0,
        "scienceFlux": host + epoch.flux,
        "scienceFluxErr": epoch.error,
        "templateFlux": host,
        "templateFluxErr": 0.2 * epoch.error,
        "isDipole": not genuine,
        "reliability": min(0.99, epoch.snr / 12) * (1.0 if genuine else 0.2),
        "bboxSize": target.size,
    }


@cache
def no_flags(column: str) -> Row:
    """Return False for each flag of a struct column."""
    members = read_schema("lsst_v10").field(column).type
    return {member.name: False for member in members if pa.types.is_boolean(member.type)}


def lsst_object(target: Target, number: int, epochs: list[Epoch]) -> Row:
    """Return the summary of an object's sources so far."""
    times = [epoch.visit.mjd + TAI_MINUS_UTC_DAYS for epoch in epochs]
    summary: Row = {
        "diaObjectId": number,
        "ra": target.ra,
        "dec": target.dec,
        **dict.fromkeys(("raErr", "decErr"), 1e-5),
        **dict.fromkeys(("validityStartMjdTai", "radecMjdTai", "lastDiaSourceMjdTai"), times[-1]),
        "firstDiaSourceMjdTai": times[0],
        "nDiaSources": len(epochs),
    }
    for band in "ugrizy":
        measured = [epoch for epoch in epochs if epoch.visit.band == band]
        summary[f"{band}_psfFluxNdata"] = len(measured)
        if measured:
            fluxes = np.array([epoch.flux for epoch in measured])
            error = float(np.mean([epoch.error for epoch in measured]))
            summary[f"{band}_psfFluxMean"] = float(fluxes.mean())
            summary[f"{band}_psfFluxMeanErr"] = error / math.sqrt(len(fluxes))
            summary[f"{band}_psfFluxErrMean"] = error
            summary[f"{band}_psfFluxSigma"] = float(fluxes.std())
            summary[f"{band}_psfFluxMin"] = float(fluxes.min())
            summary[f"{band}_psfFluxMax"] = float(fluxes.max())
    return summary


def lsst_row(alert: Alert, schema: str) -> Row:
    """Return one alert as a row of ``lsst_v10`` or ``lsst_v7``; each ignores what it lacks."""
    target, epoch, history = alert.target, alert.epoch, alert.history
    fixed = SURVEY_TABLES["lsst"]["fixed"]
    stamps = {
        f"cutout{kind}": write_lsst_stamp(alert, kind, rotpa=schema == "lsst_v10") for kind in KINDS
    }
    ids: Row = {}
    if target.population.stays:
        number = lsst_id(alert.discovered, 2**21 + target.index)
        detected = [past for past in history if past.snr >= DETECTION]
        ids = {"diaObjectId": number, "ssObjectId": 0 if schema == "lsst_v7" else None}
        forced = [
            lsst_source(target, past, ids)
            | {"diaForcedSourceId": lsst_id(past.visit, 2**20 + target.index)}
            for past in (*history, epoch)
        ]
        rest = {
            "prvDiaSources": [lsst_source(target, past, ids) for past in detected] or None,
            "prvDiaForcedSources": forced,
            "diaObject": lsst_object(target, number, [*detected, epoch]),
        }
    else:
        # What moves belongs to no diaObject. The id spells the designation, a byte a letter.
        designation = f"2026 R{target.index}"
        packed = int.from_bytes(f"K26R{target.index:03d}".encode("ascii"), "big")
        ids = {"diaObjectId": 0 if schema == "lsst_v7" else None, "ssObjectId": packed}
        identity = {"ssObjectId": packed, "designation": designation}
        place = {"ephRa": epoch.ra, "ephDec": epoch.dec, "ephVmag": epoch.magnitude}
        source = {"diaSourceId": lsst_id(epoch.visit, target.index)}
        rest = {
            "ssSource": fixed["ssSource"] | identity | place | source,
            "ssObject": fixed["ssObject"] | identity,
            "mpc_orbits": fixed["mpc_orbits"] | identity | {"id": target.index},
        }
    source = lsst_source(target, epoch, ids)
    return {
        **fixed["row"],
        **dict.fromkeys(("diaSourceId", "alertId"), source["diaSourceId"]),
        "target_name": f"field_{epoch.visit.field.number:02d}",
        "diaSource": source,
        **rest,
        **stamps,
        "brokerIngestMjd": epoch.visit.mjd + 120 / 86400,
        "brokerEndProcessMjd": epoch.visit.mjd + 180 / 86400,
        "cdsxmatch": target.population.crossmatch,
    }


# --- Tables -----------------------------------------------------------------------------------


def simulate_ztf(
    *,
    nights: int = 3,
    objects: int = 80,
    seed: int = 1,
    start: date = START,
    rows: int | None = None,
    null_stamps: float = 0.0,
) -> pa.Table:
    """Return a table of ZTF alerts in time order, some four per object.

    With ``rows`` it has just so many: those drawn, then copies of them under ids of their own
    (see ``multiply_alerts``). ``null_stamps`` is the share of alerts that lack one stamp: in turn
    the struct is null, and its stampData.
    """
    observed = observe(CAMERAS["ztf"], nights=nights, objects=objects, seed=seed, start=start)
    drawn = [ztf_row(alert) for alert in observed]
    for number, (row, column) in enumerate(choose_nulls(drawn, null_stamps, seed)):
        row[column] = None if number % 2 else row[column] | {"stampData": None}
    drawn.sort(key=lambda row: (row["candidate"]["jd"], row["candid"]))
    table = pa.Table.from_pylist(drawn, schema=read_schema("ztf"))
    return table if rows is None else multiply_alerts(table, rows)


def simulate_lsst(
    *,
    nights: int = 3,
    objects: int = 80,
    seed: int = 1,
    start: date = START,
    rows: int | None = None,
    null_stamps: float = 0.0,
    schema: str = "lsst_v10",
) -> pa.Table:
    """Return a table of LSST alerts in time order, some four per object.

    ``schema`` is ``lsst_v10``, with diaSourceId at the top level and ROTPA in the headers, or
    ``lsst_v7``, with neither. The other arguments are those of ``simulate_ztf``.
    """
    observed = observe(CAMERAS["lsst"], nights=nights, objects=objects, seed=seed, start=start)
    drawn = [lsst_row(alert, schema) for alert in observed]
    for row, column in choose_nulls(drawn, null_stamps, seed):
        row[column] = None
    drawn.sort(key=lambda row: (row["diaSource"]["midpointMjdTai"], row["diaSourceId"]))
    table = pa.Table.from_pylist(drawn, schema=read_schema(schema))
    return table if rows is None else multiply_alerts(table, rows)


SIMULATE: dict[str, Callable[..., pa.Table]] = {"ztf": simulate_ztf, "lsst": simulate_lsst}


def choose_nulls(rows: list[Row], share: float, seed: int) -> Iterator[tuple[Row, str]]:
    """Yield the rows that shall lack a stamp, and which column."""
    rng = np.random.default_rng([seed, 4])
    for row in rows:
        if rng.random() < share:
            yield row, f"cutout{rng.choice(KINDS)}"


# The columns that hold ids, and what a copy's are higher by: ZTF above the sequence number and
# below the image, LSST within the counter.
ID_STEPS = {
    "candid": 20_000,
    "candidate.candid": 20_000,
    "alertId": 2**12,
    "diaSourceId": 2**12,
    "diaSource.diaSourceId": 2**12,
    "diaSource.diaObjectId": 2**12,
    "diaObject.diaObjectId": 2**12,
    "ssSource.diaSourceId": 2**12,
}
# Where a stamp may be marked: in gzip's time; in the last bits of two corner pixels.
MARKS = {"cutout{}.stampData": (4, 5), "cutout{}": (FITS_BLOCK + 3, FITS_BLOCK + 7)}


def multiply_alerts(table: pa.Table, rows: int) -> pa.Table:
    """Return ``rows`` alerts: those of ``table``, then copies of them, each under its own ids.

    For benchmarks: thousands a second, up to 500 copies of up to 4096 objects. A copy shows the
    same sky and has the same columns; only its ids are its own, and two bytes of each stamp that
    nobody looks at, so that no dictionary folds the copies into one.
    """
    copy, original = np.divmod(np.arange(rows), table.num_rows)
    names = table["objectId"].to_pylist() if "objectId" in table.column_names else []
    table = table.take(pa.array(original)).combine_chunks()
    for column, step in ID_STEPS.items():
        table = change_column(table, column, partial(pc.add, pa.array(copy * step)))
    if names:
        number = {name: rank for rank, name in enumerate(dict.fromkeys(names))}
        renamed = [
            ztf_name(10**6 * int(n) + number[names[row]], int(names[row][3:5])) if n else names[row]
            for n, row in zip(copy, original, strict=True)
        ]
        table = change_column(table, "objectId", lambda _: pa.array(renamed))
    for template, places in MARKS.items():
        for kind in KINDS:
            mark = partial(mark_stamps, copy=copy, places=places)
            table = change_column(table, template.format(kind), mark)
    return table


def change_column(table: pa.Table, name: str, change: Callable[[pa.Array], pa.Array]) -> pa.Table:
    """Return the table with a column, or ``column.member``, changed; as it is if it has none."""
    column, _, member = name.partition(".")
    place = table.schema.get_field_index(column)
    if place < 0 or pa.types.is_struct(table.schema.field(place).type) != bool(member):
        return table
    values = table.column(place).combine_chunks()
    if not member:
        return table.set_column(place, table.schema.field(place), change(values))
    members = [values.field(n) for n in range(values.type.num_fields)]
    at = values.type.get_field_index(member)
    members[at] = change(members[at])
    changed = pa.StructArray.from_arrays(members, fields=list(values.type), mask=values.is_null())
    return table.set_column(place, table.schema.field(place), changed)


def mark_stamps(stamps: pa.Array, copy: Array, places: tuple[int, int]) -> pa.Array:
    """Return binary cells with the number of their copy laid over two bytes of each."""
    validity, offsets, data = stamps.buffers()
    starts = np.frombuffer(offsets, np.int32)[stamps.offset :][: len(stamps)]
    chosen = (copy > 0) & stamps.is_valid().to_numpy(zero_copy_only=False)
    marked = np.frombuffer(data, np.uint8).copy()
    for place, byte in zip(places, (copy & 255, copy >> 8), strict=True):
        marked[starts[chosen] + place] ^= byte[chosen].astype(np.uint8)
    buffers = [validity, offsets, pa.py_buffer(marked)]
    return pa.Array.from_buffers(stamps.type, len(stamps), buffers, offset=stamps.offset)


# --- Files ------------------------------------------------------------------------------------

ROW_GROUP_BYTES = 128 << 20
SPARK: dict[str, Any] = {
    "compression": "snappy",
    "version": "1.0",
    # parquet-mr looks at a page's size after every 100 rows and closes it beyond 1 MiB.
    "write_batch_size": 100,
    "data_page_size": 1 << 20,
    "store_schema": False,
    "use_deprecated_int96_timestamps": True,
}
WRITERS: dict[str, dict[str, Any]] = {
    "spark": SPARK,  # parquet-mr up to 1.10
    "spark-indexed": SPARK | {"write_page_index": True},  # parquet-mr from 1.11 on
    "pyarrow": {},
}


def write_file(path: Path, table: pa.Table, writer: str = "spark", **overrides: Any) -> None:
    """Write a parquet file laid out as one of ``WRITERS`` does, all of it or nothing.

    ``overrides`` are arguments of ``pyarrow.parquet.write_table``.
    """
    options, metadata = dict(WRITERS[writer]), {}
    if writer != "pyarrow":
        leaves = leaf_names(table.schema)
        options["use_dictionary"] = [leaf for leaf in leaves if not leaf.startswith("cutout")]
        row_bytes = max(1, table.nbytes // max(1, table.num_rows))
        options["row_group_size"] = max(100, ROW_GROUP_BYTES // row_bytes)
        metadata = spark_metadata(table.schema)
    options |= overrides
    row_group_size = options.pop("row_group_size", None)
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path) as part, pq.ParquetWriter(part, table.schema, **options) as file:
        file.write_table(table, row_group_size)
        # Apart from the schema's own, which is dropped together with the Arrow schema.
        file.add_key_value_metadata(metadata)


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Give a path to write to, and rename it once it is whole."""
    # Spark, Hive and pyarrow pass over names with a leading underscore.
    part = path.with_name(f"_{path.name}.{os.getpid()}.tmp")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def leaf_names(schema: pa.Schema) -> Iterator[str]:
    """Yield the parquet paths of a schema's leaf columns."""

    def walk(name: str, kind: pa.DataType) -> Iterator[str]:
        if pa.types.is_struct(kind):
            for member in kind:
                yield from walk(f"{name}.{member.name}", member.type)
        elif pa.types.is_list(kind):
            yield from walk(f"{name}.list.element", kind.value_type)
        else:
            yield name

    for column in schema:
        yield from walk(column.name, column.type)


def spark_metadata(schema: pa.Schema) -> dict[str, str]:
    """Return what Spark writes beside the schema: its own, as JSON."""
    names = {"int32": "integer", "int64": "long", "bool": "boolean", "timestamp[ns]": "timestamp"}

    def describe(kind: pa.DataType) -> Any:
        if pa.types.is_struct(kind):
            return {"type": "struct", "fields": [describe_field(member) for member in kind]}
        if pa.types.is_list(kind):
            element = describe(kind.value_type)
            return {"type": "array", "elementType": element, "containsNull": True}
        return names.get(str(kind), str(kind))

    def describe_field(column: pa.Field) -> Row:
        kind = describe(column.type)
        return {"name": column.name, "type": kind, "nullable": column.nullable, "metadata": {}}

    columns = {"type": "struct", "fields": [describe_field(column) for column in schema]}
    return {
        "org.apache.spark.version": "3.4.3",
        "org.apache.spark.sql.parquet.row.metadata": json.dumps(columns, separators=(",", ":")),
    }


# --- The archive ------------------------------------------------------------------------------

NIGHT_WRITERS = ("spark", "pyarrow", "spark-indexed")  # in turn
PART_ROWS = 150
RECORD = "_demo.json"  # beside a survey's archive, once it is finished


@dataclass(frozen=True)
class Archive:
    """The simulated archive of one survey. Paths are relative to ``Summary.folder``.

    The example is the last alert of what erupts, in the file ``example_path``.
    """

    survey: str
    seed: int
    nights: int
    objects: int
    alerts: int
    bytes: int
    files: list[str]
    example_path: str
    example_object: str
    example_alert: str


@dataclass(frozen=True)
class Summary:
    """What ``make_archive`` made, or found made."""

    folder: Path
    archives: tuple[Archive, ...]
    made: bool
    seconds: float

    def __str__(self) -> str:
        return "\n".join(
            f"{archive.survey}: {archive.alerts} alerts, {archive.bytes / 1e6:.0f} MB, below "
            f"{self.folder / archive.survey}; try alert {archive.example_alert} of object "
            f"{archive.example_object} in {archive.example_path}"
            for archive in self.archives
        )


def make_archive(
    folder: Path,
    *,
    nights: int = 3,
    objects: int = 80,
    seed: int = 1,
    start: date = START,
    surveys: Iterable[str] = ("ztf", "lsst"),
    overwrite: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Summary:
    """Simulate some nights of each survey below ``folder``.

    The files are ``<survey>/archive/science/year=YYYY/month=MM/day=DD/part-*.parquet``, written in
    turn as Spark and as pyarrow write them. A survey that was finished before is left alone unless
    ``overwrite``; one that was interrupted is made anew. No half file ever bears the name of a
    whole one.
    """
    began = time.monotonic()
    tell = progress or (lambda line: None)
    archives, made = [], False
    for survey in surveys:
        archive = None if overwrite else find_archive(folder, survey)
        if archive is None:
            tell(f"{survey}: simulating {objects} objects over {nights} nights")
            table = SIMULATE[survey](nights=nights, objects=objects, seed=seed, start=start)
            plan = plan_files(survey, table, seed)
            for path, (rows, writer) in plan.items():
                write_file(folder / path, rows, writer)
                tell(f"{survey}: {rows.num_rows} alerts in {path}, as {writer} writes")
            settings = {"seed": seed, "nights": nights, "objects": objects}
            archive = record_archive(folder, survey, plan, settings)
            made = True
        else:
            tell(
                f"{survey}: {archive.alerts} alerts of {archive.nights} nights stand there already"
            )
        archives.append(archive)
    return Summary(folder, tuple(archives), made, time.monotonic() - began)


Plan = dict[str, tuple[pa.Table, str]]


def plan_files(survey: str, table: pa.Table, seed: int) -> Plan:
    """Return which rows go to which file of the archive, and who seems to write it."""
    if survey == "ztf":
        times = pc.subtract(pc.struct_field(table["candidate"], "jd"), JD_OF_MJD_ZERO)
    else:
        times = pc.subtract(
            pc.struct_field(table["diaSource"], "midpointMjdTai"), TAI_MINUS_UTC_DAYS
        )
    days = [day_of(mjd) for mjd in times.to_pylist()]
    plan: Plan = {}
    for night, day in enumerate(dict.fromkeys(days)):
        rows = table.slice(days.index(day), days.count(day))
        writer = NIGHT_WRITERS[night % len(NIGHT_WRITERS)]
        job = uuid.uuid5(uuid.NAMESPACE_URL, f"{survey} {day} {seed}")
        home = f"{survey}/archive/science/year={day:%Y}/month={day:%m}/day={day:%d}"
        for part in range(-(-rows.num_rows // PART_ROWS)):
            spark = f"part-{part:05d}-{job}-c000.snappy.parquet"
            name = f"part-{part}.parquet" if writer == "pyarrow" else spark
            plan[f"{home}/{name}"] = (rows.slice(part * PART_ROWS, PART_ROWS), writer)
    return plan


def record_archive(folder: Path, survey: str, plan: Plan, settings: dict[str, int]) -> Archive:
    """Write down that a survey's files are all there, and drop an earlier simulation's."""
    record = folder / survey / RECORD
    if record.exists():
        for name in set(json.loads(record.read_text("utf-8"))["files"]) - set(plan):
            (folder / name).unlink(missing_ok=True)
    path, object_id, alert_id = choose_example(survey, plan)
    archive = Archive(
        survey=survey,
        **settings,
        alerts=sum(rows.num_rows for rows, _ in plan.values()),
        bytes=sum((folder / name).stat().st_size for name in plan),
        files=list(plan),
        example_path=path,
        example_object=object_id,
        example_alert=alert_id,
    )
    with writing(record) as part:
        part.write_text(json.dumps(asdict(archive), indent=2) + "\n", "utf-8")
    return archive


def find_archive(folder: Path, survey: str) -> Archive | None:
    """Return a survey's archive if it was finished before and its files are still there."""
    try:
        archive = Archive(**json.loads((folder / survey / RECORD).read_text("utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return archive if all((folder / name).is_file() for name in archive.files) else None


# Columns of flux or magnitude, sign, object and alert.
EXAMPLE_COLUMNS = {
    "ztf": ("candidate.magpsf", "candidate.isdiffpos", "objectId", "candid"),
    "lsst": ("diaSource.psfFlux", "diaSource.isNegative", "diaSource.diaObjectId", "diaSourceId"),
}


def choose_example(survey: str, plan: Plan) -> tuple[str, str, str]:
    """Return path, object and alert of the last of the object that changed most while it shone."""
    seen: dict[str, list[tuple[float, str, str]]] = defaultdict(list)
    for path, (rows, _) in plan.items():
        columns = []
        for name in EXAMPLE_COLUMNS[survey]:
            column, _, member = name.partition(".")
            values = pc.struct_field(rows[column], member) if member else rows[column]
            columns.append(values.to_pylist())
        for bright, sign, name, number in zip(*columns, strict=True):
            if name is not None:  # null: what moves
                size = flux_of(bright) if survey == "ztf" else abs(bright)
                lost = sign in ("f", True)
                seen[str(name)].append((-size if lost else size, path, str(number)))

    def change(name: str) -> tuple[bool, float]:
        fluxes = [flux for flux, *_ in seen[name]]
        return len(fluxes) > 3 and min(fluxes) > 0, max(fluxes) / abs(min(fluxes))

    name = max(seen, key=change)
    return seen[name][-1][1], name, seen[name][-1][2]
