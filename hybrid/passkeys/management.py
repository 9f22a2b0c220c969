"""authenticatorCredentialManagement: list, rename and remove discoverable passkeys (CTAP 2.3 §6.8).

A removed passkey is archived by its store, as everywhere. Where a listing stands is remembered for each channel, and
that of sites goes on while passkeys of one of them are listed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from enum import IntEnum
from typing import Any

from hybrid import cbor
from hybrid.passkeys.algorithms import cose_key
from hybrid.passkeys.members import optional, required
from hybrid.passkeys.names import truncated
from hybrid.passkeys.pin import ClientPin, Permission
from hybrid.passkeys.rejected import Rejected
from hybrid.passkeys.requests import PUBLIC_KEY, PinUvAuth, descriptor_id
from hybrid.passkeys.state import StateKeeper
from hybrid.passkeys.store import Credential, CredentialState, CredentialStore
from hybrid.protocol.ctap import Status

CAPACITY = 1000  # discoverable passkeys; a promise to clients, not a limit of any store


class Subcommand(IntEnum):
    """Subcommands of authenticatorCredentialManagement."""

    GET_METADATA = 0x01
    ENUMERATE_RPS_BEGIN = 0x02
    ENUMERATE_RPS_NEXT = 0x03
    ENUMERATE_CREDENTIALS_BEGIN = 0x04
    ENUMERATE_CREDENTIALS_NEXT = 0x05
    DELETE = 0x06
    UPDATE_USER = 0x07


_READ_ONLY = (Subcommand.GET_METADATA, Subcommand.ENUMERATE_RPS_BEGIN, Subcommand.ENUMERATE_CREDENTIALS_BEGIN)


class CredentialManagement:
    """Serves one authenticator's passkeys to whoever has a token for it. `now` gives seconds since 1970."""

    def __init__(self, store: CredentialStore, state: StateKeeper, pin: ClientPin, now: Callable[[], int]) -> None:
        self._store = store
        self._state = state
        self._pin = pin
        self._now = now
        self._listings: dict[Hashable, dict[Subcommand, list[dict[int, Any]]]] = {}

    def power_cycle(self) -> None:
        """Forget every listing that is under way."""
        self._listings.clear()

    def end_listing(self, channel: Hashable) -> None:
        """Another command came on this channel."""
        self._listings.pop(channel, None)

    def discoverable(self) -> list[Credential]:
        """Every passkey that counts."""
        return [credential for credential in self._store.credentials() if credential.usable and credential.discoverable]

    def answer(self, fields: Mapping[Any, Any], channel: Hashable) -> dict[int, Any]:
        """Serve authenticatorCredentialManagement. Raises `Rejected`."""
        number = required(fields, 1, int)
        try:
            subcommand = Subcommand(number)
        except ValueError:
            raise Rejected(Status.INVALID_SUBCOMMAND) from None
        if subcommand in (Subcommand.ENUMERATE_RPS_NEXT, Subcommand.ENUMERATE_CREDENTIALS_NEXT):
            return self._next(subcommand, channel)
        params = optional(fields, 2, dict) or {}
        auth = PinUvAuth.of(fields, param=4, protocol=3)
        if auth.param is None:
            raise Rejected(Status.PUAT_REQUIRED)
        message = bytes([number]) + (cbor.encode(fields[2]) if 2 in fields else b"")
        limited = True  # to the site of the token
        if subcommand in _READ_ONLY and self._pin.verified_by_persistent_token(auth, message):
            limited = False
        else:
            self._pin.verify(auth, message, Permission.CREDENTIAL_MANAGEMENT)
        match subcommand:
            case Subcommand.GET_METADATA:
                return self._metadata(limited)
            case Subcommand.ENUMERATE_RPS_BEGIN:
                return self._rps(limited, channel)
            case Subcommand.ENUMERATE_CREDENTIALS_BEGIN:
                return self._credentials(params, limited, channel)
            case Subcommand.DELETE:
                credential = self._named(params)
                self._store.set_state([credential.credential_id], CredentialState.DELETED, self._now())
            case _:
                self._update(params)
        self._state.passkeys_changed()
        return {}

    def _metadata(self, limited: bool) -> dict[int, Any]:
        if limited:
            self._pin.check_token_rp_id()
        count = len(self.discoverable())
        return {1: count, 2: max(0, CAPACITY - count)}

    def _rps(self, limited: bool, channel: Hashable) -> dict[int, Any]:
        if limited:
            self._pin.check_token_rp_id()
        names: dict[str, str] = {}
        for credential in self.discoverable():
            names[credential.rp_id] = credential.rp_name or names.get(credential.rp_id, "")
        entries: list[dict[int, Any]] = [
            {3: {"id": rp_id, **({"name": name} if name else {})}, 4: hashlib.sha256(rp_id.encode()).digest()}
            for rp_id, name in names.items()
        ]
        return self._first(entries, 5, Subcommand.ENUMERATE_RPS_NEXT, channel)

    def _credentials(self, params: Mapping[Any, Any], limited: bool, channel: Hashable) -> dict[int, Any]:
        rp_id_hash = required(params, 1, bytes)
        if limited:
            self._pin.check_token_rp_id(rp_id_hash=rp_id_hash)
        entries = [
            _entry(credential)
            for credential in self.discoverable()
            if hashlib.sha256(credential.rp_id.encode()).digest() == rp_id_hash
        ]
        return self._first(entries, 9, Subcommand.ENUMERATE_CREDENTIALS_NEXT, channel)

    def _first(
        self, entries: list[dict[int, Any]], total: int, following: Subcommand, channel: Hashable
    ) -> dict[int, Any]:
        if not entries:
            raise Rejected(Status.NO_CREDENTIALS)
        self._listings.setdefault(channel, {})[following] = entries[1:]
        return {**entries[0], total: len(entries)}

    def _next(self, subcommand: Subcommand, channel: Hashable) -> dict[int, Any]:
        rest = self._listings.get(channel, {}).get(subcommand)
        if not rest:
            raise Rejected(Status.NOT_ALLOWED)
        return rest.pop(0)

    def _named(self, params: Mapping[Any, Any]) -> Credential:
        credential_id = descriptor_id(required(params, 2, dict))
        credential = None if credential_id is None else self._store.find(credential_id)
        if credential is None or not (credential.usable and credential.discoverable):
            raise Rejected(Status.NO_CREDENTIALS)
        self._pin.check_token_rp_id(rp_id=credential.rp_id)
        return credential

    def _update(self, params: Mapping[Any, Any]) -> None:
        user = required(params, 3, dict)
        user_id = required(user, "id", bytes)
        name, display_name = optional(user, "name", str), optional(user, "displayName", str)
        credential = self._named(params)
        if user_id != credential.user_id:
            raise Rejected(Status.INVALID_PARAMETER)
        self._store.update(
            replace(
                credential,
                user_name=truncated(name or ""),
                user_display_name=truncated(display_name or ""),
                user_icon=None,
                modified_at=self._now(),
            )
        )


def _entry(credential: Credential) -> dict[int, Any]:
    user = {
        "id": credential.user_id,
        "name": credential.user_name,
        "displayName": credential.user_display_name,
        "icon": credential.user_icon,
    }
    entry: dict[int, Any] = {
        6: {key: value for key, value in user.items() if value},
        7: {"id": credential.credential_id, "type": PUBLIC_KEY},
        8: cose_key(credential.algorithm, credential.private_key),
        10: credential.cred_protect,
        12: credential.payments,
    }
    if credential.large_blob_key is not None:
        entry[11] = credential.large_blob_key
    return entry
