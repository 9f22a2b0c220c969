// A laptop inside the server, with the two functions of WebAuthn, and the dialog that a browser would show.

import { command, scan } from "./panel.js";

const SVG = "http://www.w3.org/2000/svg";

function picture(rows) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${rows.length} ${rows.length}`);
  svg.setAttribute("class", "code");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", "QR code");
  svg.setAttribute("shape-rendering", "crispEdges");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", rows.flatMap((row, y) => [...row].map((dark, x) => (dark === "1" ? `M${x} ${y}h1v1h-1z` : ""))).join(""));
  svg.append(path);
  return svg;
}

function tick() {
  const holder = Object.assign(document.createElement("div"), { className: "stand-in" });
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", "M7 3.5h10v17H7zM9.5 12l2 2 3.5-4");
  for (const [name, value] of Object.entries({ fill: "none", stroke: "currentColor", "stroke-width": "1.5", "stroke-linejoin": "round", "stroke-linecap": "round" })) {
    path.setAttribute(name, value);
  }
  svg.append(path);
  holder.append(svg);
  return holder;
}

function element(tag, className, textContent) {
  return Object.assign(document.createElement(tag), { className, textContent });
}

function showDialog(what, rows, close) {
  const dialog = element("dialog", "played", "");
  dialog.setAttribute("aria-label", "Simulated browser dialog");
  const title = element("h2", "", what === "create" ? "Create a passkey on another device" : "Use a passkey from another device");
  const advice = element("p", "", "On your own laptop this would be your browser's window. Scan the code with the software phone.");
  const buttons = element("div", "row", "");
  const scanning = element("button", "primary", "Let the phone scan it");
  const cancel = element("button", "plain", "Cancel");
  buttons.append(cancel, scanning);
  dialog.append(element("span", "tag", "simulated browser dialog"), title, picture(rows), tick(), advice, buttons);
  document.querySelector(".site").append(dialog);
  const onStep = ({ detail }) => {
    if (detail === "near") {
      dialog.dataset.heard = "";
      advice.textContent = "The phone is near. Go on there: it asks before it does anything.";
      scanning.hidden = true;
    }
  };
  document.addEventListener("step", onStep);
  scanning.addEventListener("click", () => {
    scanning.disabled = true;
    scan();
  });
  cancel.addEventListener("click", close);
  dialog.show();
  return () => {
    document.removeEventListener("step", onStep);
    dialog.remove();
  };
}

async function ask(what, options) {
  const { name, modules } = await command("laptop/ask", { command: what, options });
  const hide = showDialog(what, modules, () => command("laptop/close", { name }));
  try {
    return await command("laptop/result", { name });
  } catch (error) {
    throw Object.assign(new Error(error.sentence), { name: error.error ?? "NotAllowedError", sentence: error.sentence });
  } finally {
    hide();
  }
}

export const simulatedLaptop = {
  name: "a simulated laptop",
  create: (options) => ask("create", options),
  get: (options) => ask("get", options),
};
