// Times and brightnesses in words: MJD, UTC, flux, AB magnitude. What it takes, leap seconds and zero
// points, the service tells with each survey.

const MJD_1970 = 40587;
const DAY = 86400;
const SIGNIFICANT = 3; // sigma, below which a forced flux is a limit
const LIMIT = 5; // sigma, at which that limit is

/** Returns a time as text of ISO 8601, rounded to so many ms; null where it has no date. */
function toIso(mjd, step, ahead = 0) {
  const date = new Date(Math.round((((mjd - MJD_1970) * DAY - ahead) * 1000) / step) * step);
  return Number.isFinite(date.getTime()) ? date.toISOString() : null;
}

/** Says a time of the survey in UTC, to the second; null where there is none. */
export function sayUtc({ mjd }, { leapSeconds }) {
  const [, ahead] = leapSeconds.findLast(([since]) => since <= mjd) ?? [0, 0];
  const text = Number.isFinite(mjd) ? toIso(mjd, 1000, ahead) : null;
  return text && `${text.slice(0, 19).replace("T", " ")} UTC`;
}

/** Returns the date of a tick, or the clock where ticks are parts of a day; to the minute, TAI is UTC. */
export function dateOf(mjd, isPart) {
  const text = toIso(mjd, 60000) ?? "";
  return isPart ? `${text.slice(5, 10)} ${text.slice(11, 16)}` : text.slice(0, 10);
}

/** Returns the AB magnitude of a flux and its error; null where the flux is not above 0. */
export function magnitudeOf({ value, error }, { zeroPoint }) {
  if (zeroPoint === null || !(value > 0)) return null;
  return { value: zeroPoint - 2.5 * Math.log10(value), error: error > 0 ? (2.5 / Math.LN10) * (error / value) : NaN };
}

/** Returns the magnitude of a flux by its own zero point, or the limit where it is not significant. */
export function readFlux({ flux, error, zeroPoint }) {
  const none = { value: NaN, error: NaN, limit: NaN };
  if (!(error > 0) || !Number.isFinite(zeroPoint)) return none;
  if (flux < SIGNIFICANT * error) return { ...none, limit: zeroPoint - 2.5 * Math.log10(LIMIT * error) };
  return { ...none, ...magnitudeOf({ value: flux, error }, { zeroPoint }) };
}

const plusMinus = (value, error, digits) => `${value.toFixed(digits)}${error > 0 ? ` ± ${error.toFixed(digits)}` : ""}`;

/** Says a brightness with its error: the same words wherever it stands. */
export function sayBrightness({ value, error }, { lessIsBrighter, unit }) {
  const least = lessIsBrighter ? 2 : 0;
  // As many digits as tell an error of less than one.
  const digits = error > 0 && error < 10 ** -least ? Math.min(Math.ceil(-Math.log10(error)), 6) : least;
  return `${plusMinus(value, error, digits)} ${unit}`;
}

export function sayMagnitude(point, survey) {
  const found = magnitudeOf(point, survey);
  return found && plusMinus(found.value, found.error, 2);
}

function saySize(point, survey) {
  if (Number.isFinite(point.value)) return sayBrightness(point, survey);
  return Number.isFinite(point.limit) ? `fainter than ${sayBrightness({ value: point.limit }, survey)}` : "";
}

const list = (...words) => words.filter(Boolean).join(", ");
const sayBand = ({ band }) => (band ? `band ${band}` : "");

/** Says a point in words: band, brightness with its error, date. */
export function describePoint(point, survey) {
  const when = point.date ?? (Number.isFinite(point.mjd) ? `MJD ${point.mjd.toFixed(4)}` : "no time");
  return list(sayBand(point), saySize(point, survey), when);
}

/** Says all that there is of a point: what it is, band, brightness, AB magnitude, MJD and UTC. */
export function describeFully(point, survey) {
  const hasFlux = survey.zeroPoint !== null && Number.isFinite(point.value);
  const magnitude = hasFlux ? sayMagnitude(point, survey) : null;
  return list(
    point.words,
    sayBand(point) || "no band",
    saySize(point, survey) || "no brightness",
    hasFlux && (magnitude ? `AB ${magnitude}` : "no AB magnitude: the flux is not above 0"),
    Number.isFinite(point.mjd) ? `MJD ${point.mjd.toFixed(5)} ${survey.timeScale}` : "no time",
    sayUtc(point, survey),
  );
}
