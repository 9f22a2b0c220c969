"""What the phone holds: the CTAP2 engine, its store, the person in front. Knows no tunnel."""

from __future__ import annotations

from hybrid.passkeys.aaguids import AAGUID
from hybrid.passkeys.consent import AlwaysApprove, Consent, Decision, NeverApprove, Prompt
from hybrid.passkeys.engine import SoftwareAuthenticator
from hybrid.passkeys.profiles import PHONE, ROAMING, Profile
from hybrid.passkeys.store import Credential, CredentialStore, MemoryStore
from hybrid.passkeys.vault import Vault, open_vault

__all__ = [
    "AAGUID",
    "PHONE",
    "ROAMING",
    "AlwaysApprove",
    "Consent",
    "Credential",
    "CredentialStore",
    "Decision",
    "MemoryStore",
    "NeverApprove",
    "Profile",
    "Prompt",
    "SoftwareAuthenticator",
    "Vault",
    "open_vault",
]
