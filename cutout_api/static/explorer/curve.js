// The light curve as SVG: a marker of its own shape and colour for each band, error bars, upper
// limits, the current epoch ringed. Alerts are filled, what their packets repeat besides is hollow.
// An alert without a brightness stands on the lower edge; what has no time is not drawn.

import { dateOf, describeFully, magnitudeOf } from "./quantities.js";

const SVG = "http://www.w3.org/2000/svg";
const SPACE = { left: 58, right: 34, top: 12, bottom: 54 };
// On the right, where the magnitudes of fluxes stand.
const MAGNITUDES = 58;
// Of a value's label: what stands beside it, and a digit.
const BESIDE = 34;
const DIGIT = 6.5;
const SIZE = 4.5;

const polygon = (...points) => `M${points.map(([x, y]) => `${x * SIZE} ${y * SIZE}`).join("L")}Z`;
const MARKERS = {
  circle: `M${-SIZE} 0a${SIZE} ${SIZE} 0 1 0 ${2 * SIZE} 0a${SIZE} ${SIZE} 0 1 0 ${-2 * SIZE} 0Z`,
  square: polygon([-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]),
  diamond: polygon([0, -1.35], [1.35, 0], [0, 1.35], [-1.35, 0]),
  triangle: polygon([0, -1.25], [1.2, 0.95], [-1.2, 0.95]),
  pentagon: polygon([0, -1.2], [1.15, -0.35], [0.7, 1], [-0.7, 1], [-1.15, -0.35]),
  cross: polygon(
    [-0.45, -1.2], [0.45, -1.2], [0.45, -0.45], [1.2, -0.45], [1.2, 0.45], [0.45, 0.45],
    [0.45, 1.2], [-0.45, 1.2], [-0.45, 0.45], [-1.2, 0.45], [-1.2, -0.45], [-0.45, -0.45],
  ),
};
/** By band, whatever the survey; another band has the shape that its letters happen to give. */
export const BAND_MARKERS = { u: "pentagon", g: "circle", r: "square", i: "diamond", z: "triangle", y: "cross" };
const LIMIT = { d: polygon([-0.8, -0.4], [0.8, -0.4], [0, 0.9]), class: "limit" };
/** Smaller than the others, so that many of them hide nothing. */
const SMALL = ["forced"];
const shapes = Object.values(MARKERS);
const otherShape = (band) => shapes[[...(band ?? "")].reduce((sum, letter) => sum + letter.codePointAt(0), 0) % shapes.length];
const markerOf = (band) => ({ d: MARKERS[BAND_MARKERS[band]] ?? otherShape(band), class: "marker" });

