"""What a roaming authenticator remembers beside its passkeys: the PIN, its counters, and what was configured.

Kept as one setting of the store, read anew each time, so that two processes on one vault agree. A wrong PIN is
counted durably before it is compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from hybrid import cbor
from hybrid.errors import RemoteProtocolError, VaultError, VaultProblem
from hybrid.passkeys.store import CredentialStore

MAX_PIN_RETRIES = 8
MIN_PIN_LENGTH = 4

_SETTING = "roaming"


@dataclass(frozen=True, slots=True)
class AuthenticatorState:
    """The durable state.

    `pin_hash`: the first 16 bytes of SHA-256 of the PIN, None before it is set; `pin_length` in characters;
    `min_pin_rp_ids`: who may read the minimum by extension; `persistent_token`: for reading the list of passkeys
    without asking for the PIN again; `identifier` and `store_state`: 16 bytes each that its holder may see.
    """

    pin_hash: bytes | None = field(default=None, repr=False)
    pin_length: int = 0
    pin_retries: int = MAX_PIN_RETRIES
    min_pin_length: int = MIN_PIN_LENGTH
    min_pin_rp_ids: tuple[str, ...] = ()
    force_pin_change: bool = False
    always_uv: bool = False
    persistent_token: bytes | None = field(default=None, repr=False)
    identifier: bytes = field(default=b"", repr=False)
    store_state: bytes = field(default=b"", repr=False)


class StateKeeper:
    """Reads and writes the state in `store`. All may raise `VaultError`."""

    def __init__(self, store: CredentialStore, random: Callable[[int], bytes]) -> None:
        self._store = store
        self._random = random

    @property
    def now(self) -> AuthenticatorState:
        """The state as it is kept."""
        kept = self._store.setting(_SETTING)
        return AuthenticatorState() if kept is None else _decoded(kept)

    def change(self, **changes: Any) -> AuthenticatorState:
        """Change some of it, durably."""
        state = replace(self.now, **changes)
        if not state.identifier:
            state = replace(state, identifier=self._random(16), store_state=self._random(16))
        self._store.keep_setting(_SETTING, cbor.encode(asdict(state)))
        return state

    def passkeys_changed(self) -> None:
        """Let holders of the persistent token see that the list of passkeys is not what it was."""
        if self.now.persistent_token is not None:
            self.change(store_state=self._random(16))

    def forget(self) -> None:
        """Be as new."""
        self._store.keep_setting(_SETTING, None)


def _decoded(kept: bytes) -> AuthenticatorState:
    try:
        members = cbor.decode_map(kept)
        return AuthenticatorState(**{**members, "min_pin_rp_ids": tuple(members["min_pin_rp_ids"])})
    except (RemoteProtocolError, TypeError, KeyError):
        raise VaultError("the authenticator's state in the vault is damaged", VaultProblem.CORRUPT) from None
