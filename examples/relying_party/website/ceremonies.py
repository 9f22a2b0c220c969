"""Registration and sign-in (Web Authentication Level 3, "Registering a New Credential", "Verifying an Assertion").

python-fido2's server checks type, origin, challenge, RP id hash, UP, UV and the signature. The rest is ours, and here:
one-time challenges, framing, algorithms, BE and BS, counters, the user handle, the policy, and who owns what.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from cryptography.hazmat.primitives import constant_time
from fido2.server import Fido2Server
from fido2.utils import websafe_decode, websafe_encode
from fido2.webauthn import (
    AttestationConveyancePreference,
    AuthenticationResponse,
    AuthenticatorAttachment,
    AuthenticatorData,
    CollectedClientData,
    PublicKeyCredentialCreationOptions,
    PublicKeyCredentialHint,
    PublicKeyCredentialParameters,
    PublicKeyCredentialRequestOptions,
    PublicKeyCredentialRpEntity,
    PublicKeyCredentialType,
    PublicKeyCredentialUserEntity,
    RegistrationResponse,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from examples.relying_party.website.accounts import Account, Accounts, Passkey, known_transports, way_of
from examples.relying_party.website.attestation import TrustedRoots
from examples.relying_party.website.audit import AuditLog, Happened, fingerprint
from examples.relying_party.website.challenges import Challenges, Purpose
from examples.relying_party.website.policy import Policy
from examples.relying_party.website.providers import ProviderNames
from examples.relying_party.website.refused import Reason, Refused
from examples.relying_party.website.settings import Settings

ALGORITHMS = (-7, -8, -257)  # ES256, EdDSA, RS256: what phones, security keys and Windows make
MAX_CREDENTIAL_ID_SIZE = 1023

_HINTS = {
    "phone": PublicKeyCredentialHint.HYBRID,
    "this-device": PublicKeyCredentialHint.CLIENT_DEVICE,
    "security-key": PublicKeyCredentialHint.SECURITY_KEY,
}
_ATTACHMENTS = {  # for browsers that do not know hints yet
    "phone": AuthenticatorAttachment.CROSS_PLATFORM,
    "security-key": AuthenticatorAttachment.CROSS_PLATFORM,
    "this-device": AuthenticatorAttachment.PLATFORM,
}

_TEXTS = ("id", "rawId", "type", "authenticatorAttachment")
_TEXTS_INSIDE = ("clientDataJSON", "attestationObject", "authenticatorData", "signature", "userHandle")

# What python-fido2's parsers and checks raise for answers that are none, or not good ones.
_MALFORMED = (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, struct.error)


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A good assertion: whose, and by which passkey, as it is kept now."""

    account: Account
    passkey: Passkey


