"""Pixels -> picture: fill -> interval -> stretch -> convolve -> colormap.

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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import matplotlib
import numpy as np
from matplotlib.colors import Colormap
from numpy.typing import NDArray

Image = NDArray[np.float64]
Picture = NDArray[np.uint8]

DEFAULT_PMIN, DEFAULT_PMAX = 0.5, 99.5


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
    return sorted(matplotlib.colormaps)


@dataclass(frozen=True)
class Rendering:
    """How to draw a stamp; the defaults are the public API's.

    `stretch` and `convolution_kernel` name rows of `STRETCHES` and `KERNELS`, `colormap` is one of
    `colormap_names()` or None for grayscale. `pmin` and `pmax` are percentiles in [0, 100]:
    one given alone leaves the other at 0.5 or 99.5, and `sigmoid` uses neither.
    """

    stretch: str = "sigmoid"
    colormap: str | None = None
    pmin: float | None = None
    pmax: float | None = None
    convolution_kernel: str | None = None


def render(pixels: np.ndarray, rendering: Rendering) -> Picture:
    """Draw a 2-D image of any real dtype and byte order.

    Returns uint8 of shape (ny, nx), grayscale, or with a colormap (ny, nx, 4), RGBA. Nothing is
    flipped: row 0 of the picture is row 0 of the pixels.

    Raises ValueError if the image is not 2-D or holds no pixel, or if a percentile that is used
    lies outside [0, 100]; KeyError for a stretch, kernel or colormap that does not exist.
    """
    if pixels.ndim != 2 or pixels.size == 0:
        raise ValueError(f"a picture needs a 2-D image with pixels, not shape {pixels.shape}")

    # Overflow is foreseen in every step (see the module), so numpy need not tell.
    with np.errstate(all="ignore"):
        image = np.array(pixels, dtype=np.float64, order="C")
        filled = np.nan_to_num(image)
        if rendering.stretch == "sigmoid":
            placed = _standardise(filled)
        else:
            placed = _place(filled, *_choose_interval(image, filled, rendering))
        drawn = STRETCHES[rendering.stretch](placed)
        if rendering.convolution_kernel is not None:
            drawn = _convolve(drawn, KERNELS[rendering.convolution_kernel])
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


def _standardise(filled: Image) -> Image:
    """The distance of each pixel from the mean, in (population) standard deviations."""
    mean, std = float(filled.mean()), float(filled.std())
    # min == max: the mean of equal pixels may be rounded, which leaves a tiny std.
    if not 0 < std < np.inf or filled.min() == filled.max():
        return np.zeros_like(filled)
    return (filled - mean) / std


def _choose_interval(image: Image, filled: Image, rendering: Rendering) -> tuple[float, float]:
    """The (vmin, vmax) to draw between; `image` still holds the NaN and inf of the stamp."""
    if rendering.pmin is None and rendering.pmax is None:
        return _legacy_interval(filled)
    return _percentile_interval(
        image,
        DEFAULT_PMIN if rendering.pmin is None else rendering.pmin,
        DEFAULT_PMAX if rendering.pmax is None else rendering.pmax,
    )


def _legacy_interval(filled: Image) -> tuple[float, float]:
    """From a little above the faintest pixel to the one at the centre, where the alert is."""
    ny, nx = filled.shape
    centre = ny // 2
    vmax = filled[centre, centre if centre < nx else nx // 2]
    vmin = filled.min() + 0.2 * np.median(np.abs(filled - np.median(filled)))
    return float(vmin), float(vmax)


def _percentile_interval(image: Image, pmin: float, pmax: float) -> tuple[float, float]:
    """The percentiles of the finite pixels, interpolated; (0, 0) if no pixel is finite."""
    finite = image[np.isfinite(image)]
    if finite.size == 0:
        return 0.0, 0.0
    vmin, vmax = np.percentile(finite, (pmin, pmax))
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
    colormap = matplotlib.colormaps[name]
    # The first call fills its table, and must not do so in two threads at once.
    colormap(0.0)
    return colormap
