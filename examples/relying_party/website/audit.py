"""What happened to accounts, append-only: the database refuses changes, and a hash chain shows a copy that was changed.

No secrets: no codes, tokens, challenges or signatures; a passkey is named by a short fingerprint of its id.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from examples.relying_party.website.database import Database


class Happened(StrEnum):
    """Kinds of entries."""

    ACCOUNT_MADE = "account-made"
    PASSKEY_ADDED = "passkey-added"
    PASSKEY_RENAMED = "passkey-renamed"
    PASSKEY_REMOVED = "passkey-removed"
    SIGNED_IN = "signed-in"
    CONFIRMED = "confirmed"
    SIGNED_OUT = "signed-out"
    BACKUP_CHANGED = "backup-changed"
    COPY_REPORTED = "copy-reported"
    REFUSED = "refused"
    CODES_MADE = "codes-made"
    RECOVERED = "recovered"
    RECOVERY_FAILED = "recovery-failed"
    ADMIN_OVERRIDE = "admin-override"


_DETAILS = frozenset(
    {
        "passkey",
        "name",
        "provider",
        "way",
        "transports",
        "be",
        "bs",
        "policy",
        "before",
        "reason",
        "by",
        "left",
        "count",
    }
)


_LOWEST = -(1 << 63)  # of SQLite's numbers; ours begin at 1, somebody else's need not


@dataclass(frozen=True, slots=True)
class Entry:
    """One line. `account`: its name, None if nobody's; `at`: seconds since 1970."""

    number: int
    at: int
    account: str | None
    event: Happened
    detail: dict[str, Any]


def fingerprint(credential_id: bytes) -> str:
    """A passkey's name in the log: enough to tell it from others, too little to look it up elsewhere."""
    return hashlib.sha256(credential_id).hexdigest()[:8]


class AuditLog:
    """Writes and shows the log."""

    def __init__(self, database: Database, clock: Callable[[], int]) -> None:
        self._database = database
        self._clock = clock
        # The file's version when lines were checked, the number to go on from, and the chain before it.
        self._checked: tuple[int, int, bytes] = (-1, _LOWEST, b"")

    def note(self, event: Happened, account: bytes | None = None, **detail: str | int | bool | None) -> None:
        """Append a line. Raises `ValueError` for a detail that is not on the list of harmless ones."""
        if not _DETAILS.issuperset(detail):
            raise ValueError(f"not for the log: {sorted(set(detail) - _DETAILS)}")
        last = self._database.row("SELECT number, chain FROM audit ORDER BY number DESC LIMIT 1")
        number, chain = (1, b"") if last is None else (last["number"] + 1, last["chain"])
        text = json.dumps({key: value for key, value in detail.items() if value is not None}, sort_keys=True)
        at = self._clock()
        self._database.run(
            "INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?)",
            *(number, at, account, event.value, text, _link(chain, number, at, account, event, text)),
        )

    def entries(self, account: bytes | None = None, *, limit: int = 200) -> list[Entry]:
        """The newest lines first, of one account or of all."""
        rows = self._database.rows(
            "SELECT audit.*, account.name FROM audit LEFT JOIN account ON account.id = audit.account"
            " WHERE ?1 IS NULL OR audit.account = ?1 ORDER BY number DESC LIMIT ?2",
            *(account, limit),
        )
        return [
            Entry(row["number"], row["at"], row["name"], Happened(row["event"]), json.loads(row["detail"]))
            for row in rows
        ]

    def intact(self) -> bool:
        """Whether every line is as it was written, in order, from the first on. A cut-off end does not show.

        Looks only at what has come since it looked last, unless somebody else has written to the file.
        """
        now = self._database.version
        version, number, chain = self._checked
        if version != now:
            number, chain = _LOWEST, b""
        for row in self._database.rows("SELECT * FROM audit WHERE number >= ? ORDER BY number", number):
            link = _link(chain, row["number"], row["at"], row["account"], row["event"], row["detail"])
            if row["chain"] != link:
                return False
            number, chain = row["number"] + 1, link
        self._checked = (now, number, chain)
        return True


def _link(before: bytes, number: int, at: int, account: bytes | None, event: str, detail: str) -> bytes:
    line = json.dumps([number, at, None if account is None else account.hex(), str(event), detail])
    return hashlib.sha256(before + line.encode()).digest()
