// The explorer: an id -> its object's epochs -> the stamps of one of them, beside the light curve.
// What is looked at stands in the address of the page, so that it can be sent on and gone back to.

import { Problem, ask, copyText, writeAddress, writeCurl, writePython } from "./api.js";
import { drawCurve, drawLimit, drawMarker, drawOther, isLimit } from "./curve.js";
import { ASINH_A, makeImage } from "./drawing.js";
import { describePoint, readFlux, sayBrightness, sayMagnitude, sayUtc } from "./quantities.js";
import { KINDS, Stamps, short } from "./stamps.js";

const CUTOUTS = "/api/v1/cutouts";
const ALL = "All";
const KEPT = 40; // epochs whose pixels are remembered: some 100 kB each
const HOLDING = 90; // ms: a key that is held down passes over epochs

const find = (selector) => document.querySelector(selector);
const explorer = find("#explorer");
const surveys = JSON.parse(explorer.dataset.surveys);
const siteTitle = document.title;
const keyNames = Object.values(surveys).flatMap((survey) => [survey.alertKey, survey.objectKey]);
const stamps = new Stamps(find("#stamps"), find("#readout"));
const calm = matchMedia("(prefers-reduced-motion: reduce)");

const PERCENTILES = { low: 1, high: 99.8 };
const LOOK = { stretch: "asinh", colormap: "gray", limits: "percentile", ...PERCENTILES, invert: false, north: false };
const look = { ...LOOK };
/** What is looked at; `shown` is the epoch whose stamps are drawn, `epoch` the one asked for. */
const view = { id: "", key: "", path: "", survey: null, epochs: [], rows: [], epoch: null, band: "", shown: null };

/** Makes an element; text is always text, never markup. */
function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// ---- the address of the page

const SHORT_LOOK = ["stretch", "colormap", "limits", "low", "high", "invert", "north"];

function writePage() {
  const values = { [view.key || "id"]: view.id, epoch: view.asked, hdfsPath: view.path, band: view.band };
  for (const name of SHORT_LOOK) {
    if (look[name] !== LOOK[name]) values[name] = typeof look[name] === "boolean" ? "1" : look[name];
  }
  if (find("#kind").value !== ALL) values.kind = find("#kind").value;
  const { pathname, search } = new URL(writeAddress("/", values));
  return pathname + search;
}

let lastStep = "";

/** Notes the view in the address; many alike in a row, such as steps by key, are one step back. */
function notePage(step) {
  const address = writePage();
  if (address === location.pathname + location.search) return;
  if (step === "look" || (step === "key" && lastStep === "key")) history.replaceState(null, "", address);
  else history.pushState(null, "", address);
  if (step !== "look") lastStep = step;
}

function readPage() {
  const given = new URLSearchParams(location.search);
  view.key = keyNames.find((name) => given.get(name)) ?? "";
  const known = { stretch: "#stretch", colormap: "#colormap", limits: "#limits" };
  for (const name of SHORT_LOOK) {
    const value = given.get(name);
    const options = known[name] ? [...find(known[name]).options].map((option) => option.value) : null;
    if (value === null || (options && !options.includes(value))) look[name] = LOOK[name];
    else if (typeof LOOK[name] === "number") look[name] = value && Number.isFinite(Number(value)) ? Number(value) : LOOK[name];
    else look[name] = typeof LOOK[name] === "boolean" ? value === "1" : value;
  }
  const [least, most] = look.limits === "manual" ? [-Infinity, Infinity] : [0, 100];
  if (!(least <= look.low && look.low < look.high && look.high <= most)) Object.assign(look, PERCENTILES, { limits: "percentile" });
  find("#kind").value = [...KINDS, ALL].find((kind) => kind === given.get("kind")) ?? ALL;
  return {
    id: (given.get(view.key || "id") ?? "").trim(),
    path: (given.get("hdfsPath") ?? "").trim(),
    epoch: given.get("epoch"),
    band: given.get("band") ?? "",
  };
}

// ---- what goes on, and what went wrong

const status = (text) => (find("#status").textContent = text);

function showProblem(error, retry) {
  const place = find("#problem");
  if (!(error instanceof Problem)) console.error(error);
  const { title, detail, suggestion, type } = error instanceof Problem ? error.problem : { title: "The page failed", detail: String(error) };
  place.replaceChildren(make("strong", {}, title), make("p", {}, detail ?? ""));
  if (suggestion) {
    const button = make("button", { type: "button" }, `Use ${suggestion}`);
    button.addEventListener("click", () => open({ id: suggestion, path: view.path }, "find"));
    place.append(button, " ");
  }
  if (retry) {
    const button = make("button", { type: "button", className: "retry" }, "Try again");
    button.addEventListener("click", retry);
    place.append(button, " ");
  }
  if (type) place.append(make("a", { href: type }, "What this means"));
  place.hidden = false;
  status("");
}

