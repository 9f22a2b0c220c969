"""Which passkeys an account takes, by its class.

BE, the flag behind it, is a claim of the device: without attestation by a root that one trusts, nobody proves it.
"""

from __future__ import annotations

from enum import StrEnum

from examples.relying_party.website.refused import Reason


class Policy(StrEnum):
    """Classes of accounts."""

    ANY = "any"
    DEVICE_BOUND = "device-bound"
    ADMIN = "admin"

    @property
    def label(self) -> str:
        return {"any": "Personal", "device-bound": "Device-bound", "admin": "Administrator"}[self.value]

    @property
    def explanation(self) -> str:
        return {
            "any": "Any passkey will do, also one that a password manager copies to your other devices.",
            "device-bound": "Only passkeys that stay on the device that made them.",
            "admin": "Only passkeys that stay on one device, and at least two of them.",
        }[self.value]

    @property
    def passkeys_needed(self) -> int:
        """With fewer, signing in is good for adding one and nothing else."""
        return 2 if self is Policy.ADMIN else 1

    def objection(self, *, backup_eligible: bool, trusted: bool, attestation_required: bool) -> Reason | None:
        """What speaks against a passkey, at registration and at every sign-in.

        `trusted`: a root that this website trusts vouched for the device that made it.
        """
        if self is Policy.ANY:
            return None
        if backup_eligible:
            return Reason.NOT_DEVICE_BOUND
        if attestation_required and not trusted:
            return Reason.ATTESTATION
        return None
