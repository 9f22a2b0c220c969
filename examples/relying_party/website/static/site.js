// What the buttons do. Every ceremony has the same shape: ask the website, ask the device, tell the website.

import { capabilities, tellAccount, tellUnknown, thisBrowser } from "./webauthn.js";

const RENEW_AFTER = 4 * 60 * 1000; // a challenge is good for five minutes

const status = document.getElementById("status");
const can = await capabilities();
// With the side panel, a simulated laptop can take the browser's part.
const panel = "panel" in document.body.dataset ? await import("/backstage/static/panel.js") : null;
const device = () => panel?.device() ?? thisBrowser;

let autofill = null;

// Say beforehand what this browser cannot do, where it knows.
function markCapabilities() {
  document.body.toggleAttribute("data-no-hybrid", device() === thisBrowser && can.hybridTransport === false);
}
markCapabilities();
document.addEventListener("change", markCapabilities);

const SENTENCES = {
  NotAllowedError: "nothing was chosen, or it took too long; try again",
  InvalidStateError: "this device has a passkey for your account already",
  SecurityError: "at this address, the website's passkeys cannot be used",
  NotSupportedError: "this device cannot do what the website asks",
};

class Refused extends Error {
  constructor(answer) {
    super(answer.sentence);
    this.answer = answer;
  }
}

function say(sentence, kind = "bad") {
  status.textContent = sentence ? sentence[0].toUpperCase() + sentence.slice(1) + "." : "";
  status.dataset.kind = kind;
}

async function post(path, body = {}) {
  let response, answer;
  try {
    response = await fetch(`/api/${path}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    answer = await response.json();
  } catch {
    throw new Error("the website does not answer; try again in a moment");
  }
  if (!response.ok) throw new Refused(answer);
  return answer;
}

// ceremonies

async function register(path, body, options) {
  const { publicKey } = await post(`${path}/begin`, body);
  return post(`${path}/finish`, await (options?.device ?? device()).create(publicKey, options));
}

async function assert(path, body, options) {
  const { publicKey } = await post(`${path}/begin`, body);
  try {
    return await post(`${path}/finish`, await (options?.device ?? device()).get(publicKey, options));
  } catch (error) {
    if (error.answer?.unknown) await tellUnknown(error.answer.unknown);
    throw error;
  }
}

// What changes an account wants a signature of the last minutes; ask for one and try again.
async function confirmed(action) {
  try {
    return await action();
  } catch (error) {
    if (error.answer?.reason !== "not-fresh") throw error;
    await assert("confirm", {});
    return action();
  }
}

async function arrive(answer) {
  if (answer.signal) await tellAccount(answer.signal);
  if (answer.codes) await showCodes(answer.codes);
  if (answer.upgrade && can.conditionalCreate && device() === thisBrowser) {
    // Came by phone: the browser may make a passkey here without a question, if its user has allowed that.
    await register("passkeys", { automatic: true }, { mediation: "conditional" }).catch(() => {});
  }
  location.assign(answer.next);
}

function showCodes(codes) {
  const dialog = document.getElementById("codes");
  dialog.querySelector("ol").replaceChildren(
    ...codes.map((code) => Object.assign(document.createElement("li"), { textContent: code })),
  );
  dialog.showModal();
  dialog.addEventListener("cancel", (event) => event.preventDefault());
  return new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
}

// The browser offers passkeys in the name field while the page is open. Another request has to end this one first.
async function offerInField() {
  const field = document.querySelector('[autocomplete~="webauthn"]');
  if (!field || !can.conditionalGet || device() !== thisBrowser) return;
  autofill = new AbortController();
  const { signal } = autofill;
  const renewal = setTimeout(() => autofill?.abort("renew"), RENEW_AFTER);
  try {
    await arrive(await assert("sign-in", {}, { device: thisBrowser, mediation: "conditional", signal }));
  } catch (error) {
    if (signal.reason === "renew") return offerInField();
    if (error instanceof Refused) {
      say(error.message);
      return offerInField();
    }
  } finally {
    clearTimeout(renewal);
  }
}

// buttons and forms

const rowOf = (element) => element.closest("[data-id]").dataset;

const actions = {
  "sign-in": async ({ dataset }) => arrive(await assert("sign-in", { where: dataset.where ?? "" })),
  "sign-out": async () => arrive(await post("sign-out")),
  add: async ({ dataset }) => arrive(await confirmed(() => register("passkeys", { where: dataset.where }))),
  rename: async (button) => {
    const { id, name } = rowOf(button);
    const wanted = prompt("What do you call this passkey?", name);
    if (wanted) arrive(await post("passkeys/rename", { id, name: wanted }));
  },
  copied: async (button) => arrive(await post("passkeys/copied", { id: rowOf(button).id })),
  remove: async (button) => {
    const { id, name } = rowOf(button);
    if (confirm(`Remove “${name}”? It will not open this account any more.`)) {
      arrive(await confirmed(() => post("passkeys/remove", { id })));
    }
  },
  "new-codes": async () => arrive(await confirmed(() => post("codes/new"))),
  "copy-codes": async () => {
    const codes = [...document.querySelectorAll("#codes li")].map((item) => item.textContent);
    await navigator.clipboard.writeText(codes.join("\n"));
  },
  "kept-codes": async () => document.getElementById("codes").close(),
  policy: async (select) =>
    arrive(await confirmed(() => post("admin/policy", { name: select.dataset.account, policy: select.value }))),
};

const forms = {
  "sign-in": async () => arrive(await assert("sign-in", {})),
  join: async (values, button) => arrive(await register("join", { ...values, where: button?.dataset.where ?? "" })),
  recover: async (values) => arrive(await post("codes/use", values)),
  name: async (values) => arrive(await post("account/name", values)),
};

async function run(work, element) {
  say("");
  autofill?.abort("another request");
  element?.setAttribute("aria-busy", "true");
  try {
    await work();
  } catch (error) {
    if (error.name !== "AbortError") say(error.sentence ?? SENTENCES[error.name] ?? error.message);
    offerInField();
  } finally {
    element?.removeAttribute("aria-busy");
  }
}

document.addEventListener("click", ({ target }) => {
  const button = target.closest("button[data-do]");
  if (button) run(() => actions[button.dataset.do](button), button);
});
document.addEventListener("change", ({ target }) => {
  if (target.matches("select[data-do]")) run(() => actions[target.dataset.do](target), target);
});
document.addEventListener("submit", (event) => {
  const form = event.target.closest("form[data-form]");
  if (!form) return;
  event.preventDefault();
  const values = Object.fromEntries(new FormData(form));
  run(() => forms[form.dataset.form](values, event.submitter), event.submitter);
});

document.body.dataset.ready = "";
offerInField();