const clearProblem = () => (find("#problem").hidden = true);
const isTemporary = (error) => !error.problem?.status || error.problem.status >= 500;

// ---- an id

let opening = new AbortController();

/** Looks for an id, and shows the epoch asked for, or else the alert it names, or the latest. */
async function open({ id, path = "", epoch = null, band = "" }, step) {
  opening.abort();
  loading.abort();
  const { signal } = (opening = new AbortController());
  if (step !== "page") view.key = "";
  Object.assign(view, { id, path, epoch: null, asked: epoch, band, epochs: [], rows: [], shown: null });
  if (step !== "page") notePage(step);
  find("#id").value = id;
  find("#hdfsPath").value = path;
  if (path) find("#more").open = true;
  clearProblem();
  stopBlinking();
  explorer.hidden = true;
  find("#curve").removeAttribute("aria-busy");
  document.title = id ? `${id} · Cutout API` : siteTitle;
  if (!id) return status("");
  status(`Looking for ${id} …`);
  explorer.setAttribute("aria-busy", "true");
  try {
    const found = await ask(writeAddress("/api/v1/identify", { id, hdfsPath: path }), signal);
    useMatch(found.matches.find((match) => match.key === view.key) ?? found.matches[0], found.matches);
  } catch (error) {
    if (error.name !== "AbortError") showProblem(error, isTemporary(error) && (() => open({ id, path, epoch, band }, "page")));
    return;
  } finally {
    if (!signal.aborted) explorer.removeAttribute("aria-busy");
  }
  // The keys step from here on; in the field they would move its cursor.
  if (step === "find") explorer.focus({ preventScroll: true });
  void loadRows(signal);
  await goTo(startingEpoch(epoch), "page");
}

function useMatch(match, matches) {
  const survey = surveys[match.survey];
  view.survey = survey;
  view.match = match;
  view.epochs = match.epochs
    .filter((entry) => entry[survey.alertKey] !== null)
    .map((entry) => ({
      alert: entry[survey.alertKey],
      object: entry[survey.objectKey],
      moving: entry[survey.movingKey],
      mjd: entry[survey.timeName] === null ? NaN : entry[survey.timeName] - survey.mjdOffset,
      date: entry.date,
      band: entry.band,
      value: entry.brightness ?? NaN,
      error: NaN,
    }));
  if (view.epochs.length === 0) throw new Problem({ title: "No alert has an id", detail: "The object is known, but its rows name no alert." });
  const bands = Object.values(survey.bands);
  if (!bands.includes(view.band)) view.band = "";
  fillBands(bands.filter((band) => view.epochs.some((epoch) => epoch.band === band)));
  const others = matches.filter((other) => other !== match);
  view.isShared = others.some((other) => other.key === match.key);
  const { object, moving, alert } = view.epochs[0];
  find("#curve-title").textContent = object ?? (moving ? `${survey.movingKey} ${moving}` : alert);
  find("#curve-note").replaceChildren(
    ...others.map((other) => make("a", { href: writeAddress("/", addressOf(other, match)) }, `It is a ${other.key} too.`)),
  );
  explorer.hidden = false;
}

/** Names another thing that an id is: by its object where it is called as the first is. */
function addressOf(other, match) {
  const { objectKey } = surveys[other.survey];
  const object = other.key === match.key ? other.epochs[0][objectKey] : null;
  return object ? { [objectKey]: object } : { [other.key]: other.value };
}

function startingEpoch(asked) {
  const epochs = visibleEpochs();
  const named = view.match.key === view.survey.alertKey ? view.match.value : null;
  const wanted = [asked, named].map((alert) => view.epochs.find((epoch) => epoch.alert === alert)).find(Boolean);
  if (wanted && !epochs.includes(wanted)) view.band = find("#band").value = "";
  return (wanted ?? epochs.at(-1)).alert;
}

