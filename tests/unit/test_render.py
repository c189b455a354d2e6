"""Rendering, on images small enough to work out what must be drawn."""

import os
import subprocess
import sys
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from astropy.visualization import (
    AsinhStretch,
    AsymmetricPercentileInterval,
    BaseInterval,
    ManualInterval,
    MinMaxInterval,
    ZScaleInterval,
)
from scipy import ndimage

from cutout_api.geometry import Geometry
from cutout_api.render import (
    KERNELS,
    STRETCHES,
    Rendering,
    choose_scale,
    colormap_names,
    render,
    triptych,
)

# A picture is drawn without a word from numpy, matplotlib or astropy; what the collector finds
# left open meanwhile was another test's.
pytestmark = pytest.mark.filterwarnings("error", "ignore::ResourceWarning")

HUGE = np.finfo(np.float64).max
BLACK, GREY, WHITE = 0, 127, 255


@pytest.fixture(scope="module")
def sky() -> np.ndarray:
    """A star in the middle of a noisy 63x63 stamp, big-endian float32 as FITS stores it."""
    offsets = np.arange(63) - 31
    star = 400 * np.exp(-(offsets[:, None] ** 2 + offsets**2) / 8)
    noise = np.random.default_rng(20240806).normal(120, 8, (63, 63))
    return (star + noise).astype(">f4")


def test_the_stretches_are_those_of_the_contract() -> None:
    assert list(STRETCHES) == ["sigmoid", "linear", "sqrt", "power", "log", "asinh"]


@pytest.mark.parametrize(
    ("stretch", "levels"),
    [
        # vmin = 0 + 0.2 * median(|x - 2|) = 0.2, vmax = the centre = 4; t = 0, 0.21, 0.47, 0.74, 1
        ("linear", [0, 53, 120, 187, 255]),
        ("sqrt", [0, 117, 175, 218, 255]),
        ("power", [0, 11, 57, 138, 255]),
        ("log", [0, 197, 227, 243, 255]),
        ("asinh", [0, 53, 120, 188, 255]),
        # mean 2, std sqrt(2)
        ("sigmoid", [49, 84, 127, 170, 205]),
    ],
)
def test_each_stretch_draws_the_levels_worked_out_by_hand(stretch: str, levels: list[int]) -> None:
    pixels = np.array([[0, 1, 4, 2, 3]] * 5)
    picture = render(pixels, Rendering(stretch))
    assert picture.tolist() == np.array(levels)[pixels].tolist()


def test_the_default_is_the_sigmoid_in_grayscale(sky: np.ndarray) -> None:
    picture = render(sky, Rendering())
    assert picture.dtype == np.uint8
    assert picture.shape == (63, 63)
    np.testing.assert_array_equal(picture, render(sky, Rendering(stretch="sigmoid")))


def test_row_0_of_the_pixels_is_row_0_of_the_picture() -> None:
    picture = render(np.array([[9, 0], [0, 0], [0, 0]]), Rendering())
    assert picture[0, 0] > GREY
    assert (picture.ravel()[1:] < GREY).all()


def test_the_interval_ends_at_the_centre_counted_in_rows() -> None:
    pixels = np.tile(np.arange(62.0), (63, 1))
    picture = render(pixels, Rendering("linear"))
    assert (picture[:, 31:] == WHITE).all()
    assert (picture[:, :31] < WHITE).all()


def test_an_image_too_narrow_for_the_centre_uses_its_middle_column() -> None:
    pixels = np.tile([0.0, 1.0, 2.0, 3.0], (9, 1))
    picture = render(pixels, Rendering("linear"))
    assert (picture[:, 2:] == WHITE).all()
    assert (picture[:, :2] < WHITE).all()


def test_nan_is_drawn_as_0_and_infinities_as_the_largest_doubles() -> None:
    pixels = np.array([[np.nan, 0, np.inf], [-np.inf, 1, HUGE], [-HUGE, 0, 3]])
    for stretch in STRETCHES:
        picture = render(pixels, Rendering(stretch))
        assert picture[0, 0] == picture[0, 1]
        assert picture[0, 2] == picture[1, 2]
        assert picture[1, 0] == picture[2, 0]


