"""Why the website says no, each with its own sentence: one that helps its user, and does not help anybody else."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Stable names, for the page's script and the tests."""

    BAD_REQUEST = "bad-request"
    FOREIGN_REQUEST = "foreign-request"
    NAME_TAKEN = "name-taken"
    CHALLENGE = "challenge"
    ORIGIN = "origin"
    FRAMED = "framed"
    INVALID_ANSWER = "invalid-answer"
    NOT_VERIFIED = "not-verified"
    ALGORITHM = "algorithm"
    BACKUP_FLAGS = "backup-flags"
    BACKUP_CHANGED = "backup-changed"
    KNOWN_PASSKEY = "known-passkey"
    UNKNOWN_PASSKEY = "unknown-passkey"
    USER_HANDLE = "user-handle"
    COUNTER = "counter"
    NOT_DEVICE_BOUND = "not-device-bound"
    ATTESTATION = "attestation"
    LAST_PASSKEY = "last-passkey"
    TOO_FEW = "too-few"
    RECOVERY_CODE = "recovery-code"
    SLOW_DOWN = "slow-down"
    SIGNED_OUT = "signed-out"
    NOT_FRESH = "not-fresh"
    ADD_PASSKEY_FIRST = "add-passkey-first"
    NOT_ADMIN = "not-admin"


_SENTENCES = {
    Reason.BAD_REQUEST: "this request is not one that this website understands",
    Reason.FOREIGN_REQUEST: "this request comes from another website; open the page here and try again",
    Reason.NAME_TAKEN: "this name is taken; choose another one",
    Reason.CHALLENGE: "this attempt is too old, or was used already; try again",
    Reason.ORIGIN: "the answer was made for another website",
    Reason.FRAMED: "the answer was made inside somebody else's page",
    Reason.INVALID_ANSWER: "the answer does not check out; try again",
    Reason.NOT_VERIFIED: "the device did not check who you are; set up its screen lock and try again",
    Reason.ALGORITHM: "the passkey uses an algorithm that was not asked for",
    Reason.BACKUP_FLAGS: "the device contradicts itself about its backup",
    Reason.BACKUP_CHANGED: "this passkey was made to stay on one device, or not to, and now says the opposite; "
    "use another passkey and remove this one",
    Reason.KNOWN_PASSKEY: "this passkey is registered already",
    Reason.UNKNOWN_PASSKEY: "this passkey is not known here, or was removed; use another one",
    Reason.USER_HANDLE: "the answer names another account than the one that this passkey belongs to",
    Reason.COUNTER: "the counter of this passkey went backwards, so it may have been copied; "
    "use another one and remove this one",
    Reason.NOT_DEVICE_BOUND: "this account takes only passkeys that stay on one device, and this one is synced",
    Reason.ATTESTATION: "nobody that this website trusts vouches for the device that made this passkey",
    Reason.LAST_PASSKEY: "this is the last way into your account; add another passkey or new recovery codes first",
    Reason.TOO_FEW: "an administrator keeps at least two passkeys; add another one first",
    Reason.RECOVERY_CODE: "name and code do not match, or the code was used; each code works once",
    Reason.SLOW_DOWN: "too many attempts; wait a quarter of an hour and try again",
    Reason.SIGNED_OUT: "you are signed out; sign in again",
    Reason.NOT_FRESH: "confirm with a passkey that it is you, then go on",
    Reason.ADD_PASSKEY_FIRST: "add a passkey first",
    Reason.NOT_ADMIN: "this page is for administrators",
}

_STATUS = {
    Reason.SIGNED_OUT: 401,
    Reason.NOT_FRESH: 403,
    Reason.FOREIGN_REQUEST: 403,
    Reason.NOT_ADMIN: 403,
    Reason.ADD_PASSKEY_FIRST: 403,
    Reason.SLOW_DOWN: 429,
}


class Refused(Exception):
    """The website does not do it. `reason` tells programs why, `str()` people."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(_SENTENCES[reason])
        self.reason = reason

    @property
    def status(self) -> int:
        """HTTP status code."""
        return _STATUS.get(self.reason, 400)
