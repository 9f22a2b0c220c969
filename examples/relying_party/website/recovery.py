"""A way back that depends on no provider: ten codes on paper, each good once."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable

from examples.relying_party.website.accounts import Account, Accounts, clean_name
from examples.relying_party.website.audit import AuditLog, Happened
from examples.relying_party.website.database import Database
from examples.relying_party.website.refused import Reason, Refused

CODES = 10
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's 32: no I, L, O or U
_CHARACTERS = 20  # of 5 bits: 100 bits, so a fast hash is enough; there is nothing to guess
_GROUP = 5
_MISREAD = str.maketrans("OIL", "011")

_MAX_FAILURES = 5
_FAILURE_WINDOW = 900  # seconds


class Recovery:
    """Makes and takes recovery codes."""

    def __init__(self, database: Database, accounts: Accounts, audit: AuditLog, clock: Callable[[], int]) -> None:
        self._database = database
        self._accounts = accounts
        self._audit = audit
        self._clock = clock

    def new_codes(self, account: Account) -> list[str]:
        """Ten new codes, to be shown once; those before are void."""
        codes = [_new_code() for _ in range(CODES)]
        with self._database.transaction():
            self._database.run("DELETE FROM recovery_code WHERE account = ?", account.id)
            for code in codes:
                self._database.run("INSERT INTO recovery_code VALUES (?, ?, NULL)", _hashed(account, code), account.id)
            self._audit.note(Happened.CODES_MADE, account.id, count=CODES)
        return codes

    def left(self, account: Account) -> int:
        row = self._database.row(
            "SELECT count(*) AS n FROM recovery_code WHERE account = ? AND used IS NULL", account.id
        )
        return int(row["n"]) if row is not None else 0

    def use(self, name: object, code: object, *, source: str) -> Account:
        """Take a code; give the account that it opens. Its sessions end. `source`: address of whoever tries.

        Raises `Refused`, the same for a name that does not exist and a code that does not match.
        """
        if not isinstance(code, str):
            raise Refused(Reason.BAD_REQUEST)
        self._check_pace(source)
        account = self._accounts.named(clean_name(name))
        # One statement takes the code: of two requests with the same one, only one finds it unused.
        taken = account is not None and self._database.run(
            "UPDATE recovery_code SET used = ? WHERE hash = ? AND used IS NULL",
            *(self._clock(), _hashed(account, code)),
        )
        if account is None or not taken:
            self._database.run("INSERT INTO recovery_failure VALUES (?, ?)", source, self._clock())
            self._audit.note(Happened.RECOVERY_FAILED, None if account is None else account.id)
            raise Refused(Reason.RECOVERY_CODE)
        with self._database.transaction():
            ended = self._database.run("DELETE FROM session WHERE account = ?", account.id)
            self._audit.note(Happened.RECOVERED, account.id, left=self.left(account), count=ended)
        return account

    def _check_pace(self, source: str) -> None:
        # By address, not by account: nobody can guess 100 bits, but anybody could lock an account's owner out.
        since = self._clock() - _FAILURE_WINDOW
        self._database.run("DELETE FROM recovery_failure WHERE at <= ?", since)
        row = self._database.row("SELECT count(*) AS n FROM recovery_failure WHERE source = ?", source)
        if row is not None and row["n"] >= _MAX_FAILURES:
            raise Refused(Reason.SLOW_DOWN)


def _new_code() -> str:
    letters = "".join(secrets.choice(_ALPHABET) for _ in range(_CHARACTERS))
    return "-".join(letters[at : at + _GROUP] for at in range(0, _CHARACTERS, _GROUP))


def _hashed(account: Account, code: str) -> bytes:
    letters = "".join(char for char in code.upper().translate(_MISREAD) if char in _ALPHABET)
    return hashlib.sha256(b"recovery code" + account.id + letters.encode()).digest()
