"""The vault's file format: bytes to header and records, and back. Pure: no files, no dice of its own.

Version 2::

    "FHVAULT"  u16be version  header  body

The header is a CBOR map (1: kind of key, 2: id of the vault, 3: generation, 4: KDF and its parameters, 5: salt,
6: nonce and wrapped data key, 7: nonce of the body). The body is a CBOR map (2: list of records, each the bytes of a
CBOR map with text keys and a "kind"), encrypted with AES-256-GCM under the data key; everything before it is
associated data. The data key is random and wrapped, with AES-256-GCM as well, by what Argon2id (RFC 9106) makes of the
secret that opens the vault, or scrypt (RFC 7914) where that is all there is. With the kind "none" members 4 to 7 are
absent, the body is in clear and a SHA-256 of all that precedes ends the file.

Version 1 (release 0.1) knew the kind "none" only; its records are maps inside the body. It is read, never written.

Whatever is wrong with a file or its key gives one and the same `UnreadableFile`: a flipped bit must not tell more than
a wrong passphrase does. So that this holds for the version as well, version numbers differ in two bits at least:
1, 2, 4, 7, 8 ...
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from hybrid import cbor
from hybrid.errors import RemoteProtocolError, VaultError, VaultProblem

MAGIC = b"FHVAULT"
VERSION = 2
MAX_HEADER = 4096  # so much is read to see whether a file has changed

_START = len(MAGIC) + 2
_READABLE = (1, 2)
_KEY_SIZE = 32
_NONCE_SIZE = 12
_TAG_SIZE = 16
_SALT_SIZE = 16
_VAULT_ID_SIZE = 16
_MAX_GENERATION = (1 << 63) - 1
_RECORDS = 2  # member of the body
_BODY_DEPTH = 3
_RECORD_DEPTH = 16
_ARGON2ID, _SCRYPT = "argon2id", "scrypt"

Random = Callable[[int], bytes]
Record = dict[str, Any]
Members = dict[Any, Any]


class KeyKind(StrEnum):
    """What opens a vault."""

    NONE = "none"
    PASSPHRASE = "passphrase"  # noqa: S105 - a name
    KEYRING = "keyring"
    FILE = "file"


class _Member:
    """Keys of the header."""

    KIND = 1
    VAULT_ID = 2
    GENERATION = 3
    KDF = 4
    SALT = 5
    WRAPPED_KEY = 6
    NONCE = 7


class UnreadableFile(Exception):
    """The file is damaged or the key is wrong; the mathematics cannot tell which."""


class SecretBytes:
    """A secret that can be overwritten. Best effort: copies that Python or OpenSSL made stay where they are."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes | bytearray) -> None:
        self._value = bytearray(value)

    @property
    def value(self) -> bytearray:
        return self._value

    def wipe(self) -> None:
        """Overwrite it. It is zeros from here on."""
        self._value[:] = bytes(len(self._value))

    def __repr__(self) -> str:
        return f"<SecretBytes {len(self._value)} bytes>"


@dataclass(frozen=True, slots=True)
class KdfCost:
    """Parameters of Argon2id; the defaults are the second choice of RFC 9106 §4, "Parameter Choice"."""

    memory_kib: int = 65536
    iterations: int = 3
    lanes: int = 4

    @property
    def absurd(self) -> bool:
        """Whether no vault of ours has them: looked at before any memory is taken."""
        return not (
            1 <= self.lanes <= 16
            and 1 <= self.iterations <= 64
            and 8 * self.lanes <= self.memory_kib <= 1 << 19  # 512 MiB
            and self.memory_kib * self.iterations <= 1 << 21  # some seconds
        )

    @property
    def members(self) -> dict[str, Any]:
        """As in the header."""
        return {
            "name": _ARGON2ID, "memory_kib": self.memory_kib, "iterations": self.iterations, "lanes": self.lanes,
        }  # fmt: skip

    def derive(self, secret: bytes, salt: bytes) -> bytes:
        """32 bytes. Raises `UnsupportedAlgorithm` with an OpenSSL before 3.2."""
        kdf = Argon2id(
            salt=salt, length=_KEY_SIZE, iterations=self.iterations, lanes=self.lanes, memory_cost=self.memory_kib
        )
        return kdf.derive(secret)


@dataclass(frozen=True, slots=True)
class ScryptCost:
    """Parameters of scrypt, which every OpenSSL knows: 128 MiB and the time that Argon2id takes with its defaults."""

    log2_n: int = 17
    r: int = 8
    p: int = 1

    @property
    def absurd(self) -> bool:
        """As `KdfCost.absurd`."""
        return not (
            1 <= self.r <= 32
            and 1 <= self.log2_n <= 22
            and self.log2_n < 16 * self.r  # RFC 7914 §6
            and 1 <= self.p <= 16
            and self.r << self.log2_n <= 1 << 22  # 512 MiB
            and self.p * self.r << self.log2_n <= 1 << 23  # some seconds
        )

    @property
    def members(self) -> dict[str, Any]:
        """As in the header."""
        return {"name": _SCRYPT, "log2_n": self.log2_n, "r": self.r, "p": self.p}

    def derive(self, secret: bytes, salt: bytes) -> bytes:
        """32 bytes."""
        return Scrypt(salt=salt, length=_KEY_SIZE, n=1 << self.log2_n, r=self.r, p=self.p).derive(secret)


