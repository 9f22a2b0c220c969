"""The record of one passkey, what the engine needs from a place that keeps them, and a place in memory.

Not a file format: that is `hybrid.passkeys.vault`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol


class CredentialState(StrEnum):
    """Whether a passkey is offered."""

    ACTIVE = "active"
    UNCONFIRMED = "unconfirmed"  # made, but the answer did not reach the client; offered
    SUPERSEDED = "superseded"  # replaced by a newer one of the same account; kept, not offered
    HIDDEN = "hidden"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True, repr=False)
class Credential:
    """One passkey.

    `private_key`: PKCS#8 DER; `algorithm`: COSE number; times in seconds since 1970, `last_used_at` None before the
    first use; `use_count` is local and never sent; `backup_eligible` is fixed for life, `backed_up` may change and is
    never true without it.
    """

    credential_id: bytes
    rp_id: str
    rp_name: str
    user_id: bytes
    user_name: str
    user_display_name: str
    algorithm: int
    private_key: bytes
    created_at: int
    modified_at: int
    last_used_at: int | None = None
    use_count: int = 0
    backup_eligible: bool = False
    backed_up: bool = False
    state: CredentialState = CredentialState.ACTIVE

    @property
    def usable(self) -> bool:
        """Whether it is offered for sign-in and counts for an exclude list."""
        return self.state in (CredentialState.ACTIVE, CredentialState.UNCONFIRMED)

    def __repr__(self) -> str:
        return f"<Credential for {self.rp_id!r}, {self.state}>"


class CredentialStore(Protocol):
    """Keeps passkeys. A change is durable when its method returns; all may raise `VaultError`."""

    @property
    def label(self) -> str:
        """Where passkeys are kept, for people."""
        ...

    @property
    def synced(self) -> bool:
        """Whether new passkeys are copied to other devices."""
        ...

    def credentials(self, rp_id: str) -> list[Credential]:
        """Every record of this RP id in every state, in the order of their making."""
        ...

    def add(self, credential: Credential, *, superseding: Collection[bytes] = ()) -> None:
        """Keep a new passkey and archive those with the ids of `superseding`, both or neither."""
        ...

    def set_state(self, credential_ids: Collection[bytes], state: CredentialState, at: int) -> None:
        """Change the state of passkeys; unknown ids are passed over."""
        ...

    def note_use(self, credential_id: bytes, at: int) -> None:
        """Count a sign-in. It proves that the client got the passkey, so an unconfirmed one becomes active."""
        ...


class MemoryStore:
    """A `CredentialStore` that is gone with the process."""

    label = "the memory of this program"
    synced = False

    def __init__(self) -> None:
        self._credentials: dict[bytes, Credential] = {}

    def credentials(self, rp_id: str) -> list[Credential]:
        return [credential for credential in self._credentials.values() if credential.rp_id == rp_id]

    def add(self, credential: Credential, *, superseding: Collection[bytes] = ()) -> None:
        self.set_state(superseding, CredentialState.SUPERSEDED, credential.created_at)
        self._credentials[credential.credential_id] = credential

    def set_state(self, credential_ids: Collection[bytes], state: CredentialState, at: int) -> None:
        for credential_id in credential_ids:
            if credential_id in self._credentials:
                old = self._credentials[credential_id]
                self._credentials[credential_id] = replace(old, state=state, modified_at=at)

    def note_use(self, credential_id: bytes, at: int) -> None:
        if credential_id not in self._credentials:
            return
        old = self._credentials[credential_id]
        state = CredentialState.ACTIVE if old.state is CredentialState.UNCONFIRMED else old.state
        self._credentials[credential_id] = replace(old, state=state, last_used_at=at, use_count=old.use_count + 1)
