"""Who is signed in. Tokens are random and kept hashed: the database of yesterday signs nobody in."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from examples.relying_party.website.database import Database

_TOKEN_SIZE = 32
_ENROL_LIFETIME = 1800  # seconds


class Scope(StrEnum):
    """What a session is good for."""

    FULL = "full"
    ENROL = "enrol"  # adding a passkey, nothing else: after a recovery code, or while an account has too few


@dataclass(frozen=True, slots=True)
class Session:
    """One signed-in browser. `verified`: the last signature, in seconds since 1970; `passkey`: id of the one that
    began it."""

    hash: bytes
    account: bytes
    scope: Scope
    passkey: bytes | None
    verified: int


class Sessions:
    """Opens, finds and ends sessions."""

    def __init__(self, database: Database, clock: Callable[[], int], lifetime: int) -> None:
        self._database = database
        self._clock = clock
        self._lifetime = lifetime

    def open(self, account: bytes, scope: Scope, passkey: bytes | None) -> str:
        """Begin a session; give the token for its cookie. Always a new one, so nobody can plant a token before."""
        token = secrets.token_urlsafe(_TOKEN_SIZE)
        now = self._clock()
        lifetime = self._lifetime if scope is Scope.FULL else _ENROL_LIFETIME
        self._database.run("DELETE FROM session WHERE expires <= ?", now)
        self._database.run(
            "INSERT INTO session VALUES (?, ?, ?, ?, ?, ?)",
            *(_hashed(token), account, scope.value, passkey, now, now + lifetime),
        )
        return token

    def find(self, token: str | None) -> Session | None:
        if not token:
            return None
        row = self._database.row("SELECT * FROM session WHERE hash = ? AND expires > ?", _hashed(token), self._clock())
        if row is None:
            return None
        return Session(row["hash"], row["account"], Scope(row["scope"]), row["passkey"], row["verified"])

    def confirm(self, session: Session, passkey: bytes) -> None:
        """Its user has just signed again."""
        self._database.run(
            "UPDATE session SET verified = ?, passkey = ? WHERE hash = ?", self._clock(), passkey, session.hash
        )

    def widen(self, session: Session, passkey: bytes) -> None:
        """What was missing is there: the session becomes a full one."""
        self._database.run(
            "UPDATE session SET scope = ?, verified = ?, passkey = ?, expires = ? WHERE hash = ?",
            *(Scope.FULL.value, self._clock(), passkey, self._clock() + self._lifetime, session.hash),
        )

    def end(self, session: Session) -> None:
        self._database.run("DELETE FROM session WHERE hash = ?", session.hash)

    def end_all(self, account: bytes) -> int:
        """Sign an account out everywhere; give the number of sessions."""
        return self._database.run("DELETE FROM session WHERE account = ?", account)


def _hashed(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()
