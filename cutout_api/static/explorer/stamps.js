// The three stamps on the page: canvases, their limits, blinking, and what is under the cursor.

import { drawImage, invertMatrix, northUp, percentile, skyOf } from "./drawing.js";

export const KINDS = ["Science", "Template", "Difference"];
const AS_IT_IS = [
  [1, 0],
  [0, 1],
];

/** The frames of the page, and what is drawn in them. */
export class Stamps {
  constructor(place, readout) {
    this.place = place;
    this.readout = readout;
    this.frames = new Map(
      KINDS.map((kind) => [kind, place.querySelector(`[data-kind="${kind}"]`)]),
    );
    this.images = new Map();
    this.facts = new Map();
    this.zscale = new Map();
    this.cursor = null;
    this.timer = 0;
    this.shown = 0;
    for (const frame of this.frames.values()) this.watchPointer(frame);
  }

  /** Takes the images of an alert by kind, the facts of its stamps, and the problems of the rest. */
  show({ images, facts, problems }) {
    this.images = images;
    this.facts = facts;
    this.zscale = new Map();
    for (const [kind, frame] of this.frames) {
      const problem = problems.get(kind);
      frame.classList.toggle("none", !images.has(kind));
      frame.querySelector(".nothing").textContent = images.has(kind) ? "" : sayProblem(problem);
      const canvas = frame.querySelector("canvas");
      canvas.setAttribute("aria-label", images.has(kind) ? this.describe(kind) : `${kind}: none`);
    }
    this.tell();
  }

  describe(kind) {
    const { width, height } = this.images.get(kind);
    const snr = this.facts.get(kind)?.at_alert?.snr;
    return `${kind} stamp, ${width} by ${height} pixels${snr == null ? "" : `, S/N ${snr} at the alert`}`;
  }

  clear() {
    this.show({ images: new Map(), facts: new Map(), problems: new Map() });
  }

  /** Returns the limits that a stamp is drawn between, by what the controls say. */
  limitsOf(kind, look) {
    const image = this.images.get(kind);
    if (!image) return null;
    if (look.limits === "manual") return { vmin: look.low, vmax: look.high };
    const given = look.limits === "zscale" ? this.zscale.get(kind) : null;
    if (given) return given;
    const [low, high] = look.limits === "zscale" ? [0.5, 99.5] : [look.low, look.high];
    return { vmin: percentile(image.sorted, low), vmax: percentile(image.sorted, high) };
  }

  /** Draws every stamp as `look` says: limits, stretch, colormap, invert, north. */
  draw(look) {
    this.look = look;
    for (const [kind, image] of this.images) {
      const frame = this.frames.get(kind);
      const canvas = frame.querySelector("canvas");
      const limits = this.limitsOf(kind, look);
      if (canvas.width !== image.width) canvas.width = image.width;
      if (canvas.height !== image.height) canvas.height = image.height;
      canvas.getContext("2d").putImageData(drawImage(image, { ...limits, ...look }), 0, 0);
      this.turn(kind, canvas, image);
      frame.querySelector(".limits").textContent = `${short(limits.vmin)} to ${short(limits.vmax)}`;
    }
    this.mark();
  }

  matrixOf(kind) {
    return (this.look.north && northUp(this.facts.get(kind)?.wcs)) || AS_IT_IS;
  }

  turn(kind, canvas, image) {
    const longest = Math.max(image.width, image.height);
    const [[a, c], [b, d]] = this.matrixOf(kind);
    canvas.style.width = `${(100 * image.width) / longest}%`;
    canvas.style.height = `${(100 * image.height) / longest}%`;
    canvas.style.transform = `translate(-50%, -50%) matrix(${a}, ${b}, ${c}, ${d}, 0, 0)`;
  }

  // ---- the cursor

