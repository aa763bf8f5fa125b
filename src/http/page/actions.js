// What a person does to dead letters. A retry of one event happens at once, since it only does what the daemon was there for;
// everything else is asked about first, with the number that the daemon counts.

/** The event that the detail dialog shows. */
let shown = null;

async function openDetail(id) {
  try {
    shown = deadEvent(await call("GET", `api/dead-events/${id}`));
  } catch (error) {
    say(`Event ${id} cannot be shown: ${sentence(explain(error))}`, true);
    if (error instanceof Refused) loadDead();
    return;
  }
  byId("detail-title").textContent = `Event ${shown.id}`;
  const facts = [
    ["Type", foreign(shown.event_type)], ["Aggregate", foreign(aggregateOf(shown))],
    ["Attempts", integers.format(shown.attempts)], ["Created", momentInFull(shown.created_at)], ["Dead since", momentInFull(shown.finished_at ?? shown.last_error_at)],
  ];
  byId("detail-facts").replaceChildren(...facts.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))));
  byId("detail-error").replaceChildren(shown.last_error === null ? "No error was kept." : foreign(shown.last_error, {}, escapedInBlock));
  const { made, shown: length } = layOut(shown.payload);
  byId("detail-payload").replaceChildren(made);
  byId("detail-cut").hidden = length === shown.payload.length;
  byId("detail-cut").textContent = `The first ${integers.format(length)} of ${integers.format(shown.payload.length)} characters are shown; Copy takes all.`;
  const hasHeaders = shown.headers !== undefined && shown.headers !== "null";
  byId("detail-headers-part").hidden = !hasHeaders;
  byId("detail-headers").replaceChildren(...(hasHeaders ? [layOut(shown.headers).made] : []));
  byId("detail-trouble").textContent = "";
  byId("detail-copy").textContent = "Copy";
  // Browsers offer the clipboard only to secure origins, this machine's own among them.
  byId("detail-copy").hidden = !navigator.clipboard;
  byId("detail").showModal();
  byId("detail").scrollTop = 0;
}

async function copyPayload() {
  try {
    await navigator.clipboard.writeText(shown.payload);
    byId("detail-copy").textContent = "Copied";
  } catch {
    byId("detail-copy").textContent = "Not allowed";
  }
}

/** Why something did not happen, for a sentence. */
function explain(error) {
  if (error instanceof Unreachable || error instanceof Refused || error instanceof NeedsToken) return error.message;
  throw error;
}

async function retryOne(id, button) {
  button.disabled = true;
  try {
    await call("POST", `api/dead-events/${id}/retry`);
    byId("detail").close();
    say(`Event ${id} is pending again and due now.`);
  } catch (error) {
    trouble(`Event ${id} was not retried: ${sentence(explain(error))}`);
  } finally {
    button.disabled = false;
  }
  await loadDead();
}

function discardOne(id) {
  confirmThat({
    title: `Discard event ${id}?`,
    text: "It moves to the table outbox_event_archive, with payload and error, and is not delivered. Nothing is destroyed.",
    label: "Discard",
    isDanger: true,
    act: async () => {
      await call("POST", `api/dead-events/${id}/discard`);
      byId("detail").close();
      say(`Event ${id} is discarded; it stands in outbox_event_archive now.`);
    },
  });
}

/** Retries or discards all that match the filter, after the daemon has counted them. */
async function allMatching(verb, button) {
  const target = hasFilter() ? { ...list.filter } : { all: true };
  const path = `api/dead-events/${verb}`;
  button.disabled = true;
  let n;
  try {
    n = JSON.parse(await call("POST", path, { ...target, dry_run: true })).matched;
  } catch (error) {
    say(`The events could not be counted: ${sentence(explain(error))}`, true);
    return;
  } finally {
    button.disabled = false;
  }
  if (n === 0) {
    say("No dead event matches any more.");
    await loadDead();
    return;
  }
  const [name, means, past] = verb === "retry" ? ["Retry", RETRY_MEANS, "pending again and due now"] : ["Discard", DISCARD_MEANS, "discarded; they stand in outbox_event_archive now"];
  confirmThat({
    title: `${name} ${counted(n, "event")}?`,
    text: `${n === 1 ? "All that match, one event," : `All ${integers.format(n)} events that match`} ${means}`,
    filter: hasFilter() ? describeFilter() : [["no filter: every dead event"]],
    label: `${name} ${counted(n, "event")}`,
    isDanger: verb === "discard",
    act: async () => {
      const { done: processed, kept } = await inBatches(path, target, n);
      const why = kept ? ` Event ${kept.event_id} stays, for example: ${kept.reason}.` : "";
      const left = processed < n ? ` ${counted(n - processed, "event")} no longer matched, or had to stay.${why}` : "";
      say(`${counted(processed, "event")} ${processed === 1 ? "is" : "are"} ${past}.${left}`);
    },
  });
}

/** Sends requests until the daemon says that nothing is left: one does what it can in its time, the next goes on behind it. */
async function inBatches(path, target, n) {
  let done = 0;
  let kept;
  let request = target;
  for (;;) {
    const { processed, complete, after, left } = JSON.parse(await call("POST", path, request));
    done += processed;
    kept ??= left?.[0];
    if (complete) return { done, kept };
    request = { ...target, after };
    byId("confirm-text").textContent = `${integers.format(done)} of ${integers.format(n)} are done, the rest follows.`;
  }
}

/** The filter, as a list of what each of its lines holds. */
function describeFilter() {
  const names = { aggregate_type: "aggregate type is", event_type: "event type is", error: "error contains", since: "created since" };
  return Object.entries(list.filter).map(([key, value]) => (key === "since" ? [`${names[key]} ${calendar.format(Date.parse(value))}`] : [`${names[key]} “`, foreign(value), "”"]));
}

/** Asks; `act` runs on yes, and its trouble is told in the same dialog. */
function confirmThat({ title, text, filter = [], label, isDanger, act }) {
  const dialog = byId("confirm");
  const button = byId("confirm-do");
  byId("confirm-title").textContent = title;
  byId("confirm-text").textContent = text;
  byId("confirm-filter").replaceChildren(...filter.map((one) => element("li", {}, ...one)));
  byId("confirm-trouble").textContent = "";
  button.textContent = label;
  button.className = isDanger ? "danger" : "primary";
  button.onclick = async () => {
    button.disabled = true;
    try {
      await act();
      dialog.close();
    } catch (error) {
      byId("confirm-trouble").textContent = sentence(explain(error));
    } finally {
      button.disabled = false;
    }
    await loadDead();
  };
  dialog.showModal();
  byId("confirm-cancel").focus();
}

/** Tells trouble where the eye is: in the open dialog, else as a message. */
function trouble(text) {
  if (byId("detail").open) byId("detail-trouble").textContent = text;
  else say(text, true);
}

const MESSAGE_MS = 8_000;
const MESSAGES_MAX = 4;

/** Shows a message; trouble stays until it is dismissed. */
function say(text, isTrouble = false) {
  const message = element("div", { class: isTrouble ? "message trouble-message" : "message" }, element("p", {}, text),
    element("button", { type: "button", class: "plain small", "aria-label": "Dismiss", onclick: () => message.remove() }, "✕"));
  byId("messages").append(message);
  while (byId("messages").childElementCount > MESSAGES_MAX) byId("messages").firstElementChild.remove();
  if (!isTrouble) setTimeout(() => message.remove(), MESSAGE_MS);
}
