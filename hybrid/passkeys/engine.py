"""The software authenticator: CTAP2 requests in, answers out (CTAP 2.3 §6, "Authenticator API").

One engine, two profiles: the phone of hybrid, which verifies its user by itself every time, and a roaming one with
PIN/UV protocols and management. Where passkeys are kept, who is asked, the clock and the dice are arguments. Not
here: how requests travel.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import time
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from hybrid import cbor
from hybrid.errors import VaultError, VaultProblem
from hybrid.passkeys import algorithms as cose
from hybrid.passkeys.asking import Asking, account_of
from hybrid.passkeys.config import AuthenticatorConfig
from hybrid.passkeys.consent import Account, Consent, Decision, Operation, harmless
from hybrid.passkeys.extensions import MAX_CRED_BLOB_SIZE, CreateInputs, GetInputs
from hybrid.passkeys.get_info import encoded, get_info, roaming_info
from hybrid.passkeys.large_blobs import LargeBlobs
from hybrid.passkeys.management import CAPACITY, CredentialManagement
from hybrid.passkeys.members import request_map
from hybrid.passkeys.names import kept_icon, truncated
from hybrid.passkeys.pin import ClientPin, Permission
from hybrid.passkeys.profiles import PHONE, Profile
from hybrid.passkeys.rejected import Rejected
from hybrid.passkeys.requests import PUBLIC_KEY, GetAssertionRequest, MakeCredentialRequest, PinUvAuth
from hybrid.passkeys.state import StateKeeper
from hybrid.passkeys.store import Credential, CredentialState, CredentialStore
from hybrid.ports import Peer
from hybrid.protocol.ctap import Command, Status

PROMPT_TIMEOUT = 60.0  # seconds; Chromium's phone gives a person the same

_CREDENTIAL_ID_SIZE = 32
_SECRET_SIZE = 32
_NEXT_ASSERTION_WITHIN = 30.0  # seconds; "authenticatorGetNextAssertion"

_UP, _UV, _BE, _BS, _AT, _ED = 0x01, 0x04, 0x08, 0x10, 0x40, 0x80

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _MoreAssertions:
    """What authenticatorGetNextAssertion goes on with: ids of the passkeys left, newest first."""

    client_data_hash: bytes
    inputs: GetInputs
    left: list[bytes]
    verified: bool
    present: bool
    until: float


class SoftwareAuthenticator:
    """A `CtapBackend` that keeps passkeys in `store` and asks `consent` before every use.

    `profile`: `PHONE`, `ROAMING` or a preset; `aaguid`: in place of the profile's; `more_algorithms`: also those that
    few managers can import; `fido_2_3`: announce that version, too; `attestation`: "none" or "packed" (self
    attestation) in place of the profile's; `reset_window`: seconds after power-up in which a reset is allowed, None for
    always; `lenient`: take maps whose keys are not sorted. `clock` gives seconds since 1970, `random` gives so many
    unpredictable bytes, `prompt_timeout` is the time a person has for one answer.

    Whatever bytes come in, `call` answers with a status; if the store fails, the client is told so in general words
    and `failure` holds the error for whoever runs the authenticator.
    """

    def __init__(
        self,
        store: CredentialStore,
        consent: Consent,
        *,
        profile: Profile = PHONE,
        aaguid: UUID | None = None,
        more_algorithms: bool = False,
        fido_2_3: bool = False,
        attestation: str | None = None,
        reset_window: float | None = None,
        lenient: bool = False,
        clock: Callable[[], float] = time.time,
        random: Callable[[int], bytes] = secrets.token_bytes,
        prompt_timeout: float = PROMPT_TIMEOUT,
    ) -> None:
        self.failure: VaultError | None = None
        self.profile = replace(profile, versions=(*profile.versions, "FIDO_2_3")) if fido_2_3 else profile
        self._store = store
        self._aaguid = aaguid or profile.aaguid
        self._algorithms = cose.EVERY if more_algorithms else profile.algorithms
        self._passkey_aaguid = profile.passkey_aaguid or self._aaguid
        self._attestation = attestation or profile.attestation
        self._reset_window = reset_window
        self._lenient = lenient or profile.lenient
        self._clock = clock
        self._random = random
        self._asking = Asking(consent, store, timeout=prompt_timeout, verifies=not profile.roaming)
        self._state = StateKeeper(store, random)
        self._pin = ClientPin(self._state, random, clock)
        self._management = CredentialManagement(store, self._state, self._pin, self._now)
        self._large_blobs = LargeBlobs(store, self._state, self._pin, profile.max_message_size)
        self._config = AuthenticatorConfig(self._state, self._pin)
        self._more: dict[Hashable, _MoreAssertions] = {}
        self._made: tuple[bytes, list[bytes]] | None = None
        self._powered_at = clock()
        self._busy = asyncio.Lock()

    @property
    def get_info(self) -> bytes:
        """CBOR of the getInfo response map (CTAP 2.3 §6.4). That of a phone never changes."""
        fixed = get_info(self.profile, self._aaguid, self._algorithms)
        if not self.profile.roaming:
            return encoded(fixed)
        remaining = max(0, CAPACITY - len(self._management.discoverable()))
        return encoded(fixed, roaming_info(self._state.now, remaining, self._random))

    async def call(self, request: bytes, *, peer: Peer, channel: Hashable = None) -> bytes:
        """Answer one request. Cancelled while a prompt is open, it stores nothing.

        `channel` tells clients apart: getNextAssertion and listings go on only where they began. One request is
        served at a time; others wait, but for getInfo.
        """
        try:
            if request[:1] == bytes([Command.GET_INFO]):
                self._end_sequences(channel)
                body = self._info(request)
            else:
                async with self._busy:
                    self._made = None
                    body = await self._answer(request, peer, channel)
        except Rejected as rejected:
            return bytes([rejected.status])
        except VaultError as error:
            self.failure = error
            full = error.reason is VaultProblem.FULL
            return bytes([Status.KEY_STORE_FULL if full else Status.OTHER])
        return bytes([Status.OK]) + body

    def cancel(self) -> None:
        """Take the open prompt away; the request that waits for it is answered with KEEPALIVE_CANCEL."""
        self._asking.cancel()

    def power_cycle(self) -> None:
        """Be as after unplugging: tokens, key agreement, listings and wrong PINs in a row are forgotten."""
        self._asking.cancel()
        self._pin.power_cycle()
        self._management.power_cycle()
        self._large_blobs.power_cycle()
        self._more.clear()
        self._powered_at = self._clock()

    def undelivered(self) -> None:
        """The answer to the last call did not reach the client.

        A passkey that it made is kept and flagged as unconfirmed, and those it replaced are offered again: the site
        may know either. Raises `VaultError`.
        """
        if self._made is None:
            return
        (made, replaced), self._made = self._made, None
        self._store.set_state([made], CredentialState.UNCONFIRMED, self._now())
        self._store.set_state(replaced, CredentialState.ACTIVE, self._now())

    def _info(self, request: bytes) -> bytes:
        if len(request) > self.profile.max_message_size:
            raise Rejected(Status.REQUEST_TOO_LARGE)
        if len(request) > 1:
            # It takes no parameters (§6.4). No section names a status for some; "invalid message length" (§8.2) fits,
            # and is what a session says that answers getInfo from its greeting.
            raise Rejected(Status.INVALID_LENGTH)
        return self.get_info

    async def _answer(self, request: bytes, peer: Peer, channel: Hashable) -> bytes:
        if len(request) > self.profile.max_message_size:
            raise Rejected(Status.REQUEST_TOO_LARGE)
        if not request:
            raise Rejected(Status.OTHER)
        command, payload = request[0], request[1:]
        more = self._end_sequences(channel, command)
        if command not in self.profile.commands:
            raise Rejected(Status.INVALID_COMMAND)
        if command == Command.GET_NEXT_ASSERTION:
            return self._next_assertion(more, channel)
        fields = request_map(payload, lenient=self._lenient)
        match command:
            case Command.MAKE_CREDENTIAL:
                return await self._make_credential(MakeCredentialRequest.parse(fields, self.profile), peer)
            case Command.GET_ASSERTION:
                return await self._get_assertion(GetAssertionRequest.parse(fields, self.profile), peer, channel)
            case Command.RESET:
                return await self._reset(peer)
            case Command.SELECTION:
                await self._asking.presence(self._asking.prompt(Operation.SELECT, peer))
                return b""
        return _map(self._managed(command, fields, channel))

    def _end_sequences(self, channel: Hashable, command: int = Command.GET_INFO) -> _MoreAssertions | None:
        """End what `command` does not go on with on its channel; give the assertions that are left."""
        if command != Command.CREDENTIAL_MANAGEMENT:
            self._management.end_listing(channel)
        return self._more.pop(channel, None)

    def _managed(self, command: int, fields: Mapping[Any, Any], channel: Hashable) -> dict[int, Any]:
        match command:
            case Command.CLIENT_PIN:
                return self._pin.answer(fields)
            case Command.CREDENTIAL_MANAGEMENT:
                return self._management.answer(fields, channel)
            case Command.LARGE_BLOBS:
                return self._large_blobs.answer(fields)
            case _:
                return self._config.answer(fields)

    # --- makeCredential ----------------------------------------------------------------------------------------------

    async def _make_credential(self, request: MakeCredentialRequest, peer: Peer) -> bytes:
        await self._check_probe(request.auth, request.rp_id, request.rp_name, peer)
        algorithm = next((wanted for wanted in request.algorithms if wanted in self._algorithms), None)
        if algorithm is None:
            raise Rejected(Status.UNSUPPORTED_ALGORITHM)
        if request.options.get("up") is False:
            raise Rejected(Status.INVALID_OPTION)
        discoverable = request.options.get("rk", False) or not self.profile.roaming
        inputs = CreateInputs.parse(request.extensions, self.profile.extensions, self._pin.protocols)
        if not self.profile.prf_at_create:
            inputs = replace(inputs, prf_salts=None)
        if inputs.large_blob_key and not discoverable:
            raise Rejected(Status.INVALID_OPTION)
        verified = self._verified_create(request, discoverable=discoverable)
        usable = [credential for credential in self._store.credentials(request.rp_id) if credential.usable]
        excluded = any(c.credential_id in request.exclude and (verified or c.cred_protect < 3) for c in usable)
        replaced = [c.credential_id for c in usable if discoverable and c.discoverable and c.user_id == request.user_id]
        replaced = [] if excluded else replaced
        await self._approve_create(request, peer, len(replaced))
        # Only after the person agreed: asked earlier, a stranger would learn which passkeys are here.
        if excluded:
            raise Rejected(Status.CREDENTIAL_EXCLUDED)
        if self.profile.roaming and discoverable and len(self._management.discoverable()) >= CAPACITY + len(replaced):
            raise Rejected(Status.KEY_STORE_FULL)
        credential = self._new_credential(request, algorithm, inputs, discoverable=discoverable)
        body = self._attestation_object(request, credential, inputs, verified=verified)
        if discoverable:
            self._state.passkeys_changed()
        self._store.add(credential, superseding=replaced)  # last: what fails before it leaves no passkey behind
        self._made = credential.credential_id, replaced
        return cbor.encode(body)

    def _verified_create(self, request: MakeCredentialRequest, *, discoverable: bool) -> bool:
        """Whether a person was verified; for a phone, whether one will be. Raises `Rejected`."""
        auth = request.auth
        if not self.profile.roaming:
            return True
        if request.enterprise_attestation is not None:
            raise Rejected(Status.INVALID_PARAMETER)
        if auth.param is not None:
            self._pin.verify(auth, request.client_data_hash, Permission.MAKE_CREDENTIAL, request.rp_id)
            return True
        if request.options.get("uv", False):
            raise Rejected(Status.INVALID_OPTION)  # there is no other verification than by token
        # makeCredUvNotRqd: only what a stranger could not find later may be made without verification.
        if self._state.now.always_uv or (discoverable and self._pin.is_set):
            raise Rejected(Status.PUAT_REQUIRED)
        return False

    async def _approve_create(self, request: MakeCredentialRequest, peer: Peer, replaces: int) -> None:
        account = Account(
            harmless(request.user_name), harmless(request.user_display_name), self._now(), synced=self._synced
        )
        prompt = self._asking.prompt(
            Operation.CREATE, peer, request.rp_id, request.rp_name, (account,), replaces=replaces
        )
        await self._asking.approval(prompt)
        self._pin.person_was_present()

    def _new_credential(
        self, request: MakeCredentialRequest, algorithm: int, inputs: CreateInputs, *, discoverable: bool
    ) -> Credential:
        now, synced = self._now(), self._synced
        blob = inputs.cred_blob
        return Credential(
            credential_id=self._random(_CREDENTIAL_ID_SIZE),
            rp_id=request.rp_id,
            rp_name=truncated(request.rp_name),
            user_id=request.user_id,
            user_name=truncated(request.user_name),
            user_display_name=truncated(request.user_display_name),
            algorithm=algorithm,
            private_key=cose.new_private_key(algorithm, self._random),
            created_at=now,
            modified_at=now,
            backup_eligible=synced,
            backed_up=synced,
            # A count per passkey cannot move with it.
            sign_count=0 if self.profile.roaming and not synced else None,
            discoverable=discoverable,
            cred_protect=inputs.cred_protect or 1,
            secret_uv=self._random(_SECRET_SIZE),
            secret_no_uv=self._random(_SECRET_SIZE),
            cred_blob=blob if blob is not None and len(blob) <= MAX_CRED_BLOB_SIZE else None,
            large_blob_key=self._random(_SECRET_SIZE) if inputs.large_blob_key else None,
            payments=inputs.payments,
            aaguid=None if self.profile.passkey_aaguid is None else self.profile.passkey_aaguid.bytes,
            user_icon=kept_icon(request.user_icon) if self.profile.roaming else None,
        )

    def _attestation_object(
        self, request: MakeCredentialRequest, credential: Credential, inputs: CreateInputs, *, verified: bool
    ) -> dict[int, Any]:
        signed, unsigned = inputs.outputs(self._as_evaluated(credential), self._state.now, verified=verified)
        public_key = cbor.encode(cose.cose_key(credential.algorithm, credential.private_key))
        credential_id = credential.credential_id
        attested = self._passkey_aaguid.bytes + len(credential_id).to_bytes(2, "big") + credential_id + public_key
        auth_data = _auth_data(credential, signed, present=True, verified=verified, attested=attested)
        body: dict[int, Any] = {1: self._attestation_format(request.attestation_formats), 2: auth_data, 3: {}}
        if body[1] == "packed":
            signature = cose.sign(credential.algorithm, credential.private_key, auth_data + request.client_data_hash)
            body[3] = {"alg": credential.algorithm, "sig": signature}
        if credential.large_blob_key is not None:
            body[5] = credential.large_blob_key
        if unsigned:
            body[6] = unsigned
        return body

    def _attestation_format(self, preferred: Collection[str]) -> str:
        if not self.profile.roaming:
            return self._attestation
        return next((name for name in preferred if name in ("packed", "none")), self._attestation)

    # --- getAssertion ------------------------------------------------------------------------------------------------

    async def _get_assertion(self, request: GetAssertionRequest, peer: Peer, channel: Hashable) -> bytes:
        await self._check_probe(request.auth, request.rp_id, "", peer)
        present = request.options.get("up", True) or not self.profile.roaming
        verified = self._verified_get(request, present=present)
        inputs = GetInputs.parse(request.extensions, self.profile.extensions, self._pin.protocols, present=present)
        found = self._candidates(request.rp_id, request.allow, verified=verified)
        if not found:
            await self._nothing_found(request, peer, present=present)
        several = self.profile.roaming and request.allow is None and len(found) > 1
        chosen = 0
        if present:
            # With several, the client goes through them by getNextAssertion; on a phone the person chooses.
            accounts = () if several else [account_of(credential) for credential in found]
            prompt = self._asking.prompt(Operation.SIGN_IN, peer, request.rp_id, found[0].rp_name, accounts)
            chosen = await self._asking.approval(prompt)
            self._pin.person_was_present()
        credential = found[chosen]
        more = _MoreAssertions(request.client_data_hash, inputs, [], verified, present, 0.0)
        body = self._assertion(credential, more)
        if not self.profile.roaming and request.allow is None:
            body[4] = _user(credential if self.profile.tells_names else _nameless(credential), names=True)
            body[6] = True  # userSelected: the client need not ask again
        elif self.profile.roaming and credential.discoverable:
            # Alone and found without its id, it is told by its user id; a site that named it knows whose it is.
            names = verified and (several or request.allow is not None)
            body[4] = _user(credential, names=names, empty=False)
        if several:
            body[5] = len(found)
            more.left = [credential.credential_id for credential in found[1:]]
            self._remember(more, channel)
        return cbor.encode(body)

    def _verified_get(self, request: GetAssertionRequest, *, present: bool) -> bool:
        """Whether a person was verified; for a phone, whether one will be. Raises `Rejected`."""
        if not self.profile.roaming:
            return True
        if "rk" in request.options:
            raise Rejected(Status.UNSUPPORTED_OPTION)
        if request.auth.param is not None:
            self._pin.verify(request.auth, request.client_data_hash, Permission.GET_ASSERTION, request.rp_id)
            return True
        if request.options.get("uv", False):
            raise Rejected(Status.INVALID_OPTION)
        if present and self._state.now.always_uv:
            raise Rejected(Status.PUAT_REQUIRED)
        return False

    async def _nothing_found(self, request: GetAssertionRequest, peer: Peer, *, present: bool) -> None:
        decision = Decision(approved=True)
        if present:
            prompt = self._asking.prompt(Operation.NOTHING_FOUND, peer, request.rp_id)
            decision = await self._asking.ask(prompt)
        # Only when a person has seen it. Refused and ignored as a match would be: else it tells who has an account.
        raise Rejected(Status.NO_CREDENTIALS if decision.approved else Status.OPERATION_DENIED)

    def _assertion(self, credential: Credential, asked: _MoreAssertions) -> dict[int, Any]:
        signed, unsigned = asked.inputs.outputs(self._as_evaluated(credential), verified=asked.verified)
        credential = self._noted(credential, asked.inputs)
        auth_data = _auth_data(credential, signed, present=asked.present, verified=asked.verified)
        body: dict[int, Any] = {
            1: {"id": credential.credential_id, "type": PUBLIC_KEY},
            2: auth_data,
            3: cose.sign(credential.algorithm, credential.private_key, auth_data + asked.client_data_hash),
        }
        if self.profile.assertion_transports:
            body[1]["transports"] = list(self.profile.assertion_transports)
        if asked.inputs.large_blob_key and credential.large_blob_key is not None:
            body[7] = credential.large_blob_key
        if unsigned:
            body[8] = unsigned
        return body

    def _as_evaluated(self, credential: Credential) -> Credential:
        """`credential` with the secret that prf is evaluated with: one that is not its own, if values are to differ."""
        return replace(credential, secret_uv=credential.secret_no_uv) if self.profile.prf_differs else credential

    def _noted(self, credential: Credential, inputs: GetInputs) -> Credential:
        """Keep what this use changes: a large blob and the counter, both before the answer leaves."""
        changed = credential
        if inputs.large_blob_write is not None and inputs.large_blob_write.fits:
            blob = inputs.large_blob_write
            changed = replace(changed, large_blob=(blob.data, blob.original_size), modified_at=self._now())
        if changed.sign_count is not None:
            changed = replace(changed, sign_count=(changed.sign_count + 1) & 0xFFFFFFFF)
        if changed is not credential:
            self._store.update(changed)
        try:
            self._store.note_use(credential.credential_id, self._now())
        except VaultError as error:
            # The count is for the owner's eyes only; a full disk must not lock anybody out.
            _log.debug("the use of a passkey is not recorded: %s", error)
        return changed

    def _next_assertion(self, more: _MoreAssertions | None, channel: Hashable) -> bytes:
        if more is None or self._clock() > more.until:
            raise Rejected(Status.NOT_ALLOWED)
        credential = self._store.find(more.left.pop(0))
        if credential is None or not credential.usable:
            raise Rejected(Status.NOT_ALLOWED)
        body = self._assertion(credential, more)
        body[4] = _user(credential, names=more.verified, empty=False)
        self._remember(more, channel)
        return cbor.encode(body)

    def _remember(self, more: _MoreAssertions, channel: Hashable) -> None:
        if more.left:
            more.until = self._clock() + _NEXT_ASSERTION_WITHIN
            self._more[channel] = more

    def _candidates(self, rp_id: str, allow: Collection[bytes] | None, *, verified: bool) -> list[Credential]:
        """Usable passkeys, newest first; without verification those that show themselves without it."""
        found = [credential for credential in self._store.credentials(rp_id) if credential.usable]
        if allow is not None:
            found = [credential for credential in found if credential.credential_id in allow]
        else:
            found = [credential for credential in found if credential.discoverable]
        hidden_from = 3 if allow is not None else 2
        found = [credential for credential in found if verified or credential.cred_protect < hidden_from]
        return sorted(reversed(found), key=lambda credential: -credential.created_at)

    # --- the rest ----------------------------------------------------------------------------------------------------

    async def _check_probe(self, auth: PinUvAuth, rp_id: str, rp_name: str, peer: Peer) -> None:
        """Answer an empty pinUvAuthParam: how CTAP 2.0 clients ask "is this the device you want?"."""
        if auth.param is None or (auth.param and self.profile.roaming):
            return
        if auth.param:
            raise Rejected(Status.PIN_AUTH_INVALID)  # a phone has no PIN
        await self._asking.presence(self._asking.prompt(Operation.SELECT, peer, rp_id, rp_name))
        if not (self.profile.roaming and self._pin.is_set):
            raise Rejected(Status.PIN_NOT_SET)
        # The specification says PIN_INVALID. Clients of CTAP 2.0 that name a protocol take it for a signature.
        raise Rejected(Status.PIN_INVALID if auth.protocol is None else Status.PIN_AUTH_INVALID)

    async def _reset(self, peer: Peer) -> bytes:
        if self._reset_window is not None and self._clock() - self._powered_at > self._reset_window:
            raise Rejected(Status.NOT_ALLOWED)
        await self._asking.presence(self._asking.prompt(Operation.RESET, peer))
        usable = [credential.credential_id for credential in self._store.credentials() if credential.usable]
        self._store.set_state(usable, CredentialState.DELETED, self._now())
        self._state.forget()
        self._large_blobs.forget()
        self.power_cycle()
        return b""

    @property
    def _synced(self) -> bool:
        return self._store.synced if self.profile.synced is None else self.profile.synced

    def _now(self) -> int:
        return int(self._clock())


def _map(body: Mapping[Any, Any]) -> bytes:
    return cbor.encode(body) if body else b""


def _nameless(credential: Credential) -> Credential:
    return replace(credential, user_name="", user_display_name="")


def _user(credential: Credential, *, names: bool, empty: bool = True) -> dict[str, Any]:
    user: dict[str, Any] = {"id": credential.user_id}
    if names:
        texts = {"name": credential.user_name, "displayName": credential.user_display_name}
        user |= {key: text for key, text in texts.items() if text or empty}
        if credential.user_icon:
            user["icon"] = credential.user_icon
    return user


def _auth_data(
    credential: Credential, signed: Mapping[str, Any], *, present: bool, verified: bool, attested: bytes = b""
) -> bytes:
    """Authenticator data (WebAuthn Level 3 §6.1). UP and UV only after a person was there and was verified."""
    flags = (_UP if present else 0) | (_UV if verified else 0)
    flags |= _BE if credential.backup_eligible else 0
    flags |= _BS if credential.backup_eligible and credential.backed_up else 0
    flags |= (_AT if attested else 0) | (_ED if signed else 0)
    rp_id_hash = hashlib.sha256(credential.rp_id.encode()).digest()
    counter = (credential.sign_count or 0).to_bytes(4, "big")
    return rp_id_hash + bytes([flags]) + counter + attested + _map(signed)
