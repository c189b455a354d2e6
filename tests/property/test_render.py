"""Rendering is total, monotone, and equal to what astropy and matplotlib draw.

`expect` is the oracle: the recipe of the public API, spelled with astropy's intervals, stretches
and kernels and with matplotlib's colormaps.
"""

import gzip
import io
import warnings
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.convolution import Box2DKernel, Gaussian2DKernel, convolve
from astropy.io import fits
from astropy.visualization import (
    AsinhStretch,
    AsymmetricPercentileInterval,
    LinearStretch,
    LogStretch,
    ManualInterval,
    PowerStretch,
    SqrtStretch,
)
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cutout_api.render import KERNELS, STRETCHES, Rendering, render

# A picture is drawn without a word from numpy, matplotlib or astropy; what the collector finds
# left open meanwhile was another test's.
pytestmark = pytest.mark.filterwarnings("error", "ignore::ResourceWarning")

REAL_ALERTS = Path(__file__).parents[2].parent / "shared" / "data"

COLORMAPS = (None, "viridis", "Greys_r", "tab10", "twilight")

ASTROPY_STRETCHES = {
    "linear": LinearStretch(),
    "sqrt": SqrtStretch(),
    "power": PowerStretch(2),
    "log": LogStretch(1000),
    "asinh": AsinhStretch(10),
}
ASTROPY_KERNELS = {
    "gauss": Gaussian2DKernel(1, x_size=5, y_size=5),
    "box": Box2DKernel(1, x_size=5, y_size=5),
}


def expect_interval(pixels: np.ndarray, rendering: Rendering) -> tuple[float, float]:
    if rendering.pmin is not None or rendering.pmax is not None:
        pmin = 0.5 if rendering.pmin is None else rendering.pmin
        pmax = 99.5 if rendering.pmax is None else rendering.pmax
        return AsymmetricPercentileInterval(pmin, pmax).get_limits(pixels.astype(float))
    x = np.nan_to_num(pixels.astype(float))
    rows = len(x)
    background = np.median(np.abs(x - np.median(x)))
    return x.min() + 0.2 * background, x[rows // 2, rows // 2]


def expect(pixels: np.ndarray, rendering: Rendering) -> np.ndarray:
    x = np.nan_to_num(pixels.astype(float))
    if rendering.stretch == "sigmoid":
        y = 1 / (1 + np.exp(-(x - x.mean()) / x.std()))
    else:
        t = ManualInterval(*expect_interval(pixels, rendering))(x)
        y = ASTROPY_STRETCHES[rendering.stretch](t)
    if rendering.convolution_kernel:
        y = convolve(y, ASTROPY_KERNELS[rendering.convolution_kernel], boundary="extend")
    if rendering.colormap:
        return matplotlib.colormaps[rendering.colormap](y, bytes=True)
    return np.uint8(y * 255)


percentiles = st.none() | st.floats(0, 100)
renderings = st.builds(
    Rendering,
    stretch=st.sampled_from(list(STRETCHES)),
    colormap=st.sampled_from(COLORMAPS),
    pmin=percentiles,
    pmax=percentiles,
    convolution_kernel=st.sampled_from([None, *KERNELS]),
)

EXTREMES = [0.0, -0.0, 1.0, -1.0, np.nan, np.inf, -np.inf]
EXTREMES += [sign * v for v in (1.797e308, 8.9e307, 1e154, 1e-154, 5e-324) for sign in (1, -1)]

shapes = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9)
any_pixels = st.one_of(
    hnp.arrays(st.sampled_from([">f4", "<f8", ">f8", "f2"]), shapes),
    hnp.arrays(np.float64, shapes, elements=st.sampled_from(EXTREMES)),
    hnp.arrays(st.sampled_from([">i2", "<i8", "u1", "?", ">u8"]), shapes),
    hnp.arrays(np.float64, shapes, elements=st.just(0.1) | st.floats(), fill=st.floats()),
)


@settings(max_examples=400, deadline=None)
@given(any_pixels, renderings)
def test_any_pixels_are_drawn_in_their_shape_and_always_alike(
    pixels: np.ndarray, rendering: Rendering
) -> None:
    picture = render(pixels, rendering)
    assert picture.dtype == np.uint8
    assert picture.shape == pixels.shape + ((4,) if rendering.colormap else ())
    np.testing.assert_array_equal(picture, render(pixels.copy(), rendering))