/** The rows of the table add errors and upper limits to what the catalog knows. */
async function loadRows(signal) {
  const { curve } = view.survey;
  const object = view.epochs[0].object;
  if (object === null || view.path) return;
  find("#curve").setAttribute("aria-busy", "true");
  try {
    const rows = await ask(curveAddress("json"), signal);
    view.rows = rows.map((row) => readRow(row, curve.columns));
    const byAlert = new Map(view.rows.map((row) => [row.alert, row]));
    for (const epoch of view.epochs) {
      const row = byAlert.get(epoch.alert);
      if (row) epoch.error = row.error;
      if (row && !Number.isFinite(epoch.value)) epoch.value = row.value;
    }
    redrawCurve();
    fillSteps();
    if (view.shown) fillFacts(view.found);
  } catch (error) {
    if (error.name === "AbortError") return;
    find("#curve-note").append(make("span", {}, `Without errors and upper limits: ${error.message}`));
  } finally {
    if (!signal.aborted) find("#curve").removeAttribute("aria-busy");
  }
}

function readRow(row, columns) {
  const number = (name) => (columns[name] === undefined || row[columns[name]] == null ? NaN : Number(row[columns[name]]));
  const { bands, mjdOffset } = view.survey;
  const band = row[columns.band];
  const measured = { value: number("value"), error: number("error"), limit: number("limit") };
  const flux = { flux: number("flux"), error: number("fluxError"), zeroPoint: number("fluxZeroPoint") };
  return {
    alert: String(row[columns.alert] ?? ""),
    mjd: number("time") - mjdOffset,
    band: bands[String(band)] ?? null,
    ...(Number.isFinite(flux.flux) ? readFlux(flux) : measured),
    tag: columns.tag ? row[columns.tag] : null,
  };
}

function curveAddress(format) {
  const { curve, objectKey } = view.survey;
  const columns = Object.values(curve.columns).join(",");
  return writeAddress(curve.table, { [objectKey]: view.epochs[0].object, columns, ...curve.options, "output-format": format });
}

// ---- epochs

const visibleEpochs = () => {
  const chosen = view.epochs.filter((epoch) => !view.band || epoch.band === view.band);
  return chosen.length ? chosen : view.epochs;
};
const currentEpoch = () => view.epochs.find((epoch) => epoch.alert === view.epoch);

function fillBands(bands) {
  const place = find("#band");
  place.replaceChildren(
    make("option", { value: "" }, "all bands"),
    ...bands.map((band) => make("option", { value: band }, `band ${band}`)),
  );
  if (!bands.includes(view.band)) view.band = "";
  place.value = view.band;
  place.disabled = bands.length < 2;
}

function fillLegend(others) {
  const drawn = new Set([...Array.from(find("#band").options, (option) => option.value), ...others.map((point) => point.band)]);
  const bands = [...new Set(Object.values(view.survey.bands))].filter((band) => drawn.has(band));
  const timeless = [...others, ...visibleEpochs()].filter((point) => !Number.isFinite(point.mjd)).length;
  const signs = [
    others.length > 0 && make("span", {}, drawMarker(""), " alert, with stamps"),
    ...Object.entries(view.survey.curve.tags).map(
      ([tag, words]) => others.some((point) => point.tag === tag && !isLimit(point)) && make("span", {}, drawOther(tag), ` ${words}`),
    ),
    others.some(isLimit) && make("span", {}, drawLimit(), " upper limit"),
    timeless > 0 && make("span", {}, `${timeless} with no time, not drawn`),
  ];
  find("#legend").replaceChildren(
    ...bands.map((band) => make("span", { className: "of-band" }, drawMarker(band), ` ${band}`)),
    ...signs.filter(Boolean),
  );
}

function redrawCurve() {
  if (explorer.hidden) return;
  const known = new Set(view.epochs.map((epoch) => epoch.alert));
  const { tags } = view.survey.curve;
  const others = view.rows
    .filter((row) => !known.has(row.alert) && (isLimit(row) ? row.tag !== "badquality" : row.tag in tags && Number.isFinite(row.value)))
    .map((row) => ({ ...row, alert: null, words: isLimit(row) ? "upper limit" : tags[row.tag] }));
  const otherPoints = others.filter((row) => !view.band || row.band === view.band);
  const points = [...otherPoints, ...visibleEpochs()];
  fillLegend(otherPoints);
  find("#curve").setAttribute("aria-label", `Light curve: ${visibleEpochs().length} epochs, ${others.length} other measurements and limits`);
  drawCurve(find("#curve"), { points, current: view.epoch, survey: view.survey, pick: (alert) => goTo(alert, "pick") });
}

