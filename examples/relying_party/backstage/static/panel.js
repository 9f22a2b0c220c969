// The side panel: draws what the server tells, hands clicks to the software phone, and plays the laptop if asked to.

import { thisBrowser } from "/static/webauthn.js";
import { simulatedLaptop } from "./laptop.js";

const PACE = 420; // ms between two lines, so that a person can follow what takes the machines a few milliseconds
const HOLD = 900; // ms that a wire stays lit

const $ = (id) => document.getElementById(id);
const stage = document.querySelector(".stage");
const screen = $("phone-screen");
const still = matchMedia("(prefers-reduced-motion: reduce)");
let state = null;

export async function command(path, body = {}) {
  let response, answer;
  try {
    response = await fetch(`/backstage/${path}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
      keepalive: path === "phone", // a switch that was flipped stays flipped, also if the page is left at once
    });
    answer = await response.json();
  } catch {
    throw new Error("the server does not answer; is it still running?");
  }
  if (!response.ok) throw Object.assign(new Error(answer.sentence), answer);
  return answer;
}

// who plays the laptop

const players = [...document.querySelectorAll('input[name="laptop"]')];
const chosen = () => players.find((player) => player.checked)?.value;

export const device = () => (chosen() === "browser" ? thisBrowser : simulatedLaptop);

function choosePlayer(value) {
  for (const player of players) player.checked = player.value === value;
}
choosePlayer(localStorage.getItem("laptop") ?? "simulated");
for (const player of players) player.addEventListener("change", () => localStorage.setItem("laptop", chosen()));

// the phone

const clicks = {
  scan: () => command("scan"),
  "scan-pasted": () => command("scan", { code: $("pasted").value.trim() }).then(() => ($("pasted").value = "")),
  approve: () => command("decide", { approved: true, account: Number($("prompt-account").value || 0) }),
  decline: () => command("decide", { approved: false }),
};

export async function scan() {
  await attempt(() => command("scan"));
  screen.scrollIntoView({ block: "nearest" });
}

async function attempt(work) {
  $("stage-problem").textContent = "";
  try {
    await work();
  } catch (error) {
    $("stage-problem").textContent = error.message[0].toUpperCase() + error.message.slice(1);
  }
}

async function scanPicture(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  let text = "";
  for (let at = 0; at < bytes.length; at += 0x8000) text += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  await attempt(() => command("scan", { picture: btoa(text) }));
}

stage.addEventListener("click", ({ target }) => {
  const button = target.closest("button[data-phone]");
  if (button && !button.disabled) attempt(clicks[button.dataset.phone]);
});
stage.addEventListener("change", ({ target }) => {
  if (target.name === "kind") attempt(() => command("phone", { kind: target.value }));
  if (target.id === "radio-switch") attempt(() => command("phone", { radioOn: target.checked }));
  if (target.id === "show-all") document.querySelector(".told").classList.toggle("all", target.checked);
  if (target.id === "picture" && target.files[0]) scanPicture(target.files[0]);
});
// A window, not a tab: browsers refuse answers to a page that is behind another tab.
stage.querySelector(".stage-tag a").addEventListener("click", (event) => {
  event.preventDefault();
  window.open(event.target.href, "backstage", "popup,width=720,height=940");
});
$("pasted").addEventListener("paste", (event) => {
  const picture = [...event.clipboardData.files].find((file) => file.type.startsWith("image/"));
  if (picture) {
    event.preventDefault();
    scanPicture(picture);
  }
});

// What a click changes is drawn at once; what belongs to the story waits for its line.

function drawKnobs() {
  const { phone, laptop, bluetooth } = state;
  stage.dataset.kind = phone.kind;
  $("phone-radio").textContent = phone.radioOn ? "Bluetooth" : "Bluetooth off";
  $("phone-radio").className = phone.radioOn ? "radio-on" : "radio-off";
  $("radio-switch").checked = phone.radioOn;
  for (const kind of document.querySelectorAll('input[name="kind"]')) kind.checked = kind.value === phone.kind;
  const button = screen.querySelector('[data-phone="scan"]');
  button.disabled = !laptop.showing;
  button.classList.toggle("calls", laptop.showing);
  $("idle-note").textContent = laptop.showing ? "The laptop shows a code." : "When the laptop shows a code, scan it here.";
  $("bluetooth-problem").textContent = bluetooth ? `. Not now: ${bluetooth}` : "";
}

function drawPhone() {
  const { phone } = state;
  const view = phone.prompt ? "prompt" : phone.busy ? "busy" : "idle";
  const asked = view === "prompt" && screen.dataset.view !== "prompt";
  screen.dataset.view = view;
  const count = phone.passkeys.length;
  $("phone-passkeys").textContent = count === 0 ? "no passkeys yet" : `${count} passkey${count === 1 ? "" : "s"} on this phone`;
  $("phone-passkeys").title = phone.passkeys.map((kept) => `${kept.account} at ${kept.site}`).join(", ");
  if (phone.prompt) drawPrompt(phone.prompt);
  if (asked && matchMedia("(max-width: 68rem)").matches) screen.scrollIntoView({ block: "center" });
}

function drawPrompt(prompt) {
  $("prompt-title").textContent = prompt.title;
  $("prompt-site").textContent = prompt.site;
  const select = $("prompt-account");
  select.replaceChildren(
    ...prompt.accounts.map((name, index) => Object.assign(document.createElement("option"), { value: index, textContent: name })),
  );
  select.hidden = prompt.accounts.length === 0;
  const nothing = prompt.operation === "nothing-found";
  screen.querySelector('[data-phone="approve"]').textContent = nothing ? "All right" : "Unlock and agree";
  $("prompt-note").textContent = nothing
    ? "This phone has no passkey for this website."
    : prompt.operation === "create"
      ? prompt.synced ? "It will be copied to your other devices." : "It will stay on this phone."
      : "Is it you, at the laptop that shows the code?";
}

// the map and the story

const POINTS = { website: [74, 52], laptop: [74, 100], relay: [220, 48], phone: [366, 100] };
const WIRES = {
  https: [["website", "laptop", "wire-https"]],
  camera: [["laptop", "phone", "wire-camera", 124]],
  bluetooth: [["laptop", "phone", "wire-bluetooth", 148]],
  relay: [["laptop", "relay", "wire-left"], ["relay", "phone", "wire-right"]],
};

function light(id) {
  const element = $(id);
  element?.classList.add("active");
  setTimeout(() => element?.classList.remove("active"), HOLD);
}

function show(line) {
  light(`node-${line.source}`);
  if (line.target) light(`node-${line.target}`);
  const wires = (WIRES[line.medium] ?? []).filter(
    ([a, b]) => line.medium !== "relay" || ![line.source, line.target].includes("relay") || [a, b].includes(line.source),
  );
  if (line.source === "relay") wires.splice(0, wires.length, ...WIRES.relay);
  for (const wire of wires) light(wire[2]);
  if (still.matches || line.target === null || !wires.length) return;
  const forward = line.source !== "phone" && !(line.source === "relay" && line.target === "laptop");
  const route = wires.flatMap(([a, b, , y]) => [a, b].map((name) => [POINTS[name][0], y ?? POINTS[name][1]]));
  if (line.medium === "camera" || line.medium === "bluetooth") route[0][0] += 44, route[1][0] -= 44;
  const frames = (forward ? route : route.reverse()).map(([cx, cy]) => ({ transform: `translate(${cx + 20}px, ${cy + 20}px)` }));
  $("packet").animate(frames, { duration: HOLD, easing: "ease-in-out" });
}

const NAMES = { website: "website", laptop: "laptop", phone: "phone", relay: "relay", person: "you" };
const MEDIA = { https: "https", camera: "camera", bluetooth: "Bluetooth", relay: "relay" };

function part(tag, className, text) {
  return Object.assign(document.createElement(tag), { className, textContent: text });
}

function write(line, isNew) {
  const item = document.createElement("li");
  for (const name of ["quiet", "trouble", "begins"]) item.classList.toggle(name, line[name]);
  item.classList.toggle("new", isNew);
  const who = part("span", "who", NAMES[line.source] + (line.target ? ` → ${NAMES[line.target]}` : ""));
  if (MEDIA[line.medium]) who.append(part("span", `medium medium-${line.medium}`, MEDIA[line.medium]));
  item.append(part("span", "at", `${line.at.toFixed(2)} s`), who, part("span", "what", line.text));
  const list = $("lines");
  list.querySelector(".empty")?.remove();
  // The newest ceremony on top, each told from its beginning.
  if (line.begins || !list.firstChild) list.prepend(item);
  else {
    let last = list.firstChild;
    while (last.nextSibling && !last.nextSibling.classList.contains("begins")) last = last.nextSibling;
    last.after(item);
  }
  if (isNew) list.scrollTo({ top: item.offsetTop + item.offsetHeight - list.clientHeight, behavior: "smooth" });
  mark(line);
}

const steps = document.querySelector(".steps");

function mark(line) {
  if (line.begins) {
    for (const step of steps.children) step.classList.remove("done");
    steps.classList.remove("failed");
  }
  if (line.trouble) steps.classList.add("failed");
  if (!line.step) return;
  for (const step of steps.children) {
    step.classList.add("done");
    if (step.dataset.step === line.step) break;
  }
  document.dispatchEvent(new CustomEvent("step", { detail: line.step }));
}

// Messages are drawn one after the other, the lines of each at a pace that can be read.

let drawing = Promise.resolve();
let first = true;

async function tell(lines, isHistory) {
  for (const line of lines) {
    write(line, !isHistory);
    if (!isHistory) {
      show(line);
      if (!line.quiet && !still.matches) await new Promise((resolve) => setTimeout(resolve, PACE));
    }
  }
  drawPhone();
}

new EventSource("/backstage/events").addEventListener("message", ({ data }) => {
  const isHistory = first;
  const message = JSON.parse(data);
  first = false;
  state = message.state;
  drawKnobs();
  drawing = drawing.then(() => tell(message.lines, isHistory));
});
