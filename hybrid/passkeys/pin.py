"""authenticatorClientPIN: the PIN, its retries and lock-out, and tokens with permissions (CTAP 2.3 §6.5).

Holds what a power cycle ends: key agreement, the token in use, wrong PINs in a row. The durable rest is in
`hybrid.passkeys.state`. No built-in user verification, so no token by it and no retries of it.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from typing import Any

from hybrid.passkeys.members import optional, required
from hybrid.passkeys.pin_protocols import TOKEN_SIZE, PinProtocol
from hybrid.passkeys.rejected import Rejected
from hybrid.passkeys.requests import PinUvAuth
from hybrid.passkeys.state import MAX_PIN_RETRIES, StateKeeper
from hybrid.protocol.ctap import Status

PROTOCOLS = (2, 1)  # the one we prefer first
MAX_PIN_SIZE = 63

_PADDED_PIN_SIZE = 64
_PIN_HASH_SIZE = 16
_WRONG_IN_A_ROW = 3
_FIRST_USE_WITHIN = 30.0  # seconds; "PIN/UV auth token state", initial usage time limit over USB
_LIFETIME = 600.0  # the same, maximum usage time period


class Permission(IntFlag):
    """What a token is good for ("Permissions")."""

    MAKE_CREDENTIAL = 0x01
    GET_ASSERTION = 0x02
    CREDENTIAL_MANAGEMENT = 0x04
    BIO_ENROLLMENT = 0x08
    LARGE_BLOB_WRITE = 0x10
    AUTHENTICATOR_CONFIGURATION = 0x20
    PERSISTENT_READ_ONLY = 0x40


_DEFINED = sum(Permission)
_BOUND_TO_RP_ID = Permission.MAKE_CREDENTIAL | Permission.GET_ASSERTION


class Subcommand(IntEnum):
    """Subcommands of authenticatorClientPIN that we serve."""

    GET_PIN_RETRIES = 0x01
    GET_KEY_AGREEMENT = 0x02
    SET_PIN = 0x03
    CHANGE_PIN = 0x04
    GET_PIN_TOKEN = 0x05
    GET_TOKEN_USING_UV = 0x06
    GET_TOKEN_WITH_PERMISSIONS = 0x09


@dataclass(slots=True)
class _Token:
    """`lasting`: came by the subcommand of CTAP 2.0, whose clients use one token for many commands."""

    value: bytes = field(repr=False)
    protocol: int
    permissions: Permission
    rp_id: str | None
    issued_at: float
    lasting: bool
    used: bool = False
    verified: bool = True


class ClientPin:
    """The PIN of one authenticator and the token that is in use, if any. `clock` gives seconds."""

    def __init__(self, state: StateKeeper, random: Callable[[int], bytes], clock: Callable[[], float]) -> None:
        self._state = state
        self._random = random
        self._clock = clock
        self.protocols = {version: PinProtocol(version, random) for version in PROTOCOLS}
        self._token: _Token | None = None
        self._wrong_in_a_row = 0

    def power_cycle(self) -> None:
        """Forget what does not outlive the power."""
        self._token = None
        self._wrong_in_a_row = 0
        for protocol in self.protocols.values():
            protocol.regenerate()

    def void_token(self) -> None:
        """End the token in use."""
        self._token = None

    @property
    def is_set(self) -> bool:
        return self._state.now.pin_hash is not None

    # --- the use of tokens -------------------------------------------------------------------------------------------

    def verify(self, auth: PinUvAuth, message: bytes, permission: Permission, rp_id: str | None = None) -> None:
        """Check that `auth` signs `message` with a token good for `permission` and, if given, `rp_id`.

        A token without an RP id is bound to the first one that makeCredential or getAssertion use it for. Raises
        `Rejected`.
        """
        protocol = self._protocol(auth)
        token = self._current()
        assert auth.param is not None
        # The order is that of the specification; each miss is answered alike, so that it tells nothing.
        if token is None or token.protocol != protocol.version:
            raise Rejected(Status.PIN_AUTH_INVALID)
        if not protocol.verify(token.value, message, auth.param) or not token.permissions & permission:
            raise Rejected(Status.PIN_AUTH_INVALID)
        if permission & _BOUND_TO_RP_ID:
            if not token.verified or token.rp_id not in (None, rp_id):
                raise Rejected(Status.PIN_AUTH_INVALID)
            token.rp_id = rp_id
        token.used = True

    def check_token_rp_id(self, *, rp_id: str | None = None, rp_id_hash: bytes | None = None) -> None:
        """Refuse a token that is bound to another site than this one, or, with no site, to any. Raises `Rejected`."""
        token = self._current()
        if token is None or token.rp_id is None:
            return
        wanted = hashlib.sha256(rp_id.encode()).digest() if rp_id is not None else rp_id_hash
        if wanted != hashlib.sha256(token.rp_id.encode()).digest():
            raise Rejected(Status.PIN_AUTH_INVALID)

    def verified_by_persistent_token(self, auth: PinUvAuth, message: bytes) -> bool:
        """Whether the token that only reads signed `message`."""
        protocol = self._protocol(auth)
        kept = self._state.now.persistent_token
        return kept is not None and auth.param is not None and protocol.verify(kept, message, auth.param)

    def person_was_present(self) -> None:
        """After a touch the token is spent, but for writing large blobs."""
        if self._token is not None and not self._token.lasting:
            self._token.permissions &= Permission.LARGE_BLOB_WRITE
            self._token.verified = False

    def _current(self) -> _Token | None:
        token = self._token
        if token is None:
            return None
        age = self._clock() - token.issued_at
        if not 0 <= age < (_LIFETIME if token.used else _FIRST_USE_WITHIN):
            self._token = None
        return self._token

    def _protocol(self, auth: PinUvAuth) -> PinProtocol:
        if auth.protocol is None:
            raise Rejected(Status.MISSING_PARAMETER)
        if auth.protocol not in self.protocols:
            raise Rejected(Status.INVALID_PARAMETER)
        return self.protocols[auth.protocol]

    # --- the command -------------------------------------------------------------------------------------------------

    def answer(self, fields: Mapping[Any, Any]) -> dict[int, Any]:
        """Serve authenticatorClientPIN. Raises `Rejected`."""
        auth = PinUvAuth.of(fields, param=4, protocol=1)
        number = required(fields, 2, int)
        try:
            subcommand = Subcommand(number)
        except ValueError:
            raise Rejected(Status.INVALID_SUBCOMMAND) from None
        if subcommand is Subcommand.GET_PIN_RETRIES:
            return self._retries()
        protocol = self._protocol(auth)
        match subcommand:
            case Subcommand.GET_KEY_AGREEMENT:
                return {1: protocol.public_key}
            case Subcommand.SET_PIN:
                return self._set_pin(fields, auth, protocol)
            case Subcommand.CHANGE_PIN:
                return self._change_pin(fields, auth, protocol)
            case Subcommand.GET_TOKEN_USING_UV:
                raise Rejected(Status.NOT_ALLOWED)  # there is no verification but by PIN
            case _:
                return self._get_token(fields, protocol, with_permissions=subcommand is not Subcommand.GET_PIN_TOKEN)

    def _retries(self) -> dict[int, Any]:
        state = self._state.now
        if state.pin_hash is None:
            raise Rejected(Status.PIN_NOT_SET)
        return {3: state.pin_retries, 4: self._wrong_in_a_row >= _WRONG_IN_A_ROW}

    def _set_pin(self, fields: Mapping[Any, Any], auth: PinUvAuth, protocol: PinProtocol) -> dict[int, Any]:
        peer, encrypted = required(fields, 3, dict), required(fields, 5, bytes)
        if auth.param is None:
            raise Rejected(Status.MISSING_PARAMETER)
        if self.is_set:
            raise Rejected(Status.PIN_AUTH_INVALID)
        shared = protocol.decapsulate(peer)
        if not protocol.verify(shared, encrypted, auth.param):
            raise Rejected(Status.PIN_AUTH_INVALID)
        self._keep(protocol.decrypt(shared, encrypted))
        return {}

    def _change_pin(self, fields: Mapping[Any, Any], auth: PinUvAuth, protocol: PinProtocol) -> dict[int, Any]:
        peer, encrypted, hash_enc = required(fields, 3, dict), required(fields, 5, bytes), required(fields, 6, bytes)
        if auth.param is None:
            raise Rejected(Status.MISSING_PARAMETER)
        self._check_may_try()
        shared = protocol.decapsulate(peer)
        if not protocol.verify(shared, encrypted + hash_enc, auth.param):
            raise Rejected(Status.PIN_AUTH_INVALID)
        self._check_pin(protocol, protocol.decrypt(shared, hash_enc))
        self._keep(protocol.decrypt(shared, encrypted))
        return {}

    def _get_token(self, fields: Mapping[Any, Any], protocol: PinProtocol, *, with_permissions: bool) -> dict[int, Any]:
        peer, hash_enc = required(fields, 3, dict), required(fields, 6, bytes)
        if with_permissions:
            permissions, rp_id = _permissions(fields)
        else:
            if 9 in fields or 10 in fields:
                raise Rejected(Status.INVALID_PARAMETER)
            permissions, rp_id = _BOUND_TO_RP_ID, None
        self._check_may_try()
        shared = protocol.decapsulate(peer)
        self._check_pin(protocol, protocol.decrypt(shared, hash_enc))
        state = self._state.now
        if state.force_pin_change:
            raise Rejected(Status.PIN_POLICY_VIOLATION if with_permissions else Status.PIN_INVALID)
        if permissions & Permission.PERSISTENT_READ_ONLY:
            if state.persistent_token is None:
                state = self._state.change(persistent_token=self._random(TOKEN_SIZE))
            assert state.persistent_token is not None
            return {2: protocol.encrypt(shared, state.persistent_token)}
        value = self._random(TOKEN_SIZE)
        self._token = _Token(value, protocol.version, permissions, rp_id, self._clock(), lasting=not with_permissions)
        return {2: protocol.encrypt(shared, value)}

    def _check_may_try(self) -> None:
        state = self._state.now
        if state.pin_hash is None:
            raise Rejected(Status.PIN_NOT_SET)
        if state.pin_retries == 0:
            raise Rejected(Status.PIN_BLOCKED)
        if self._wrong_in_a_row >= _WRONG_IN_A_ROW:
            raise Rejected(Status.PIN_AUTH_BLOCKED)

    def _check_pin(self, protocol: PinProtocol, pin_hash: bytes) -> None:
        state = self._state.change(pin_retries=self._state.now.pin_retries - 1)  # before it is compared
        assert state.pin_hash is not None
        if hmac.compare_digest(state.pin_hash, pin_hash):
            self._wrong_in_a_row = 0
            self._state.change(pin_retries=MAX_PIN_RETRIES)
            return
        protocol.regenerate()
        self._wrong_in_a_row += 1
        if state.pin_retries == 0:
            raise Rejected(Status.PIN_BLOCKED)
        if self._wrong_in_a_row >= _WRONG_IN_A_ROW:
            raise Rejected(Status.PIN_AUTH_BLOCKED)
        raise Rejected(Status.PIN_INVALID)

    def _keep(self, padded: bytes) -> None:
        if len(padded) != _PADDED_PIN_SIZE:
            # A client of CTAP 2.0 pads a PIN that is too long to the next block.
            raise Rejected(Status.INVALID_PARAMETER if len(padded) < _PADDED_PIN_SIZE else Status.PIN_POLICY_VIOLATION)
        pin = padded.rstrip(b"\0")
        state = self._state.now
        try:
            length = len(pin.decode())
        except UnicodeDecodeError:
            raise Rejected(Status.PIN_POLICY_VIOLATION) from None
        pin_hash = hashlib.sha256(pin).digest()[:_PIN_HASH_SIZE]
        unchanged = state.force_pin_change and pin_hash == state.pin_hash
        if length < state.min_pin_length or len(pin) > MAX_PIN_SIZE or unchanged:
            raise Rejected(Status.PIN_POLICY_VIOLATION)
        self._state.change(
            pin_hash=pin_hash,
            pin_length=length,
            pin_retries=MAX_PIN_RETRIES,
            force_pin_change=False,
            persistent_token=None,
        )
        self.void_token()


def _permissions(fields: Mapping[Any, Any]) -> tuple[Permission, str | None]:
    number = required(fields, 9, int)
    rp_id = optional(fields, 10, str)
    if number <= 0:
        raise Rejected(Status.INVALID_PARAMETER)
    permissions = Permission(number & _DEFINED)  # those of later versions are ignored, as the specification has it
    if permissions & Permission.BIO_ENROLLMENT:
        raise Rejected(Status.UNAUTHORIZED_PERMISSION)  # there is nothing to enroll with
    if permissions & Permission.PERSISTENT_READ_ONLY and permissions != Permission.PERSISTENT_READ_ONLY:
        raise Rejected(Status.UNAUTHORIZED_PERMISSION)  # it outlives every other and stands alone
    return permissions, rp_id  # without an RP id it is bound at its first use