class Ceremonies:
    """Hands out options and judges answers. Everything that goes wrong is a `Refused`, and a line of the log if it
    is known whose account it is about."""

    def __init__(
        self, settings: Settings, accounts: Accounts, challenges: Challenges, audit: AuditLog, names: ProviderNames
    ) -> None:
        self._settings = settings
        self._accounts = accounts
        self._challenges = challenges
        self._audit = audit
        self._names = names
        self._roots = TrustedRoots(settings.attestation_roots)
        self._server = Fido2Server(
            PublicKeyCredentialRpEntity(id=settings.rp_id, name=settings.name),
            verify_origin=settings.accepted_origins.__contains__,
        )
        self._server.allowed_algorithms = [
            PublicKeyCredentialParameters(type=PublicKeyCredentialType.PUBLIC_KEY, alg=alg) for alg in ALGORITHMS
        ]

    # registration

    def begin_registration(
        self, account: Account, browser: str, *, new: bool, where: str = "", automatic: bool = False
    ) -> dict[str, Any]:
        """Give PublicKeyCredentialCreationOptionsJSON for a passkey of `account`, which is `new` or adds one.

        `where`: "phone", "this-device", "security-key" or "" for anywhere; `automatic`: for a conditional create, in
        which the browser asks nobody, so that neither UP nor UV will be set; accounts of the stricter classes get none.
        """
        challenge = self._challenges.new()
        options, state = self._server.register_begin(
            PublicKeyCredentialUserEntity(id=account.id, name=account.name, display_name=account.display_name),
            [] if new else [passkey.descriptor for passkey in self._accounts.passkeys(account)],
            resident_key_requirement=ResidentKeyRequirement.REQUIRED,
            user_verification=UserVerificationRequirement.REQUIRED,
            authenticator_attachment=_ATTACHMENTS.get(where),
            challenge=challenge,
            extensions={"credProps": True},
        )
        strict = self._roots.required and account.policy is not Policy.ANY
        creation: PublicKeyCredentialCreationOptions = replace(
            options.public_key,
            hints=[_HINTS[where]] if where in _HINTS else None,
            timeout=self._settings.challenge_lifetime * 1000,
            attestation=AttestationConveyancePreference("direct" if strict else "none"),
        )
        kept: dict[str, Any] = {
            "account": account.id.hex(),
            "automatic": automatic and account.policy is Policy.ANY,
        }
        if new:
            kept["draft"] = [account.name, account.display_name, account.policy.value, account.created]
        purpose = Purpose.OPEN_ACCOUNT if new else Purpose.ADD_PASSKEY
        self._keep_challenge(challenge, purpose, browser, state, kept)
        return dict(creation)

    def finish_registration(self, answer: object, browser: str, *, owner: Account | None) -> tuple[Account, Passkey]:
        """Judge RegistrationResponseJSON and keep the passkey. `owner`: the account that adds one, None for a new one.

        Gives the account, opened by now, and the passkey. Raises `Refused`.
        """
        purpose = Purpose.OPEN_ACCOUNT if owner is None else Purpose.ADD_PASSKEY
        said = _answer(answer)
        try:
            response = RegistrationResponse.from_dict(said)
        except _MALFORMED as error:
            raise Refused(Reason.INVALID_ANSWER) from error
        kept = self._take_challenge(response.response.client_data.challenge, purpose, browser)
        if owner is None:
            name, display_name, policy, created = kept["draft"]
            account = Account(bytes.fromhex(kept["account"]), name, display_name, Policy(policy), created)
        elif owner.id.hex() == kept["account"]:
            account = owner
        else:  # somebody else signed in to this browser meanwhile
            raise Refused(Reason.CHALLENGE)
        try:
            passkey = self._registered(account, response, kept)
            transports = known_transports(said["response"].get("transports", ()))
            return account, self._keep(account, replace(passkey, transports=transports), owner is None)
        except Refused as refusal:
            if owner is not None:  # or anybody could fill the log
                self._note_refusal(refusal, owner.id)
            raise

    def _registered(self, account: Account, response: RegistrationResponse, kept: Mapping[str, Any]) -> Passkey:
        """Everything but the database speaks for this passkey, or `Refused` is raised."""
        client_data, attestation = response.response.client_data, response.response.attestation_object
        self._check_client_data(client_data)
        try:
            if kept["automatic"]:
                self._check_automatic(client_data, attestation.auth_data)
                seen = attestation.auth_data
            else:
                _check_verified(attestation.auth_data)
                seen = self._server.register_complete(kept["fido2"], response)
        except _MALFORMED as error:
            raise Refused(Reason.INVALID_ANSWER) from error
        made = seen.credential_data
        if made is None or made.credential_id != response.raw_id or len(made.credential_id) > MAX_CREDENTIAL_ID_SIZE:
            raise Refused(Reason.INVALID_ANSWER)
        algorithm = made.public_key.get(3)
        if algorithm not in ALGORITHMS:
            raise Refused(Reason.ALGORITHM)
        _check_backup_flags(seen)
        trusted = self._roots.vouch(attestation, client_data.hash)
        self._check_policy(account, backup_eligible=seen.is_backup_eligible(), trusted=trusted)
        provider = self._names.of(UUID(bytes=bytes(made.aaguid)))
        return Passkey(
            id=made.credential_id,
            account=account.id,
            attested=made,
            algorithm=algorithm,
            transports=(),
            aaguid=UUID(bytes=bytes(made.aaguid)),
            backup_eligible=seen.is_backup_eligible(),
            backed_up=seen.is_backed_up(),
            counter=seen.counter,
            attachment=_attachment(response),
            created=self._accounts.now(),
            last_used=None,
            last_way=None,
            nickname=provider or "Passkey",
            trusted=trusted,
            copied=None,
        )

    def _check_automatic(self, client_data: CollectedClientData, seen: AuthenticatorData) -> None:
        """What `Fido2Server.register_complete` checks, without UP and UV: a conditional create has neither."""
        if client_data.type != CollectedClientData.TYPE.CREATE:
            raise Refused(Reason.INVALID_ANSWER)
        if not constant_time.bytes_eq(self._server.rp.id_hash or b"", seen.rp_id_hash):
            raise Refused(Reason.INVALID_ANSWER)

    def _keep(self, account: Account, passkey: Passkey, is_new: bool) -> Passkey:
        way = way_of(passkey.attachment, passkey.transports)
        with self._accounts.transaction():
            if is_new:
                self._accounts.open(account)
            self._accounts.add_passkey(passkey, way=way, provider=self._names.of(passkey.aaguid))
        return passkey

    # sign-in

    def begin_sign_in(self, browser: str, *, confirm: Account | None = None, where: str = "") -> dict[str, Any]:
        """Give PublicKeyCredentialRequestOptionsJSON.

        Without a name, so nobody learns which accounts exist: the passkey says whose it is. `confirm`: only passkeys
        of this account will do, because its user is to show again that it is them.
        """
        challenge = self._challenges.new()
        options, state = self._server.authenticate_begin(
            [] if confirm is None else [passkey.descriptor for passkey in self._accounts.passkeys(confirm)],
            user_verification=UserVerificationRequirement.REQUIRED,
            challenge=challenge,
        )
        request: PublicKeyCredentialRequestOptions = replace(
            options.public_key,
            hints=[_HINTS[where]] if where in _HINTS else None,
            timeout=self._settings.challenge_lifetime * 1000,
        )
        purpose = Purpose.SIGN_IN if confirm is None else Purpose.CONFIRM
        kept = {"account": None if confirm is None else confirm.id.hex()}
        self._keep_challenge(challenge, purpose, browser, state, kept)
        return dict(request)

    def finish_sign_in(self, answer: object, browser: str, *, confirm: Account | None = None) -> SignedIn:
        """Judge AuthenticationResponseJSON; give who it is. `confirm` as at the beginning. Raises `Refused`."""
        try:
            response = AuthenticationResponse.from_dict(_answer(answer))
        except _MALFORMED as error:
            raise Refused(Reason.INVALID_ANSWER) from error
        purpose = Purpose.SIGN_IN if confirm is None else Purpose.CONFIRM
        kept = self._take_challenge(response.response.client_data.challenge, purpose, browser)
        passkey = self._accounts.passkey(response.raw_id)
        if passkey is None:
            raise Refused(Reason.UNKNOWN_PASSKEY)
        try:
            account = self._owner(passkey, response, kept, confirm)
            self._asserted(account, passkey, response, kept)
        except Refused as refusal:
            self._note_refusal(refusal, passkey.account, passkey)
            raise
        return self._note_sign_in(account, passkey, response, confirm)

    def _owner(
        self, passkey: Passkey, response: AuthenticationResponse, kept: Mapping[str, Any], confirm: Account | None
    ) -> Account:
        """The account behind the passkey, which must also be the one that the answer and the question name."""
        handle = response.response.user_handle
        if handle is None and confirm is None:
            raise Refused(Reason.USER_HANDLE)  # without an allow list, a passkey has to say whose it is
        if handle is not None and not constant_time.bytes_eq(handle, passkey.account):
            raise Refused(Reason.USER_HANDLE)
        expected = None if confirm is None else confirm.id
        if kept["account"] != (None if expected is None else expected.hex()):
            raise Refused(Reason.CHALLENGE)
        if expected is not None and expected != passkey.account:
            raise Refused(Reason.USER_HANDLE)
        return self._accounts.get(passkey.account)

    def _asserted(
        self, account: Account, passkey: Passkey, response: AuthenticationResponse, kept: Mapping[str, Any]
    ) -> None:
        self._check_client_data(response.response.client_data)
        _check_verified(response.response.authenticator_data)
        try:
            self._server.authenticate_complete(kept["fido2"], [passkey.attested], response)
        except _MALFORMED as error:
            raise Refused(Reason.INVALID_ANSWER) from error
        seen = response.response.authenticator_data  # the signature covers it, so it may be believed from here on
        _check_backup_flags(seen)
        if seen.is_backup_eligible() != passkey.backup_eligible:
            raise Refused(Reason.BACKUP_CHANGED)
        if (seen.counter or passkey.counter) and seen.counter <= passkey.counter:
            raise Refused(Reason.COUNTER)
        self._check_policy(account, backup_eligible=passkey.backup_eligible, trusted=passkey.trusted)

    def _note_sign_in(
        self, account: Account, passkey: Passkey, response: AuthenticationResponse, confirm: Account | None
    ) -> SignedIn:
        attachment = _attachment(response)
        with self._accounts.transaction():
            used = self._accounts.note_use(passkey, response.response.authenticator_data, attachment)
            self._audit.note(
                Happened.SIGNED_IN if confirm is None else Happened.CONFIRMED,
                account.id,
                passkey=fingerprint(used.id),
                name=used.nickname,
                way=used.last_way,
                transports=", ".join(used.transports),
                be=used.backup_eligible,
                bs=used.backed_up,
            )
        return SignedIn(account, used)

    # both

    def _keep_challenge(
        self, challenge: bytes, purpose: Purpose, browser: str, state: dict[str, Any], kept: Mapping[str, Any]
    ) -> None:
        """Remember what the answer to a challenge needs. `state`: python-fido2's, which holds the challenge itself."""
        known = {name: value for name, value in state.items() if name != "challenge"}
        self._challenges.keep(challenge, purpose, browser, {**kept, "fido2": known})

    def _take_challenge(self, challenge: bytes, purpose: Purpose, browser: str) -> dict[str, Any]:
        """Give it back, if this is a challenge of ours. Raises `Refused`."""
        kept = self._challenges.take(challenge, purpose, browser)
        kept["fido2"]["challenge"] = websafe_encode(challenge)
        return kept

    def _check_client_data(self, client_data: CollectedClientData) -> None:
        """What python-fido2 does not look at: nobody may frame us. And the origin, for a reason of its own."""
        if client_data.origin not in self._settings.accepted_origins:
            raise Refused(Reason.ORIGIN)
        said = _mapping(client_data._data)
        if said.get("crossOrigin", False) is not False or "topOrigin" in said:
            raise Refused(Reason.FRAMED)

    def _check_policy(self, account: Account, *, backup_eligible: bool, trusted: bool) -> None:
        objection = account.policy.objection(
            backup_eligible=backup_eligible, trusted=trusted, attestation_required=self._roots.required
        )
        if objection is not None:
            raise Refused(objection)

    def _note_refusal(self, refusal: Refused, account: bytes, passkey: Passkey | None = None) -> None:
        self._audit.note(
            Happened.REFUSED,
            account,
            reason=refusal.reason.value,
            passkey=None if passkey is None else fingerprint(passkey.id),
            name=None if passkey is None else passkey.nickname,
        )


