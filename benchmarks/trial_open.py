"""Strangers' adverts against 100 keys, as a ratio to the one HMAC that each trial cannot do without."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time

from benchmarks.pairs import Pair, measure
from hybrid.protocol.eid import ADVERT_SIZE, trial_open
from hybrid.protocol.keys import EID_KEY_SIZE, EID_SIZE

_KEYS = 100
_ADVERTS = 200


def run(rounds: int) -> list[Pair]:
    keys = [secrets.token_bytes(EID_KEY_SIZE) for _ in range(_KEYS)]
    adverts = [secrets.token_bytes(ADVERT_SIZE) for _ in range(_ADVERTS)]

    def trials() -> float:
        start = time.perf_counter()
        for advert in adverts:
            for key in keys:
                trial_open(advert, key)
        return (time.perf_counter() - start) / (_ADVERTS * _KEYS)

    def bare() -> float:
        blocks = [(key[32:], advert[:EID_SIZE]) for advert in adverts for key in keys]
        start = time.perf_counter()
        for key, block in blocks:
            hmac.digest(key, block, hashlib.sha256)
        return (time.perf_counter() - start) / (_ADVERTS * _KEYS)

    return [measure("one trial-open (of 100 keys), against a bare HMAC-SHA-256", trials, bare, rounds)]
