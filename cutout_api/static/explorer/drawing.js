// Pixels -> picture, as the service draws it: fill, interval, stretch, colormap. What is shown here
// at once is what the copied request gives; tests/browser/test_explorer.py compares the two.

import { findColormap } from "./colormaps.js";

export const ASINH_A = 0.1; // astropy's AsinhStretch(0.1): sent as a=0.1
const LOG_A = 1000;

export const STRETCHES = {
  linear: (t) => t,
  sqrt: Math.sqrt,
  log: (t) => Math.log(LOG_A * t + 1) / Math.log(LOG_A + 1),
  asinh: (t) => Math.asinh(t / ASINH_A) / Math.asinh(1 / ASINH_A),
};

/** What an array answer holds of one stamp: rows of numbers, null where masked. */
export function makeImage(kind, rows) {
  const height = rows.length;
  const width = rows[0]?.length ?? 0;
  const pixels = new Float64Array(width * height);
  rows.forEach((row, y) => row.forEach((value, x) => (pixels[y * width + x] = value ?? NaN)));
  const sorted = pixels.filter(Number.isFinite).sort();
  return { kind, width, height, pixels, sorted };
}

/** Returns a percentile of sorted numbers, interpolated as numpy does by default. */
export function percentile(sorted, percent) {
  if (sorted.length === 0) return 0;
  const place = (percent / 100) * (sorted.length - 1);
  const below = Math.floor(place);
  const part = place - below;
  if (part === 0) return sorted[below];
  const [low, high] = [sorted[below], sorted[below + 1]];
  return part < 0.5 ? low + (high - low) * part : high - (high - low) * (1 - part);
}

/** Returns the picture of an image between two limits as RGBA bytes. */
export function drawImage(image, { vmin, vmax, stretch, colormap, invert }) {
  const curve = STRETCHES[stretch];
  const width = vmax - vmin;
  const usable = width > 0 && Number.isFinite(width);
  const table = colormap === "gray" ? null : findColormap(colormap);
  const picture = new ImageData(image.width, image.height);
  const bytes = new Uint32Array(picture.data.buffer);
  // One colour for each of the levels that a curve may end in; little-endian ABGR.
  const colours = new Uint32Array(257);
  for (let level = 0; level < 257; level++) {
    const [r, g, b] = table ? table.subarray(3 * Math.min(level, 255)) : [level, level, level];
    colours[level] = (255 << 24) | (b << 16) | (g << 8) | r;
  }
  const levels = table ? 256 : 255;
  for (let number = 0; number < bytes.length; number++) {
    const value = Number.isNaN(image.pixels[number]) ? 0 : image.pixels[number];
    const place = usable ? Math.min(Math.max((value - vmin) / width, 0), 1) : Number(value > vmin);
    const drawn = invert ? 1 - curve(place) : curve(place);
    bytes[number] = colours[Math.floor(drawn * levels)];
  }
  return picture;
}

// ---- the sky

const DEGREE = Math.PI / 180;

/** Returns [ra, dec] of a pixel counted from 0, on the plane that touches the sky at the centre. */
export function skyOf({ wcs, shape: [ny, nx] }, x, y) {
  if (!wcs) return null;
  const [dx, dy] = [x - (nx - 1) / 2, y - (ny - 1) / 2];
  const [xi, eta] = wcs.matrix.map((row) => (row[0] * dx + row[1] * dy) * DEGREE);
  const [ra0, dec0] = wcs.centre.map((angle) => angle * DEGREE);
  const below = Math.cos(dec0) - eta * Math.sin(dec0);
  const ra = ra0 + Math.atan2(xi, below);
  const dec = Math.atan2(Math.sin(dec0) + eta * Math.cos(dec0), Math.hypot(xi, below));
  return [(((ra / DEGREE) % 360) + 360) % 360, dec / DEGREE];
}

/** Returns [[a, c], [b, d]] that takes a pixel to the screen with north up and east left. */
export function northUp(wcs) {
  if (!wcs) return null;
  const [[a, c], [b, d]] = wcs.matrix;
  const scale = Math.sqrt(Math.abs(a * d - b * c));
  return [
    [-a / scale, -c / scale],
    [-b / scale, -d / scale],
  ];
}

/** Returns the inverse of a 2 x 2 matrix. */
export function invertMatrix([[a, c], [b, d]]) {
  const determinant = a * d - b * c;
  return [
    [d / determinant, -c / determinant],
    [-b / determinant, a / determinant],
  ];
}