function fillSteps() {
  const epochs = visibleEpochs();
  const number = epochs.findIndex((epoch) => epoch.alert === view.epoch);
  find("#epoch").replaceChildren(
    ...epochs.map((epoch, place) =>
      make("option", { value: epoch.alert, selected: place === number }, `${place + 1} of ${epochs.length}: ${describePoint(epoch, view.survey)}`),
    ),
  );
  for (const [id, off] of [["first", number <= 0], ["previous", number <= 0], ["next", number === epochs.length - 1], ["last", number === epochs.length - 1]]) {
    find(`#${id}`).disabled = off;
  }
}

/** Goes by so many epochs, or to the first or last by an infinity of them. */
function stepBy(count, step, held = false) {
  if (explorer.hidden) return;
  const epochs = visibleEpochs();
  const number = epochs.findIndex((epoch) => epoch.alert === view.epoch);
  const next = Math.min(Math.max(number + count, 0), epochs.length - 1);
  if (next !== number) goTo(epochs[next].alert, step, held ? HOLDING : 0);
}

let loading = new AbortController();
const remembered = new Map();

/** Shows the stamps of one alert of the object. */
async function goTo(alert, step, wait = 0) {
  loading.abort();
  const { signal } = (loading = new AbortController());
  view.epoch = alert;
  if (step !== "page") {
    view.asked = alert;
    notePage(step);
  }
  fillSteps();
  redrawCurve();
  const epochs = visibleEpochs();
  const words = `Epoch ${epochs.findIndex((epoch) => epoch.alert === alert) + 1} of ${epochs.length}: ${describePoint(currentEpoch(), view.survey)}`;
  status(`${words} …`);
  explorer.setAttribute("aria-busy", "true");
  try {
    if (wait) await new Promise((resolve) => setTimeout(resolve, wait));
    if (signal.aborted) return;
    const found = await recall(alert, signal);
    if (signal.aborted) return;
    clearProblem();
    await showAlert(alert, found, signal);
    if (!signal.aborted) status(words);
  } catch (error) {
    if (error.name === "AbortError" || signal.aborted) return;
    stamps.clear();
    showProblem(error, isTemporary(error) && (() => goTo(alert, "page")));
  } finally {
    if (!signal.aborted) explorer.removeAttribute("aria-busy");
  }
}

async function recall(alert, signal) {
  const key = `${view.path} ${view.survey.title} ${alert}`;
  if (!remembered.has(key)) {
    const found = await loadAlert(alert, signal);
    remembered.set(key, found);
    if (remembered.size > KEPT) remembered.delete(remembered.keys().next().value);
  }
  return remembered.get(key);
}

/** Names an alert; its object too where surveys share the name of the key, and both have such an id. */
function identity(alert) {
  const { alertKey, objectKey } = view.survey;
  const object = view.isShared && view.epochs.find((epoch) => epoch.alert === alert)?.object;
  return { hdfsPath: view.path, ...(object && { [objectKey]: object }), [alertKey]: alert };
}

/** Asks for all stamps at once, and for each alone where one is missing or damaged. */
async function loadAlert(alert, signal) {
  const whole = (path, more) => ask(writeAddress(path, { ...identity(alert), ...more }), signal);
  const pixels = (kind) => whole(CUTOUTS, { kind, "output-format": "array" });
  const facts = (kind) => whole(`${CUTOUTS}/info`, { kind });
  const answers = await Promise.allSettled([pixels(ALL), facts(ALL)]);
  if (answers.every(({ status: how }) => how === "fulfilled")) return readAlert([answers[0].value], [answers[1].value], new Map());
  const problem = answers.find(({ reason }) => reason)?.reason;
  if (!(problem instanceof Problem) || ![404, 502].includes(problem.problem.status)) throw problem;
  const parts = await Promise.allSettled(KINDS.flatMap((kind) => [pixels(kind), facts(kind)]));
  const problems = new Map();
  KINDS.forEach((kind, number) => {
    const reason = parts[2 * number].reason;
    if (reason) problems.set(kind, reason.problem ?? { detail: String(reason) });
  });
  if (problems.size === KINDS.length) throw problem;
  const good = (odd) => parts.filter((part, number) => number % 2 === odd && part.status === "fulfilled").map((part) => part.value);
  return readAlert(good(0), good(1), problems);
}

