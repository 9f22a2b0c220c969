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
    first use; `use_count` is local and never sent; `sign_count` is, None for the constant 0 of a phone;
    `backup_eligible` is fixed for life, `backed_up` may change and is never true without it; `discoverable`: found
    without its id; `cred_protect`: 1 to 3; `secret_uv`, `secret_no_uv`: 32-byte keys of prf and hmac-secret with and
    without user verification; `cred_blob`, `large_blob_key`: extension values; `large_blob`: compressed bytes and the
    size before compression; `payments`: usable for third-party payment; `aaguid`: 16 bytes of the maker, None for
    ours; `origin_store`: the format that it was imported from; `note`: of its owner; `user_icon`: the
    address of a picture, as clients of CTAP 2.0 send it.
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
    sign_count: int | None = None
    discoverable: bool = True
    cred_protect: int = 1
    secret_uv: bytes | None = None
    secret_no_uv: bytes | None = None
    cred_blob: bytes | None = None
    large_blob_key: bytes | None = None
    large_blob: tuple[bytes, int] | None = None
    payments: bool = False
    aaguid: bytes | None = None
    origin_store: str | None = None
    note: str | None = None
    user_icon: str | None = None

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

    def credentials(self, rp_id: str | None = None) -> list[Credential]:
        """Every record of this RP id, or of all, in every state, in the order of their making."""
        ...

    def find(self, credential_id: bytes) -> Credential | None:
        """The record with this id, in whatever state."""
        ...

    def add(self, credential: Credential, *, superseding: Collection[bytes] = ()) -> None:
        """Keep a new passkey and archive those with the ids of `superseding`, both or neither."""
        ...

    def set_state(self, credential_ids: Collection[bytes], state: CredentialState, at: int) -> None:
        """Change the state of passkeys; unknown ids are passed over."""
        ...

    def update(self, credential: Credential) -> None:
        """Put `credential` in the place of the record with its id; nothing happens if there is none."""
        ...

    def note_use(self, credential_id: bytes, at: int) -> None:
        """Count a sign-in. It proves that the client got the passkey, so an unconfirmed one becomes active."""
        ...

    def setting(self, name: str) -> bytes | None:
        """A value that the engine keeps beside the passkeys, e.g. its PIN state."""
        ...

    def keep_setting(self, name: str, value: bytes | None) -> None:
        """Keep such a value, or forget it."""
        ...


class MemoryStore:
    """A `CredentialStore` that is gone with the process."""

    label = "the memory of this program"
    synced = False

    def __init__(self) -> None:
        self._credentials: dict[bytes, Credential] = {}
        self._settings: dict[str, bytes] = {}

    def credentials(self, rp_id: str | None = None) -> list[Credential]:
        return [credential for credential in self._credentials.values() if rp_id in (None, credential.rp_id)]

    def find(self, credential_id: bytes) -> Credential | None:
        return self._credentials.get(credential_id)

    def update(self, credential: Credential) -> None:
        if credential.credential_id in self._credentials:
            self._credentials[credential.credential_id] = credential

    def setting(self, name: str) -> bytes | None:
        return self._settings.get(name)

    def keep_setting(self, name: str, value: bytes | None) -> None:
        if value is None:
            self._settings.pop(name, None)
        else:
            self._settings[name] = value

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
