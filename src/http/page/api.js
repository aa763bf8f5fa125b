// Calls to the daemon that served the page. Addresses are relative, so that a proxy may serve all of it below a path.

/** The daemon tells its state at once. */
const STATUS_MAX_MS = 5_000;

/** Other calls may wait for the database, and a change of many events takes up to 10 s: this is beyond both. */
const CALL_MAX_MS = 20_000;

/** The daemon cannot be reached. */
class Unreachable extends Error {}

/** Something else answers where it was. */
class NotDispatchbox extends Unreachable {}

/** The daemon asks for a token and the person has not given one. */
class NeedsToken extends Error {}

/** The daemon answered, and said no. */
class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Lives as long as the page: never in a cookie, never in the browser's storage. */
let token = null;

/** The question that is open now; all calls wait for the same answer. */
let asking = null;

/** Asks once for the token, in place of `used`, which was refused. */
function askForToken(used) {
  if (token !== used) return Promise.resolve();
  asking ??= new Promise((resolve, reject) => {
    const dialog = byId("token");
    const input = byId("token-input");
    byId("token-trouble").textContent = used === null ? "" : "The daemon did not accept this token.";
    input.value = "";
    const done = (given) => {
      asking = null;
      dialog.onclose = byId("token-form").onsubmit = byId("token-cancel").onclick = null;
      dialog.close();
      token = given;
      if (given === null) reject(new NeedsToken("The daemon asks for its token."));
      else resolve();
    };
    byId("token-form").onsubmit = (event) => {
      event.preventDefault();
      const given = input.value.trim();
      // No header can hold anything else: the browser would refuse every call from then on.
      if (/^[!-~]+$/.test(given)) done(given);
      else byId("token-trouble").textContent = "A token holds visible ASCII characters only.";
    };
    byId("token-cancel").onclick = () => done(null);
    dialog.onclose = () => done(null);
    dialog.showModal();
  });
  return asking;
}

/** Calls the daemon and gives the answer's text. */
async function call(method, path, body, limit = CALL_MAX_MS) {
  for (;;) {
    const used = token;
    const headers = { Accept: "application/json" };
    if (used !== null) headers.Authorization = `Bearer ${used}`;
    if (body !== undefined) headers["Content-Type"] = "application/json";
    let answer;
    let text;
    try {
      const signal = AbortSignal.timeout(limit);
      answer = await fetch(path, { method, headers, body: body && JSON.stringify(body), cache: "no-store", redirect: "error", signal });
      text = await answer.text();
    } catch (cause) {
      throw new Unreachable("The daemon does not answer.", { cause });
    }
    if (answer.ok) return text;
    if (answer.status !== 401) throw new Refused(answer.status, reasonOf(text) ?? `The daemon answered ${answer.status}.`);
    await askForToken(used);
  }
}

/** What an error's body says. */
function reasonOf(text) {
  try {
    const { error, message } = JSON.parse(text);
    const said = message ?? error;
    return typeof said === "string" ? harmless(said) : null;
  } catch {
    return null;
  }
}