function readAlert(arrays, infos, problems) {
  const images = new Map();
  for (const array of arrays) {
    for (const [name, rows] of Object.entries(array)) {
      const kind = KINDS.find((known) => name.toLowerCase().includes(known.toLowerCase()));
      images.set(kind, makeImage(kind, rows));
    }
  }
  const ordered = new Map(KINDS.filter((kind) => images.has(kind)).map((kind) => [kind, images.get(kind)]));
  const facts = new Map(infos.flatMap((info) => info.stamps).map((stamp) => [stamp.kind, stamp]));
  return { images: ordered, facts, problems, alert: infos[0]?.alert ?? {}, flags: infos[0]?.flags ?? {} };
}

async function showAlert(alert, found, signal) {
  view.shown = alert;
  view.found = found;
  stamps.show(found);
  if (look.limits === "zscale") await loadZscale(signal);
  if (signal.aborted) return;
  redraw();
  fillFacts(found);
  if (stamps.blinking) startBlinking();
}

// ---- how they are drawn

/** zscale is the service's, which asks astropy: its limits are asked for, the pixels are not. */
async function loadZscale(signal) {
  const kinds = [...stamps.images.keys()];
  const asked = kinds.length === KINDS.length ? [ALL] : kinds;
  const recipes = await Promise.all(
    asked.map((kind) =>
      ask(writeAddress(CUTOUTS, { ...identity(view.shown), kind, interval: "zscale", explain: 1, "output-format": "PNG" }), signal),
    ),
  );
  stamps.zscale = new Map(recipes.flatMap((recipe) => recipe.kinds).map(({ kind, vmin, vmax }) => [kind, { vmin, vmax }]));
}

function redraw() {
  if (stamps.images.size === 0) return;
  stamps.draw(look);
  fillTaking();
}

/** Gives the sliders their range: of percent, or of the pixels. */
function fitControls() {
  for (const name of ["stretch", "colormap", "limits"]) find(`#${name}`).value = look[name];
  find("#invert").checked = look.invert;
  find("#north").checked = look.north;
  const manual = look.limits === "manual";
  const [least, most] = manual ? pixelRange() : [0, 100];
  for (const name of ["low", "high"]) {
    const slider = find(`#${name}`);
    const number = find(`#${name}-value`);
    Object.assign(slider, { min: least, max: most, step: manual ? "any" : 0.1, value: look[name] });
    number.value = manual ? String(Number(look[name].toPrecision(7))) : look[name];
    slider.disabled = number.disabled = look.limits === "zscale";
    find(`label[for="${name}"] .of`).textContent = manual ? `(${view.found?.facts.values().next().value?.unit ?? "value"})` : "(%)";
  }
}

function pixelRange() {
  const images = [...stamps.images.values()].filter(({ sorted }) => sorted.length);
  const chosen = images.filter(({ kind }) => [ALL, kind].includes(find("#kind").value));
  const ends = (chosen.length ? chosen : images).map(({ sorted }) => [sorted[0], sorted.at(-1)]);
  if (ends.length === 0) return [look.low, look.high];
  return [Math.min(...ends.map(([low]) => low), look.low), Math.max(...ends.map(([, high]) => high), look.high)];
}

function setLimit(name, value) {
  if (!Number.isFinite(value)) return fitControls();
  const percent = look.limits === "percentile";
  look[name] = percent ? Math.min(Math.max(value, 0), 100) : value;
  // One limit pushes the other before it: the service wants them in order.
  const gap = percent ? 0.1 : (pixelRange()[1] - pixelRange()[0]) / 1000 || 1;
  if (look.low >= look.high) {
    if (name === "low") look.high = look.low + gap;
    else look.low = look.high - gap;
    if (percent && look.high > 100) Object.assign(look, { low: 100 - gap, high: 100 });
    if (percent && look.low < 0) Object.assign(look, { low: 0, high: gap });
  }
  look.low = Number(look.low.toPrecision(12));
  look.high = Number(look.high.toPrecision(12));
  changeLook();
}

function changeLook() {
  fitControls();
  redraw();
  notePage("look");
}

async function chooseLimits(limits) {
  const before = stamps.limitsOf(chosenKind(), look);
  look.limits = limits;
  if (limits === "manual") Object.assign(look, before ? { low: before.vmin, high: before.vmax } : { low: 0, high: 1 });
  else Object.assign(look, PERCENTILES);
  if (limits === "zscale" && stamps.images.size) {
    try {
      await loadZscale(loading.signal);
    } catch (error) {
      if (error.name === "AbortError") return;
      look.limits = "percentile";
      showProblem(error);
    }
  }
  changeLook();
}

