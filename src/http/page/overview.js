// What the daemon says about itself: state, charts, workers. Asked for every two seconds while somebody looks.

const ASK_EVERY_MS = 2_000;
const ASK_AGAIN_MAX_MS = 30_000;

/** What was heard longer ago than this is marked as old. */
const STALE_MS = 10_000;

/** The table is counted every two seconds where that is cheap; a count that is much older is marked, too: the database may be away. */
const SURVEY_STALE_SECONDS = 55;

/** While the daemon is not ready a count is marked sooner: what has not been counted anew by then cannot be. */
const SURVEY_STALE_UNREADY_SECONDS = 6;

/** A worker reports once a second; one that has not for this long is worth a word. */
const QUIET_SECONDS = 5;

const charts = {
  throughput: new Chart(document.querySelector("#throughput .plot"), {
    title: "Throughput",
    format: (value) => `${figure(value)}/s`,
    steps: COUNT_STEPS,
    series: [
      { key: "done", name: "done", tone: "main" },
      { key: "retry", name: "retried", tone: "warn" },
      { key: "dead", name: "dead", tone: "bad" },
    ],
  }),
  backlog: new Chart(document.querySelector("#backlog .plot"), {
    title: "Backlog",
    format: figure,
    steps: COUNT_STEPS,
    series: [{ key: "backlog", name: "due", tone: "main" }],
  }),
  oldest: new Chart(document.querySelector("#oldest .plot"), {
    title: "Age of the oldest due event",
    format: span,
    steps: TIME_STEPS,
    series: [{ key: "oldest_due_age_seconds", name: "waiting", tone: "main" }],
  }),
};

/** What the daemon said last and when, since when it has been silent, how often it has failed since, and the next look. */
const contact = { status: null, heardAt: null, silentSince: null, isStale: false, failures: 0, nextAt: 0, timer: null, waitsForPerson: false };

async function askStatus() {
  clearTimeout(contact.timer);
  contact.nextAt = 0;
  try {
    const status = JSON.parse(await call("GET", "api/status", undefined, STATUS_MAX_MS));
    Object.assign(contact, { status, heardAt: Date.now(), silentSince: null, failures: 0, waitsForPerson: false });
    byId("banner").hidden = true;
    showStatus(status);
    tick();
  } catch (error) {
    if (error instanceof SyntaxError) lost(new NotDispatchbox("What answers is not a Dispatchbox daemon.", { cause: error }));
    else if (error instanceof Unreachable || error instanceof NeedsToken || error instanceof Refused) lost(error);
    else throw error;
  } finally {
    schedule();
  }
}

function schedule() {
  clearTimeout(contact.timer);
  if (contact.waitsForPerson || document.hidden) return;
  const wait = Math.min(ASK_EVERY_MS * 2 ** Math.max(contact.failures - 1, 0), ASK_AGAIN_MAX_MS);
  contact.nextAt = Date.now() + wait;
  contact.timer = setTimeout(askStatus, wait);
}

function lost(error) {
  contact.failures += 1;
  contact.silentSince ??= Date.now();
  contact.waitsForPerson = error instanceof NeedsToken;
  contact.trouble = error;
  tick();
}

/** Says what is wrong, since when, and what happens next; called again each second, since it counts down. */
function showTrouble() {
  const error = contact.trouble;
  byId("state-detail").hidden = true;
  const since = clock.format(contact.silentSince);
  if (error instanceof NeedsToken) {
    showState("warn", "Token needed");
    showBanner("warn", "The daemon asks for its token before it shows anything.", "", "Enter the token");
    return;
  }
  showState("bad", error instanceof Refused ? "Refused" : `Unreachable since ${since}`);
  const wait = Math.ceil((contact.nextAt - Date.now()) / 1000);
  const asOf = contact.heardAt === null ? "" : ` What is shown is as of ${clock.format(contact.heardAt)}.`;
  showBanner("bad", whatIsWrong(error, since) + asOf, wait > 0 ? `Next try in ${wait} s.` : "Trying now.", "Try now");
}

