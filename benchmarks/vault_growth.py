"""How a vault grows: time and memory to open it, find a passkey and answer with it, for 10, 1,000 and 10,000 of them.

Each size has a process of its own, so that memory is its own, too. Argon2id at its default cost is measured beside:
opening has to do it, whatever is in the vault.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import resource
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from hybrid import cbor
from hybrid.events import Proximity
from hybrid.passkeys.consent import AlwaysApprove
from hybrid.passkeys.engine import SoftwareAuthenticator
from hybrid.passkeys.store import Credential
from hybrid.passkeys.vault import Vault, open_vault
from hybrid.passkeys.vault_file import KdfCost
from hybrid.passkeys.vault_keys import PassphraseKey
from hybrid.passkeys.vault_record import to_record
from hybrid.ports import Peer

SIZES = (10, 1_000, 10_000)
_PASSPHRASE = "correct horse"
_CHEAP = KdfCost(8, 1, 1)
_PEER = Peer(channel="qr", hint=None, linked_name=None, proximity=Proximity.SIMULATED)
_SITES = 5  # passkeys of one site
_COLUMNS = {
    "passkeys": 8,
    "file KiB": 9,
    "open ms": 9,
    "find ms": 9,
    "answer ms": 10,
    "add ms": 8,
    "memory MiB": 11,
}


@dataclass(frozen=True, slots=True)
class Growth:
    """Figures of one size: medians, and memory beyond that of a vault with nothing in it."""

    passkeys: int
    file_kib: float
    open_ms: float
    find_ms: float
    answer_ms: float
    add_ms: float
    memory_mib: float


def run(rounds: int) -> list[Growth]:
    """Measure every size."""
    return [_in_a_process(size, rounds) for size in SIZES]


def show(found: list[Growth]) -> None:
    """Print them as a table."""
    print("\nvault growth (opening without Argon2id's fixed time, which is below)")
    print("  " + "".join(f"{name:>{width}}" for name, width in _COLUMNS.items()))
    for growth in found:
        values = [getattr(growth, name) for name in Growth.__dataclass_fields__]
        print("  " + "".join(f"{value:>{width}.4g}" for value, width in zip(values, _COLUMNS.values(), strict=True)))
    print(f"  Argon2id at its default cost: {_argon2_ms():.4g} ms")


def _in_a_process(size: int, rounds: int) -> Growth:
    command = [sys.executable, "-m", "benchmarks.vault_growth", str(size), str(rounds)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return Growth(**json.loads(done.stdout))


def _argon2_ms() -> float:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vault"
        open_vault(path, PassphraseKey(_PASSPHRASE)).close()
        return _median_ms(3, lambda: open_vault(path, PassphraseKey(_PASSPHRASE)).close())


def _median_ms(rounds: int, work: Callable[[], object]) -> float:
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return median(times) * 1000


def _credential(number: int, key: bytes) -> Credential:
    return Credential(
        credential_id=hashlib.sha256(number.to_bytes(8, "big")).digest(),
        rp_id=f"site{number // _SITES}.example",
        rp_name="A site",
        user_id=number.to_bytes(16, "big"),
        user_name=f"user{number}@example.com",
        user_display_name=f"User {number}",
        algorithm=-7,
        private_key=key,
        created_at=1_800_000_000,
        modified_at=1_800_000_000,
        secret_uv=secrets.token_bytes(32),
        secret_no_uv=secrets.token_bytes(32),
    )


def _measure(size: int, rounds: int) -> Growth:
    key = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vault"
        _fill(path, size, key)
        base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

        def opened() -> Vault:
            return open_vault(path, PassphraseKey(_PASSPHRASE))

        vault = opened()
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base
        phone = SoftwareAuthenticator(vault, AlwaysApprove())
        wanted = _credential(size // 2, key)
        request = b"\x02" + cbor.encode({1: wanted.rp_id, 2: bytes(32)})

        def answer() -> None:
            if asyncio.run(phone.call(request, peer=_PEER))[0]:
                raise RuntimeError("the phone refused")

        return Growth(
            passkeys=size,
            file_kib=path.stat().st_size / 1024,
            open_ms=_median_ms(rounds, opened),
            find_ms=_median_ms(rounds, lambda: vault.find(wanted.credential_id)),
            answer_ms=_median_ms(rounds, answer),
            add_ms=_median_ms(rounds, lambda: vault.add(_credential(secrets.randbits(60), key))),
            memory_mib=memory / 1024,
        )


def _fill(path: Path, size: int, key: bytes) -> None:
    """In another process, whose memory does not count."""
    if sys.argv[-1] == "fill":
        vault = open_vault(path, PassphraseKey(_PASSPHRASE), cost=_CHEAP)
        with vault.change() as records:
            records.extend(to_record(_credential(number, key)) for number in range(size))
        return
    command = [sys.executable, "-m", "benchmarks.vault_growth", str(path), str(size), key.hex(), "fill"]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    if sys.argv[-1] == "fill":
        _fill(Path(sys.argv[1]), int(sys.argv[2]), bytes.fromhex(sys.argv[3]))
    else:
        growth = _measure(int(sys.argv[1]), int(sys.argv[2]))
        print(json.dumps({name: getattr(growth, name) for name in Growth.__dataclass_fields__}))