Cost = KdfCost | ScryptCost


def usual_cost() -> Cost:
    """That of a new vault: Argon2id, or scrypt with an OpenSSL that does not know it."""
    try:
        KdfCost(8, 1, 1).derive(b"", bytes(_SALT_SIZE))
    except UnsupportedAlgorithm:
        return ScryptCost()
    return KdfCost()


@dataclass(frozen=True, slots=True, repr=False)
class Head:
    """What a file says about itself. `members`: the header's map, also what we do not know; `raw`: up to the body."""

    version: int
    members: Members
    raw: bytes

    @property
    def kind(self) -> KeyKind:
        return KeyKind(self.members[_Member.KIND])

    @property
    def vault_id(self) -> bytes:
        return id_in(self.members)

    @property
    def generation(self) -> int:
        generation: int = self.members[_Member.GENERATION]
        return generation

    def __repr__(self) -> str:
        return f"<Head of a vault of version {self.version}>"


@dataclass(frozen=True, slots=True, repr=False)
class Body:
    """The content: `records` as bytes, `others` members that we do not know."""

    records: list[bytes]
    others: Members


# --- reading ----------------------------------------------------------------------------------------------------------


def parse_head(data: bytes) -> Head:
    """Read the header at the start of a file.

    Raises:
        VaultError: no vault, or one of a later version.
        UnreadableFile: damaged.
    """
    start = data[:_START]
    version = next((number for number in _READABLE if start == _start(number)), None)
    if version is None:
        raise _not_ours(start)
    try:
        members, size = cbor.decode_prefix(data[_START : _START + MAX_HEADER])
    except RemoteProtocolError:
        raise UnreadableFile from None
    if not isinstance(members, dict):
        raise UnreadableFile
    if version == 2:
        _check_header(members)
    return Head(version, members, data[: _START + size])


def _start(version: int) -> bytes:
    return MAGIC + version.to_bytes(2, "big")


def _not_ours(start: bytes) -> Exception:
    if len(start) < _START:
        return UnreadableFile() if start.startswith(MAGIC) else _no_vault()
    if any((int.from_bytes(start) ^ int.from_bytes(_start(version))).bit_count() == 1 for version in _READABLE):
        return UnreadableFile()
    if start.startswith(MAGIC):
        version = int.from_bytes(start[len(MAGIC) :])
        return VaultError(f"the vault has version {version}, this program reads 1 and 2", VaultProblem.VERSION)
    return _no_vault()


def _no_vault() -> VaultError:
    return VaultError("the file is not a vault", VaultProblem.NOT_A_VAULT)


def _check_header(members: Members) -> None:
    generation = members.get(_Member.GENERATION)
    if (
        members.get(_Member.KIND) not in list(KeyKind)
        or not _is_bytes(members.get(_Member.VAULT_ID), _VAULT_ID_SIZE)
        or type(generation) is not int
        or not 0 <= generation <= _MAX_GENERATION
    ):
        raise UnreadableFile
    if members[_Member.KIND] == KeyKind.NONE:
        return
    _cost(members)
    sizes = {
        _Member.SALT: _SALT_SIZE,
        _Member.WRAPPED_KEY: _NONCE_SIZE + _KEY_SIZE + _TAG_SIZE,
        _Member.NONCE: _NONCE_SIZE,
    }
    if not all(_is_bytes(members.get(member), size) for member, size in sizes.items()):
        raise UnreadableFile


def _is_bytes(value: Any, size: int) -> bool:
    return type(value) is bytes and len(value) == size


def _cost(members: Members) -> Cost:
    cost: Cost
    match members.get(_Member.KDF):
        case {"name": "argon2id", "memory_kib": int(memory), "iterations": int(iterations), "lanes": int(lanes)}:
            cost = KdfCost(memory, iterations, lanes)
        case {"name": "scrypt", "log2_n": int(log2_n), "r": int(r), "p": int(p)}:
            cost = ScryptCost(log2_n, r, p)
        case _:
            raise UnreadableFile
    if cost.absurd:
        raise UnreadableFile
    return cost


def unwrap_key(head: Head, secret: SecretBytes) -> SecretBytes:
    """The data key of an encrypted vault. Raises `UnreadableFile`, `UnsupportedAlgorithm` as `KdfCost.derive`."""
    wrapped: bytes = head.members[_Member.WRAPPED_KEY]
    wrapping_key = _cost(head.members).derive(bytes(secret.value), head.members[_Member.SALT])
    try:
        data_key = AESGCM(wrapping_key).decrypt(wrapped[:_NONCE_SIZE], wrapped[_NONCE_SIZE:], _wrap_data(head.members))
    except InvalidTag:
        raise UnreadableFile from None
    return SecretBytes(data_key)


def _wrap_data(members: Members) -> bytes:
    bound = (_Member.KIND, _Member.VAULT_ID, _Member.KDF, _Member.SALT)
    return _start(VERSION) + cbor.encode({member: members[member] for member in bound})