# stamp -> what the sigmoid and what the other stretches draw, None where it is not flat
DEGENERATE = {
    "a constant": (np.full((5, 4), 7.0), GREY, BLACK),
    "a constant whose mean is rounded": (np.full((7, 7), 0.1), GREY, BLACK),
    "zeros": (np.zeros((3, 3)), GREY, BLACK),
    "one pixel": (np.array([[-3.5]]), GREY, BLACK),
    "all NaN": (np.full((4, 4), np.nan), GREY, BLACK),
    "all inf": (np.full((4, 4), np.inf), GREY, BLACK),
    "all -inf": (np.full((4, 4), -np.inf), GREY, BLACK),
    "all as large as can be": (np.full((4, 4), HUGE), GREY, BLACK),
    "huge, of both signs": (np.array([[HUGE, -HUGE], [HUGE, HUGE]]), GREY, BLACK),
    "inf, -inf and NaN": (np.array([[np.inf, -np.inf], [np.nan, np.inf]]), GREY, None),
    "one inf": (np.array([[np.inf, 1, 2], [3, 4, 5], [6, 7, 8]]), GREY, None),
    "subnormals": (np.array([[0, 5e-324, 1e-323], [0, 0, 0]]), GREY, None),
    "squares that vanish": (np.array([[1e-200, 0], [0, 2e-200]]), GREY, None),
    "a row": (np.array([[0.0, 1.0, 5.0, 2.0]]), None, None),
    "a column": (np.array([[0.0], [1.0], [5.0], [2.0]]), None, None),
}


@pytest.mark.parametrize("stretch", STRETCHES)
@pytest.mark.parametrize("name", DEGENERATE)
def test_a_degenerate_stamp_is_drawn_as_documented(name: str, stretch: str) -> None:
    pixels, grey, black = DEGENERATE[name]
    level = grey if stretch == "sigmoid" else black
    picture = render(pixels, Rendering(stretch))
    assert picture.shape == pixels.shape
    if level is None:
        assert len(np.unique(picture)) > 1
    else:
        assert (picture == level).all()


@pytest.mark.parametrize("stretch", [name for name in STRETCHES if name != "sigmoid"])
@pytest.mark.parametrize(
    ("pixels", "vmin"),
    [
        (np.array([[0.2, 1, 2], [3, 0, 5], [6, 7, 8]]), 0.2 * 3),
        (np.array([[9.0, 9, 9], [0, 0, 0], [0, 0, 0]]), 0.0),
    ],
    ids=["the centre is fainter than vmin", "the centre is vmin"],
)
def test_an_empty_or_reversed_interval_draws_a_step_at_vmin(
    stretch: str, pixels: np.ndarray, vmin: float
) -> None:
    picture = render(pixels, Rendering(stretch))
    np.testing.assert_array_equal(picture, np.where(pixels > vmin, WHITE, BLACK))


def test_percentiles_become_the_interval() -> None:
    pixels = np.arange(101.0).reshape(1, 101)
    picture = render(pixels, Rendering("linear", pmin=20, pmax=80))[0]
    assert (picture[:21] == BLACK).all()
    assert (picture[80:] == WHITE).all()
    assert picture[50] == GREY


@pytest.mark.parametrize(
    ("given", "spelled_out"),
    [
        (Rendering("sqrt", pmin=10), Rendering("sqrt", pmin=10, pmax=99.5)),
        (Rendering("sqrt", pmax=90), Rendering("sqrt", pmin=0.5, pmax=90)),
        (Rendering("sqrt", pmin=0), Rendering("sqrt", pmin=0, pmax=99.5)),
    ],
)
def test_a_percentile_left_out_has_its_documented_default(
    sky: np.ndarray, given: Rendering, spelled_out: Rendering
) -> None:
    picture = render(sky, given)
    np.testing.assert_array_equal(picture, render(sky, spelled_out))
    assert (picture != render(sky, Rendering("sqrt"))).any()


