// The form of the page /try: shows the answer in place, says the same request as a link and as
// curl. Without this file the form still works: the browser opens the service's answer itself.

const form = document.querySelector("#try");
const stage = document.querySelector("#stage");
const caption = document.querySelector("#caption");
const LARGEST = 512; // px: a stamp of 63 x 63 is drawn 8 times as large
const ROWS = 4;
const COLUMNS = 6;

/** Makes an element; text is always text, never markup. */
function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// ---- what is asked

/** One field for the id in place of one for each: its name is the id that is chosen. */
function joinKeys() {
  document.querySelector("#keys").replaceWith(document.querySelector("#one-key").content);
  const which = form.querySelector("#key-name");
  const choose = () => {
    const { hint, example } = which.selectedOptions[0].dataset;
    Object.assign(form.elements.key, { name: which.value, placeholder: `e.g. ${example}` });
    form.querySelector("#hint-key").textContent = hint;
  };
  which.addEventListener("change", choose);
  choose();
}

/** Drawing parameters are sent with a picture only. */
function followFormat() {
  const pictures = ["PNG", "JPEG", "WebP", "GIF"];
  form.querySelector("#drawing").disabled = !pictures.includes(form.elements["output-format"].value);
}

/** The arguments as they are sent: what is left empty is left out. */
function readQuery() {
  const filled = [...new FormData(form)].map(([name, value]) => [name, value.trim()]);
  return new URLSearchParams(filled.filter(([, value]) => value));
}

function fill(query) {
  for (const [name, value] of query) {
    const which = form.elements["key-name"];
    if ([...which.options].some((option) => option.value === name)) {
      which.value = name;
      which.dispatchEvent(new Event("change"));
    }
    if (form.elements[name]) form.elements[name].value = value;
  }
  followFormat();
}

// ---- the request in other words

const quote = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

/** A query may hold "/" and "=" as they are, which keeps a path readable. */
function writeAddress(query) {
  const text = String(query).replaceAll("%2F", "/").replaceAll("%3D", "=");
  return new URL(`?${text}`, form.action).href;
}

function writeCurl(address, file) {
  return `curl ${quote(address)}${file ? ` -o ${quote(file)}` : ""}`;
}

/** Puts what the form holds into the examples, quoted for the shell that will read them. */
function fillExamples() {
  const values = {
    path: form.elements.hdfsPath.value.trim() || "PATH",
    key: form.elements["key-name"].value,
    id: form.elements.key.value.trim() || "ID",
    kind: form.elements.kind.value,
  };
  for (const place of document.querySelectorAll("var[data-from]")) {
    const value = values[place.dataset.from];
    const text = "json" in place.dataset ? JSON.stringify(value) : value;
    place.textContent = quote(text).slice(1, -1);
    place.classList.toggle("open", value === "PATH" || value === "ID");
  }
}

async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  // Pages served over plain http have no clipboard; a selection can be copied there.
  const area = make("textarea", { value: text, className: "offscreen", readOnly: true });
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

function addCopyButtons() {
  for (const block of document.querySelectorAll(".code")) {
    const code = block.querySelector("code");
    const button = make("button", { type: "button", className: "copy", textContent: "Copy" });
    button.setAttribute("aria-label", `Copy, ${code.parentElement.getAttribute("aria-label")}`);
    button.addEventListener("click", async () => {
      const done = await copy(code.textContent).then(() => true, () => false);
      if (!done) getSelection().selectAllChildren(code);
      button.textContent = done ? "Copied" : "Selected";
      setTimeout(() => (button.textContent = "Copy"), 2000);
    });
    block.append(button);
  }
}

// ---- the answer

let running = new AbortController();

async function show() {
  running.abort();
  const { signal } = (running = new AbortController());
  const query = readQuery();
  const address = writeAddress(query);
  clearErrors();
  history.replaceState(null, "", new URL(address).search);
  stage.setAttribute("aria-busy", "true");
  try {
    // Over plain http a browser does not say that it is one, so this says what can be read here.
    const response = await fetch(address, { signal, headers: { Accept: "application/json, */*" } });
    const body = await response.blob();
    if (signal.aborted) return;
    const file = fileName(response);
    describeRequest(address, file);
    if (response.ok) await showAnswer(response, body, address, file);
    else showProblem(await readProblem(response, body));
  } catch (error) {
    if (!signal.aborted) showProblem({ title: "The service cannot be reached", detail: String(error.message) });
  } finally {
    if (!signal.aborted) stage.removeAttribute("aria-busy");
  }
  if (!signal.aborted && !form.querySelector("[aria-invalid]")) stage.scrollIntoView({ block: "nearest" });
}

function fileName(response) {
  return /filename="?([^";]+)/.exec(response.headers.get("Content-Disposition"))?.[1];
}

function describeRequest(address, file) {
  const link = document.querySelector("#link");
  link.href = link.textContent = address;
  document.querySelector("#curl").textContent = writeCurl(address, file);
  document.querySelector("#request").hidden = false;
}