def open_body(head: Head, data: bytes, data_key: SecretBytes | None) -> Body:
    """The content of the file `data` with this head; `data_key` None for the kind "none". Raises `UnreadableFile`."""
    if head.version == 1:
        return _open_version_1(head, data)
    if head.kind is KeyKind.NONE:
        clear, checksum = data[len(head.raw) : -hashlib.sha256().digest_size], data[-hashlib.sha256().digest_size :]
        if hashlib.sha256(head.raw + clear).digest() != checksum:
            raise UnreadableFile
    else:
        if data_key is None:
            raise UnreadableFile
        try:
            clear = AESGCM(data_key.value).decrypt(head.members[_Member.NONCE], data[len(head.raw) :], head.raw)
        except InvalidTag:
            raise UnreadableFile from None
    body = _decode_map(clear, _BODY_DEPTH)
    records = body.pop(_RECORDS, None)
    if not isinstance(records, list) or any(type(record) is not bytes for record in records):
        raise UnreadableFile
    return Body(records, body)


def _open_version_1(head: Head, data: bytes) -> Body:
    """Its header: 1: kind of key, 2: SHA-256 of the body. Its body: 1: generation, 2: list of records."""
    clear = data[len(head.raw) :]
    if head.members.get(1) != KeyKind.NONE or head.members.get(2) != hashlib.sha256(clear).digest():
        raise UnreadableFile
    body = _decode_map(clear, cbor.MAX_DEPTH)
    generation, records = body.pop(1, None), body.pop(_RECORDS, None)
    if type(generation) is not int or not 0 <= generation <= _MAX_GENERATION or not isinstance(records, list):
        raise UnreadableFile
    return Body([cbor.encode(record) for record in records], body)


def version_1_generation(data: bytes, head: Head) -> int:
    """The generation of a file of version 1 that `open_body` has read."""
    generation: int = cbor.decode_map(data[len(head.raw) :])[1]
    return generation


def _decode_map(data: bytes, max_depth: int) -> Members:
    try:
        return cbor.decode_map(data, max_depth=max_depth)
    except RemoteProtocolError:
        raise UnreadableFile from None


def decode_records(records: list[bytes]) -> list[Record]:
    """Records as maps. All at once, because ten thousand decoders would take most of the time. Raises as above."""
    try:
        decoded = cbor.decode(_array_head(len(records)) + b"".join(records), max_depth=_RECORD_DEPTH)
    except RemoteProtocolError:
        raise UnreadableFile from None
    if any(not isinstance(record, dict) or not isinstance(record.get("kind"), str) for record in decoded):
        raise UnreadableFile
    return list(decoded)


def _array_head(length: int) -> bytes:
    return b"\x9a" + length.to_bytes(4, "big")  # the long form; it is read here, never stored


# --- writing ----------------------------------------------------------------------------------------------------------


def new_header(kind: KeyKind, random: Random, *, generation: int = 0) -> Members:
    """The header of a new vault, its key not wrapped yet."""
    return {_Member.KIND: kind.value, _Member.VAULT_ID: random(_VAULT_ID_SIZE), _Member.GENERATION: generation}


def id_in(members: Members) -> bytes:
    """The vault's id in a header."""
    vault_id: bytes = members[_Member.VAULT_ID]
    return vault_id


def new_data_key(random: Random) -> SecretBytes:
    return SecretBytes(random(_KEY_SIZE))


def with_key(
    members: Members, kind: KeyKind, secret: SecretBytes | None, data_key: SecretBytes | None, cost: Cost,
    random: Random,
) -> Members:  # fmt: skip
    """The header with its data key wrapped by another secret; the vault's id stays. None for the kind "none"."""
    key_members = (_Member.KDF, _Member.SALT, _Member.WRAPPED_KEY, _Member.NONCE)
    changed = {member: value for member, value in members.items() if member not in key_members}
    changed[_Member.KIND] = kind.value
    if secret is None or data_key is None:
        return changed
    changed[_Member.KDF] = cost.members
    changed[_Member.SALT] = random(_SALT_SIZE)
    nonce = random(_NONCE_SIZE)
    wrapping_key = cost.derive(bytes(secret.value), changed[_Member.SALT])
    changed[_Member.WRAPPED_KEY] = nonce + AESGCM(wrapping_key).encrypt(
        nonce, bytes(data_key.value), _wrap_data(changed)
    )
    return changed


def seal(
    members: Members, generation: int, body: Body, data_key: SecretBytes | None, random: Random
) -> tuple[Head, bytes]:
    """The bytes of a file, and its head. The body's nonce is new each time."""
    members = {**members, _Member.GENERATION: generation}
    if data_key is not None:
        members[_Member.NONCE] = random(_NONCE_SIZE)
    raw = _start(VERSION) + cbor.encode(members)
    clear = cbor.encode({**body.others, _RECORDS: body.records})
    if data_key is None:
        sealed = clear + hashlib.sha256(raw + clear).digest()
    else:
        sealed = AESGCM(data_key.value).encrypt(members[_Member.NONCE], clear, raw)
    return Head(VERSION, members, raw), raw + sealed
