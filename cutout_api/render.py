"""Pixels -> picture: fill -> interval -> stretch -> convolve -> reshape -> colormap.

With its defaults this draws, pixel for pixel, what the public Fink API draws. Stretches and
kernels are rows of `STRETCHES` and `KERNELS`; colormaps are matplotlib's.

What the recipe leaves undefined is drawn too, always the same way and without a warning:

- `sigmoid` without a usable standard deviation is flat mid-grey, every pixel counting as the mean:
  a constant image, a single pixel, pixels whose squares overflow a float64 (any +-inf pixel
  does that) or vanish in it.
- The other stretches become a step where the interval is empty, reversed or wider than a float64:
  white above `vmin`, black at and below it, which is what the recipe tends to as `vmax` falls to
  `vmin`. This is so for a centre fainter than `vmin`, for `pmin >= pmax` and for the percentiles
  of no finite pixel (`vmin` is 0). A constant image is black, and so is one whose `vmin` overflows.
- Where the recipe's centre pixel `[N//2, N//2]` (N rows) lies beyond the last column, the middle
  column is used: `[N//2, columns//2]`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .geometry import Geometry, Image

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

Picture = NDArray[np.uint8]

DEFAULT_PMIN, DEFAULT_PMAX = 0.5, 99.5
SIGMOID, ASINH = "sigmoid", "asinh"
PERCENTILE, MINMAX, ZSCALE, MANUAL = "percentile", "minmax", "zscale", "manual"
INTERVALS = (PERCENTILE, MINMAX, ZSCALE, MANUAL)
UNCHANGED = Geometry()


def stretch_sigmoid(z: Image) -> Image:
    return 1.0 / (1.0 + np.exp(-z))


def stretch_linear(t: Image) -> Image:
    return t


def stretch_power(t: Image) -> Image:
    return t * t


def stretch_log(t: Image) -> Image:
    return np.log(1000.0 * t + 1.0) / float(np.log(1001.0))


def stretch_asinh(t: Image) -> Image:
    return np.arcsinh(t / 10.0) / float(np.arcsinh(1.0 / 10.0))


# Each curves t in [0, 1], the place of a pixel in its interval, except `sigmoid`: it has no
# interval and curves z, the distance from the mean in standard deviations, from all of the reals.
STRETCHES: Mapping[str, Callable[[Image], Image]] = {
    "sigmoid": stretch_sigmoid,
    "linear": stretch_linear,
    "sqrt": np.sqrt,
    "power": stretch_power,
    "log": stretch_log,
    "asinh": stretch_asinh,
}


def _gaussian(radius: int) -> Image:
    """A round Gaussian of unit standard deviation and unit sum, `2 * radius + 1` pixels wide."""
    offsets = np.arange(-radius, radius + 1, dtype=np.float64)
    # The factor 1 / 2 pi makes the last bits those of astropy's Gaussian2DKernel(1).
    kernel = 1 / (2 * np.pi) * np.exp(-(offsets[:, None] ** 2 + offsets**2) / 2)
    return kernel / float(kernel.sum())


KERNELS: Mapping[str, Image] = {
    "gauss": _gaussian(radius=2),
    "box": np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16.0,
}


def colormap_names() -> list[str]:
    """Every name that `Rendering.colormap` may have, sorted; reversed ones end in `_r`."""
    # Imported where a colormap is asked for: 13 MB, for which a plain stamp has no use.
    import matplotlib

    return sorted(matplotlib.colormaps)


@dataclass(frozen=True)
class Rendering:
    """How to draw a stamp; the defaults are the public API's.

    `stretch` and `convolution_kernel` name rows of `STRETCHES` and `KERNELS`, `colormap` is one of
    `colormap_names()` or None for grayscale. `pmin` and `pmax` are percentiles in [0, 100]:
    one given alone leaves the other at 0.5 or 99.5, and `sigmoid` uses neither.
    """

    stretch: str = SIGMOID
    colormap: str | None = None
    pmin: float | None = None
    pmax: float | None = None
    convolution_kernel: str | None = None
    interval: str | None = None
    """One of `INTERVALS`; None: percentiles where one is given, else the public API's."""
    vmin: float | None = None
    vmax: float | None = None
    """Of the manual interval; None: the faintest or brightest pixel."""
    a: float | None = None
    """Where `asinh` turns from linear to logarithmic, a place in the interval; None: as the
    public API's, whose 10 is so far beyond it that its asinh is a straight line."""
    invert: bool = False
    """Bright is dark."""