/** The stamp that the controls are about where they can be about one only. */
function chosenKind() {
  const kind = find("#kind").value;
  return stamps.images.has(kind) ? kind : stamps.images.keys().next().value;
}

// ---- facts

function fillFacts({ alert, facts, flags }) {
  const { survey } = view;
  const { alertKey, objectKey, movingKey, timeName, timeScale, lessIsBrighter, zeroPoint } = survey;
  const measured = { value: alert.brightness ?? NaN, error: currentEpoch()?.error ?? NaN };
  const isMeasured = Number.isFinite(measured.value);
  const rows = [
    [alertKey, alert[alertKey] ?? view.shown],
    [objectKey, alert[objectKey]],
    [movingKey, alert[movingKey]],
    ["date", alert.date ?? (alert[timeName] === null ? "no time" : null)],
    ["UTC", timeScale === "UTC" ? null : sayUtc(alert, survey)],
    [timeName, alert[timeName]],
    [`MJD (${timeScale})`, survey.mjdOffset ? alert.mjd?.toFixed(6) : null],
    ["band", alert.band],
    [lessIsBrighter ? "magnitude" : "flux", isMeasured ? sayBrightness(measured, survey) : null],
    ["AB magnitude", isMeasured && zeroPoint !== null ? sayMagnitude(measured, survey) ?? "none: the flux is not above 0" : null],
    ["RA, Dec", alert.ra == null || alert.dec == null ? null : `${alert.ra.toFixed(6)}, ${alert.dec.toFixed(6)}`],
    ["difference", alert.positive == null ? null : alert.positive ? "brighter than the template" : "fainter than the template"],
  ];
  find("#facts").replaceChildren(
    ...rows.filter(([, value]) => value != null).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, String(value))]),
  );
  const columns = [
    ["", (stamp) => make("th", { scope: "row" }, stamp.kind)],
    ["noise", (stamp) => cell(stamp.noise == null ? "–" : `${short(stamp.noise)} ${stamp.unit ?? ""}`)],
    ["S/N at the alert", (stamp) => cell(stamp.at_alert?.snr == null ? "–" : stamp.at_alert.snr.toFixed(1))],
    ["brightest pixel", (stamp) => brightestCell(stamp.brightest_pixel)],
    ["masked", (stamp) => cell(`${(100 * stamp.nan_fraction).toFixed(stamp.nan_fraction ? 1 : 0)} %`)],
    ["pixels", (stamp) => cell(`${stamp.shape[1]} × ${stamp.shape[0]}`)],
    ["flags", (stamp) => flagCell(stamp.flags, flags)],
  ];
  find("#measured").replaceChildren(
    make("thead", {}, make("tr", {}, ...columns.map(([name]) => (name ? make("th", { scope: "col" }, name) : make("td"))))),
    make("tbody", {}, ...[...facts.values()].map((stamp) => make("tr", {}, ...columns.map(([, write]) => write(stamp))))),
  );
}

const cell = (text) => make("td", {}, text);

/** Says how far the pixel farthest from the background is from it, and where; it may be of another source. */
function brightestCell(pixel) {
  if (pixel?.snr == null) return cell("–");
  return cell(make("abbr", { title: `in units of the noise, at x ${pixel.x}, y ${pixel.y}` }, pixel.snr.toFixed(1)));
}

function flagCell(names, meanings) {
  const place = make("td", {}, names.length ? "" : "none");
  names.forEach((name, number) => place.append(number ? ", " : "", make("abbr", { title: meanings[name] ?? "" }, name.replaceAll("_", " "))));
  return place;
}

// ---- requests and downloads

/** The request that gives the picture as it is drawn here. */
function describePicture() {
  const kind = stamps.images.size === KINDS.length ? find("#kind").value : chosenKind();
  const values = { ...identity(view.shown), kind, "output-format": "PNG", stretch: look.stretch };
  if (look.stretch === "asinh") values.a = ASINH_A;
  if (kind !== ALL || look.limits === "manual") Object.assign(values, { interval: "manual", ...stamps.limitsOf(kind === ALL ? chosenKind() : kind, look) });
  else if (look.limits === "zscale") values.interval = "zscale";
  else Object.assign(values, { interval: "percentile", pmin: look.low, pmax: look.high });
  if (values.interval === "manual" && values.vmin >= values.vmax) values.interval = values.vmin = values.vmax = undefined;
  if (look.colormap !== "gray") values.colormap = look.colormap;
  if (look.invert) values.invert = 1;
  if (look.north) values.orient = "north";
  return values;
}

