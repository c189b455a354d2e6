"""The simulated sky: what is there, what varies, and what a camera sees of it on a night.

The sky is drawn as sums of Gaussians. A mixture of Gaussians stays one when it is blurred,
rotated or sheared, so the flux that is drawn is known exactly, and the magnitudes in an alert
are measured on the stamp itself. Everything follows from the seed. Used by the demo alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from importlib import resources
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Row = dict[str, Any]

MJD_OF_UNIX_EPOCH = 40587
HISTORY_DAYS = 30  # what a ZTF alert carries of its object's past
DETECTION, MARGINAL = 5.0, 3.0  # signal to noise
SCENE_ZERO_POINT = 25.0  # magnitude of one unit of flux in a scene


def load_json(name: str) -> Any:
    """Return one of the small tables that come with this module."""
    text = resources.files("cutout_api").joinpath(f"demo_data/{name}.json").read_text("utf-8")
    return json.loads(text)


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