def test_percentiles_are_those_of_the_finite_pixels() -> None:
    pixels = np.arange(101.0).reshape(1, 101)
    spoilt = np.concatenate([pixels, [[np.nan, np.inf, -np.inf, np.nan]]], axis=1)
    rendering = Rendering("linear", pmin=20, pmax=80)
    np.testing.assert_array_equal(render(spoilt, rendering)[:, :101], render(pixels, rendering))


def test_equal_percentiles_draw_a_step_at_that_percentile() -> None:
    pixels = np.arange(101.0).reshape(1, 101)
    picture = render(pixels, Rendering("log", pmin=30, pmax=30))[0]
    assert (picture[:31] == BLACK).all()
    assert (picture[31:] == WHITE).all()


def test_percentiles_of_no_finite_pixel_draw_a_step_at_0() -> None:
    pixels = np.array([[np.nan, np.inf], [-np.inf, np.nan]])
    picture = render(pixels, Rendering("asinh", pmin=1, pmax=99))
    assert picture.tolist() == [[BLACK, WHITE], [BLACK, BLACK]]


def test_percentiles_too_far_apart_for_a_float64_still_draw_in_order() -> None:
    pixels = np.array([[-HUGE, -1, 0, 1, HUGE]])
    for pmin, pmax in [(0, 100), (0, 50), (50, 100), (10, 90)]:
        picture = render(pixels, Rendering("linear", pmin=pmin, pmax=pmax))[0]
        assert (np.diff(picture.astype(int)) >= 0).all()


def test_a_signalling_nan_is_drawn_like_any_other() -> None:
    pixels = np.array([[0x7F800001, 0, 0x40000000]], dtype="<u4").view("<f4")
    picture = render(pixels, Rendering())[0]
    assert picture[0] == picture[1] < picture[2]


def test_percentiles_have_no_effect_on_the_sigmoid(sky: np.ndarray) -> None:
    np.testing.assert_array_equal(
        render(sky, Rendering(pmin=30, pmax=60)), render(sky, Rendering())
    )


def test_a_percentile_beyond_100_is_refused(sky: np.ndarray) -> None:
    with pytest.raises(ValueError, match="Percentiles"):
        render(sky, Rendering("linear", pmax=101))


def test_the_kernels_are_those_of_the_contract() -> None:
    assert list(KERNELS) == ["gauss", "box"]
    offsets = np.arange(-2, 3)
    gauss = np.exp(-(offsets[:, None] ** 2 + offsets**2) / 2)
    np.testing.assert_allclose(KERNELS["gauss"], gauss / gauss.sum(), rtol=1e-15)
    assert (KERNELS["box"] * 16).tolist() == [[1, 2, 1], [2, 4, 2], [1, 2, 1]]


def test_the_kernels_equal_astropys_to_the_last_bit() -> None:
    from astropy.convolution import Box2DKernel, Gaussian2DKernel

    gauss = Gaussian2DKernel(1, x_size=5, y_size=5).array
    assert (KERNELS["gauss"] == gauss).all()
    box = Box2DKernel(1, x_size=5, y_size=5).array
    assert (np.pad(KERNELS["box"], 1) == box).all()


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_stretched_image_is_convolved_with_its_border_extended(
    sky: np.ndarray, kernel: str
) -> None:
    x = sky.astype(float)
    stretched = 1 / (1 + np.exp(-(x - x.mean()) / x.std()))
    expected = ndimage.correlate(stretched, KERNELS[kernel], mode="nearest") * 255
    picture = render(sky, Rendering(convolution_kernel=kernel))
    # Truncated: the level is the whole part, up to the rounding of another order of summation.
    assert np.abs(picture + 0.5 - expected).max() <= 0.5 + 1e-9


def test_every_colormap_of_matplotlib_can_be_named() -> None:
    names = colormap_names()
    assert names == sorted(set(names))
    assert set(names) == set(matplotlib.colormaps)
    assert {"viridis", "viridis_r", "Greys", "tab10", "twilight_r"} <= set(names)


