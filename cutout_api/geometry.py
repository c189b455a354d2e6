"""The shape of a picture: larger or smaller, turned so that north is up.

Pillow resamples, which writes the files too: scipy or reproject would do it no better on so few
pixels (tests/unit/test_geometry.py compares), and importing scipy.ndimage takes 28 MB. An image
here is what is about to be drawn, values in [0, 1], never the survey's pixels: what is
interpolated must not be NaN, nor ring around a saturated star.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

Image = NDArray[np.float64]
Matrix = NDArray[np.float64]
"""2 x 2, degrees: (east, north) for one pixel along (x, the columns; y, the rows)."""

NEAREST, BICUBIC, LANCZOS = "nearest", "bicubic", "lanczos"
RESAMPLINGS: Mapping[str, Pillow.Resampling] = {
    NEAREST: Pillow.Resampling.NEAREST,
    BICUBIC: Pillow.Resampling.BICUBIC,
    LANCZOS: Pillow.Resampling.LANCZOS,
}
# What Pillow turns an image with; it knows no Lanczos there.
_TURNINGS = {**RESAMPLINGS, LANCZOS: Pillow.Resampling.BICUBIC}

NORTH_UP = np.array([[-1.0, 0.0], [0.0, -1.0]])
"""East and north for one pixel to the right and one down: north is up, east left."""


@dataclass(frozen=True)
class Geometry:
    """How the pixels of an image become those of its picture; the defaults change nothing."""

    factor: float = 1.0
    resample: str | None = None
    """A row of ``RESAMPLINGS``; None: nearest, and bicubic where the image is turned."""
    sky: Matrix | None = None
    """Where given, the picture is turned so that north is up and east left."""

    @property
    def changes(self) -> bool:
        return self.factor != 1 or self.sky is not None

    def size(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Return (ny, nx) of the picture of an image of ``shape``."""
        return max(round(shape[0] * self.factor), 1), max(round(shape[1] * self.factor), 1)

    def reshape(self, image: Image, blank: float) -> Image:
        """Return ``image`` resized, then turned about its centre; ``blank`` fills the corners."""
        shape = self.size((image.shape[0], image.shape[1]))
        inverse = self.turn(image.shape[:2])
        if inverse is None:
            return _resize(image, shape, self.resample or NEAREST)
        return _turn(
            _resize(image, shape, self.resample or NEAREST),
            inverse,
            self.resample or BICUBIC,
            blank,
        )

    def turn(self, shape: tuple[int, ...]) -> Matrix | None:
        """Return what takes (x, y) of the picture to (x, y) of the resized image, from the centres.

        None where nothing is to be turned.
        """
        if self.sky is None:
            return None
        ny, nx = self.size((shape[0], shape[1]))
        resized = self.sky @ np.diag([shape[1] / nx, shape[0] / ny])
        scale = math.sqrt(abs(np.linalg.det(resized)))
        inverse: Matrix = np.linalg.solve(resized, scale * NORTH_UP).astype(np.float64)
        # A turn that moves no pixel by a hundredth of itself is none: pixels stay as they are.
        moves = float(np.abs(inverse - np.eye(2)).max()) * max(ny, nx)
        return None if moves < 0.01 else inverse

    def place(self, x: float, y: float, shape: tuple[int, int]) -> tuple[float, float]:
        """Return where pixel (x, y) of an image (0: the first's centre) is in its picture.

        In the picture 0 is the left or upper edge of the first pixel.
        """
        ny, nx = self.size(shape)
        offset = np.array([(x + 0.5) * nx / shape[1] - nx / 2, (y + 0.5) * ny / shape[0] - ny / 2])
        inverse = self.turn(shape)
        if inverse is not None:
            offset = np.linalg.solve(inverse, offset)
        return float(offset[0] + nx / 2), float(offset[1] + ny / 2)

    def drawn_sky(self, sky: Matrix, shape: tuple[int, int]) -> Matrix:
        """Return the matrix of the picture of an image whose matrix is ``sky``."""
        ny, nx = self.size(shape)
        resized = sky @ np.diag([shape[1] / nx, shape[0] / ny])
        inverse = self.turn(shape)
        return resized if inverse is None else resized @ inverse


def _resize(image: Image, shape: tuple[int, int], resample: str) -> Image:
    if shape == image.shape:
        return image
    size = (shape[1], shape[0])
    if resample == NEAREST:
        chosen = Pillow.fromarray(_numbers(image)).resize(size, RESAMPLINGS[NEAREST])
        picked: Image = image.ravel()[np.asarray(chosen)]
        return picked
    resized = Pillow.fromarray(image.astype(np.float32)).resize(size, RESAMPLINGS[resample])
    return np.clip(np.asarray(resized, np.float64), 0.0, 1.0)


def _turn(image: Image, inverse: Matrix, resample: str, blank: float) -> Image:
    ny, nx = image.shape
    centre = np.array([nx / 2, ny / 2])
    shift = centre - inverse @ centre
    coefficients = (*inverse[0], shift[0], *inverse[1], shift[1])

    def transform(source: NDArray[np.generic], how: Pillow.Resampling, fill: float) -> Pillow.Image:
        return Pillow.fromarray(source).transform(
            (nx, ny), Pillow.Transform.AFFINE, coefficients, how, fillcolor=fill
        )

    # The nearest pixel's number, which also tells what lies outside the image.
    numbers = np.asarray(transform(_numbers(image), RESAMPLINGS[NEAREST], -1))
    if resample == NEAREST:
        turned = image.ravel()[numbers]
    else:
        found = transform(image.astype(np.float32), _TURNINGS[resample], 0)
        turned = np.clip(np.asarray(found, np.float64), 0.0, 1.0)
    return np.where(numbers < 0, blank, turned)


def _numbers(image: Image) -> NDArray[np.int32]:
    """Return an image of the numbers of the pixels: Pillow has no image of doubles."""
    return np.arange(image.size, dtype=np.int32).reshape(image.shape)
