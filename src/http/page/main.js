// Ties the controls to what they do, and starts.

byId("banner-action").addEventListener("click", () => {
  contact.waitsForPerson = false;
  askStatus();
  loadDead();
});
byId("filters").addEventListener("submit", (event) => {
  event.preventDefault();
  applyFilter();
});
// A reset empties the fields only after its event.
byId("filters").addEventListener("reset", () => setTimeout(() => applyFilter()));
byId("filters").elements.since.addEventListener("change", () => applyFilter());
byId("newer").addEventListener("click", () => turnPage(-PAGE_SIZE));
byId("older").addEventListener("click", () => turnPage(list.events.length));
byId("retry-all").addEventListener("click", (event) => allMatching("retry", event.currentTarget));
byId("discard-all").addEventListener("click", (event) => allMatching("discard", event.currentTarget));
byId("detail-close").addEventListener("click", () => byId("detail").close());
byId("detail-copy").addEventListener("click", copyPayload);
byId("detail-retry").addEventListener("click", (event) => retryOne(shown.id, event.currentTarget));
byId("detail-discard").addEventListener("click", () => discardOne(shown.id));
byId("confirm-cancel").addEventListener("click", () => byId("confirm").close());
// A click on the backdrop is a click on the dialog itself.
for (const id of ["detail", "confirm"]) {
  byId(id).addEventListener("click", (event) => event.target === event.currentTarget && event.currentTarget.close());
}
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && !contact.waitsForPerson) askStatus();
});

function turnPage(by) {
  list.offset = Math.max(0, list.offset + by);
  loadDead();
  byId("dead").scrollIntoView({ block: "start" });
}

setInterval(tick, 1_000);
setInterval(refreshDead, LIST_EVERY_MS);
askStatus();
loadDead();
