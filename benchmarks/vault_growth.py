"""How a store grows: time and memory to open it, find a passkey and answer with it, for 10, 1,000 and 10,000 of them.

A vault, and a KeePass database beside it, which is another program's format: one document, compressed and encrypted
anew with every use. Each size has a process of its own, so that memory is its own, too. Argon2id at the default cost of
a vault is measured beside: opening has to do it, whatever is in the store.
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
from hybrid.passkeys import kdbx
from hybrid.passkeys.consent import AlwaysApprove
from hybrid.passkeys.engine import SoftwareAuthenticator
from hybrid.passkeys.portability import BulkStore
from hybrid.passkeys.store import Credential, CredentialStore
from hybrid.passkeys.vault import open_vault
from hybrid.passkeys.vault_file import KdfCost
from hybrid.passkeys.vault_keys import PassphraseKey
from hybrid.ports import Peer

SIZES = (10, 1_000, 10_000)
STORES = ("vault", "kdbx")
_PASSPHRASE = "correct horse"
_CHEAP = KdfCost(8, 1, 1)
_PEER = Peer(channel="qr", hint=None, linked_name=None, proximity=Proximity.SIMULATED)
_SITES = 5  # passkeys of one site
_COLUMNS = {
    "store": 6,
    "passkeys": 10,
    "file KiB": 9,
    "open ms": 9,
    "find ms": 9,
    "answer ms": 10,
    "add ms": 8,
    "memory MiB": 11,
}


@dataclass(frozen=True, slots=True)
class Growth:
    """Figures of one store and size: medians, and memory beyond that of a program with nothing open."""

    store: str
    passkeys: int
    file_kib: float
    open_ms: float
    find_ms: float
    answer_ms: float
    add_ms: float
    memory_mib: float


def run(rounds: int) -> list[Growth]:
    """Measure every store and size."""
    return [_in_a_process(store, size, rounds) for store in STORES for size in SIZES]


def show(found: list[Growth]) -> None:
    """Print them as a table."""
    print("\ngrowth of a vault and of a KeePass database (opening without Argon2id's fixed time, which is below)")
    print("  " + "".join(f"{name:>{width}}" for name, width in _COLUMNS.items()))
    for growth in found:
        values = [getattr(growth, name) for name in Growth.__dataclass_fields__]
        texts = [value if isinstance(value, str) else f"{value:.4g}" for value in values]
        print("  " + "".join(f"{text:>{width}}" for text, width in zip(texts, _COLUMNS.values(), strict=True)))
    print(f"  Argon2id at its default cost: {_argon2_ms():.4g} ms")


def _in_a_process(store: str, size: int, rounds: int) -> Growth:
    command = [sys.executable, "-m", "benchmarks.vault_growth", store, str(size), str(rounds)]
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


def _open(store: str, path: Path) -> CredentialStore:
    """Open a store, or make it."""
    if store == "vault":
        return open_vault(path, PassphraseKey(_PASSPHRASE), cost=_CHEAP)
    return kdbx.open_kdbx(path, kdbx.DatabaseKey(_PASSPHRASE), create=True, cost=kdbx.KdfCost(1 << 13, 1, 1))


def _measure(store: str, size: int, rounds: int) -> Growth:
    key = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / store
        # In another process, whose memory does not count.
        filling = [sys.executable, "-m", "benchmarks.vault_growth", store, str(path), str(size), key.hex()]
        subprocess.run(filling, check=True)
        base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        opened = _open(store, path)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base
        phone = SoftwareAuthenticator(opened, AlwaysApprove())
        wanted = _credential(size // 2, key)
        request = b"\x02" + cbor.encode({1: wanted.rp_id, 2: bytes(32)})

        def answer() -> None:
            if asyncio.run(phone.call(request, peer=_PEER))[0]:
                raise RuntimeError("the phone refused")

        return Growth(
            store=store,
            passkeys=size,
            file_kib=path.stat().st_size / 1024,
            open_ms=_median_ms(rounds, lambda: _open(store, path)),
            find_ms=_median_ms(rounds, lambda: opened.find(wanted.credential_id)),
            answer_ms=_median_ms(rounds, answer),
            add_ms=_median_ms(rounds, lambda: opened.add(_credential(secrets.randbits(60), key))),
            memory_mib=memory / 1024,
        )


def _fill(store: str, path: Path, size: int, key: bytes) -> None:
    opened = _open(store, path)
    assert isinstance(opened, BulkStore)
    opened.add_all([_credential(number, key) for number in range(size)])


if __name__ == "__main__":
    if len(sys.argv) == 5:
        _fill(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), bytes.fromhex(sys.argv[4]))
    else:
        growth = _measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
        print(json.dumps({name: getattr(growth, name) for name in Growth.__dataclass_fields__}))