def test_every_colormap_draws_what_matplotlib_draws(sky: np.ndarray) -> None:
    x = sky.astype(float)
    stretched = 1 / (1 + np.exp(-(x - x.mean()) / x.std()))
    ramp = np.linspace(0, 1, 1000).reshape(1, 1000)
    for name in colormap_names():
        colormap = matplotlib.colormaps[name]
        picture = render(sky, Rendering(colormap=name))
        assert picture.dtype == np.uint8
        np.testing.assert_array_equal(picture, colormap(stretched, bytes=True), err_msg=name)
        picture = render(ramp, Rendering("linear", name, pmin=0, pmax=100))
        np.testing.assert_array_equal(picture, colormap(ramp, bytes=True), err_msg=name)


@pytest.mark.parametrize(
    "dtype", ["<f4", ">f4", "<f8", ">f8", "<i2", ">i2", ">i4", "<i8", "u1", "f2", "longdouble"]
)
def test_the_type_and_byte_order_of_the_pixels_do_not_matter(dtype: str) -> None:
    pixels = np.arange(30).reshape(5, 6)
    for stretch in STRETCHES:
        np.testing.assert_array_equal(
            render(pixels.astype(dtype), Rendering(stretch)), render(pixels, Rendering(stretch))
        )


def test_the_layout_in_memory_does_not_matter(sky: np.ndarray) -> None:
    for stretch in STRETCHES:
        expected = render(sky, Rendering(stretch))
        np.testing.assert_array_equal(render(np.asfortranarray(sky), Rendering(stretch)), expected)
        np.testing.assert_array_equal(
            render(np.repeat(sky, 2, 1)[:, ::2], Rendering(stretch)), expected
        )


@pytest.mark.parametrize("stretch", STRETCHES)
def test_read_only_pixels_are_drawn_and_left_as_they_were(stretch: str) -> None:
    pixels = np.array([[np.nan, 1.0], [np.inf, 4.0]])
    pixels.setflags(write=False)
    before = pixels.copy()
    render(pixels, Rendering(stretch, "magma", pmin=1, convolution_kernel="gauss"))
    np.testing.assert_array_equal(pixels, before)


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0), (5,), (), (2, 2, 2)])
def test_what_is_no_image_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="2-D image"):
        render(np.zeros(shape), Rendering())


@pytest.mark.parametrize(
    "rendering",
    [Rendering("cubic"), Rendering(colormap="no"), Rendering(convolution_kernel="tophat")],
)
def test_a_name_that_does_not_exist_is_refused(rendering: Rendering) -> None:
    with pytest.raises(KeyError):
        render(np.eye(3), rendering)


def test_a_triptych_joins_grayscale_pictures_by_their_tops() -> None:
    first, second, third = np.full((2, 1), 1), np.full((3, 2), 2), np.full((1, 1), 3)
    joined = triptych([picture.astype(np.uint8) for picture in (first, second, third)])
    assert joined.dtype == np.uint8
    assert joined.tolist() == [[1, 2, 2, 3], [1, 2, 2, 0], [0, 2, 2, 0]]


def test_a_triptych_is_transparent_below_a_shorter_rgba_picture() -> None:
    tall, short = (np.full((ny, 2, 4), 200, dtype=np.uint8) for ny in (3, 2))
    joined = triptych([tall, short])
    assert joined.shape == (3, 4, 4)
    assert (joined[:2] == 200).all()
    assert (joined[2, :2] == 200).all()
    assert (joined[2, 2:] == 0).all()


@pytest.mark.parametrize(
    "pictures",
    [[], [np.zeros((2, 2), np.uint8), np.zeros((2, 2, 4), np.uint8)]],
    ids=["no picture", "grayscale beside RGBA"],
)
def test_a_triptych_of_nothing_or_of_two_modes_is_refused(pictures: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match="grayscale"):
        triptych(pictures)


