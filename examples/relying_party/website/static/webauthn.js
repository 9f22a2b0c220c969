// WebAuthn in this browser: options and answers as JSON, what the browser can do, and what it is told afterwards.

const credential = window.PublicKeyCredential;

const toBytes = (text) => Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
const toText = (buffer) =>
  btoa(String.fromCharCode(...new Uint8Array(buffer))).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
const descriptors = (list) => (list ?? []).map((item) => ({ ...item, id: toBytes(item.id) }));

// Browsers of 2025 and later have these helpers; the other branch is for those before.
function creationOptions(json) {
  if (credential.parseCreationOptionsFromJSON) return credential.parseCreationOptionsFromJSON(json);
  return {
    ...json,
    challenge: toBytes(json.challenge),
    user: { ...json.user, id: toBytes(json.user.id) },
    excludeCredentials: descriptors(json.excludeCredentials),
  };
}

function requestOptions(json) {
  if (credential.parseRequestOptionsFromJSON) return credential.parseRequestOptionsFromJSON(json);
  return { ...json, challenge: toBytes(json.challenge), allowCredentials: descriptors(json.allowCredentials) };
}

function answerOf(made) {
  if (made.toJSON) return made.toJSON();
  const { response } = made;
  const json = { clientDataJSON: toText(response.clientDataJSON) };
  if (response.attestationObject) {
    json.attestationObject = toText(response.attestationObject);
    json.transports = response.getTransports?.() ?? [];
  } else {
    json.authenticatorData = toText(response.authenticatorData);
    json.signature = toText(response.signature);
    if (response.userHandle) json.userHandle = toText(response.userHandle);
  }
  return {
    id: made.id,
    rawId: made.id,
    type: made.type,
    authenticatorAttachment: made.authenticatorAttachment,
    clientExtensionResults: made.getClientExtensionResults(),
    response: json,
  };
}

// What the browser can do, by the names of getClientCapabilities; asked one by one where that is missing.
export async function capabilities() {
  if (!credential) return {};
  if (credential.getClientCapabilities) return credential.getClientCapabilities();
  return { conditionalGet: (await credential.isConditionalMediationAvailable?.()) ?? false };
}

// The same two functions as the simulated laptop has.
export const thisBrowser = {
  name: "this browser",
  async create(options, { mediation, signal } = {}) {
    return answerOf(await navigator.credentials.create({ publicKey: creationOptions(options), mediation, signal }));
  },
  async get(options, { mediation, signal } = {}) {
    return answerOf(await navigator.credentials.get({ publicKey: requestOptions(options), mediation, signal }));
  },
};

// Tell the browser, and through it the password manager, what this website knows. Not every browser listens.
export async function tellUnknown({ rpId, credentialId }) {
  await credential?.signalUnknownCredential?.({ rpId, credentialId }).catch(() => {});
}

export async function tellAccount({ rpId, userId, name, displayName, allAcceptedCredentialIds }) {
  await credential?.signalAllAcceptedCredentials?.({ rpId, userId, allAcceptedCredentialIds }).catch(() => {});
  await credential?.signalCurrentUserDetails?.({ rpId, userId, name, displayName }).catch(() => {});
}