@settings(max_examples=300, deadline=None)
@given(any_pixels, st.sampled_from(list(STRETCHES)), percentiles, percentiles)
def test_a_brighter_pixel_is_never_drawn_darker(
    pixels: np.ndarray, stretch: str, pmin: float | None, pmax: float | None
) -> None:
    picture = render(pixels, Rendering(stretch, pmin=pmin, pmax=pmax))
    in_order = picture.ravel()[np.argsort(np.nan_to_num(pixels.astype(float)), axis=None)]
    assert (np.diff(in_order.astype(int)) >= 0).all()


@st.composite
def ordinary_pixels(draw: st.DrawFn) -> np.ndarray:
    """Sky, a star at the centre, some of it NaN: a stamp of any survey, scale and common shape."""
    ny = draw(st.integers(2, 70))
    nx = draw(st.integers(ny // 2 + 1, 70))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    pixels = rng.normal(draw(st.floats(-1e3, 1e3)), 1, (ny, nx))
    rows, columns = np.arange(ny) - ny // 2, np.arange(nx) - ny // 2
    pixels += draw(st.floats(2, 1e4)) * np.exp(-(rows[:, None] ** 2 + columns**2) / 9)
    pixels *= draw(st.sampled_from([1e-6, 1, 1e6]))
    pixels[:, : draw(st.integers(0, nx // 4))] = np.nan
    return pixels.astype(draw(st.sampled_from([">f4", "<f4", "<f8"])))


@pytest.mark.parametrize("kernel", [None, *KERNELS])
@pytest.mark.parametrize("stretch", STRETCHES)
@settings(max_examples=30, deadline=None)
@given(
    pixels=ordinary_pixels(),
    colormap=st.sampled_from(COLORMAPS),
    pmin=st.none() | st.floats(0, 40),
    pmax=st.none() | st.floats(60, 100),
)
def test_an_ordinary_stamp_is_drawn_as_astropy_and_matplotlib_draw_it(
    *,
    stretch: str,
    kernel: str | None,
    pixels: np.ndarray,
    colormap: str | None,
    pmin: float | None,
    pmax: float | None,
) -> None:
    rendering = Rendering(stretch, colormap, pmin, pmax, kernel)
    if stretch != "sigmoid":
        vmin, vmax = expect_interval(pixels, rendering)
        assume(vmin < vmax)
    np.testing.assert_array_equal(render(pixels, rendering), expect(pixels, rendering))


def read_real_stamps(path: Path) -> Iterator[np.ndarray]:
    """The primary image of every stamp of a file, decoded by astropy."""
    names = pq.ParquetFile(path).schema_arrow.names
    table = pq.read_table(path, columns=[name for name in names if name.startswith("cutout")])
    for column in table.columns:
        for cell in column.to_pylist():
            stored = cell["stampData"] if isinstance(cell, dict) else cell
            if stored is None:
                continue
            plain = gzip.decompress(stored) if stored.startswith(b"\x1f\x8b") else stored
            with warnings.catch_warnings():
                # ZTF writes SIMPLE in the wrong column.
                warnings.simplefilter("ignore")
                with fits.open(io.BytesIO(plain), ignore_missing_simple=True) as hdus:
                    yield np.array(hdus[0].data)


@pytest.mark.skipif(
    not REAL_ALERTS.is_dir(), reason="the real alerts are not here: no ../shared/data"
)
def test_every_real_stamp_is_drawn_as_astropy_and_matplotlib_draw_it() -> None:
    compared = 0
    for path in sorted(REAL_ALERTS.glob("*.parquet")):
        for number, pixels in enumerate(read_real_stamps(path)):
            kernel = (None, *KERNELS)[number % 3]
            colormap = COLORMAPS[number % len(COLORMAPS)]
            for stretch in STRETCHES:
                for rendering in (
                    Rendering(stretch),
                    Rendering(stretch, colormap, None, None, kernel),
                    Rendering(stretch, colormap, 1.5, None, kernel),
                ):
                    if stretch != "sigmoid":
                        vmin, vmax = expect_interval(pixels, rendering)
                        if vmin >= vmax:
                            continue  # today an error; a unit test says what is drawn
                    np.testing.assert_array_equal(
                        render(pixels, rendering),
                        expect(pixels, rendering),
                        err_msg=f"{path.name}, stamp {number}, {rendering}",
                    )
                    compared += 1
    assert compared > 0
