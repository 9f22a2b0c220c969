"""One registration or sign-in over hybrid, without the wire (WebAuthn Level 3, "Create a New Credential" and "Use an
Existing Credential to Make an Assertion").

Told in order: `plan_assertion` checks what was asked, before any phone is there; `AssertionPlan.request` gives the one
command for this phone; `AssertionRequest.result` checks the answer against what was asked; `Assertion.to_json` prints
it. Registration has the same four steps. No preflight, no PIN protocol, never a request without user verification:
that is how phones want it ("hybrid transports", CTAP messages). The clientDataJSON is built here or comes from a
collector; hashes made by callers are not taken.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hybrid import cbor
from hybrid.errors import ResponseRejected
from hybrid.fido2_bridge import base64url
from hybrid.fido2_bridge.answers import (
    BE,
    BS,
    UP,
    UV,
    AssertionAnswer,
    AttestationAnswer,
    AuthenticatorData,
    parse_assertion,
    parse_attestation,
)
from hybrid.fido2_bridge.credential_key import CredentialKey
from hybrid.fido2_bridge.extensions import (
    AssertionExtensions,
    RegistrationExtensions,
    assertion_extensions,
    registration_extensions,
)
from hybrid.fido2_bridge.info import read_get_info
from hybrid.fido2_bridge.options import AssertionOptions, RegistrationOptions
from hybrid.fido2_bridge.rp_id import check_rp_id, parse_origin
from hybrid.protocol.ctap import Command

CREATE, GET = "webauthn.create", "webauthn.get"
_PUBLIC_KEY = "public-key"


@dataclass(frozen=True, slots=True)
class AssertionPlan:
    """A sign-in that may be asked of a phone. `rp_id` in normal form; `client_data`: the clientDataJSON."""

    options: AssertionOptions
    rp_id: str
    client_data: bytes
    extensions: AssertionExtensions

    def request(self, get_info: bytes) -> AssertionRequest:
        """Fit the command to the phone that said `get_info`. Raises `RemoteProtocolError` if that is malformed."""
        extensions = self.extensions.request(read_get_info(get_info).extensions)
        members: dict[int, Any] = {1: self.rp_id, 2: _sha256(self.client_data)}
        if self.options.allow:
            members[3] = _descriptors(self.options.allow)
        if extensions:
            members[4] = extensions
        members[5] = {"uv": True}
        return AssertionRequest(self, bytes([Command.GET_ASSERTION]) + cbor.encode(members), extensions)


@dataclass(frozen=True, slots=True)
class AssertionRequest:
    """`message`: the one command for the phone, to be sent as it is."""

    plan: AssertionPlan
    message: bytes = field(repr=False)
    sent_extensions: Mapping[str, Any] = field(repr=False)

    def result(self, answer: bytes, *, public_key: CredentialKey | None = None) -> Assertion:
        """Check the phone's answer (status byte and CBOR); its signature too if the `public_key` is known.

        Raises:
            CtapError: python-fido2's, for a status other than 0.
            RemoteProtocolError: the answer is malformed.
            ResponseRejected: it is not an answer to this request.
        """
        parsed = parse_assertion(answer)
        _check_auth_data(parsed.auth_data, self.plan.rp_id)
        credential_id = self._credential_id(parsed)
        signed = parsed.auth_data.raw + _sha256(self.plan.client_data)
        if public_key is not None and not public_key.verifies(parsed.signature, signed):
            raise ResponseRejected("the signature does not fit the public key", "signature")
        return Assertion(
            credential_id=credential_id,
            client_data=self.plan.client_data,
            auth_data=parsed.auth_data,
            signature=parsed.signature,
            user_handle=parsed.user_id,
            extensions=self.plan.extensions.results(self.sent_extensions, parsed.unsigned, credential_id),
        )

    def _credential_id(self, parsed: AssertionAnswer) -> bytes:
        allow = self.plan.options.allow
        if parsed.credential_id is None:
            # CTAP lets an authenticator leave the credential out if only one could be meant.
            if len(allow) != 1:
                raise ResponseRejected("the phone does not say which passkey it used", "credential")
            return allow[0]
        if allow and parsed.credential_id not in allow:
            raise ResponseRejected("the phone used a passkey that was not asked for", "credential")
        if not allow and parsed.user_id is None:
            raise ResponseRejected("the phone does not say whose passkey it used", "user")
        return parsed.credential_id


@dataclass(frozen=True, slots=True)
class Assertion:
    """A checked sign-in. `extensions`: client extension results, bytes as bytes."""

    credential_id: bytes
    client_data: bytes
    auth_data: AuthenticatorData
    signature: bytes = field(repr=False)
    user_handle: bytes | None = field(repr=False)
    extensions: Mapping[str, Any] = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """Give WebAuthn's AuthenticationResponseJSON."""
        response: dict[str, Any] = {
            "clientDataJSON": self.client_data,
            "authenticatorData": self.auth_data.raw,
            "signature": self.signature,
        }
        if self.user_handle is not None:
            response["userHandle"] = self.user_handle
        return _response_json(self.credential_id, response, self.extensions)


