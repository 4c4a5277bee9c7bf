// Counts down, refreshes the overview, copies. The page works without it.
"use strict";

const SECOND = 1000;
const REFRESH = 5 * SECOND;

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
  if (fresh) part.replaceChildren(...fresh.childNodes);
}

function enableCopy(button) {
  button.hidden = !navigator.clipboard;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    button.textContent = "Copied";
  });
}

setInterval(countDown, SECOND);
if (document.querySelector("[data-refresh]")) {
  setInterval(() => refresh().catch(() => {}), REFRESH);
}
document.querySelectorAll("[data-copy]").forEach(enableCopy);