  watchPointer(frame) {
    const sky = frame.querySelector(".sky-frame");
    const follow = (event) => {
      const box = sky.getBoundingClientRect();
      const kind = frame.dataset.kind;
      const image = this.images.get(kind);
      if (!image) return;
      const cell = box.width / Math.max(image.width, image.height);
      const [[a, c], [b, d]] = invertMatrix(this.matrixOf(kind));
      const [right, down] = [event.clientX - box.left - box.width / 2, event.clientY - box.top - box.height / 2];
      const x = Math.floor((a * right + c * down) / cell + image.width / 2);
      const y = Math.floor((b * right + d * down) / cell + image.height / 2);
      this.point(kind, x, y);
    };
    sky.addEventListener("pointermove", follow);
    sky.addEventListener("pointerdown", follow);
    sky.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && this.leave());
    sky.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (!step || !event.shiftKey) return;
      event.preventDefault();
      event.stopPropagation();
      this.move(frame.dataset.kind, ...step);
    });
  }

  /** Moves the cursor by pixels of the stamp; it begins in the middle. */
  move(kind, right, down) {
    const image = this.images.get(kind);
    if (!image) return;
    const { x, y } = this.cursor ?? { x: Math.floor(image.width / 2), y: Math.floor(image.height / 2) };
    if (!this.cursor) this.point(kind, x, y);
    else {
      const inside = (value, size) => Math.min(Math.max(value, 0), size - 1);
      this.point(kind, inside(x + right, image.width), inside(y + down, image.height));
    }
  }

  point(kind, x, y) {
    const { width, height } = this.images.get(kind);
    if (x < 0 || y < 0 || x >= width || y >= height) return this.leave();
    this.cursor = { kind, x, y };
    this.mark();
    this.tell();
  }

  leave() {
    this.cursor = null;
    this.mark();
    this.tell();
  }

  /** Says pixel, values and place on the sky. */
  tell() {
    if (!this.cursor || !this.images.has(this.cursor.kind)) {
      this.readout.textContent = this.images.size ? "Point at a stamp to read its pixels." : "";
      return;
    }
    const { kind, x, y } = this.cursor;
    const words = [`x ${x}, y ${y}`];
    for (const [name, image] of this.images) {
      if (x >= image.width || y >= image.height) continue;
      const value = image.pixels[y * image.width + x];
      words.push(`${name} ${Number.isNaN(value) ? "masked" : short(value)}`);
    }
    const facts = this.facts.get(kind);
    const sky = facts ? skyOf(facts, x, y) : null;
    if (sky) words.push(`RA ${sky[0].toFixed(5)}° Dec ${sky[1] < 0 ? "-" : "+"}${Math.abs(sky[1]).toFixed(5)}°${facts.wcs.approximate ? " (about)" : ""}`);
    this.readout.textContent = words.join(" · ");
  }

  /** Puts a square around the pixel under the cursor, in every stamp. */
  mark() {
    for (const [kind, frame] of this.frames) {
      const mark = frame.querySelector(".mark");
      const image = this.images.get(kind);
      mark.hidden = !this.cursor || !image || this.cursor.x >= image.width || this.cursor.y >= image.height;
      if (mark.hidden) continue;
      const longest = Math.max(image.width, image.height);
      const [[a, c], [b, d]] = this.matrixOf(kind);
      const [dx, dy] = [this.cursor.x + 0.5 - image.width / 2, this.cursor.y + 0.5 - image.height / 2];
      mark.style.left = `${50 + (100 * (a * dx + c * dy)) / longest}%`;
      mark.style.top = `${50 + (100 * (b * dx + d * dy)) / longest}%`;
      mark.style.width = mark.style.height = `${100 / longest}%`;
      mark.style.transform = `translate(-50%, -50%) matrix(${a}, ${b}, ${c}, ${d}, 0, 0)`;
    }
  }

  // ---- blinking

  get blinking() {
    return this.place.classList.contains("blinking");
  }

  /** Shows one stamp after the other in one place; without a pace, each time it is asked to. */
  blink(kinds, perSecond) {
    this.order = kinds.filter((kind) => this.images.has(kind));
    clearInterval(this.timer);
    if (this.order.length === 0) return;
    this.place.classList.add("blinking");
    this.shown = 0;
    this.showOne();
    if (perSecond) this.timer = setInterval(() => this.showNext(), 1000 / perSecond);
  }

  showNext() {
    this.shown = (this.shown + 1) % this.order.length;
    this.showOne();
  }

  showOne() {
    for (const [kind, frame] of this.frames) frame.classList.toggle("shown", kind === this.order[this.shown]);
  }

  stop() {
    clearInterval(this.timer);
    this.place.classList.remove("blinking");
    for (const frame of this.frames.values()) frame.classList.remove("shown");
  }
}

/** A number of four digits that matter. */
export function short(value) {
  if (!Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  return size !== 0 && (size < 0.01 || size >= 1e6) ? value.toExponential(3) : String(Number(value.toPrecision(5)));
}

function sayProblem(problem) {
  if (!problem) return "";
  return problem.code === "stamp_missing" ? "The alert has no such stamp." : problem.detail ?? problem.title;
}
