"""A relying party that checks every answer with two libraries that know nothing of each other or of us."""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import webauthn
from fido2.cose import CoseKey
from fido2.server import Fido2Server
from fido2.webauthn import (
    AttestedCredentialData,
    AuthenticatorData,
    PublicKeyCredentialRpEntity,
    UserVerificationRequirement,
)

from hybrid import cbor


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@dataclass(frozen=True)
class Registered:
    """A passkey as the website keeps it."""

    user_id: bytes
    credential: AttestedCredentialData
    data: AuthenticatorData
    transports: tuple[str, ...]

    @property
    def descriptor(self) -> dict[str, Any]:
        return {
            "type": "public-key",
            "id": b64(self.credential.credential_id),
            "transports": list(self.transports),
        }


@dataclass
class RelyingParty:
    """A website at `origin`. Each ceremony has a challenge of its own, which is good once."""

    origin: str
    rp_id: str = "localhost"
    registered: list[Registered] = field(default_factory=list)
    _challenge: bytes = b""
    _user_id: bytes = b""

    def creation_options(self, name: str = "ada", **more: Any) -> dict[str, Any]:
        self._challenge, self._user_id = secrets.token_bytes(32), name.encode()
        return {
            "rp": {"id": self.rp_id, "name": "A website"},
            "user": {"id": b64(self._user_id), "name": name, "displayName": name.title()},
            "challenge": b64(self._challenge),
            "pubKeyCredParams": [{"type": "public-key", "alg": -7}, {"type": "public-key", "alg": -257}],
            "authenticatorSelection": {"residentKey": "required", "userVerification": "required"},
            "hints": ["hybrid"],
        } | more

    def request_options(self, **more: Any) -> dict[str, Any]:
        self._challenge = secrets.token_bytes(32)
        return {
            "rpId": self.rp_id,
            "challenge": b64(self._challenge),
            "userVerification": "required",
            "hints": ["hybrid"],
        } | more

    def register(self, answer: dict[str, Any] | None) -> Registered:
        """Check an answer to creation options, and keep the passkey."""
        assert answer is not None
        checked = webauthn.verify_registration_response(
            credential=answer,
            expected_challenge=self._challenge,
            expected_rp_id=self.rp_id,
            expected_origin=self.origin,
            require_user_verification=True,
        )
        data = self._server().register_complete(self._state(), answer)
        found = data.credential_data
        assert found is not None
        assert (found.credential_id, bytes(found.aaguid)) == (checked.credential_id, UUID(checked.aaguid).bytes)
        transports = tuple(answer["response"]["transports"])
        made = Registered(self._user_id, found, data, transports)
        self.registered.append(made)
        return made

    def sign_in(self, answer: dict[str, Any] | None) -> Registered:
        """Check an answer to request options; give whose it is."""
        assert answer is not None
        (known,) = [one for one in self.registered if one.credential.credential_id == unb64(answer["rawId"])]
        assert answer["response"].get("userHandle") in (None, b64(known.user_id))
        self.check_by_py_webauthn(answer, known)
        self.check_by_python_fido2(answer, known)
        return known

    def check_by_py_webauthn(self, answer: dict[str, Any], known: Registered) -> None:
        webauthn.verify_authentication_response(
            credential=answer,
            expected_challenge=self._challenge,
            expected_rp_id=self.rp_id,
            expected_origin=self.origin,
            credential_public_key=_encoded(known.credential.public_key),
            credential_current_sign_count=0,
            require_user_verification=True,
        )

    def check_by_python_fido2(self, answer: dict[str, Any], known: Registered) -> None:
        self._server().authenticate_complete(self._state(), [known.credential], answer)

    def _server(self) -> Fido2Server:
        return Fido2Server(
            PublicKeyCredentialRpEntity(id=self.rp_id, name="A website"),
            verify_origin=lambda origin: origin == self.origin,
        )

    def _state(self) -> dict[str, Any]:
        return {"challenge": b64(self._challenge), "user_verification": UserVerificationRequirement.REQUIRED}


def _encoded(key: CoseKey) -> bytes:
    return cbor.encode(dict(key))
