// Counts down, refreshes what changes, follows the list, copies. The page works without it.
"use strict";

const SECOND = 1000;
const REFRESH = 5 * SECOND;
/** How many rows the list shows. */
const ROWS = 50;

/** Returns a duration in its two largest units. */
function duration(seconds) {
  const days = Math.floor(seconds / 86400);
  const hours = Math.floor(seconds / 3600) % 24;
  const minutes = Math.floor(seconds / 60) % 60;
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  if (minutes) return `${minutes} min ${seconds % 60} s`;
  return `${seconds} s`;
}

function countDown() {
  for (const time of document.querySelectorAll("[data-countdown]")) {
    const left = Math.floor((new Date(time.dateTime) - Date.now()) / SECOND);
    const text = left > 0 ? `in ${duration(left)}` : "expired";
    if (time.textContent !== text) time.textContent = text;
  }
}

/** Returns the markup of a part, without what counts down. */
function withoutCountdowns(part) {
  const copy = part.cloneNode(true);
  for (const time of copy.querySelectorAll("[data-countdown]")) time.textContent = "";
  return copy.innerHTML;
}

/** Replaces the part of the page that changes, unless somebody uses it. */
async function refresh() {
  const part = document.querySelector("[data-refresh]");
  const isUsed = part.contains(document.activeElement) || part.querySelector("details[open]");
  if (document.hidden || isUsed) return;
  const response = await fetch(location.href, { headers: { accept: "text/html" } });
  if (response.redirected) location.reload();
  if (!response.ok) return;
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  const fresh = page.querySelector("[data-refresh]");
  // What somebody has selected stays selected until something changes.
  if (fresh && withoutCountdowns(fresh) !== withoutCountdowns(part)) part.replaceChildren(...fresh.childNodes);
}

/** Returns the sequence of a row's message. */
const sequence = (row) => Number(row.id.replace("message-", ""));

/** Inserts a row, or replaces the one of the same message. Returns whether it is new. */
function put(rows, html) {
  const template = document.createElement("template");
  // The server escapes every value in it.
  template.innerHTML = html;
  const row = template.content.firstElementChild;
  const before = document.getElementById(row.id);
  if (before) {
    const isFocused = before.contains(document.activeElement);
    before.replaceWith(row);
    if (isFocused) row.querySelector("a").focus();
    return false;
  }
  const older = [...rows.children].find((other) => sequence(other) < sequence(row));
  rows.insertBefore(row, older || null);
  while (rows.children.length > ROWS) rows.lastElementChild.remove();
  for (const part of document.querySelectorAll("#empty, .pages [hidden]")) part.hidden = part.id === "empty";
  return true;
}

/** Lets a button follow the list. */
function enableLive(button) {
  const rows = document.getElementById("rows");
  const status = document.getElementById("live-status");
  let source = null;
  let arrived = 0;
  const show = (text) => {
    if (status.textContent !== text) status.textContent = text;
  };
  const stop = (text) => {
    source.close();
    source = null;
    button.setAttribute("aria-pressed", "false");
    show(text);
  };
  const start = () => {
    source = new EventSource(button.dataset.live);
    button.setAttribute("aria-pressed", "true");
    show("Following");
    source.addEventListener("row", (event) => {
      if (put(rows, event.data)) arrived += 1;
    });
    source.addEventListener("error", () => {
      // Otherwise the browser connects again by itself.
      if (source.readyState === EventSource.CLOSED) stop("Live view refused: reload the page to retry");
    });
  };
  // A screen reader hears a sum now and then, and not each message.
  setInterval(() => {
    if (source && arrived) show(`Following: ${arrived} arrived`);
  }, REFRESH);
  button.addEventListener("click", () => (source ? stop("Stopped") : start()));
  button.hidden = false;
  start();
}

function enableCopy(button) {
  button.hidden = !navigator.clipboard;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    button.textContent = "Copied";
  });
}

setInterval(countDown, SECOND);
const refreshed = document.querySelector("[data-refresh]");
if (refreshed) {
  setInterval(() => refresh().catch(() => {}), Number(refreshed.dataset.refresh) || REFRESH);
}
document.querySelectorAll("[data-live]").forEach(enableLive);
document.querySelectorAll("[data-copy]").forEach(enableCopy);