def _mapping(value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise Refused(Reason.INVALID_ANSWER)
    return value


def _answer(value: object) -> Mapping[str, Any]:
    """An answer of the right types: in the place of a text, python-fido2 makes as many zero bytes as a number says."""
    answer = _mapping(value)
    response = _mapping(answer.get("response"))
    _mapping(answer.get("clientExtensionResults", {}))
    transports = response.get("transports", [])
    if not isinstance(transports, list):
        raise Refused(Reason.INVALID_ANSWER)
    _check_texts([*(answer.get(name) for name in _TEXTS), *(response.get(name) for name in _TEXTS_INSIDE), *transports])
    try:
        client_data = _mapping(json.loads(websafe_decode(response["clientDataJSON"])))
        _check_texts([client_data[name] for name in ("type", "challenge", "origin")])
    except _MALFORMED as error:
        raise Refused(Reason.INVALID_ANSWER) from error
    return answer


def _check_texts(values: Sequence[object]) -> None:
    if not all(value is None or isinstance(value, str) for value in values):
        raise Refused(Reason.INVALID_ANSWER)


def _attachment(response: RegistrationResponse | AuthenticationResponse) -> str | None:
    return None if response.authenticator_attachment is None else response.authenticator_attachment.value


def _check_backup_flags(seen: AuthenticatorData) -> None:
    if seen.is_backed_up() and not seen.is_backup_eligible():
        raise Refused(Reason.BACKUP_FLAGS)


def _check_verified(seen: AuthenticatorData) -> None:
    """python-fido2 checks this as well; here it gets a sentence that its user can do something about."""
    if not seen.is_user_verified():
        raise Refused(Reason.NOT_VERIFIED)