function whatIsWrong(error, since) {
  if (error instanceof Refused) return `The daemon has refused this page since ${since}: ${sentence(error.message)}${wayIn(error)}`;
  if (error instanceof NotDispatchbox) return `What has answered since ${since} is not a Dispatchbox daemon.`;
  return `The daemon has not answered since ${since}.`;
}

/** How whoever opened the page from another machine gets in, with the addresses that led here. */
function wayIn({ status, message }) {
  if (status !== 403 || !message.includes("--api-token-file")) return "";
  const port = location.port || (location.protocol === "https:" ? "443" : "80");
  return ` Tunnel the port, ssh -L 8080:127.0.0.1:${port} ${location.hostname.replace(/^\[|\]$/g, "")}, and open http://127.0.0.1:8080/; or give the daemon an --api-token-file.`;
}

const sentence = (text) => (/[.!?]$/.test(text) ? text : `${text}.`);

/** Shows what is wrong (read aloud when it changes), what comes next (it counts down, for the eye alone), and a button. */
function showBanner(tone, text, next, action) {
  byId("banner").hidden = false;
  byId("banner").dataset.tone = tone;
  setText("banner-text", text);
  setText("banner-next", next);
  setText("banner-action", action);
}

function showState(tone, text) {
  byId("state").dataset.tone = tone;
  setText("state-text", text);
}

/** Leaves a text alone that stands already: a live region reads each change aloud. */
function setText(id, text) {
  if (byId(id).textContent !== text) byId(id).textContent = text;
}

/** Marks what is old, and counts down to the next try. */
function tick() {
  const isStale = contact.silentSince !== null || (contact.heardAt !== null && Date.now() - contact.heardAt > STALE_MS);
  if (isStale !== contact.isStale) showStale(isStale);
  if (contact.silentSince !== null) showTrouble();
  refreshTimes();
}

/** Greys what may be so no longer, and puts the time at which it was so where "now" stood. */
function showStale(isStale) {
  contact.isStale = isStale;
  for (const id of ["charts", "workers"]) byId(id).toggleAttribute("data-stale", isStale);
  markDead();
  if (!isStale || contact.status === null) return;
  for (const chart of Object.values(charts)) chart.freeze(clock.format(contact.heardAt));
  showWorkers(contact.status.workers);
}

function showStatus(status) {
  showStale(false);
  document.title = `Dispatchbox · ${status.host}`;
  byId("identity").textContent = `${status.host} · ${status.version} · pid ${status.pid} · up ${span(status.uptime_seconds)}`;
  if (status.ready) showState("good", "Ready");
  else if (status.phase === "draining") showState("warn", "Draining");
  else showState("bad", `Not ready: ${status.reason ?? status.phase}`);
  setText("state-detail", status.ready ? "" : (status.detail ?? ""));
  byId("state-detail").hidden = byId("state-detail").textContent === "";
  showFigures(status);
  for (const chart of Object.values(charts)) chart.set(status.history);
  showWorkers(status.workers);
  const { claimed, done, retry, dead } = status.totals;
  byId("totals").textContent = `Since the start: ${integers.format(claimed)} claimed, ${integers.format(done)} done, ${integers.format(retry)} retried, ${integers.format(dead)} dead`;
  showDeadSurvey(status.dead);
}

function showFigures({ ready, reason, phase, rates, backlog, not_due: notDue, in_flight: inFlight, set_aside: setAside }) {
  const isOld = backlog !== null && backlog.survey_age_seconds > (ready ? SURVEY_STALE_SECONDS : SURVEY_STALE_UNREADY_SECONDS);
  for (const id of ["backlog", "oldest", "dead-types"]) byId(id).toggleAttribute("data-stale", isOld);
  setCard("throughput", figure(rates.done), legend("main", "done"), legend("warn", `${figure(rates.retry)}/s retried`), legend("bad", `${figure(rates.dead)}/s dead`));
  if (backlog === null) {
    for (const id of ["backlog", "oldest"]) setCard(id, "–", ready ? "Not counted yet" : `Not known: ${reason ?? phase}`);
    return;
  }
  const countedAt = ago(Date.now() - backlog.survey_age_seconds * 1000);
  setCard("backlog", `${integers.format(backlog.events)}${backlog.capped ? "+" : ""}`, element("span", {}, `${integers.format(inFlight)} in flight${kept(setAside)}${unread(backlog)}, counted `, countedAt));
  document.querySelector("#backlog .unit").textContent = backlog.events === 1 && !backlog.capped ? "due event" : "due events";
  const seen = isOld ? [", counted ", countedAt.cloneNode(true)] : [];
  if (backlog.events === 0) setCard("oldest", "none", element("span", {}, `Nothing is due${waiting(notDue)}`, ...seen));
  else setCard("oldest", span(backlog.oldest_due_age_seconds), element("span", {}, "seen ", countedAt.cloneNode(true)));
}

