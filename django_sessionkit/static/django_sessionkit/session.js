/*
 * Warns before a session runs out, tells when it has ended, and keeps it while somebody does
 * something on the page. The template tag {% session_script %} includes this script, with what it
 * needs in data attributes, and the dialogs that it shows.
 *
 * The server alone knows how a session is. Whatever this script has counted or heard, it asks the
 * server before it says a word; an answer that does not come says nothing. The clock here only
 * tells when to ask: computers sleep, and their clocks are wrong.
 */
(() => {
  "use strict";

  const RETRY = 15; // seconds; every time that there is no answer, twice as many
  const LONGEST_RETRY = 120; // seconds
  const LOOK_AGAIN = 30; // seconds between two questions while a warning is shown
  const ASLEEP = 120; // seconds without a tick; browsers let a hidden page tick once a minute
  const ACTS = ["keydown", "pointerdown", "pointermove", "touchmove", "wheel"];

  const script = document.currentScript;
  const { url, language } = script.dataset;
  const warnFor = Number(script.dataset.warn);
  const isQuiet = "quiet" in script.dataset;

  // A page whose body is replaced, by HTMX or Turbo, runs this script again: the last one stays.
  document.dispatchEvent(new Event("sessionkit:replaced"));
  const stopped = new AbortController();
  document.addEventListener("sessionkit:replaced", () => stop(), { once: true });

  const dialogs = document.getElementById("sessionkit-dialogs").content.cloneNode(true);
  const parts = [...dialogs.children];
  document.body.append(dialogs);

  // The last answer, and when it came. The one in the page is of the moment at which the page was
  // made, or older where a cache has kept it.
  let known = JSON.parse(script.dataset.status);
  let knownAt = seconds();
  const ours = known.user;

  let askAt = 0; // when to ask next
  let failures = 0; // how many answers have not come, one after the other
  let isDoubted = false; // one answer has said that the session has gone; the next one decides
  let hasActed = false; // somebody has done something since the last heartbeat
  let beatAt = seconds(); // when the last heartbeat was; to open the page was one
  let pointer = ""; // where it was
  let dismissed = ""; // the name of the dialog that was closed
  let ticked = Date.now();
  let timer;

  const channel = "BroadcastChannel" in window
    ? new BroadcastChannel(`sessionkit:${url.split("?")[0]}`)
    : null;

  function seconds() {
    return performance.now() / 1000;
  }

  // How the session is.

  function left(what) {
    const value = known[what];
    return typeof value === "number" ? value - (seconds() - knownAt) : Infinity;
  }

  /** Return which warning there will be, in how many seconds, and how long the session has then. */
  function next() {
    const [idle, expires] = [left("idle_in"), left("expires_in")];
    if (expires <= idle) {
      return { name: "expires", rest: expires, lead: warnFor };
    }
    const name = known.reason === "locked" ? "locks" : "idle";
    return { name, rest: idle, lead: Math.min(warnFor, known.idle_after / 2) };
  }

  async function send(method, headers, body) {
    try {
      return await fetch(url, {
        method,
        headers,
        body,
        cache: "no-store",
        credentials: "same-origin",
        redirect: "manual",
        signal: "timeout" in AbortSignal ? AbortSignal.timeout(20000) : undefined,
      });
    } catch {
      return null;
    }
  }

  async function ask() {
    askAt = seconds() + RETRY; // a second question waits for the first answer
    const began = seconds();
    const response = await send("GET", {
      Accept: "application/json",
      "X-Background-Request": "1",
    });
    let answer = null;
    try {
      answer = response && response.ok ? await response.json() : null;
    } catch {
      // The page of a proxy, say.
    }
    if (stopped.signal.aborted) {
      return;
    }
    if (!answer || typeof answer.state !== "string") {
      failures += 1;
      askAt = seconds() + Math.min(RETRY * 2 ** (failures - 1), LONGEST_RETRY);
      update();
    } else if (answer.state !== "active" && known.state === "active" && !isDoubted) {
      // Another tab may just be signing in: its cookie is there in a moment.
      isDoubted = true;
      askAt = seconds() + 1;
    } else {
      hear(answer, began);
      channel?.postMessage(answer);
    }
    plan();
  }

  /** Take an answer, which was true at a moment. */
  function hear(answer, moment) {
    failures = 0;
    isDoubted = false;
    if (answer.state === "active" && answer.user !== ours) {
      answer = { state: "other" };
    } else if (answer.state === "anonymous" && !answer.detail && known.state === "active") {
      // The browser has thrown the cookie away when the session was to end.
      answer.detail = left("idle_in") < 5 && known.reason !== "locked" ? known.detail : "";
    }
    if (answer.state === "active" && answer.sign_out !== known.sign_out) {
      // Somebody has signed in again, and forms that are open have to go on.
      for (const field of document.querySelectorAll('input[name="csrfmiddlewaretoken"]')) {
        field.value = answer.csrf;
      }
    }
    known = answer;
    knownAt = moment;
    if (known.state !== "active") {
      askAt = Infinity;
      show(known.state === "anonymous" ? "ended" : known.state);
      return;
    }
    const { name, rest, lead } = next();
    if (rest > lead) {
      askAt = rest === Infinity ? Infinity : seconds() + rest - lead;
      show("");
    } else {
      askAt = seconds() + Math.max(1, Math.min(rest, LOOK_AGAIN));
      show(name);
    }
  }

  /** Be active, which keeps the session. */
  async function keep() {
    hasActed = false;
    beatAt = seconds();
    for (let tries = 0; tries < 2; tries += 1) {
      if (!known.csrf || tries) {
        await ask();
      }
      if (known.state !== "active" || !known.csrf) {
        return;
      }
      const body = new URLSearchParams({ csrfmiddlewaretoken: known.csrf });
      const response = await send("POST", { Accept: "application/json" }, body);
      if (!response || response.status !== 403) {
        break; // 403: the token was that of the session before
      }
    }
    await ask();
  }

  // When to do what.

  function plan() {
    clearTimeout(timer);
    if (stopped.signal.aborted) {
      return;
    }
    const beat = hasActed && known.state === "active" ? beatAt + known.every : Infinity;
    const wait = Math.min(askAt, beat) - seconds();
    timer = setTimeout(tick, 1000 * Math.max(0.05, Math.min(wait, shown() ? 1 : RETRY)));
  }

  function tick() {
    const hasSlept = Date.now() - ticked > 1000 * ASLEEP;
    ticked = Date.now();
    update();
    if (hasSlept || seconds() >= askAt) {
      ask();
    } else if (hasActed) {
      beat();
    }
    plan();
  }

  function beat() {
    if (known.state === "active" && seconds() - beatAt >= known.every) {
      keep();
    }
  }

  function acted(event) {
    if (!event.isTrusted || shown()) {
      return; // whoever is asked is to answer
    }
    if (event.type === "pointermove") {
      // A page that moves under the pointer sends these, too.
      const place = `${event.screenX} ${event.screenY}`;
      const hasMoved = pointer && place !== pointer;
      pointer = place;
      if (!hasMoved) {
        return;
      }
    }
    if (!hasActed) {
      hasActed = true;
      beat();
      plan();
    }
  }

  // What is shown.

  function shown() {
    return parts.find((part) => part.open);
  }

  function show(name) {
    const open = shown();
    if (name !== dismissed) {
      dismissed = "";
    }
    if (open && open.dataset.dialog !== name) {
      open.close();
    }
    const dialog = name && parts.find((part) => part.dataset.dialog === name);
    if (!dialog || dismissed === name) {
      return;
    }
    for (const each of dialog.querySelectorAll("[data-detail]")) {
      each.textContent = known.detail || "";
      each.hidden = !known.detail;
    }
    for (const link of dialog.querySelectorAll("[data-link]")) {
      link.hidden = !known.url;
      if (known.url) {
        link.href = withWayBack(known.url);
      }
    }
    for (const form of dialog.querySelectorAll("[data-sign-out]")) {
      form.hidden = !known.sign_out;
      form.action = known.sign_out || "";
      form.elements.csrfmiddlewaretoken.value = known.csrf || "";
    }
    if (!dialog.open) {
      for (const each of dialog.querySelectorAll("[data-left]")) {
        each.textContent = "";
      }
      dialog.showModal();
    }
    update();
  }

  /** Say how much time is left, minute by minute, and whether the server answers. */
  function update() {
    const dialog = shown();
    if (!dialog) {
      return;
    }
    const { rest } = next();
    for (const each of dialog.querySelectorAll("[data-left]")) {
      const text = rest < 60 ? each.dataset.soon : inMinutes(Math.round(rest / 60));
      if (each.textContent !== text) {
        each.textContent = text; // screen readers say it
      }
    }
    for (const each of dialog.querySelectorAll("[data-unreachable]")) {
      each.hidden = !failures;
    }
  }

  function inMinutes(minutes) {
    const style = { style: "unit", unit: "minute", unitDisplay: "long" };
    try {
      return new Intl.NumberFormat(language || undefined, style).format(minutes);
    } catch {
      return new Intl.NumberFormat(undefined, style).format(minutes);
    }
  }

  function withWayBack(to) {
    const address = new URL(to, location.href);
    // Another site learns no more than the path: the query may hold a secret.
    const back = address.origin === location.origin
      ? location.pathname + location.search
      : location.origin + location.pathname;
    address.searchParams.set("next", back);
    return address.href;
  }

  function dismiss(dialog) {
    dismissed = dialog.dataset.dialog;
    dialog.close();
  }

  // What there is to hear.

  for (const dialog of parts) {
    const stay = dialog.querySelector("[data-stay]");
    stay?.addEventListener("click", keep);
    dialog.querySelector("[data-close]")?.addEventListener("click", () => dismiss(dialog));
    dialog.addEventListener("cancel", (event) => {
      // Whoever presses Escape is there, and wants to go on.
      event.preventDefault();
      if (stay) {
        keep();
      } else {
        dismiss(dialog);
      }
    });
  }

  const signal = stopped.signal;
  for (const type of isQuiet ? [] : ACTS) {
    document.addEventListener(type, acted, { capture: true, passive: true, signal });
  }
  document.addEventListener(
    "visibilitychange",
    () => document.visibilityState === "visible" && ask(),
    { signal },
  );
  window.addEventListener("online", ask, { signal });
  window.addEventListener("pageshow", (event) => event.persisted && ask(), { signal });
  channel?.addEventListener("message", ({ data }) => {
    if (data.state === "active") {
      hear(data, seconds());
      plan();
    } else if (known.state === "active" && !isDoubted) {
      ask(); // in the language of this page
    }
  });

  function stop() {
    stopped.abort();
    clearTimeout(timer);
    channel?.close();
    for (const part of parts) {
      part.remove();
    }
  }

  const [opened] = performance.getEntriesByType("navigation");
  const { rest, lead } = next();
  if (opened?.type !== "back_forward") {
    askAt = rest === Infinity ? Infinity : seconds() + Math.max(0, rest - lead);
  }
  plan();
})();
