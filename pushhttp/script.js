// The pages work without this. It lets them follow what happens, shows times in the viewer's zone, and moves about by keys.
"use strict";

const $ = (id) => document.getElementById(id);

// ---- Times. The server writes them in UTC; what is chosen is kept for all pages.

const local = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
let zone = local;
try {
  zone = localStorage.getItem("push-zone") === "UTC" ? "UTC" : local;
} catch {}

function clock(date, options) {
  return new Intl.DateTimeFormat("en-GB", { timeZone: zone, hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23", ...options }).format(date);
}

function dayOf(date) {
  return new Intl.DateTimeFormat("en-CA", { timeZone: zone }).format(date);
}

// times writes the times below an element. A day stands before those that are not of today.
function times(top) {
  for (const t of top.querySelectorAll("time[data-as]")) {
    const date = new Date(t.dateTime);
    let text = clock(date);
    if (t.dataset.as === "stamp" && dayOf(date) !== dayOf(new Date())) text = clock(date, { day: "numeric", month: "short" }).replace(",", "");
    if (t.textContent !== text) t.textContent = text;
    t.title = t.dateTime;
    const day = t.parentElement.matches(".when") && t.nextElementSibling;
    if (day && day.textContent !== dayOf(date)) day.textContent = dayOf(date);
  }
}

function showZone() {
  const button = $("zone");
  button.hidden = local === "UTC";
  button.textContent = zone === "UTC" ? "Show " + local : "Show UTC";
  $("zones").textContent = "Times are " + (zone === "UTC" ? "UTC." : "of " + zone + ".");
  for (const i of document.querySelectorAll("input.tz")) {
    i.disabled = zone === "UTC";
    i.value = zone;
  }
}

// The filter's times come in the zone that the address names.
function inputs() {
  const form = document.querySelector("form[data-zone]");
  if (!form || form.dataset.zone === zone || form.dataset.zone !== "UTC") return;
  for (const i of form.querySelectorAll("input[type=datetime-local]")) {
    if (!i.value) continue;
    const date = new Date(i.value + "Z");
    i.value = dayOf(date) + "T" + clock(date);
  }
  form.dataset.zone = zone;
}

$("zone").addEventListener("click", () => {
  zone = zone === "UTC" ? local : "UTC";
  try {
    localStorage.setItem("push-zone", zone === "UTC" ? "UTC" : "");
  } catch {}
  location.reload();
});

times(document);
showZone();
inputs();

// ---- Following. A page asks now and then whether it has changed; nothing is kept open, so any number of tabs will do.

const live = "live" in document.body.dataset;
const box = document.querySelector(".live");
let paused = false;
let tag = null;
let lostAt = null;
let timer = null;
let held = null; // a newer list that is not shown yet

// say tells of a change of state; it is not spoken again and again.
function say(text) {
  const state = $("state");
  if (state.textContent !== text) state.textContent = text;
}

// merge makes old look like fresh and leaves alone what is the same, so that focus, selection and what was unfolded stay.
function merge(old, fresh) {
  if (old.isEqualNode(fresh)) return;
  if (old.id === "filter" || (old.contains(document.activeElement) && old.matches("form, .sure"))) return;
  if (old.tagName !== fresh.tagName || old.id !== fresh.id || !keyed(fresh)) {
    if (old.tagName === "DETAILS" && fresh.tagName === "DETAILS") fresh.open = old.open;
    for (const d of old.querySelectorAll("details[open]")) {
      const same = fresh.querySelector("#" + CSS.escape(d.id));
      if (same) same.open = true;
    }
    const focus = old.contains(document.activeElement) ? path(old, document.activeElement) : null;
    old.replaceWith(fresh);
    if (focus) at(fresh, focus)?.focus({ preventScroll: true });
    return;
  }
  for (const a of [...fresh.attributes]) old.setAttribute(a.name, a.value);
  const had = new Map([...old.children].map((c) => [c.id, c]));
  const want = new Set([...fresh.children].map((c) => c.id));
  for (const [id, c] of had) if (!want.has(id)) c.remove();
  let next = old.firstElementChild;
  for (const c of [...fresh.children]) {
    const same = had.get(c.id);
    if (!same) {
      c.classList.add("new");
      old.insertBefore(c, next);
    } else if (same === next) {
      next = next.nextElementSibling;
      same.classList.remove("new");
      merge(same, c);
    } else {
      old.insertBefore(c, next);
      same.remove();
    }
  }
}

// keyed tells whether all children have names to be recognised by.
function keyed(e) {
  return e.children.length > 0 && [...e.children].every((c) => c.id);
}

function path(top, e) {
  const p = [];
  for (; e !== top; e = e.parentElement) p.unshift([...e.parentElement.children].indexOf(e));
  return p;
}

function at(top, p) {
  return p.reduce((e, i) => e?.children[i], top);
}

// reading tells whether somebody is in the list: then nothing new is put above what they read.
function reading(list) {
  return list.getBoundingClientRect().top < 0 || list.contains(document.activeElement) || list.matches(":hover");
}

// list brings the list up to date. What is in it changes in place; what is new waits while somebody reads.
function list(old, fresh) {
  const had = new Set([...old.children].map((c) => c.id));
  const added = [...fresh.children].filter((c) => c.id && !had.has(c.id) && c.id !== "nothing");
  document.querySelector(".held")?.remove();
  held = null;
  if (added.length && had.size && !had.has("nothing") && reading(old)) {
    for (const c of [...fresh.children]) {
      const same = c.id && [...old.children].find((o) => o.id === c.id);
      if (same) merge(same, c.cloneNode(true));
    }
    held = fresh;
    const button = document.createElement("button");
    button.className = "held";
    button.type = "button";
    button.textContent = added.length === 1 ? "1 new – show it" : added.length + " new – show them";
    button.addEventListener("click", () => {
      button.remove();
      merge(old, held);
      held = null;
    });
    old.before(button);
    return;
  }
  merge(old, fresh);
}

async function refresh() {
  clearTimeout(timer);
  if (paused || document.hidden) return;
  try {
    const headers = { Accept: "text/html" };
    if (tag) headers["If-None-Match"] = tag;
    const reply = await fetch(location.href, { headers, cache: "no-store", redirect: "manual", signal: AbortSignal.timeout(15000) });
    if (reply.status !== 304) {
      if (!reply.ok) throw new Error(reply.status === 403 ? "refused" : "");
      tag = reply.headers.get("ETag");
      const fresh = new DOMParser().parseFromString(await reply.text(), "text/html");
      times(fresh);
      for (const old of document.querySelectorAll("main section[id], #timeline, #more, #reach, #first")) {
        if (old.parentElement.closest("section[id]:not(#messages)")) continue;
        const f = fresh.querySelector("#" + CSS.escape(old.id));
        if (!f) continue;
        if (old.id === "timeline" && document.body.dataset.page === "account") list(old, f);
        else if (old.id !== "messages") merge(old, f);
      }
    }
    lostAt = null;
    box.classList.remove("off");
    say("Live");
  } catch (e) {
    lostAt ??= new Date();
    box.classList.add("off");
    say(e.message === "refused" ? "Not allowed any more: log in again and load the page anew." : "No connection since " + clock(lostAt) + "; trying again. What is shown may be old.");
  }
  timer = setTimeout(refresh, lostAt ? 5000 : tag ? 2000 : 4000);
}

if (live && !new URLSearchParams(location.search).has("before")) {
  $("pause").hidden = false;
  $("pause").addEventListener("click", () => {
    paused = !paused;
    $("pause").textContent = paused ? "Go on" : "Pause";
    $("pause").setAttribute("aria-pressed", paused);
    if (paused) {
      clearTimeout(timer);
      say("Paused at " + clock(new Date()));
    } else {
      refresh();
    }
  });
  document.addEventListener("visibilitychange", () => !document.hidden && refresh());
  refresh();
}

// ---- Keys.

document.addEventListener("keydown", (e) => {
  if (e.ctrlKey || e.metaKey || e.altKey || e.target.matches("input, select, textarea")) return;
  if (e.key === "/") {
    e.preventDefault();
    $("q").focus();
  } else if (e.key === "n" || e.key === "p") {
    const all = [...document.querySelectorAll(".entry, .message")];
    const i = all.indexOf(document.activeElement?.closest(".entry, .message"));
    const to = all[e.key === "n" ? i + 1 : Math.max(i - 1, 0)];
    to?.focus();
    to?.scrollIntoView({ block: "nearest" });
  } else if (e.key === "Enter" && e.target.matches(".entry, .message")) {
    e.target.querySelector("h3 a, .what a")?.click();
  }
});