function fillTaking() {
  const values = describePicture();
  const address = writeAddress(CUTOUTS, values);
  const file = `${view.shown}_${values.kind}.png`;
  find("#as-link").replaceChildren(make("a", { href: address }, address));
  find("#as-curl").textContent = writeCurl(address, file);
  find("#as-python").textContent = writePython(address, file);
  find("#kind").disabled = stamps.images.size < 2;
  for (const option of find("#kind").options) option.disabled = option.value === ALL ? stamps.images.size < KINDS.length : !stamps.images.has(option.value);
  fillDownloads(values);
}

function fillDownloads(picture) {
  const { survey, shown } = view;
  const object = view.epochs[0].object;
  const kind = chosenKind();
  const one = identity(shown);
  const every = { hdfsPath: view.path, [survey.objectKey]: object, band: view.band, epochs: "all", kind };
  const cutouts = (values) => writeAddress(CUTOUTS, values);
  const isWhole = stamps.images.size === KINDS.length;
  const drawn = Object.fromEntries(["stretch", "a", "colormap", "invert", "orient"].map((name) => [name, picture[name]]));
  const shared = { ...drawn, interval: "percentile", ...(look.limits === "percentile" ? { pmin: look.low, pmax: look.high } : {}) };
  const count = view.epochs.filter((epoch) => !view.band || epoch.band === view.band).length;
  const links = [
    [`FITS, ${kind}`, cutouts({ ...one, kind, "output-format": "FITS" }), `${shown}_${kind}.fits`],
    isWhole && ["FITS, all three", cutouts({ ...one, kind: ALL, "output-format": "FITS" }), `${shown}_All.fits`],
    [`FITS with WCS, ${kind}`, cutouts({ ...one, kind, "output-format": "FITS", wcs: "fix" }), `${shown}_${kind}_wcs.fits`],
    ["PNG with labels", cutouts({ ...picture, labels: "all" }), `${shown}_labels.png`],
    ...(object === null ? [] : [
      [`Contact sheet of ${count} epoch${count === 1 ? "" : "s"}`, cutouts({ ...every, ...shared, "output-format": "PNG" }), `${object}_${kind}.png`],
      ["Animated GIF", cutouts({ ...every, ...shared, "output-format": "GIF" }), `${object}_${kind}.gif`],
      ["Animated WebP", cutouts({ ...every, ...shared, "output-format": "WebP" }), `${object}_${kind}.webp`],
    ]),
    ...(object === null || view.path ? [] : [
      ["Light curve, JSON", curveAddress("json"), `${object}.json`],
      ["Light curve, CSV", curveAddress("csv"), `${object}.csv`],
    ]),
    ["What is measured, JSON", writeAddress(`${CUTOUTS}/info`, { ...one, kind: isWhole ? ALL : kind }), `${shown}_info.json`],
    ["Every parameter of this request", writeAddress("/try", { ...picture }), null],
  ];
  find("#downloads").replaceChildren(
    ...links.filter(Boolean).map(([label, href, file]) => make("li", {}, make("a", file ? { href, download: file } : { href }, label))),
  );
}

async function copyFrom(button) {
  const code = button.parentElement.querySelector("code");
  const done = await copyText(code.textContent).then(() => true, () => false);
  if (!done) getSelection().selectAllChildren(code);
  button.textContent = done ? "Copied" : "Selected";
  status(done ? "Copied." : "Selected; copy it by hand.");
  setTimeout(() => (button.textContent = "Copy"), 2000);
}

// ---- blinking

function startBlinking() {
  // Where motion is not wanted, each press shows the next one.
  stamps.blink(find("#blinked").value.split(","), calm.matches ? 0 : Number(find("#pace").value));
  find("#blink").setAttribute("aria-pressed", String(stamps.blinking));
}

function stopBlinking() {
  stamps.stop();
  find("#blink").setAttribute("aria-pressed", "false");
}

function pressBlink() {
  if (!stamps.blinking) startBlinking();
  else if (calm.matches && stamps.shown < stamps.order.length - 1) stamps.showNext();
  else stopBlinking();
}

// ---- controls

function chooseKind(kind) {
  const option = [...find("#kind").options].find((known) => known.value === kind);
  if (!option || option.disabled) return;
  find("#kind").value = kind;
  status(`The request is for ${kind === ALL ? "all three stamps" : kind}.`);
  changeLook();
}

const toggle = (name) => {
  look[name] = !look[name];
  changeLook();
};

