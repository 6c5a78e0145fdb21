"use strict";
// Keeps a page current without disturbing who reads it, and lets the keyboard do everything.
(() => {
  const root = document.documentElement;
  const contact = document.getElementById("contact");
  const pause = document.getElementById("pause");
  const SOON = 600, USUAL = 2000, LATE = 10000, MOST_FAILURES = 2;
  const waiting = new Map();
  let tag = document.body.dataset.tag, paused = false, failures = 0, timer = 0;
  const page = document.body.dataset; // `awaited` is "missing", "old" or nothing

  const say = (text) => { if (contact.textContent !== text) contact.textContent = text; };

  // A region is left alone while it has the focus, the selection, the pointer, or what was unfolded.
  const inUse = (region) => {
    const chosen = document.getSelection();
    return region.contains(document.activeElement) || region.matches(":hover")
      || (chosen && !chosen.isCollapsed && chosen.rangeCount > 0 && chosen.getRangeAt(0).intersectsNode(region))
      || region.querySelector("details[data-touched]") !== null;
  };

  const settle = () => {
    for (const [id, fresh] of waiting) {
      const old = document.getElementById(id);
      if (old && inUse(old)) continue;
      if (old && !old.isEqualNode(fresh)) old.replaceWith(document.adoptNode(fresh));
      waiting.delete(id);
    }
  };

  const news = (fresh) => {
    const list = document.getElementById("entries"), more = document.getElementById("news");
    const arrived = fresh.getElementById("entries");
    if (!list || !more || !arrived) return;
    const entries = [...arrived.children].filter((each) => each.id && !document.getElementById(each.id));
    more.hidden = entries.length === 0;
    const button = more.querySelector("button");
    button.textContent = `${entries.length} new ${entries.length === 1 ? "entry" : "entries"}, show`;
    button.onclick = () => {
      more.hidden = true;
      list.append(...entries.map((each) => document.adoptNode(each)));
      const first = entries[0] && entries[0].querySelector("a");
      if (first) first.focus();
    };
  };

  const apply = (fresh) => {
    if (!fresh || !fresh.body || fresh.body.dataset.page !== document.body.dataset.page) return;
    for (const region of fresh.querySelectorAll("[data-live][id]")) waiting.set(region.id, region);
    page.awaited = fresh.body.dataset.awaited;
    settle();
    news(fresh);
  };

  const lost = () => {
    failures += 1;
    if (failures < MOST_FAILURES) return;
    root.classList.add("lost");
    say("Contact lost. What you see may be old.");
  };

  const answered = (request) => {
    if (request.status === 401) { lost(); say("Signed out. Sign in again."); return; }
    if (request.status === 403 || request.status === 421) { lost(); say("Signed out. Open the link again."); return; }
    const told = request.status === 503 && request.response && request.response.querySelector("main [data-live]");
    if (request.status !== 200 && request.status !== 304 && !told) { lost(); return; }
    failures = 0;
    root.classList.remove("lost");
    if (!paused) say("Live");
    if (request.status !== 304) { tag = request.getResponseHeader("ETag") || ""; apply(request.response); }
  };

  const next = () => { clearTimeout(timer); timer = setTimeout(tick, failures ? LATE : page.awaited === "missing" ? SOON : USUAL); };

  const tick = () => {
    if (paused || document.hidden) { next(); return; }
    settle();
    const request = new XMLHttpRequest();
    request.open("GET", location.pathname + location.search);
    if (tag && !page.awaited) request.setRequestHeader("If-None-Match", tag);
    request.responseType = "document"; // parsed without running anything, and no Trusted Types sink
    request.timeout = 15000;
    request.onload = () => { answered(request); next(); };
    request.onerror = request.ontimeout = () => { lost(); next(); };
    request.send();
  };

  const setPaused = (value) => {
    paused = value;
    root.classList.toggle("paused", paused);
    pause.textContent = paused ? "Resume" : "Pause";
    say(paused ? "Paused" : "Live");
    if (!paused) { clearTimeout(timer); tick(); }
  };

  if (document.body.dataset.tag && pause) {
    pause.hidden = contact.parentElement.hidden = false; // without a script nothing is live
    pause.onclick = () => setPaused(!paused);
    document.addEventListener("toggle", (event) => {
      if (event.target.closest && event.target.closest("[data-live]") && event.target.matches("details")) {
        event.target.toggleAttribute("data-touched", event.target.open);
      }
    }, true);
    document.addEventListener("visibilitychange", () => { if (!document.hidden && !paused) { clearTimeout(timer); tick(); } });
    next();
  }

  // On a phone the pages are a bar that scrolls: the current one is in sight.
  const current = document.querySelector(".rail nav a[aria-current]");
  if (current) {
    const bar = current.closest("nav"), shift = current.getBoundingClientRect().left - bar.getBoundingClientRect().left;
    bar.scrollLeft = shift - (bar.clientWidth - current.offsetWidth) / 2;
  }

  // Colours: chosen at once; the button is for those without a script.
  const theme = document.getElementById("theme");
  if (theme) {
    document.getElementById("theme-set").hidden = true;
    theme.onchange = () => theme.form.submit();
  }

  // Copying: the clipboard needs https or loopback, elsewhere the link stays what it is.
  for (const link of document.querySelectorAll("[data-copy]")) {
    if (!navigator.clipboard) continue;
    link.addEventListener("click", (event) => {
      event.preventDefault();
      const request = new XMLHttpRequest();
      const copied = (text) => navigator.clipboard.writeText(text).then(() => say("Copied"), () => say("Not copied"));
      if (link.dataset.copy === "link") { copied(link.href); return; }
      request.open("GET", link.href);
      request.onload = () => { if (request.status === 200) copied(request.responseText); };
      request.send();
    });
  }

  // Keys.
  const dialog = document.getElementById("keys"), on = document.getElementById("keys-on"), open = document.getElementById("keys-open");
  const remembered = () => { try { return localStorage.getItem("keys") !== "off"; } catch { return true; } };
  on.checked = remembered();
  on.onchange = () => { try { localStorage.setItem("keys", on.checked ? "on" : "off"); } catch { /* not kept */ } };
  open.hidden = false;
  open.onclick = () => dialog.showModal();
  document.getElementById("keys-close").onclick = () => dialog.close();

  const PLACES = { o: "overview", c: "conversations", d: "delivery", u: "usage", a: "agents" };
  let went = false, place = -1;
  const go = (name) => {
    const link = document.querySelector(`.rail nav a[data-name="${name}"]`);
    if (link) link.click();
  };
  const move = (step) => {
    const rows = [...document.querySelectorAll("main [data-row]")];
    if (!rows.length) return;
    place = Math.min(Math.max(place + step, 0), rows.length - 1);
    for (const row of rows) row.classList.remove("here");
    rows[place].classList.add("here");
    rows[place].scrollIntoView({ block: "nearest" });
    const target = rows[place].querySelector("a, summary, button");
    if (target) target.focus();
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea, dialog")) return;
    if (event.key === "?") { event.preventDefault(); dialog.showModal(); return; }
    if (!on.checked) return;
    if (went) { went = false; if (PLACES[event.key]) go(PLACES[event.key]); return; }
    if (event.key === "g") { went = true; setTimeout(() => { went = false; }, 1500); }
    else if (event.key === "j") move(1);
    else if (event.key === "k") move(-1);
    else if (event.key === "l" && !pause.hidden) setPaused(!paused);
    else if (event.key === "/") {
      const field = document.querySelector("main .filter :is(select, input:not([type=hidden]))");
      if (field) { event.preventDefault(); const folded = field.closest("details"); if (folded) folded.open = true; field.focus(); }
    }
  });
})();