@dataclass(frozen=True, slots=True)
class RegistrationPlan:
    """A registration that may be asked of a phone. `rp_id` in normal form; `client_data`: the clientDataJSON."""

    options: RegistrationOptions
    rp_id: str
    client_data: bytes
    extensions: RegistrationExtensions

    def request(self, get_info: bytes) -> RegistrationRequest:
        """Fit the command to the phone that said `get_info`.

        Raises:
            RemoteProtocolError: `get_info` is malformed.
            RequestRefused: the website requires what this phone does not offer.
        """
        info = read_get_info(get_info)
        extensions = self.extensions.request(info.extensions)
        options = self.options
        # All three names always: phones by Google and Apple refuse a request without one of them, even an empty one.
        members: dict[int, Any] = {
            1: _sha256(self.client_data),
            2: {"id": self.rp_id, "name": options.rp_name},
            3: {"id": options.user_id, "name": options.user_name, "displayName": options.user_display_name},
            4: [{"alg": algorithm, "type": _PUBLIC_KEY} for algorithm in options.algorithms],
        }
        if options.exclude:
            members[5] = _descriptors(options.exclude)
        if extensions:
            members[6] = extensions
        members[7] = {"rk": options.resident_key, "uv": True}
        message = bytes([Command.MAKE_CREDENTIAL]) + cbor.encode(members)
        return RegistrationRequest(self, message, extensions, info.transports)


@dataclass(frozen=True, slots=True)
class RegistrationRequest:
    """`message`: the one command for the phone, to be sent as it is. `transports`: how the passkey can be reached."""

    plan: RegistrationPlan
    message: bytes = field(repr=False)
    sent_extensions: Mapping[str, Any] = field(repr=False)
    transports: tuple[str, ...]

    def result(self, answer: bytes) -> Registration:
        """Check the phone's answer (status byte and CBOR).

        Raises:
            CtapError: python-fido2's, for a status other than 0.
            RemoteProtocolError: the answer is malformed.
            ResponseRejected: it is not an answer to this request.
        """
        parsed = parse_attestation(answer)
        _check_auth_data(parsed.auth_data, self.plan.rp_id)
        if parsed.credential.algorithm not in self.plan.options.algorithms:
            raise ResponseRejected("the new passkey has an algorithm that was not asked for", "algorithm")
        return Registration(
            client_data=self.plan.client_data,
            answer=parsed,
            transports=self.transports,
            extensions=self.plan.extensions.results(self.sent_extensions, parsed.unsigned),
        )


@dataclass(frozen=True, slots=True)
class Registration:
    """A checked registration. `extensions`: client extension results, bytes as bytes."""

    client_data: bytes
    answer: AttestationAnswer
    transports: tuple[str, ...]
    extensions: Mapping[str, Any] = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """Give WebAuthn's RegistrationResponseJSON; without `publicKey` if its algorithm is not known here."""
        credential = self.answer.credential
        response: dict[str, Any] = {
            "clientDataJSON": self.client_data,
            "authenticatorData": self.answer.auth_data.raw,
            "transports": list(self.transports),
            "publicKeyAlgorithm": credential.algorithm,
            "attestationObject": self.answer.attestation_object(),
        }
        if credential.key is not None:
            response["publicKey"] = credential.key.spki()
        return _response_json(credential.credential_id, response, self.extensions)


def plan_assertion(options: AssertionOptions, origin: str) -> AssertionPlan:
    """Check a sign-in of the website at `origin` before any phone is asked.

    Raises:
        RequestRefused: `RP_ID` if the origin may not use the RP id, `OPTIONS` for bad extension inputs.
    """
    return AssertionPlan(options, *_for_website(GET, options, origin), assertion_extensions(options))


def plan_registration(options: RegistrationOptions, origin: str) -> RegistrationPlan:
    """Check a registration for the website at `origin` before any phone is asked.

    Raises:
        RequestRefused: `RP_ID` if the origin may not use the RP id, `OPTIONS` for bad extension inputs.
    """
    return RegistrationPlan(options, *_for_website(CREATE, options, origin), registration_extensions(options))


def _for_website(kind: str, options: AssertionOptions | RegistrationOptions, origin: str) -> tuple[str, bytes]:
    """The RP id, which is the origin's host unless the options name another, and clientDataJSON."""
    rp_id = options.rp_id if options.rp_id is not None else parse_origin(origin).host
    return check_rp_id(rp_id, origin), client_data_json(kind, options.challenge, origin)


def client_data_json(kind: str, challenge: bytes, origin: str) -> bytes:
    """Build the clientDataJSON, members in the order of "Limited Verification Algorithm"; `kind` is `CREATE` or `GET`.

    Raises:
        RequestRefused: no origin that we accept. `RP_ID`.
    """
    members = {
        "type": kind,
        "challenge": base64url.encode(challenge),
        "origin": str(parse_origin(origin)),
        "crossOrigin": False,
    }
    return json.dumps(members, separators=(",", ":")).encode()


def _check_auth_data(auth_data: AuthenticatorData, rp_id: str) -> None:
    if auth_data.rp_id_hash != _sha256(rp_id.encode()):
        raise ResponseRejected(f"the phone's answer is not for {rp_id}", "rp-id-hash")
    if not auth_data.flags & UP:
        raise ResponseRejected("the phone answered without anybody present", "user-presence")
    # Every request asks for verification, whatever the website prefers: over hybrid the phone always verifies.
    if not auth_data.flags & UV:
        raise ResponseRejected("the phone did not verify the user", "user-verification")
    if auth_data.flags & BS and not auth_data.flags & BE:
        raise ResponseRejected("the phone's answer is backed up and not eligible for it", "backup-state")


def _descriptors(credential_ids: tuple[bytes, ...]) -> list[dict[str, Any]]:
    return [{"id": credential_id, "type": _PUBLIC_KEY} for credential_id in credential_ids]


def _response_json(credential_id: bytes, response: Mapping[str, Any], extensions: Mapping[str, Any]) -> dict[str, Any]:
    document: dict[str, Any] = _jsonable(
        {
            "id": credential_id,
            "rawId": credential_id,
            "type": _PUBLIC_KEY,
            "authenticatorAttachment": "cross-platform",
            "clientExtensionResults": extensions,
            "response": response,
        }
    )
    return document


def _jsonable(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64url.encode(value)
    if isinstance(value, Mapping):
        return {name: _jsonable(item) for name, item in value.items()}
    return value


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
