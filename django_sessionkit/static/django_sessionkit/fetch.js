/*
 * fetch() for a page that talks to the JSON API, or to other views of the site: it sends the CSRF
 * token, and where an answer asks for a recent proof of identity (RFC 9470), or the session is
 * locked, it asks for the password and sends the request once more.
 *
 *     import { createFetch } from "…/django_sessionkit/fetch.js";
 *     const send = createFetch({ reauthenticate: "/api/v1/reauthenticate/" });
 *     await send("/api/v1/sessions/end-others/", { method: "POST" });
 *
 * This file needs no other, and nothing in it is inline: see docs/single-page-apps.md.
 */

const SAFE = ["GET", "HEAD", "OPTIONS", "TRACE"];
// Locks that a password opens. Another one asks which sessions are to end.
const OPENED_BY_PASSWORD = ["idle", "moved"];
const WORDS = {
  title: "We need to know that it is you",
  password: "Password",
  confirm: "Confirm",
  cancel: "Cancel",
};

/**
 * Return a function that is called like fetch(), and answers like fetch().
 *
 * reauthenticate: the URL that takes the password
 * askForPassword: a function that is given the message of the last try, or "", and returns a promise
 *     of the password, or of null where nobody gives one; by default, it shows a <dialog>
 * csrfToken: a function that returns the CSRF token
 * username: whose password it is, for password managers
 * words: those of the dialog
 */
export function createFetch({
  reauthenticate,
  askForPassword = null,
  csrfToken = tokenOfPage,
  username = "",
  words = {},
}) {
  const said = { ...WORDS, ...words };
  const ask = askForPassword || ((message) => askInDialog(message, username, said));
  // Requests at the same time ask once, however late the answer to one of them is.
  let proof = null; // the promise of the last one that was asked for
  let isAsking = false;
  let asked = 0; // how often that has come to an end

  function send(request) {
    const isOurs = new URL(request.url).origin === location.origin;
    const sent = request.clone(); // the body can be read once
    if (isOurs && !SAFE.includes(request.method)) {
      sent.headers.set("X-CSRFToken", csrfToken());
    }
    return fetch(sent);
  }

  /** Ask for the password until it is right. Return whether there is a proof now. */
  async function prove() {
    let message = "";
    for (;;) {
      const password = await ask(message);
      if (password === null) {
        return false;
      }
      const answer = await send(
        new Request(reauthenticate, {
          method: "POST",
          headers: { Accept: "application/json", "Content-Type": "application/json" },
          body: JSON.stringify({ password }),
        }),
      );
      if (answer.ok) {
        return true;
      }
      const problem = await answer.json().catch(() => ({}));
      if (!["wrong_password", "invalid", "throttled"].includes(problem.code)) {
        return false; // no password helps: the session has ended, say
      }
      message = problem.detail;
    }
  }

  return async function sendWithProof(input, init) {
    const request = new Request(input, init);
    const askedBefore = asked;
    const answer = await send(request);
    if (!asksForProof(answer)) {
      return answer;
    }
    if (!isAsking && asked === askedBefore) {
      isAsking = true;
      proof = prove().finally(() => {
        isAsking = false;
        asked += 1;
      });
    }
    return (await proof) ? send(request) : answer;
  };
}

/** Tell whether an answer can be had by a password. */
export function asksForProof(answer) {
  const challenge = answer.headers.get("WWW-Authenticate") || "";
  return (
    answer.status === 401 &&
    (challenge.includes('error="insufficient_user_authentication"') ||
      OPENED_BY_PASSWORD.includes(answer.headers.get("Session-Locked")))
  );
}

/** Return the CSRF token in the cookie of Django's default name, or in a form of the page. */
export function tokenOfPage() {
  const cookie = document.cookie.split("; ").find((each) => each.startsWith("csrftoken="));
  const field = document.querySelector('input[name="csrfmiddlewaretoken"]');
  return cookie ? decodeURIComponent(cookie.slice("csrftoken=".length)) : field?.value || "";
}

/** Show a dialog with a field for the password, in the looks of sessions.css. */
function askInDialog(message, username, words) {
  const dialog = make("dialog", { className: "sessionkit sessionkit-dialog" });
  const title = make("h2", { id: "sessionkit-proof", textContent: words.title });
  const said = make("p", { role: "alert", textContent: message, hidden: !message });
  const form = make("form", { className: "sessionkit-form", method: "dialog" });
  const user = make("input", { autocomplete: "username", hidden: true, value: username });
  const label = make("label", { htmlFor: "sessionkit-password", textContent: words.password });
  const password = make("input", {
    id: "sessionkit-password",
    type: "password",
    autocomplete: "current-password",
    required: true,
    autofocus: true,
  });
  const field = make("div", { className: "sessionkit-field" });
  const actions = make("div", { className: "sessionkit-actions" });
  const confirm = make("button", {
    className: "sessionkit-button sessionkit-main",
    textContent: words.confirm,
  });
  const cancel = make("button", {
    className: "sessionkit-button",
    type: "button",
    textContent: words.cancel,
  });
  field.append(label, password);
  actions.append(confirm, cancel);
  form.append(said, user, field, actions);
  dialog.append(title, form);
  dialog.setAttribute("aria-labelledby", title.id);
  document.body.append(dialog);
  return new Promise((resolve) => {
    let given = null;
    form.addEventListener("submit", () => {
      given = password.value;
    });
    cancel.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(given);
    });
    dialog.showModal();
  });
}

function make(tag, properties) {
  return Object.assign(document.createElement(tag), properties);
}
