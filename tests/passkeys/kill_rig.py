"""``python -m tests.passkeys.kill_rig random|steps FOLDER COUNT SEED``: kills writers of a vault, prints what was left.

A process of its own, because it forks: writers start within milliseconds, with everything loaded. They tell over a pipe
which passkey a returned call has made; this is what an answer to a site would rest on.

`random`: pairs of writers share a vault, each gets a SIGKILL after a random time; COUNT kills. `steps`: a writer kills
itself before its Nth call to the system, for every N that one write has; COUNT writes.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from hybrid.passkeys.store import Credential, CredentialState
from hybrid.passkeys.vault import Vault, open_vault
from hybrid.passkeys.vault_file import KdfCost
from hybrid.passkeys.vault_keys import PassphraseKey

PASSPHRASE = "correct horse"
CHEAP = KdfCost(8, 1, 1)
_NUMBER = 8  # bytes a confirmation has
_KILLS_PER_VAULT = 100
_LONGEST = 0.02  # seconds a writer lives after its first passkey
_STEPS = ("open", "fsync", "link", "replace", "unlink", "pwrite", "close")


@dataclass
class Figures:
    """What came of it. `lost`: confirmed and not there; `torn`: there and not as it was made."""

    kills: int = 0
    in_mid_write: int = 0  # so many left a temporary file behind
    confirmed: int = 0
    kept_unconfirmed: int = 0
    lost: int = 0
    torn: int = 0
    unreadable: int = 0


def credential(number: int) -> Credential:
    """A passkey that anybody can tell whole from its number."""
    return Credential(
        credential_id=number.to_bytes(16, "big"),
        rp_id=f"site{number % 7}.example",
        rp_name="",
        user_id=number.to_bytes(8, "big"),
        user_name=f"user {number}",
        user_display_name="",
        algorithm=-7,
        private_key=random.Random(number).randbytes(138),
        created_at=number,
        modified_at=number,
    )


def opened(path: Path) -> Vault:
    return open_vault(path, PassphraseKey(PASSPHRASE), cost=CHEAP)


def check(path: Path, confirmed: set[int], figures: Figures) -> set[int]:
    """Look for every confirmed passkey, and at every one that is there. Gives the numbers that are there."""
    try:
        with opened(path) as vault:
            found = {int.from_bytes(one.credential_id, "big"): one for one in vault.credentials()}
    except Exception as error:  # whatever it is, it is what this rig is for
        print(f"unreadable: {error!r}", file=sys.stderr)
        figures.unreadable += 1
        return set()
    figures.lost += len(confirmed - found.keys())
    for number, one in found.items():
        made = credential(number)
        told = replace(made, use_count=one.use_count, last_used_at=one.last_used_at)
        figures.torn += one not in (told, replace(told, state=CredentialState.HIDDEN, modified_at=made.modified_at + 1))
    return set(found)


# --- at random points -------------------------------------------------------------------------------------------------


def kill_at_random(folder: Path, count: int, seed: int) -> Figures:
    figures, dice = Figures(), random.Random(seed)
    while figures.kills < count:
        path = folder / f"vault-{figures.kills}"
        opened(path).close()
        confirmed: set[int] = set()
        end = min(count, figures.kills + _KILLS_PER_VAULT)
        while figures.kills < end:
            writers = [_start_writer(path, (figures.kills + one) << 32) for one in range(2)]
            confirmed |= _kill(writers, dice)
            figures.kills += len(writers)
            figures.in_mid_write += any(folder.glob(f".{path.name}.*.tmp"))
            check(path, confirmed, figures)
        figures.confirmed += len(confirmed)
        figures.kept_unconfirmed += len(check(path, confirmed, Figures())) - len(confirmed)
    return figures


def _start_writer(path: Path, first: int) -> tuple[int, int]:
    """Give its process id and the pipe it confirms on."""
    ours, theirs = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(ours)
        _write_for_ever(path, first, theirs)
    os.close(theirs)
    return process, ours


def _write_for_ever(path: Path, first: int, confirm: int) -> NoReturn:
    vault = opened(path)
    number = first
    while True:
        number += 1
        vault.add(credential(number))
        os.write(confirm, number.to_bytes(_NUMBER, "big"))
        vault.note_use(credential(number).credential_id, number)
        if number % 5 == 0:
            vault.set_state([credential(number).credential_id], CredentialState.HIDDEN, number + 1)
        vault.keep_setting("counter", number.to_bytes(8, "big"))


def _kill(writers: list[tuple[int, int]], dice: random.Random) -> set[int]:
    """Kill each at a time of its own, when all have confirmed a passkey. Gives the numbers that were confirmed."""
    told = [os.read(pipe, _NUMBER) for _, pipe in writers]
    start = time.monotonic()
    deaths = sorted((start + dice.uniform(0, _LONGEST), writer) for writer in writers)
    for moment, (process, _) in deaths:
        time.sleep(max(0.0, moment - time.monotonic()))  # the moment of the kill
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    confirmed = set()
    for (_, pipe), begin in zip(writers, told, strict=True):
        with open(pipe, "rb") as rest:
            data = begin + rest.read()
        if not data:
            raise RuntimeError("a writer ended by itself")
        confirmed |= {int.from_bytes(data[at : at + _NUMBER], "big") for at in range(0, len(data), _NUMBER)}
    return confirmed


# --- before every step ------------------------------------------------------------------------------------------------


def kill_at_steps(folder: Path, count: int) -> Figures:
    figures = Figures()
    path = folder / "vault"
    opened(path).close()
    confirmed: set[int] = set()
    for write in range(count):
        step = 0
        while True:
            step += 1
            number = (write << 32) + step
            process = os.fork()
            if process == 0:
                _write_until(path, number, step)
            killed = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
            figures.kills += killed
            figures.in_mid_write += killed and any(folder.glob(".vault.*.tmp"))
            if not killed:
                confirmed.add(number)
            found = check(path, confirmed, figures)
            figures.kept_unconfirmed += killed and number in found
            confirmed |= found  # what is there once must stay
            if not killed:
                break
    figures.confirmed = len(confirmed)
    return figures


def _write_until(path: Path, number: int, last_step: int) -> NoReturn:
    vault = opened(path)
    steps = 0

    def deadly(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == last_step:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **named)

        return call

    for name in _STEPS:
        setattr(os, name, deadly(getattr(os, name)))
    vault.add(credential(number))
    os._exit(0)


if __name__ == "__main__":
    how, where, many, first_seed = sys.argv[1:]
    place = Path(where)
    done = kill_at_steps(place, int(many)) if how == "steps" else kill_at_random(place, int(many), int(first_seed))
    print(json.dumps(done.__dict__))
