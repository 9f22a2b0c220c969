"""The phone's authenticator: CTAP2 requests in, answers out (CTAP 2.3 §6, "Authenticator API").

Serves getInfo, makeCredential and getAssertion with ES256 and discoverable passkeys, always with user verification.
Where passkeys are kept, who is asked, the clock and the dice are arguments. Not here: extensions, PIN/UV protocols
(phones have none over hybrid), and how requests travel.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any
from uuid import UUID

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from hybrid import cbor
from hybrid.errors import VaultError, VaultProblem
from hybrid.passkeys.consent import (
    Account,
    Consent,
    Decision,
    Operation,
    Prompt,
    harmless,
    shown_rp_id,
)
from hybrid.passkeys.requests import (
    MAX_CREDENTIAL_ID_SIZE,
    MAX_LIST_LENGTH,
    MAX_MESSAGE_SIZE,
    PUBLIC_KEY,
    GetAssertionRequest,
    MakeCredentialRequest,
    Rejected,
)
from hybrid.passkeys.store import Credential, CredentialState, CredentialStore
from hybrid.ports import Peer
from hybrid.protocol.ctap import Command, Status

AAGUID = UUID("e0292e03-97e0-421c-82f1-28e6935b08f4")  # of this project, drawn once, published in the README
ES256 = -7
PROMPT_TIMEOUT = 60.0  # seconds; Chromium's phone gives a person the same

_ALGORITHMS = (ES256,)
_CREDENTIAL_ID_SIZE = 32
_MAX_NAME_SIZE = 256  # UTF-8 bytes; CTAP wants at least 64 kept
_COUNTER = bytes(4)  # constant, as phones have it: a count per passkey could not move with it
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

_UP, _UV, _BE, _BS, _AT = 0x01, 0x04, 0x08, 0x10, 0x40

_log = logging.getLogger(__name__)


class SoftwareAuthenticator:
    """A `CtapBackend` that keeps passkeys in `store` and asks `consent` before every use.

    `clock` gives seconds since 1970, `random` gives so many unpredictable bytes, `prompt_timeout` is the time a
    person has for one answer. Whatever bytes come in, `call` answers with a status; if the store fails, the client
    is told so in general words and `failure` holds the error for whoever runs the phone.
    """

    def __init__(
        self,
        store: CredentialStore,
        consent: Consent,
        *,
        aaguid: UUID = AAGUID,
        clock: Callable[[], float] = time.time,
        random: Callable[[int], bytes] = secrets.token_bytes,
        prompt_timeout: float = PROMPT_TIMEOUT,
    ) -> None:
        self.failure: VaultError | None = None
        self._store = store
        self._consent = consent
        self._aaguid = aaguid
        self._clock = clock
        self._random = random
        self._prompt_timeout = prompt_timeout
        self._made: tuple[bytes, list[bytes]] | None = None

    @property
    def get_info(self) -> bytes:
        """CBOR of the getInfo response map (CTAP 2.3 §6.4)."""
        return cbor.encode(
            {
                1: ["FIDO_2_0", "FIDO_2_1"],
                3: self._aaguid.bytes,
                4: {"rk": True, "up": True, "uv": True},
                5: MAX_MESSAGE_SIZE,  # absent would mean 1024 to some clients
                7: MAX_LIST_LENGTH,
                8: MAX_CREDENTIAL_ID_SIZE,
                9: ["hybrid", "internal"],
                10: [{"alg": algorithm, "type": PUBLIC_KEY} for algorithm in _ALGORITHMS],
            }
        )

    async def call(self, request: bytes, *, peer: Peer) -> bytes:
        """Answer one request. Cancelled while a prompt is open, it stores nothing."""
        self._made = None
        try:
            body = await self._answer(request, peer)
        except Rejected as rejected:
            return bytes([rejected.status])
        except VaultError as error:
            self.failure = error
            full = error.reason is VaultProblem.FULL
            return bytes([Status.KEY_STORE_FULL if full else Status.OTHER])
        return bytes([Status.OK]) + body

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

    async def _answer(self, request: bytes, peer: Peer) -> bytes:
        if len(request) > MAX_MESSAGE_SIZE:
            raise Rejected(Status.REQUEST_TOO_LARGE)
        if not request:
            raise Rejected(Status.OTHER)
        command, payload = request[0], request[1:]
        if command == Command.MAKE_CREDENTIAL:
            return await self._make_credential(MakeCredentialRequest.parse(payload), peer)
        if command == Command.GET_ASSERTION:
            return await self._get_assertion(GetAssertionRequest.parse(payload), peer)
        if command == Command.GET_INFO:
            if payload:
                raise Rejected(Status.OTHER)
            return self.get_info
        raise Rejected(Status.INVALID_COMMAND)

    async def _make_credential(self, request: MakeCredentialRequest, peer: Peer) -> bytes:
        await self._check_pin_parameter(request.pin_uv_auth_param, request.rp_id, request.rp_name, peer)
        algorithm = next((wanted for wanted in request.algorithms if wanted in _ALGORITHMS), None)
        if algorithm is None:
            raise Rejected(Status.UNSUPPORTED_ALGORITHM)
        if request.options.get("up") is False:
            raise Rejected(Status.INVALID_OPTION)
        usable = [credential for credential in self._store.credentials(request.rp_id) if credential.usable]
        excluded = any(credential.credential_id in request.exclude for credential in usable)
        replaced = [c.credential_id for c in usable if c.user_id == request.user_id and not excluded]
        account = Account(
            harmless(request.user_name), harmless(request.user_display_name), self._now(), synced=self._store.synced
        )
        prompt = self._prompt(
            Operation.CREATE, request.rp_id, request.rp_name, (account,), peer, replaces=len(replaced)
        )
        await self._approval(prompt)
        # Only after the person agreed: asked earlier, a stranger would learn which passkeys are here.
        if excluded:
            raise Rejected(Status.CREDENTIAL_EXCLUDED)
        key = self._new_key()
        credential = self._new_credential(request, algorithm, key)
        self._store.add(credential, superseding=replaced)
        self._made = credential.credential_id, replaced
        auth_data = self._auth_data(credential, _attested(self._aaguid, credential.credential_id, key))
        return cbor.encode({1: "none", 2: auth_data, 3: {}})

    async def _get_assertion(self, request: GetAssertionRequest, peer: Peer) -> bytes:
        await self._check_pin_parameter(request.pin_uv_auth_param, request.rp_id, "", peer)
        found = self._candidates(request.rp_id, request.allow)
        rp_name = found[0].rp_name if found else ""
        if not found:
            decision = await self._ask(
                self._prompt(Operation.NOTHING_FOUND, request.rp_id, rp_name, (), peer), when_late=Decision(True)
            )
            # Only when a person has seen it, and refused as a match would be: else this tells who has an account.
            raise Rejected(Status.NO_CREDENTIALS if decision.approved else Status.OPERATION_DENIED)
        accounts = tuple(_account(credential) for credential in found)
        prompt = self._prompt(Operation.SIGN_IN, request.rp_id, rp_name, accounts, peer)
        credential = found[await self._approval(prompt)]
        return self._assertion(request, credential)

    def _assertion(self, request: GetAssertionRequest, credential: Credential) -> bytes:
        auth_data = self._auth_data(credential)
        key = _loaded(credential.private_key)
        response: dict[int, Any] = {
            1: {"id": credential.credential_id, "type": PUBLIC_KEY},
            2: auth_data,
            3: key.sign(auth_data + request.client_data_hash, ec.ECDSA(hashes.SHA256())),
        }
        if request.allow is None:
            response[4] = {
                "id": credential.user_id,
                "name": credential.user_name,
                "displayName": credential.user_display_name,
            }
            response[6] = True  # userSelected: the client need not ask again
        try:
            self._store.note_use(credential.credential_id, self._now())
        except VaultError as error:
            # The count is for the owner's eyes only; a full disk must not lock anybody out.
            _log.debug("the use of a passkey is not recorded: %s", error)
        return cbor.encode(response)

    async def _check_pin_parameter(self, parameter: bytes | None, rp_id: str, rp_name: str, peer: Peer) -> None:
        if parameter is None:
            return
        if parameter:
            raise Rejected(Status.PIN_AUTH_INVALID)
        # An empty one is how CTAP 2.0 clients ask "is this the device you want?"; we have no PIN.
        decision = await self._ask(self._prompt(Operation.SELECT, rp_id, rp_name, (), peer))
        raise Rejected(Status.PIN_NOT_SET if decision.approved else Status.OPERATION_DENIED)

    async def _approval(self, prompt: Prompt) -> int:
        """Give the index of the account that a verified person agreed to."""
        decision = await self._ask(prompt)
        chosen = 0 <= decision.account < len(prompt.accounts)
        if not (decision.approved and decision.verified and chosen):
            raise Rejected(Status.OPERATION_DENIED)
        return decision.account

    async def _ask(self, prompt: Prompt, *, when_late: Decision | None = None) -> Decision:
        try:
            async with asyncio.timeout(self._prompt_timeout):
                return await self._consent.ask(prompt)
        except TimeoutError:
            if when_late is None:
                raise Rejected(Status.USER_ACTION_TIMEOUT) from None
            return when_late

    def _prompt(
        self,
        operation: Operation,
        rp_id: str,
        rp_name: str,
        accounts: tuple[Account, ...],
        peer: Peer,
        *,
        replaces: int = 0,
    ) -> Prompt:
        linked_name = None if peer.linked_name is None else harmless(peer.linked_name)
        return Prompt(
            operation=operation,
            rp_id=shown_rp_id(rp_id),
            rp_name=harmless(rp_name),
            accounts=accounts,
            saved_in=harmless(self._store.label, limit=4096),
            synced=self._store.synced,
            replaces=replaces,
            peer=replace(peer, linked_name=linked_name),
        )

    def _candidates(self, rp_id: str, allow: Collection[bytes] | None) -> list[Credential]:
        """Usable passkeys, newest first."""
        usable = [credential for credential in self._store.credentials(rp_id) if credential.usable]
        if allow is not None:
            usable = [credential for credential in usable if credential.credential_id in allow]
        return sorted(reversed(usable), key=lambda credential: -credential.created_at)

    def _new_key(self) -> ec.EllipticCurvePrivateKey:
        # FIPS 186-5 A.2.1: 64 bits more than the order has, so that the remainder is not skewed.
        scalar = int.from_bytes(self._random(40), "big") % (_P256_ORDER - 1) + 1
        return ec.derive_private_key(scalar, ec.SECP256R1())

    def _new_credential(
        self, request: MakeCredentialRequest, algorithm: int, key: ec.EllipticCurvePrivateKey
    ) -> Credential:
        now = self._now()
        return Credential(
            credential_id=self._random(_CREDENTIAL_ID_SIZE),
            rp_id=request.rp_id,
            rp_name=_truncated(request.rp_name),
            user_id=request.user_id,
            user_name=_truncated(request.user_name),
            user_display_name=_truncated(request.user_display_name),
            algorithm=algorithm,
            private_key=key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
            created_at=now,
            modified_at=now,
            backup_eligible=self._store.synced,
            backed_up=self._store.synced,
        )

    def _auth_data(self, credential: Credential, attested: bytes = b"") -> bytes:
        """Authenticator data (WebAuthn Level 3 §6.1). Only reached after real user verification."""
        flags = _UP | _UV
        flags |= _BE if credential.backup_eligible else 0
        flags |= _BS if credential.backup_eligible and credential.backed_up else 0
        flags |= _AT if attested else 0
        return hashlib.sha256(credential.rp_id.encode()).digest() + bytes([flags]) + _COUNTER + attested

    def _now(self) -> int:
        return int(self._clock())


def _loaded(private_key: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_der_private_key(private_key, None)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise VaultError("a stored passkey has no usable key", VaultProblem.CORRUPT)
    return key


def _account(credential: Credential) -> Account:
    return Account(
        harmless(credential.user_name),
        harmless(credential.user_display_name),
        credential.created_at,
        credential.last_used_at,
        credential.backup_eligible,
    )


def _attested(aaguid: UUID, credential_id: bytes, key: ec.EllipticCurvePrivateKey) -> bytes:
    """Attested credential data (WebAuthn Level 3 §6.5.1)."""
    point = key.public_key().public_numbers()
    cose_key = {1: 2, 3: ES256, -1: 1, -2: point.x.to_bytes(32, "big"), -3: point.y.to_bytes(32, "big")}
    return aaguid.bytes + len(credential_id).to_bytes(2, "big") + credential_id + cbor.encode(cose_key)


def _truncated(name: str) -> str:
    """Cut at the last character that fits (CTAP 2.3 §6.1.2, long names are no error)."""
    return name.encode()[:_MAX_NAME_SIZE].decode(errors="ignore")
