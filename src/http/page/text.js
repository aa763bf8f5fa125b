// How values become text and text becomes elements. Everything from the database passes through `element` or `textContent`; nothing
// is ever parsed as markup, and the policy that the page is served with refuses it, too. What a producer wrote passes through `foreign`
// or `harmless` besides, so that it can neither turn nor hide what stands beside it.

/** Makes an element: `on…` properties are listeners, others attributes; children are nodes or text. */
function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (typeof value === "boolean") made.toggleAttribute(key, value);
    else if (value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

/** Control characters, line separators, marks that reorder text, and what has no width; `is_harmful` in src/logging.rs names the same. */
const HARMFUL = /[\p{Cc}\u061c\u200b\u200e\u200f\u2028-\u202e\u2060\u2066-\u2069\ufeff]/gu;
const HARMFUL_RUN = new RegExp(`${HARMFUL.source}+`, "gu");

const hex = (c, digits = 0) => c.codePointAt(0).toString(16).padStart(digits, "0");

/** Escapes one character as the command line does. */
const escaped = (c) => ({ "\n": "\\n", "\r": "\\r", "\t": "\\t" })[c] ?? (c < "\x80" ? `\\x${hex(c, 2)}` : `\\u{${hex(c)}}`);

/** Within JSON its own escape stands, as on the command line: what is shown stays JSON. */
const escapedInJson = (c) => `\\u${hex(c, 4)}`;

/** A line break is named and made: for a block of its own. */
const escapedInBlock = (c) => (c === "\n" ? "\\n\n" : escaped(c));

/** A producer's text where only text can stand, such as a title. */
const harmless = (text) => text.replace(HARMFUL, escaped);

/** A producer's text as an element: isolated from its neighbors, with the escapes set off from a backslash that was written. */
function foreign(text, properties = {}, escape = escaped) {
  const made = element("span", { ...properties, class: `foreign ${properties.class ?? ""}`.trim() });
  let at = 0;
  for (const { 0: run, index } of text.matchAll(HARMFUL_RUN)) {
    made.append(text.slice(at, index), element("span", { class: "escaped" }, [...run].map(escape).join("")));
    at = index + run.length;
  }
  made.append(text.slice(at));
  return made;
}

const byId = (id) => document.getElementById(id);

const integers = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

/** 12 → "12", 1234.5 → "1,235", 3.42 → "3.4"; nothing → "–". */
function figure(value) {
  if (value === null || value === undefined) return "–";
  return (Math.abs(value) < 10 ? tenths : integers).format(value);
}

/** "1 event", "2 events"; `capped` when there may be more. */
function counted(n, noun, capped = false) {
  return `${integers.format(n)}${capped ? "+" : ""} ${noun}${n === 1 ? "" : "s"}`;
}

/** Seconds as "0.4 s", "12 s", "3 min 5 s", "2 h 10 min", "3 d 4 h". */
function span(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 10) return `${tenths.format(Math.max(seconds, 0))} s`;
  const units = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const at = Math.min(units.findIndex(([size]) => Math.round(seconds) >= size), 3);
  const [size, name] = units[at];
  const whole = Math.floor(Math.round(seconds) / size);
  const rest = units[at + 1] && Math.floor((Math.round(seconds) - whole * size) / units[at + 1][0]);
  return rest ? `${whole} ${name} ${rest} ${units[at + 1][1]}` : `${whole} ${name}`;
}

const clock = new Intl.DateTimeFormat("en", { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const calendar = new Intl.DateTimeFormat("en", {
  year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23", timeZoneName: "short",
});

/** "12 s ago", "in 3 min", "just now"; only the largest unit, since the exact time is in the title. */
function distance(time) {
  const seconds = (Date.now() - time) / 1000;
  const text = span(Math.abs(seconds) < 1 ? 0 : Math.abs(seconds)).split(" ").slice(0, 2).join(" ").replace(/\.\d+/, "");
  if (Math.abs(seconds) < 1) return "just now";
  return seconds < 0 ? `in ${text}` : `${text} ago`;
}

/** A time as PostgreSQL gives it: relative to read, absolute in the title. */
function moment(text) {
  if (!text) return element("span", { class: "muted" }, "–");
  const time = Date.parse(text);
  // `infinity`, and years that JavaScript does not know.
  if (Number.isNaN(time)) return element("span", {}, text);
  return element("time", { datetime: text, title: `${calendar.format(time)} (${text})` }, distance(time));
}

/** A time as PostgreSQL gives it, both ways: a phone shows no title. */
function momentInFull(text) {
  const time = Date.parse(text ?? "");
  return element("span", {}, moment(text), Number.isNaN(time) ? "" : element("span", { class: "exact muted" }, calendar.format(time)));
}

/** Relative to read, and kept true while the page stands. */
const ago = (time) => element("time", { datetime: new Date(time).toISOString() }, distance(time));

/** Keeps relative times true while the page stands. */
function refreshTimes() {
  for (const one of document.querySelectorAll("time[datetime]")) {
    const text = distance(Date.parse(one.dateTime));
    if (one.textContent !== text) one.textContent = text;
  }
}
