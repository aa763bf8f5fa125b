// How values become text and text becomes elements. Everything from the database passes through `element` or `textContent`; nothing
// is ever parsed as markup, and the policy that the page is served with refuses it, too.

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
const calendar = new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "medium", hourCycle: "h23" });

/** "12 s ago", "in 3 min"; only the largest unit, since the exact time is in the title. */
function distance(time) {
  const seconds = (Date.now() - time) / 1000;
  const text = span(Math.abs(seconds) < 1 ? 0 : Math.abs(seconds)).split(" ").slice(0, 2).join(" ").replace(/\.\d+/, "");
  if (Math.abs(seconds) < 1) return "now";
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

/** Keeps relative times true while the page stands. */
function refreshTimes() {
  for (const one of document.querySelectorAll("time[datetime]")) {
    const text = distance(Date.parse(one.dateTime));
    if (one.textContent !== text) one.textContent = text;
  }
}
