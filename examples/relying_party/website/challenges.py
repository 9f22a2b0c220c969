"""Challenges: good for one answer, from the browser that asked, for five minutes, for what they were made for."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable
from enum import StrEnum
from typing import Any

from examples.relying_party.website.database import Database
from examples.relying_party.website.refused import Reason, Refused

CHALLENGE_SIZE = 32


class Purpose(StrEnum):
    """What a challenge was handed out for; it is good for nothing else."""

    OPEN_ACCOUNT = "open-account"
    ADD_PASSKEY = "add-passkey"
    SIGN_IN = "sign-in"
    CONFIRM = "confirm"


class Challenges:
    """Hands challenges out and takes them back. They are kept hashed, like everything that opens something."""

    def __init__(self, database: Database, clock: Callable[[], int], lifetime: int) -> None:
        self._database = database
        self._clock = clock
        self._lifetime = lifetime

    def new(self) -> bytes:
        return secrets.token_bytes(CHALLENGE_SIZE)

    def keep(self, challenge: bytes, purpose: Purpose, browser: str, state: dict[str, Any]) -> None:
        """Remember a challenge with what its answer needs. `browser`: from the cookie of whoever asked."""
        now = self._clock()
        self._database.run("DELETE FROM challenge WHERE expires <= ?", now)
        self._database.run(
            "INSERT INTO challenge VALUES (?, ?, ?, ?, ?)",
            *(_hashed(challenge), _hashed(browser.encode()), purpose.value, json.dumps(state), now + self._lifetime),
        )

    def take(self, challenge: bytes, purpose: Purpose, browser: str) -> dict[str, Any]:
        """Give the state kept with a challenge; from now on it is unknown, whatever becomes of the answer.

        Raises `Refused`: used, expired, never made, for another purpose or another browser.
        """
        row = self._database.row("DELETE FROM challenge WHERE hash = ? RETURNING *", _hashed(challenge))
        good = (
            row is not None
            and row["expires"] > self._clock()
            and row["purpose"] == purpose.value
            and row["browser"] == _hashed(browser.encode())
        )
        if row is None or not good:
            raise Refused(Reason.CHALLENGE)
        state: dict[str, Any] = json.loads(row["state"])
        return state


def _hashed(value: bytes) -> bytes:
    return hashlib.sha256(value).digest()
