// JSON as text. A payload is shown as PostgreSQL prints it: 1e400 or an integer of 30 digits would not survive JSON.parse, so the
// text is cut into tokens and never into values. Loops only: a payload may be nested deeper than any stack.

/** How much of a payload is laid out: what a person reads, and what a browser draws at once. */
const SHOWN_MAX = 100_000;

/** Indentation stops growing here, or deep nesting would make the text quadratic. */
const INDENT_MAX = 20;

/** Where the string that begins at `at` ends, behind its quote. */
function endOfString(text, at) {
  for (let i = at + 1; i < text.length; i += 1) {
    if (text[i] === "\\") i += 1;
    else if (text[i] === '"') return i + 1;
  }
  return text.length;
}

/** Cuts a JSON text into tokens, without the blanks between them. */
function* tokens(text) {
  const blank = /\s*/y;
  const word = /[^\s,:{}[\]"]+/y;
  for (let at = 0; ; ) {
    blank.lastIndex = at;
    blank.exec(text);
    at = blank.lastIndex;
    if (at >= text.length) return;
    word.lastIndex = at;
    let end = at + 1;
    if (text[at] === '"') end = endOfString(text, at);
    else {
      word.lastIndex = at;
      if (word.test(text)) end = word.lastIndex;
    }
    yield { at, end, text: text.slice(at, end) };
    at = end;
  }
}

/** The raw texts directly within an object (`key` is set) or an array (`key` is not). */
function parts(text) {
  const found = [];
  let depth = 0;
  let key;
  let from = null;
  let end = 0;
  const close = () => {
    if (from !== null) found.push({ key, raw: text.slice(from, end) });
    from = null;
    key = undefined;
  };
  for (const token of tokens(text)) {
    const opens = token.text === "{" || token.text === "[";
    const closes = token.text === "}" || token.text === "]";
    if (closes) depth -= 1;
    if (depth === 0 && closes) close();
    else if (depth === 1 && token.text === ",") close();
    else if (depth === 1 && token.text === ":") {
      key = JSON.parse(text.slice(from, end));
      from = null;
    } else if (depth > 0) {
      from ??= token.at;
      end = token.end;
    }
    if (opens) depth += 1;
  }
  return found;
}

/** The members of an object: key → raw text. */
const members = (text) => new Map(parts(text).map(({ key, raw }) => [key, raw]));

/** The elements of an array as raw texts. */
const elements = (text) => parts(text).map(({ raw }) => raw);

/** A dead event from its raw text: id, payload and headers stay text, the rest are values. */
function deadEvent(raw) {
  const event = {};
  for (const [key, value] of members(raw)) {
    event[key] = ["id", "payload", "headers"].includes(key) ? value : JSON.parse(value);
  }
  return event;
}

/** Lays a JSON text out, indented and colored, up to SHOWN_MAX characters; says how many of them are shown. */
function layOut(text) {
  const made = document.createDocumentFragment();
  const all = [...tokens(text.slice(0, SHOWN_MAX))];
  let depth = 0;
  const line = () => `\n${"  ".repeat(Math.min(depth, INDENT_MAX))}`;
  const put = (kind, piece) => made.append(foreign(piece, { class: `json-${kind}` }, escapedInJson));
  const mark = (piece) => made.append(element("span", { class: "json-mark" }, piece));
  let before = "";
  for (const [index, { text: token }] of all.entries()) {
    const next = all[index + 1]?.text;
    if (token === "}" || token === "]") {
      depth -= 1;
      mark(before === "{" || before === "[" ? token : line() + token);
    } else if (token === "{" || token === "[") {
      depth += 1;
      mark(next === "}" || next === "]" ? token : token + line());
    } else if (token === ",") mark(token + line());
    else if (token === ":") mark(": ");
    else if (token[0] === '"') put(next === ":" ? "key" : "text", token);
    else put(/^[-\d]/.test(token) ? "number" : "word", token);
    before = token;
  }
  return { made, shown: Math.min(text.length, SHOWN_MAX) };
}
