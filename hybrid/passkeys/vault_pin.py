"""The PIN that is kept with a vault and tells its owner from others at the keyboard.

It stands for user verification, nothing else: in a vault that is not encrypted it does not protect the keys from
somebody who can read the file. Not the PIN of CTAP's clientPIN command, which phones do not have over hybrid.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable

from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from hybrid.errors import VaultError, VaultProblem
from hybrid.passkeys.consent import normal_pin
from hybrid.passkeys.vault import Vault
from hybrid.passkeys.vault_file import Record

_KIND = "pin"
_SALT_SIZE = 16
_HASH_SIZE = 32
_N, _R, _P = 1 << 15, 8, 1  # 32 MiB and about a tenth of a second
_MAX_MEMORY = 256 << 20  # of parameters in a file that somebody made up
_MAX_P = 16

_FREE_TRIES = 3
_FIRST_WAIT = 30
_LONGEST_WAIT = 3600


class VaultPin:
    """The PIN of `vault`; a `PinKeeper`. Wrong tries are counted in the file, before they are looked at.

    After three wrong ones in a row there is a wait of 30 s, doubled by each further one up to an hour. `clock` gives
    seconds since 1970.
    """

    def __init__(
        self,
        vault: Vault,
        *,
        clock: Callable[[], float] = time.time,
        random: Callable[[int], bytes] = secrets.token_bytes,
        cost: int = _N,
    ) -> None:
        self._vault = vault
        self._clock = clock
        self._random = random
        self._cost = cost

    @property
    def is_set(self) -> bool:
        return _find(self._vault.records(_KIND)) is not None

    def wait_seconds(self) -> int:
        record = _find(self._vault.records(_KIND))
        return 0 if record is None else self._wait(record)

    def set(self, pin: str) -> bool:
        salt = self._random(_SALT_SIZE)
        digest = _scrypt(pin, salt, self._cost, _R, _P)
        with self._vault.change(_KIND) as records:
            if _find(records) is not None:
                return False
            records.append(
                {
                    "kind": _KIND,
                    "salt": salt,
                    "n": self._cost,
                    "r": _R,
                    "p": _P,
                    "hash": digest,
                    "failures": 0,
                    "last_failure": 0,
                }
            )
        return True

    def check(self, pin: str) -> bool:
        with self._vault.change(_KIND) as records:
            record = _find(records)
            if record is None or self._wait(record):
                return False
            # Counted first, so that ending the program in time does not give another try.
            record["failures"] += 1
            record["last_failure"] = int(self._clock())
        digest = _scrypt(pin, record["salt"], record["n"], record["r"], record["p"])
        if not hmac.compare_digest(digest, record["hash"]):
            return False
        with self._vault.change(_KIND) as records:
            record = _find(records)
            if record is not None:
                record["failures"] = 0
        return True

    def _wait(self, record: Record) -> int:
        further = record["failures"] - _FREE_TRIES
        if further < 0:
            return 0
        delay: int = min(_FIRST_WAIT << min(further, 16), _LONGEST_WAIT)
        passed = max(0, int(self._clock()) - int(record["last_failure"]))
        return max(0, delay - passed)


def _find(records: list[Record]) -> Record | None:
    for record in records:
        if record["kind"] == _KIND:
            _check(record)
            return record
    return None


def _check(record: Record) -> None:
    def number(name: str, least: int) -> int:
        value = record.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise _unusable()
        return value

    n, r, p = number("n", 2), number("r", 1), number("p", 1)
    number("failures", 0)
    number("last_failure", 0)
    sizes = {"salt": _SALT_SIZE, "hash": _HASH_SIZE}
    if any(type(record.get(name)) is not bytes or len(record[name]) != size for name, size in sizes.items()):
        raise _unusable()
    if n & (n - 1) or 128 * n * r > _MAX_MEMORY or p > _MAX_P:
        raise _unusable()


def _unusable() -> VaultError:
    return VaultError("the PIN kept with the vault is damaged", VaultProblem.CORRUPT)


def _scrypt(pin: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    text = normal_pin(pin).encode(errors="replace")
    return Scrypt(salt=salt, length=_HASH_SIZE, n=n, r=r, p=p).derive(text)
