// The pages work without this. It lets them follow what happens, and moves about by keys.
"use strict";

const live = document.body.dataset.live;
const sign = document.getElementById("live");

// merge makes old look like fresh and leaves alone what is the same, so that focus, selection and what was unfolded stay.
function merge(old, fresh) {
  if (old.isEqualNode(fresh)) return;
  const busy = old.contains(document.activeElement) && old.matches("form, .sure");
  if (busy || old.id === "filter") return;
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

let fetching = false;
let again = false;

async function refresh() {
  if (fetching || document.hidden) {
    again = true;
    return;
  }
  fetching = true;
  again = false;
  try {
    const reply = await fetch(location.href, { headers: { Accept: "text/html" }, cache: "no-store" });
    if (!reply.ok) throw new Error(reply.status);
    const fresh = new DOMParser().parseFromString(await reply.text(), "text/html");
    for (const old of document.querySelectorAll("main section[id], #timeline, #total, #more, #ticket, #unknown, .live b")) {
      const selector = old.id ? "#" + CSS.escape(old.id) : ".live b";
      const f = fresh.querySelector(selector);
      if (f) merge(old, f);
    }
    state(true);
  } catch {
    state(false);
  }
  fetching = false;
  if (again && !document.hidden) setTimeout(refresh, 400);
}

function state(on) {
  sign.classList.toggle("on", on);
  sign.classList.toggle("off", !on);
}

if (live && window.EventSource) {
  const source = new EventSource(live);
  source.addEventListener("changed", refresh);
  source.onopen = () => state(true);
  source.onerror = () => state(false);
  document.addEventListener("visibilitychange", () => again && refresh());
}

document.addEventListener("keydown", (e) => {
  if (e.ctrlKey || e.metaKey || e.altKey || e.target.matches("input, select, textarea")) return;
  if (e.key === "/") {
    e.preventDefault();
    document.getElementById("jid").focus();
  } else if (e.key === "n" || e.key === "p") {
    const all = [...document.querySelectorAll(".entry")];
    const i = all.indexOf(document.activeElement?.closest(".entry"));
    const to = all[e.key === "n" ? i + 1 : Math.max(i - 1, 0)];
    to?.focus();
    to?.scrollIntoView({ block: "nearest" });
  } else if (e.key === "Enter" && e.target.matches(".entry")) {
    e.target.querySelector("h3 a")?.click();
  }
});
