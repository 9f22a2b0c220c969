"""authenticatorConfig: always ask for verification, the minimum length of a PIN (CTAP 2.3 §6.11).

No enterprise attestation and no vendor commands.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any

from hybrid import cbor
from hybrid.passkeys.members import optional, required, typed
from hybrid.passkeys.pin import MAX_PIN_SIZE, ClientPin, Permission
from hybrid.passkeys.rejected import Rejected
from hybrid.passkeys.requests import PinUvAuth
from hybrid.passkeys.state import StateKeeper
from hybrid.protocol.ctap import Command, Status

MAX_MIN_PIN_RP_IDS = 8


class Subcommand(IntEnum):
    """Subcommands of authenticatorConfig that we serve."""

    TOGGLE_ALWAYS_UV = 0x02
    SET_MIN_PIN_LENGTH = 0x03


class AuthenticatorConfig:
    """Changes the settings of one authenticator."""

    def __init__(self, state: StateKeeper, pin: ClientPin) -> None:
        self._state = state
        self._pin = pin

    def answer(self, fields: Mapping[Any, Any]) -> dict[int, Any]:
        """Serve authenticatorConfig. Raises `Rejected`."""
        number = required(fields, 1, int)
        params = optional(fields, 2, dict)
        auth = PinUvAuth.of(fields, param=4, protocol=3)
        try:
            subcommand = Subcommand(number)
        except ValueError:
            raise Rejected(Status.INVALID_SUBCOMMAND) from None
        # A fresh authenticator without a PIN may be configured by anybody, as it may be reset by anybody; but one that
        # always wants verification has to be told first that it no longer does.
        always_uv = self._state.now.always_uv and subcommand is not Subcommand.TOGGLE_ALWAYS_UV
        if self._pin.is_set or always_uv:
            if auth.param is None:
                raise Rejected(Status.PUAT_REQUIRED)
            message = b"\xff" * 32 + bytes([Command.CONFIG, number]) + (b"" if params is None else cbor.encode(params))
            self._pin.verify(auth, message, Permission.AUTHENTICATOR_CONFIGURATION)
        if subcommand is Subcommand.TOGGLE_ALWAYS_UV:
            self._state.change(always_uv=not self._state.now.always_uv)
        else:
            self._set_min_pin_length(params or {})
        return {}

    def _set_min_pin_length(self, params: Mapping[Any, Any]) -> None:
        state = self._state.now
        length = optional(params, 1, int)
        rp_ids = optional(params, 2, list)
        force = optional(params, 3, bool) or False
        if optional(params, 4, bool):
            raise Rejected(Status.INVALID_PARAMETER)  # no policy beyond the length
        if length is None:
            length = state.min_pin_length
        if length < state.min_pin_length or length > MAX_PIN_SIZE:
            raise Rejected(Status.PIN_POLICY_VIOLATION)
        if force and state.pin_hash is None:
            raise Rejected(Status.PIN_NOT_SET)
        if rp_ids is not None and len(rp_ids) > MAX_MIN_PIN_RP_IDS:
            raise Rejected(Status.KEY_STORE_FULL)
        force = force or state.force_pin_change or (state.pin_hash is not None and state.pin_length < length)
        names = state.min_pin_rp_ids if rp_ids is None else tuple(typed(name, str) for name in rp_ids)
        self._state.change(min_pin_length=length, min_pin_rp_ids=names, force_pin_change=force)
        if force:
            self._pin.void_token()
