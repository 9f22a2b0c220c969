"""What is fuzzed of the phone's passkeys: requests, the vault's file, and the files of other managers.

A request may have any bytes and is answered with a status; everything else gives a value or a documented `HybridError`.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial

from hybrid import cbor
from hybrid.errors import HybridError
from hybrid.passkeys import vault_file
from hybrid.passkeys.bitwarden import read_bitwarden, write_bitwarden
from hybrid.passkeys.cxf import read_cxf, write_cxf
from hybrid.passkeys.engine import SoftwareAuthenticator
from hybrid.passkeys.keepassxc_file import read_passkey_file, write_passkey_file
from hybrid.passkeys.portability import Imported, import_into
from hybrid.passkeys.profiles import PHONE, ROAMING
from hybrid.passkeys.store import MemoryStore
from hybrid.passkeys.vault_record import to_credential, to_record
from hybrid.protocol.ctap import Status
from tests.passkeys.portability_rig import NOW, full, plain
from tests.passkeys.rig import PEER, create, phone, sign_in

_CHECKSUM = 32


def requests(data: bytes) -> None:
    """Requests to either profile, one after the other, each after a byte with its length."""
    store = MemoryStore()
    store.add(plain())
    authenticator = phone(store, profile=ROAMING if data[:1] > b"\x7f" else PHONE)
    left = data[1:]
    while left:
        size = left[0]
        asyncio.run(_answered(authenticator, left[1 : 1 + size]))
        left = left[1 + size :]


async def _answered(authenticator: SoftwareAuthenticator, request: bytes) -> None:
    answer = await authenticator.call(request, peer=PEER)
    assert Status(answer[0]) is Status.OK or len(answer) == 1
    if len(answer) > 1:
        assert cbor.encode(cbor.decode_map(answer[1:])) == answer[1:]


def vault(data: bytes) -> None:
    """A file as it comes, and in clear with a checksum that is right."""
    for file in (data, data[:-_CHECKSUM] + hashlib.sha256(data[:-_CHECKSUM]).digest()):
        with suppress(HybridError, vault_file.UnreadableFile):
            head = vault_file.parse_head(file)
            body = vault_file.open_body(head, file, None)
            for record in vault_file.decode_records(body.records):
                to_credential(record)


def _file(read: Callable[..., Imported], data: bytes) -> None:
    with suppress(HybridError):
        import_into(MemoryStore(), read(data, now=NOW)).as_json()


TARGETS: dict[str, Callable[[bytes], None]] = {
    "bitwarden": partial(_file, read_bitwarden),
    "cxf": partial(_file, read_cxf),
    "passkey-file": partial(_file, read_passkey_file),
    "requests": requests,
    "vault": vault,
}


@cache
def seeds(name: str) -> list[bytes]:
    """Where fuzzing of a target starts."""
    some = [plain(), plain(number=2), full()]
    match name:
        case "requests":
            asked = [create(), sign_in(), b"\x04", b"\x06\xa2\x01\x02\x02\x02", b"\x08", b"\x0c\xa2\x01\x10\x03\x00"]
            return [bytes([kind, len(request)]) + request for kind in (0, 0x80) for request in asked]
        case "vault":
            return [_vault_of(count) for count in range(6)]
        case "bitwarden":
            written = [write_bitwarden(some[:count], random=bytes).data for count in (0, 1, 2, 3)]
        case "cxf":
            written = [write_cxf(some[:count], now=NOW, random=bytes).data for count in (0, 1, 2, 3)]
        case _:
            written = [write_passkey_file(one).data for one in some]
    return [*written, b"{}", b"[]", b"null"]


def _vault_of(count: int) -> bytes:
    records = [cbor.encode(to_record(plain(number=number + 1))) for number in range(count)]
    header = vault_file.new_header(vault_file.KeyKind.NONE, bytes)
    return vault_file.seal(header, 1, vault_file.Body(records, {}), None, bytes)[1]
