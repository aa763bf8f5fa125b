// The dead letters: a table with filters, what is in one of them, and the two ways out, retry and discard.

const PAGE_SIZE = 25;
const LIST_EVERY_MS = 10_000;

/** An error may be 4 KB long, and a title of that size hides the page. */
const TITLE_MAX = 1_000;

const RETRY_MEANS = "become pending again, with their attempts at 0, and are due at once.";
const DISCARD_MEANS = "move to the table outbox_event_archive, with payload and error, and are not delivered. Nothing is destroyed.";

/** What the list shows: the filter as applied, the page, the rows, how many match, and when that was so; the number of all of them, in words. */
const list = { filter: {}, offset: 0, events: [], total: 0, loads: 0, survey: null, loadedAt: null, isLost: false, count: "" };

/** The type that a chip put into its field. The field shows it escaped, and would drop its line breaks; the daemon gets the true one. */
const chosen = { shown: "", type: "" };

/** The filter of the form; `since` becomes a moment now, so that all pages and a later "all" mean the same rows. */
function readFilter() {
  const filter = {};
  for (const [key, value] of new FormData(byId("filters"))) {
    if (value === "") continue;
    if (key === "since") filter.since = new Date(Date.now() - Number(value) * 1000).toISOString();
    else filter[key] = key === "event_type" && value === chosen.shown ? chosen.type : value;
  }
  return filter;
}

const hasFilter = () => Object.keys(list.filter).length > 0;

/** Loads the page that `list` names. The newest load wins; an older one that comes late is dropped. */
async function loadDead() {
  const load = (list.loads += 1);
  const query = new URLSearchParams(list.filter);
  try {
    // One after the other: the daemon lets few calls at its database at a time, and other pages may be open.
    const page = await call("GET", `api/dead-events?${new URLSearchParams([...query, ["limit", PAGE_SIZE], ["offset", list.offset]])}`);
    const stats = await call("GET", `api/dead-events/stats?${query}`);
    if (load !== list.loads) return;
    list.events = elements(members(page).get("events")).map(deadEvent);
    list.total = JSON.parse(stats).total;
    Object.assign(list, { loadedAt: Date.now(), isLost: false });
    if (list.events.length === 0 && list.offset > 0 && list.total > 0) {
      list.offset = Math.floor((list.total - 1) / PAGE_SIZE) * PAGE_SIZE;
      await loadDead();
      return;
    }
    showDead();
  } catch (error) {
    if (!(error instanceof Unreachable || error instanceof Refused || error instanceof NeedsToken)) throw error;
    if (load === list.loads) showDeadTrouble(error);
  }
}

/** Reloads by itself, but never moves rows under a hand that is about to press a button. */
function refreshDead() {
  const isBusy = document.querySelector("dialog[open]") || byId("dead-table").matches(":hover, :focus-within");
  if (!document.hidden && !isBusy && contact.silentSince === null) loadDead();
}

function showDead() {
  const { events, total, offset } = list;
  byId("dead-table").hidden = events.length === 0;
  document.querySelector("#dead-table tbody").replaceChildren(...events.map(deadRow));
  showEmpty(events.length > 0 ? null : hasFilter() ? "No dead event matches this filter." : "No dead events. What fails for good will be kept here, with its error.");
  // Where nothing has failed there is nothing to choose from.
  byId("filters").hidden = total === 0 && !hasFilter();
  byId("bulk").hidden = byId("filters").hidden;
  if (!hasFilter()) list.count = total === 0 ? "none" : counted(total, "event");
  markDead();
  setText("dead-note", hasFilter() ? `${counted(total, "event")} match${total === 1 ? "es" : ""} the filter` : "");
  const all = total === 1 ? "it" : `all ${integers.format(total)}`;
  for (const [id, verb] of [["retry-all", "Retry"], ["discard-all", "Discard"]]) {
    byId(id).disabled = total === 0;
    byId(id).textContent = total === 0 ? `${verb} all` : `${verb} ${all}`;
  }
  byId("pages").hidden = offset === 0 && events.length >= total;
  byId("newer").disabled = offset === 0;
  byId("older").disabled = offset + events.length >= total;
  byId("page-range").textContent = `${integers.format(offset + 1)}–${integers.format(offset + events.length)} of ${integers.format(total)}`;
}

function showEmpty(text) {
  byId("dead-empty").hidden = text === null;
  byId("dead-empty").firstElementChild.textContent = text ?? "";
}

/** Says of what is no longer read anew at what time it was so. */
function markDead() {
  const isOld = list.loadedAt !== null && (list.isLost || contact.isStale);
  byId("dead").toggleAttribute("data-stale", isOld);
  setText("dead-count", isOld && list.count !== "" ? `${list.count}, as of ${clock.format(list.loadedAt)}` : list.count);
}

function showDeadTrouble(error) {
  list.isLost = true;
  markDead();
  if (list.events.length > 0) {
    byId("dead-note").textContent = `Not refreshed: ${sentence(error.message)}`;
  } else {
    byId("dead-table").hidden = true;
    showEmpty(`The dead letters cannot be shown: ${sentence(error.message)}`);
  }
}

/** As the command line writes it. */
const aggregateOf = (event) => `${event.aggregate_type}/${event.aggregate_id}`;

/** A producer's text in a few lines, more of it in the title. */
const clamped = (text) => foreign(text, { class: "clamp", title: harmless(text.slice(0, TITLE_MAX)) });

function deadRow(event) {
  const open = element("button", { type: "button", class: "link mono", "aria-label": `Open event ${event.id}`, onclick: () => openDetail(event.id) }, event.id);
  const actions = element("span", { class: "actions" },
    element("button", { type: "button", class: "plain", "aria-label": `Retry event ${event.id}`, onclick: (press) => retryOne(event.id, press.currentTarget) }, "Retry"),
    element("button", { type: "button", class: "plain danger", "aria-label": `Discard event ${event.id}`, onclick: () => discardOne(event.id) }, "Discard"));
  const error = event.last_error ? clamped(event.last_error) : element("span", { class: "muted" }, "none kept");
  const made = row([
    ["Event", open],
    ["Type", clamped(event.event_type)],
    ["Aggregate", clamped(aggregateOf(event))],
    ["Created", moment(event.created_at)],
    ["Attempts", integers.format(event.attempts), "number"],
    ["Last error", error],
    ["", actions],
  ]);
  made.dataset.event = event.id;
  return made;
}

/** The counts by type of the last survey; a press filters. */
function showDeadSurvey(dead) {
  list.survey = dead;
  const types = dead?.by_type ?? [];
  const key = JSON.stringify([types, list.filter.event_type]);
  // Rebuilt only on a change: a button that is being pressed must stay.
  if (byId("dead-types").dataset.shown === key) return;
  byId("dead-types").dataset.shown = key;
  const chips = types.map(({ event_type: type, count }) => {
    const isPressed = list.filter.event_type === type;
    const press = () => applyType(isPressed ? "" : type);
    const title = isPressed ? "Show all types again" : `Show only these: ${harmless(type) || "(empty)"}`;
    return element("li", {}, element("button", { type: "button", "aria-pressed": String(isPressed), onclick: press, title }, foreign(type || "(empty)", { class: "type" }), ` ${integers.format(count)}`));
  });
  byId("dead-types").replaceChildren(...chips);
}

function applyType(type) {
  Object.assign(chosen, { shown: harmless(type), type });
  byId("filters").elements.event_type.value = chosen.shown;
  applyFilter();
}

function applyFilter() {
  list.filter = readFilter();
  list.offset = 0;
  showDeadSurvey(list.survey);
  loadDead();
}