/** Their handlers have run, and the database does not take what came of it; the log names them. */
const kept = (setAside) => (setAside > 0 ? `, ${integers.format(setAside)} of them set aside` : "");

/** Claims pass over what cannot be read; the log names it. */
const unread = ({ unreadable }) => (unreadable > 0 ? `, ${integers.format(unreadable)} unreadable` : "");

/** Events may still wait for their next attempt: a receiver that is down must not look like nothing to do. */
function waiting(notDue) {
  if (notDue === null || notDue.events === 0) return "";
  const { events, capped, first_in_seconds: firstIn } = notDue;
  const first = firstIn === null ? "" : `, the first is due in ${span(firstIn)}`;
  const wait = events === 1 && !capped ? "waits for its time" : "wait for their time";
  return `; ${integers.format(events)}${capped ? "+" : ""} ${wait}${first}`;
}

/** A colored mark with its word: the line of the chart that it names. */
function legend(tone, text) {
  return element("span", {}, element("span", { class: `dot series-${tone}`, "aria-hidden": "true" }), text);
}

function setCard(id, value, ...aside) {
  document.querySelector(`#${id} strong`).textContent = value;
  document.querySelector(`#${id} .aside`).replaceChildren(...aside);
  document.querySelector(`#${id} .unit`).hidden = value === "none" || value === "–";
}

const WORKER_TONES = { running: "good", starting: "quiet", draining: "warn", down: "bad" };

function showWorkers(workers) {
  byId("workers-empty").hidden = workers.length > 0;
  byId("workers").hidden = workers.length === 0;
  const rows = workers.map((worker) => {
    const name = element("span", { title: worker.pid === null ? "no process" : `pid ${worker.pid}` }, worker.name);
    const stuck = worker.stuck > 0 ? `, ${worker.stuck} stuck` : "";
    return row([
      ["Worker", name],
      ["State", marked(worker.stuck > 0 ? "warn" : WORKER_TONES[worker.state] ?? "quiet", worker.state + stuck)],
      ["Database", databaseOf(worker)],
      ["In flight", integers.format(worker.in_flight), "number"],
      ["Restarts", integers.format(worker.restarts), "number"],
      ["Up for", span(worker.uptime_seconds)],
      ["Last report", lastReport(worker)],
    ]);
  });
  document.querySelector("#workers tbody").replaceChildren(...rows);
}

/** A healthy worker's last report is never older than a second or two, which "now" says in one word. */
function lastReport({ state, report_age_seconds: age }) {
  if (age === null) return "–";
  if (contact.isStale) return clock.format(contact.heardAt - age * 1000);
  return age > QUIET_SECONDS && state !== "down" ? marked("warn", `silent for ${span(age)}`) : "now";
}

/** A state as a colored dot and a word. */
function marked(tone, text) {
  return element("span", { class: "status", "data-tone": tone }, element("span", { class: "dot", "aria-hidden": "true" }), text);
}

/** What a worker's last calls came to; one that has not reported yet has made none. */
function databaseOf({ trouble, db_connected: isConnected, report_age_seconds: age }) {
  if (age === null) return "–";
  if (trouble) return marked("bad", trouble);
  return isConnected ? marked("good", "connected") : marked("bad", "not connected");
}

/** A table row of `[label, content, class]`; the labels stand before the cells where there is no room for a head. */
function row(cells) {
  const made = cells.map(([label, content, kind]) => element("td", { role: "cell", "data-label": label, class: kind ?? null }, content instanceof Node ? content : element("span", {}, content)));
  return element("tr", { role: "row" }, ...made);
}