@dataclass(frozen=True)
class Scale:
    """What pixel values are measured by: an interval, or for `sigmoid` a mean and a deviation."""

    low: float
    """vmin, or the mean."""
    high: float
    """vmax, or the standard deviation, 0 where there is none."""


def choose_scale(images: Sequence[np.ndarray], rendering: Rendering) -> Scale:
    """Return the scale that draws these images alike: each 2-D, of any real dtype, not empty.

    Of several, `sigmoid`, percentiles, extremes and zscale are those of all pixels together; the
    public API's interval reaches from the lowest of theirs to the highest.
    """
    with np.errstate(all="ignore"):
        return _measure(images, [_fill(image) for image in images], rendering)


def render(
    pixels: np.ndarray,
    rendering: Rendering,
    scale: Scale | None = None,
    geometry: Geometry = UNCHANGED,
) -> Picture:
    """Draw a 2-D image of any real dtype and byte order, on `scale` or its own.

    Returns uint8 of shape (ny, nx), grayscale, or with a colormap (ny, nx, 4), RGBA. Unless
    `geometry` says so nothing is flipped: row 0 of the picture is row 0 of the pixels.

    Raises ValueError if the image is not 2-D or holds no pixel, or if a percentile that is used
    lies outside [0, 100]; KeyError for a stretch, kernel or colormap that does not exist.
    """
    if pixels.ndim != 2 or pixels.size == 0:
        raise ValueError(f"a picture needs a 2-D image with pixels, not shape {pixels.shape}")

    # Overflow is foreseen in every step (see the module), so numpy need not tell.
    with np.errstate(all="ignore"):
        filled = _fill(pixels)
        if scale is None:
            scale = _measure([pixels], [filled], rendering)
        if rendering.stretch == SIGMOID:
            placed = _standardise(filled, scale.low, scale.high)
        else:
            placed = _place(filled, scale.low, scale.high)
        drawn = _find_stretch(rendering)(placed)
        if rendering.convolution_kernel is not None:
            drawn = _convolve(drawn, KERNELS[rendering.convolution_kernel])
        if rendering.invert:
            drawn = 1.0 - drawn
        if geometry.changes:
            drawn = geometry.reshape(drawn, blank=float(rendering.invert))
        if rendering.colormap is None:
            return (drawn * 255).astype(np.uint8)
        return _find_colormap(rendering.colormap)(drawn, bytes=True)


def triptych(pictures: Sequence[np.ndarray]) -> Picture:
    """Put pictures of one mode (all grayscale, or all RGBA) side by side, in the given order.

    The tops are aligned; below a shorter picture it is black, or with RGBA transparent.

    Raises ValueError if there is no picture, or grayscale and RGBA are mixed.
    """
    if len({picture.shape[2:] for picture in pictures}) != 1:
        raise ValueError("a triptych needs pictures, all of them grayscale or all of them RGBA")
    height = max(len(picture) for picture in pictures)
    width = sum(picture.shape[1] for picture in pictures)
    joined = np.zeros((height, width, *pictures[0].shape[2:]), dtype=np.uint8)
    left = 0
    for picture in pictures:
        ny, nx = picture.shape[:2]
        joined[:ny, left : left + nx] = picture
        left += nx
    return joined


def _fill(pixels: np.ndarray) -> Image:
    """The pixels as float64, NaN as 0 and +-inf as the largest finite number of its sign."""
    return np.nan_to_num(np.array(pixels, dtype=np.float64, order="C"), copy=False)