async function showAnswer(response, body, address, file) {
  const type = response.headers.get("Content-Type");
  const alert = response.headers.get("X-Cutout-Id");
  const words = alert ? [`Alert ${alert}`] : [];
  if (type.startsWith("image/")) words.push(...(await showPicture(address, file)));
  else if (type.startsWith("application/json")) words.push(...showArrays(JSON.parse(await body.text())));
  else words.push(...showFile(body, address, file));
  caption.textContent = words.join(" · ");
}

/** The picture comes from the address itself (out of the cache), so that saving it names it well. */
async function showPicture(address, file) {
  const kind = form.elements.kind.value;
  const what = kind === "All" ? "Science, Template, Difference" : kind;
  const image = make("img", { src: address, alt: `${what} of ${form.elements.key.value.trim()}` });
  await image.decode();
  stage.className = "sky";
  stage.replaceChildren(image);
  enlarge();
  return [what, `${image.naturalWidth} × ${image.naturalHeight} pixels, row 0 at the top`];
}

/** Draws each pixel as a square of whole screen pixels, as large as there is room. */
function enlarge() {
  const image = stage.querySelector("img");
  if (!image) return;
  const room = stage.clientWidth - 2 * parseFloat(getComputedStyle(stage).paddingLeft);
  const times = Math.min(room / image.naturalWidth, LARGEST / image.naturalHeight);
  image.width = image.naturalWidth * Math.max(1, Math.floor(times));
}

function showFile(body, address, file) {
  const link = make("a", { href: address, download: file ?? "", className: "download" }, `Save ${file ?? "the file"}`);
  stage.className = "paper";
  stage.replaceChildren(link);
  return [`${body.size.toLocaleString("en")} bytes`];
}

/** The internal dialect answers a list of arrays, the public one an object of them. */
function showArrays(answer) {
  const parts = Object.entries(answer).map(([name, rows]) => {
    const shape = `${rows.length} × ${rows[0]?.length ?? 0}`;
    const table = make("table", {}, make("caption", {}, make("code", {}, name), ` ${shape}, the beginning`));
    for (const row of rows.slice(0, ROWS)) {
      table.append(make("tr", {}, ...row.slice(0, COLUMNS).map((value) => make("td", {}, String(value))), make("td", {}, "…")));
    }
    return { shape, table };
  });
  stage.className = "paper";
  stage.replaceChildren(...parts.map(({ table }) => table));
  const shapes = new Set(parts.map(({ shape }) => shape));
  return [`${[...shapes].join(", ")} (rows × columns)`];
}

// ---- errors

async function readProblem(response, body) {
  try {
    return JSON.parse(await body.text());
  } catch {
    // Not from the service: a proxy in front of it.
    const detail = "Something between this page and the service answered, and did not say why.";
    return { title: response.statusText || "No reason given", status: response.status, detail };
  }
}

function clearErrors() {
  for (const input of form.querySelectorAll("[aria-invalid]")) input.removeAttribute("aria-invalid");
  for (const place of form.querySelectorAll(".error")) place.hidden = true;
}

/** Says the problem at the field it names, or on the stage where it names none of the form. */
function showProblem(problem) {
  const input = findInput(problem.parameter);
  const note = make("div", { className: "problem" }, make("strong", {}, problem.title));
  if (!input) note.append(make("p", {}, problem.detail));
  if (problem.code) note.append(make("a", { href: problem.type }, "What this means"));
  stage.className = "paper";
  stage.replaceChildren(note);
  caption.textContent = [problem.status ?? "No answer", problem.code].filter(Boolean).join(" · ");
  if (input) showErrorAt(input, problem);
}

function findInput(parameter) {
  const which = form.elements["key-name"];
  const isKey = [...which.options].some((option) => option.value === parameter);
  const input = isKey ? form.elements.key : form.elements[parameter];
  return input?.matches?.(":enabled") ? input : null;
}

function showErrorAt(input, { detail, suggestion }) {
  const place = document.querySelector(`#error-${input.id}`);
  place.replaceChildren(detail);
  if (suggestion) {
    const button = make("button", { type: "button" }, `Use ${suggestion}`);
    button.addEventListener("click", () => {
      input.value = suggestion;
      input.dispatchEvent(new Event("input", { bubbles: true }));
      input.focus();
    });
    place.append(" ", button);
  }
  place.hidden = false;
  input.setAttribute("aria-invalid", "true");
  input.focus();
}

// ---- start

joinKeys();
addCopyButtons();
form.noValidate = true; // the service says what is wrong, in its own words
form.addEventListener("submit", (event) => {
  event.preventDefault();
  show();
});
for (const type of ["input", "change"]) {
  form.addEventListener(type, ({ target }) => {
    followFormat();
    fillExamples();
    if (type === "input" && target.matches("[aria-invalid]")) clearErrors();
  });
}
new ResizeObserver(enlarge).observe(stage);
document.querySelector("#filled").hidden = false;
// A link to this page with arguments shows their answer.
const asked = new URLSearchParams(location.search);
fill(asked);
fillExamples();
if (asked.size) show();
