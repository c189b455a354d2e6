// Asking the service: answers, problems, and the same requests in other words.

/** What the service, or the way to it, says went wrong. */
export class Problem extends Error {
  constructor(problem) {
    super(problem.detail ?? problem.title);
    this.problem = problem;
  }

  get code() {
    return this.problem.code;
  }
}

// A string, or a number; only a whole number of more than 15 digits is changed.
const TOKENS = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;

/** Parses JSON whose ids are numbers beyond 2^53: these become text, and stay what they are. */
export function parseExactly(text) {
  return JSON.parse(text.replace(TOKENS, (token) => (/^-?\d{16,}$/.test(token) ? `"${token}"` : token)));
}

async function readProblem(response) {
  try {
    const problem = JSON.parse(await response.text());
    if (problem.title) return problem;
  } catch {
    // Not from the service: a proxy in front of it.
  }
  const detail = "Something between this page and the service answered, and did not say why.";
  return { title: response.statusText || "No reason given", status: response.status, detail };
}

/** Asks for JSON. Throws a Problem, or an AbortError where the signal says so. */
export async function ask(address, signal) {
  let response;
  try {
    response = await fetch(address, { signal, headers: { Accept: "application/json" } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({ title: "The service cannot be reached", detail: "Check the network, then try again." });
  }
  if (!response.ok) throw new Problem(await readProblem(response));
  try {
    return parseExactly(await response.text());
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({ title: "The answer broke off", detail: "It is not complete; try again." });
  }
}

/** The path of the service, which may lie below one of its host: two folders above this file. */
const HOME = new URL("../..", import.meta.url).pathname.replace(/\/$/, "");

/** Returns the address of a request at a path of the service. "/" , "," and ":" stay as they are, which keeps it readable. */
export function writeAddress(path, values) {
  const given = Object.entries(values).filter(([, value]) => value !== undefined && value !== "" && value !== null);
  const query = String(new URLSearchParams(given));
  const text = query.replaceAll("%2F", "/").replaceAll("%2C", ",").replaceAll("%3A", ":");
  return new URL(text ? `${HOME}${path}?${text}` : HOME + path, location.origin).href;
}

// ---- the same request elsewhere

const quoteForShell = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

export function writeCurl(address, file) {
  return `curl ${quoteForShell(address)} -o ${quoteForShell(file)}`;
}

/** Text as Python writes it; JSON's escapes are Python's too. */
const quoteForPython = (text) => JSON.stringify(text);

export function writePython(address, file) {
  const url = new URL(address);
  const values = [...url.searchParams].map(([name, value]) => `        ${quoteForPython(name)}: ${quoteForPython(value)},`);
  return [
    "import requests",
    "",
    "answer = requests.get(",
    `    ${quoteForPython(url.origin + url.pathname)},`,
    "    params={",
    ...values,
    "    },",
    "    timeout=30,",
    ")",
    "answer.raise_for_status()",
    `open(${quoteForPython(file)}, "wb").write(answer.content)`,
  ].join("\n");
}

export async function copyText(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  // Pages served over plain http have no clipboard; a selection can be copied there.
  const before = document.activeElement;
  const area = Object.assign(document.createElement("textarea"), { value: text, className: "offscreen", readOnly: true });
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  before?.focus();
  if (!done) throw new Error("refused");
}