def test_astropy_is_not_loaded_until_a_kernel_is_asked_for() -> None:
    program = (
        "import sys, numpy\n"
        "from cutout_api.render import Rendering, render\n"
        "render(numpy.eye(3), Rendering(colormap='viridis'))\n"
        "assert 'astropy' not in sys.modules\n"
        "render(numpy.eye(3), Rendering(convolution_kernel='box'))\n"
        "assert 'astropy' in sys.modules\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=60)


# --- beyond the public API's recipe -------------------------------------------------------------


@pytest.mark.parametrize(
    ("rendering", "interval"),
    [
        (Rendering("linear", interval="minmax"), MinMaxInterval()),
        (Rendering("linear", interval="zscale"), ZScaleInterval()),
        (Rendering("linear", interval="percentile"), AsymmetricPercentileInterval(0.5, 99.5)),
        (
            Rendering("linear", interval="percentile", pmin=5.0, pmax=90.0),
            AsymmetricPercentileInterval(5, 90),
        ),
        (Rendering("linear", interval="manual", vmin=110.0, vmax=300.0), ManualInterval(110, 300)),
        (Rendering("linear", interval="manual", vmin=110.0), ManualInterval(110, None)),
        (Rendering("linear", interval="manual", vmax=300.0), ManualInterval(None, 300)),
    ],
    ids=range(7),
)
def test_intervals_are_those_of_astropy(
    sky: np.ndarray, rendering: Rendering, interval: BaseInterval
) -> None:
    scale = choose_scale([sky], rendering)
    expected = interval.get_limits(sky.astype(np.float64))
    np.testing.assert_allclose((scale.low, scale.high), expected, rtol=1e-12)


@pytest.mark.parametrize("a", [1e-6, 0.01, 0.1, 1.0, 1000.0])
def test_asinh_with_a_is_that_of_astropy(sky: np.ndarray, a: float) -> None:
    rendering = Rendering("asinh", interval="minmax", a=a)
    scale = choose_scale([sky], rendering)
    placed = (sky.astype(np.float64) - scale.low) / (scale.high - scale.low)
    expected = (AsinhStretch(a)(placed) * 255).astype(np.uint8)
    np.testing.assert_array_equal(render(sky, rendering), expected)


def test_asinh_without_a_is_that_of_the_public_api(sky: np.ndarray) -> None:
    np.testing.assert_array_equal(
        render(sky, Rendering("asinh")), render(sky, Rendering("asinh", a=10.0))
    )


@pytest.mark.parametrize("interval", ["percentile", "minmax", "zscale", "manual"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 7.0, 0.0])
def test_an_interval_of_one_value_or_none_is_drawn(interval: str, value: float) -> None:
    limits = {"vmin": 1.0} if interval == "manual" else {}
    picture = render(np.full((9, 9), value), Rendering("linear", interval=interval, **limits))
    assert len(np.unique(picture)) == 1


def test_an_inverted_picture_is_white_where_it_was_black(sky: np.ndarray) -> None:
    rendering = Rendering("linear", interval="minmax")
    plain = render(sky, rendering)
    inverted = render(sky, replace(rendering, invert=True))
    assert (inverted[plain == BLACK] == WHITE).all()
    assert (inverted[plain == WHITE] == BLACK).all()


def test_blank_corners_are_the_sky_of_an_inverted_picture() -> None:
    turned = Geometry(sky=np.array([[-4e-5, 3e-5], [3e-5, 4e-5]]))
    for invert, blank in ((False, BLACK), (True, WHITE)):
        rendering = Rendering("linear", interval="minmax", invert=invert)
        assert render(np.arange(900.0).reshape(30, 30), rendering, None, turned)[0, 0] == blank


def test_drawing_in_gray_imports_no_matplotlib() -> None:
    code = (
        "import sys, numpy as np, cutout_api.web; from cutout_api.render import *; "
        "render(np.eye(3), Rendering()); "
        "found = [m for m in ('matplotlib', 'astropy.wcs', 'astropy.visualization') "
        "if m in sys.modules]; assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