function make(name, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** Returns some four round numbers between two, and how many decimals tell them apart. */
export function chooseTicks(low, high, most) {
  const rough = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((times) => times * power).find((size) => size >= rough);
  const ticks = [];
  for (let place = Math.ceil(low / step - 1e-9); place * step <= high + step * 1e-9; place++) ticks.push(place * step);
  return { ticks, decimals: Math.min(Math.max(0, -Math.floor(Math.log10(step) + 1e-9)), 8) };
}

/** Returns the range of numbers, widened a little; of one number or none something to draw on. */
function rangeOf(values, least) {
  const finite = values.filter(Number.isFinite);
  if (finite.length === 0) return [0, 1];
  // Not Math.min(...values): a long light curve has more of them than a call takes.
  const [low, high] = finite.reduce(([a, b], value) => [Math.min(a, value), Math.max(b, value)], [Infinity, -Infinity]);
  const edge = Math.max((high - low) * 0.06, least);
  return [low - edge, high + edge];
}

function drawSign(classes, attributes) {
  const svg = make("svg", { viewBox: "-8 -8 16 16", width: 14, height: 14, "aria-hidden": "true", class: classes });
  svg.append(make("path", attributes));
  return svg;
}

/** The marker of a band, as it stands in the legend. */
export const drawMarker = (band) => drawSign(`band-${band}`, markerOf(band));

const shrink = (tag) => (SMALL.includes(tag) ? " scale(0.6)" : "");
/** What a point that is no alert of the archive looks like, by its tag. */
export const drawOther = (tag) => drawSign("other", { ...markerOf(""), transform: shrink(tag).trim() });
export const drawLimit = () => drawSign("", LIMIT);
export const isLimit = ({ value, limit }) => !Number.isFinite(value) && Number.isFinite(limit);

/**
 * Draws into `svg`. A point is {alert, mjd, band, value, error, limit}; one without an alert's id
 * cannot be gone to. `pick` is called with the id of the alert that is pressed.
 */
export function drawCurve(svg, { points, current, survey, pick }) {
  const width = Math.max(svg.clientWidth, 240);
  const height = Math.max(svg.clientHeight, 180);
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const timed = points.filter((point) => Number.isFinite(point.mjd));
  const ends = timed.flatMap(({ value, error, limit }) =>
    Number.isFinite(value) ? [value - (error || 0), value + (error || 0)] : [limit],
  );
  const spread = survey.lessIsBrighter ? 0.05 : 1;
  const [t0, t1] = rangeOf(timed.map((point) => point.mjd), 0.5);
  const [v0, v1] = rangeOf(ends, spread);
  const values = chooseTicks(v0, v1, Math.max(3, Math.floor(height / 60)));
  const labels = ends.length ? values.ticks.map((tick) => tick.toFixed(values.decimals)) : [];
  const start = Math.max(SPACE.left, BESIDE + DIGIT * Math.max(0, ...labels.map((label) => label.length)));
  const end = width - (survey.zeroPoint === null ? SPACE.right : MAGNITUDES);
  const x = (mjd) => start + ((mjd - t0) / (t1 - t0)) * (end - start);
  const inner = height - SPACE.top - SPACE.bottom;
  const up = (value) => (survey.lessIsBrighter ? (v1 - value) / (v1 - v0) : (value - v0) / (v1 - v0));
  const y = (value) => SPACE.top + inner * (1 - up(value));
  const floor = height - SPACE.bottom;

  const marks = make("g", { class: "points" });
  // The current one last, so that it lies on top.
  for (const point of [...timed].sort((a, b) => (a.alert === current) - (b.alert === current))) {
    const level = Number.isFinite(point.value) ? y(point.value) : isLimit(point) ? y(point.limit) : floor;
    marks.append(drawPoint(point, { left: x(point.mjd), level, y, current, survey, pick }));
  }
  svg.replaceChildren(
    drawAxes({ t0, t1, labels, values: values.ticks, start, end, x, y, height, floor, survey }),
    marks,
  );
}

function drawPoint(point, { left, level, y, current, survey, pick }) {
  const group = make("g", { class: `point band-${point.band}` });
  if (Number.isFinite(point.value) && point.error > 0) {
    const [low, high] = [y(point.value - point.error), y(point.value + point.error)];
    group.append(make("line", { class: "error-bar", x1: left, x2: left, y1: low, y2: high }));
  }
  const place = { transform: `translate(${left.toFixed(2)} ${level.toFixed(2)})` };
  if (point.alert !== null && point.alert === current) {
    group.classList.add("current");
    group.append(make("circle", { ...place, r: 10, class: "ring" }));
  }
  const marker = isLimit(point) ? LIMIT : { ...markerOf(point.band), transform: place.transform + shrink(point.tag) };
  group.append(make("path", { ...place, ...marker }));
  group.append(make("title", {}, describeFully(point, survey)));
  if (point.alert === null) {
    group.classList.add("other", `tag-${point.tag}`);
  } else {
    group.dataset.alert = point.alert;
    // Larger than what is seen, for fingers.
    group.append(make("circle", { ...place, r: 14, class: "target" }));
    group.addEventListener("click", () => pick(point.alert));
  }
  return group;
}

function drawAxes({ t0, t1, labels, values, start, end, x, y, height, floor, survey }) {
  const axes = make("g", { class: "axes" });
  const times = chooseTicks(t0, t1, Math.max(2, Math.floor((end - start) / 80)));
  for (const tick of times.ticks) {
    axes.append(
      make("line", { x1: x(tick), x2: x(tick), y1: SPACE.top, y2: floor, class: "grid" }),
      make("text", { x: x(tick), y: floor + 15, "text-anchor": "middle" }, tick.toFixed(times.decimals)),
      make("text", { x: x(tick), y: floor + 28, "text-anchor": "middle", class: "utc" }, dateOf(tick, times.decimals > 0)),
    );
  }
  for (const [place, label] of labels.entries()) {
    const level = y(values[place]);
    axes.append(
      make("line", { x1: start, x2: end, y1: level, y2: level, class: "grid" }),
      make("text", { x: start - 6, y: level + 4, "text-anchor": "end", class: "value" }, label),
    );
    const magnitude = magnitudeOf({ value: values[place] }, survey);
    if (magnitude) axes.append(make("text", { x: end + 5, y: level + 4, class: "magnitude" }, magnitude.value.toFixed(2)));
  }
  const middle = SPACE.top + (floor - SPACE.top) / 2;
  axes.append(
    make("path", { d: `M${start} ${SPACE.top}V${floor}H${end}`, class: "frame-line" }),
    make("text", { x: (start + end) / 2, y: height - 6, "text-anchor": "middle" }, survey.timeScale === "UTC" ? "MJD, date (UTC)" : `MJD (${survey.timeScale}), date (UTC)`),
    make(
      "text",
      { transform: `translate(13 ${middle}) rotate(-90)`, "text-anchor": "middle", class: "name" },
      survey.lessIsBrighter ? "magnitude" : `flux (${survey.unit})`,
    ),
  );
  if (survey.zeroPoint !== null) {
    const place = `translate(${end + MAGNITUDES - 8} ${middle}) rotate(-90)`;
    axes.append(make("text", { transform: place, "text-anchor": "middle", class: "name-right" }, "AB magnitude"));
  }
  return axes;
}