def _measure(images: Sequence[np.ndarray], filled: Sequence[Image], rendering: Rendering) -> Scale:
    """The scale of `images`, which still hold the NaN and inf of the stamps, and as filled."""
    if rendering.stretch == SIGMOID:
        return _mean_and_deviation(_join(filled))
    if rendering.interval is None and rendering.pmin is None and rendering.pmax is None:
        found = [_legacy_interval(image) for image in filled]
        return Scale(min(low for low, _ in found), max(high for _, high in found))
    pixels = _join([np.asarray(image, np.float64) for image in images])
    return Scale(*_choose_interval(pixels[np.isfinite(pixels)], rendering))


def _join(images: Sequence[Image]) -> Image:
    """The pixels of one image as they are, of several in one row."""
    return images[0] if len(images) == 1 else np.concatenate([i.ravel() for i in images])


def _mean_and_deviation(filled: Image) -> Scale:
    mean, std = float(filled.mean()), float(filled.std())
    # min == max: the mean of equal pixels may be rounded, which leaves a tiny std.
    usable = 0 < std < np.inf and filled.min() != filled.max()
    return Scale(mean, std if usable else 0.0)


def _standardise(filled: Image, mean: float, std: float) -> Image:
    """The distance of each pixel from the mean, in (population) standard deviations."""
    return (filled - mean) / std if std else np.zeros_like(filled)


def _find_stretch(rendering: Rendering) -> Callable[[Image], Image]:
    if rendering.a is None:
        return STRETCHES[rendering.stretch]
    from astropy.visualization import AsinhStretch

    stretch: Callable[[Image], Image] = AsinhStretch(rendering.a)
    return stretch


def _choose_interval(finite: Image, rendering: Rendering) -> tuple[float, float]:
    """The (vmin, vmax) to draw between; (0, 0) if no pixel is finite and none is given."""
    low, high = rendering.vmin, rendering.vmax
    if finite.size == 0:
        return low or 0.0, high or 0.0
    if rendering.interval in (None, PERCENTILE):
        pmin = DEFAULT_PMIN if rendering.pmin is None else rendering.pmin
        pmax = DEFAULT_PMAX if rendering.pmax is None else rendering.pmax
        low, high = np.percentile(finite, (pmin, pmax))
    elif rendering.interval == ZSCALE:
        from astropy.visualization import ZScaleInterval

        low, high = ZScaleInterval().get_limits(finite)
    low = finite.min() if low is None else low
    high = finite.max() if high is None else high
    return float(low), float(high)


def _legacy_interval(filled: Image) -> tuple[float, float]:
    """From a little above the faintest pixel to the one at the centre, where the alert is."""
    ny, nx = filled.shape
    centre = ny // 2
    vmax = filled[centre, centre if centre < nx else nx // 2]
    vmin = filled.min() + 0.2 * np.median(np.abs(filled - np.median(filled)))
    return float(vmin), float(vmax)


def _place(filled: Image, vmin: float, vmax: float) -> Image:
    """The place of each pixel in the interval, 0 at vmin and below, 1 at vmax and above."""
    width = vmax - vmin
    if not 0 < width < np.inf:
        return (filled > vmin).astype(np.float64)
    return np.clip((filled - vmin) / width, 0.0, 1.0)


def _convolve(drawn: Image, kernel: Image) -> Image:
    # Imported here: it takes half a second, and few requests ask for a kernel. Not done in numpy:
    # another order of summation moves the last bit, and a truncated 8-bit pixel with it.
    from astropy.convolution import convolve

    convolved: Image = convolve(drawn, kernel, boundary="extend")
    return convolved


@cache
def _find_colormap(name: str) -> Colormap:
    """A colormap ready to be called; matplotlib itself makes a copy each time it is asked."""
    import matplotlib

    colormap = matplotlib.colormaps[name]
    # The first call fills its table, and must not do so in two threads at once.
    colormap(0.0)
    return colormap