const KEYS = {
  ArrowLeft: (event) => stepBy(-1, "key", event.repeat),
  ArrowRight: (event) => stepBy(1, "key", event.repeat),
  Home: () => stepBy(-Infinity, "key"),
  End: () => stepBy(Infinity, "key"),
  b: pressBlink,
  i: () => toggle("invert"),
  n: () => toggle("north"),
  0: () => chooseKind(ALL),
  1: () => chooseKind(KINDS[0]),
  2: () => chooseKind(KINDS[1]),
  3: () => chooseKind(KINDS[2]),
  "/": () => find("#id").focus(),
  "?": () => find("#help").showModal(),
  Escape: stopBlinking,
};
const NEEDS_NOTHING = ["/", "?"];

function pressKey(event) {
  const { key, target } = event;
  const act = KEYS[key];
  const typing = target.matches("input:not([type=checkbox]), select, textarea") && key !== "Escape";
  if (!act || typing || event.ctrlKey || event.metaKey || event.altKey || find("#help").open) return;
  if (explorer.hidden && !NEEDS_NOTHING.includes(key)) return;
  if (event.shiftKey && key.startsWith("Arrow")) return;
  event.preventDefault();
  act(event);
}

function listen() {
  find("#find").addEventListener("submit", (event) => {
    event.preventDefault();
    open({ id: find("#id").value.trim(), path: find("#hdfsPath").value.trim() }, "find");
  });
  for (const link of document.querySelectorAll(".example")) {
    link.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      open({ id: link.dataset.id }, "find");
    });
  }
  for (const name of ["stretch", "colormap"]) {
    find(`#${name}`).addEventListener("change", ({ target }) => {
      look[name] = target.value;
      changeLook();
    });
  }
  find("#limits").addEventListener("change", ({ target }) => chooseLimits(target.value));
  for (const name of ["low", "high"]) {
    find(`#${name}`).addEventListener("input", ({ target }) => setLimit(name, Number(target.value)));
    find(`#${name}-value`).addEventListener("change", ({ target }) => setLimit(name, target.value.trim() === "" ? NaN : Number(target.value)));
  }
  for (const name of ["invert", "north"]) find(`#${name}`).addEventListener("change", () => toggle(name));
  find("#reset").addEventListener("click", () => {
    Object.assign(look, LOOK);
    changeLook();
  });
  find("#blink").addEventListener("click", pressBlink);
  for (const name of ["blinked", "pace"]) find(`#${name}`).addEventListener("change", () => stamps.blinking && startBlinking());
  find("#first").addEventListener("click", () => stepBy(-Infinity, "pick"));
  find("#previous").addEventListener("click", () => stepBy(-1, "pick"));
  find("#next").addEventListener("click", () => stepBy(1, "pick"));
  find("#last").addEventListener("click", () => stepBy(Infinity, "pick"));
  find("#epoch").addEventListener("change", ({ target }) => goTo(target.value, "pick"));
  find("#band").addEventListener("change", ({ target }) => chooseBand(target.value));
  find("#kind").addEventListener("change", ({ target }) => chooseKind(target.value));
  find("#show-help").addEventListener("click", () => find("#help").showModal());
  for (const button of document.querySelectorAll(".copy")) button.addEventListener("click", () => copyFrom(button));
  document.addEventListener("keydown", pressKey);
  addEventListener("popstate", openPage);
  new ResizeObserver(redrawCurve).observe(find("#curve"));
}

/** Shows one band only; of the epochs left, the one nearest in time to that which was shown. */
function chooseBand(band) {
  view.band = band;
  const before = currentEpoch();
  const epochs = visibleEpochs();
  if (epochs.includes(before)) {
    notePage("pick");
    fillSteps();
    redrawCurve();
    if (view.shown) fillTaking();
    return;
  }
  const away = (epoch) => Math.abs(epoch.mjd - before.mjd) || 0;
  goTo(epochs.reduce((best, epoch) => (away(epoch) < away(best) ? epoch : best)).alert, "pick");
}

/** Shows what the address of the page says; of the object that is shown, only what differs. */
function openPage() {
  const before = { id: view.id, key: view.key, path: view.path };
  const asked = readPage();
  lastStep = "";
  fitControls();
  const same = asked.id && !explorer.hidden && before.id === asked.id && before.key === view.key && before.path === asked.path;
  if (!same) return open(asked, "page");
  view.band = find("#band").value = asked.band;
  view.asked = asked.epoch;
  return goTo(startingEpoch(asked.epoch), "page");
}

listen();
openPage();
