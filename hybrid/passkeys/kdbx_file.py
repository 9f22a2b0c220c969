"""The bytes of a KeePass database (KDBX 3.1 and 4): opened within bounds, made, and written so that they open again.

Through pykeepass, an optional part under the GPL that is loaded here and in `hybrid.passkeys.kdbx`, nowhere else.
Databases encrypted with Twofish are not read.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pykeepass
from Cryptodome.Cipher import ChaCha20, Salsa20
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from lxml import etree
from pykeepass.exceptions import CredentialsError
from pykeepass.kdbx_parsing import kdf_uuids

from hybrid.errors import PortabilityError, PortabilityProblem
from hybrid.passkeys.portability import MAX_FILE_SIZE, malformed

MAGIC = b"\x03\xd9\xa2\x9a"

_MAX_INFLATED = 256 << 20
_MAX_MEMORY = 1 << 30
_MAX_MEMORY_TIMES_ROUNDS = 64 << 30  # about a minute
_MAX_LANES = 64
_MAX_AES_ROUNDS = 20_000_000  # pykeepass runs them in Python, about a million a second
_SALSA20_NONCE = bytes.fromhex("e830094b97205d2a")  # of every KDBX file


@dataclass(frozen=True, slots=True)
class KdfCost:
    """Argon2id for a new database: `memory` in bytes, `rounds`, `lanes`."""

    memory: int = 64 << 20
    rounds: int = 10
    lanes: int = 2


@dataclass(frozen=True, slots=True, repr=False)
class DatabaseKey:
    """What opens a database: a password, the bytes of a key file, or both."""

    password: str | None
    key_file: bytes | None = None

    def __repr__(self) -> str:
        return "<DatabaseKey>"

    def stream(self) -> io.BytesIO | None:
        return io.BytesIO(self.key_file) if self.key_file is not None else None


def open_database(data: bytes, key: DatabaseKey, *, before: Any = None) -> Any:
    """Decrypt a database, with the work it may ask for bounded first.

    `before`: the same database as it was read earlier; its derived key serves again if the salt is still the same.
    Raises `PortabilityError`.
    """
    if len(data) > MAX_FILE_SIZE:
        raise PortabilityError("the database is too large", PortabilityProblem.TOO_LARGE)
    try:
        head = pykeepass.PyKeePass(io.BytesIO(data), transformed_key=bytes(32), decrypt=False)
        _check_cost(head)
        derived = _derived(data, head, key, before)
        _check_inflated(head.kdbx, data, derived)
        database = pykeepass.PyKeePass(
            io.BytesIO(data), password=key.password, keyfile=key.stream(), transformed_key=derived
        )
        if database.root_group is None or database.tree.getroot().find("Meta") is None:
            raise malformed("the database has no root group")
    except PortabilityError:
        raise
    except CredentialsError:
        raise PortabilityError("the password or the key file is wrong", PortabilityProblem.KEY) from None
    except Exception:  # a foreign parser on somebody's bytes: it raises whatever its parts do
        if data[:4] != MAGIC:
            raise PortabilityError("the file is not a KeePass database", PortabilityProblem.FORMAT) from None
        raise malformed("the database is damaged") from None
    return database


def new_database(key: DatabaseKey, cost: KdfCost) -> Any:
    """A database with nothing in it."""
    buffer = io.BytesIO()
    database = pykeepass.PyKeePass(pykeepass.pykeepass.BLANK_DATABASE_LOCATION, "password")
    parameters = _header(database.kdbx).kdf_parameters.data.dict
    parameters["$UUID"].value = kdf_uuids["argon2id"]
    parameters["M"].value, parameters["I"].value, parameters["P"].value = cost.memory, cost.rounds, cost.lanes
    database.password = key.password
    database.keyfile = key.stream()
    database.save(buffer)
    return open_database(buffer.getvalue(), key)


def saved(database: Any) -> bytes:
    """The bytes of the file, seen to hold all that `database` does: somebody's other secrets are in it as well.

    Seeds and nonce are new each time; the salt of the passphrase stays, so that its key need not be derived anew.
    """
    meta = database.tree.getroot().find("Meta")
    header_hash = meta.find("HeaderHash")  # of KDBX 3, over the old header; it may be absent
    if header_hash is not None:
        meta.remove(header_hash)
    buffer, derivation = io.BytesIO(), _derivation(database)
    database.save(buffer, transformed_key=database.transformed_key)
    data = buffer.getvalue()
    if _read_back(data, database.transformed_key) != (derivation, etree.tostring(database.tree, method="c14n")):
        raise malformed("the database would lose something by writing it")
    return data


def is_version_3(database: Any) -> bool:
    return bool(database.kdbx.header.value.major_version == 3)


# --- the key ---------------------------------------------------------------------------------------------------------


def _derived(data: bytes, head: Any, key: DatabaseKey, before: Any) -> bytes:
    if before is not None and _derivation(before) == _derivation(head):
        return bytes(before.transformed_key)
    opened = pykeepass.PyKeePass(io.BytesIO(data), password=key.password, keyfile=key.stream(), decrypt=False)
    return bytes(opened.transformed_key)


def _derivation(database: Any) -> tuple[Any, ...]:
    """What the derived key depends on beside the passphrase."""
    header = _header(database.kdbx)
    if is_version_3(database):
        return header.transform_seed.data, header.transform_rounds.data
    return tuple(sorted((name, item.value) for name, item in header.kdf_parameters.data.dict.items()))


def _check_cost(database: Any) -> None:
    header = _header(database.kdbx)
    if database.version[0] not in (3, 4):
        raise PortabilityError("the database has another version than KDBX 3 or 4", PortabilityProblem.VERSION)
    if is_version_3(database):
        allowed = _whole(header.transform_rounds.data) <= _MAX_AES_ROUNDS
    else:
        allowed = _is_bearable({name: item.value for name, item in header.kdf_parameters.data.dict.items()})
    if not allowed:
        raise PortabilityError("opening this database would take absurd work", PortabilityProblem.TOO_LARGE)


def _is_bearable(parameters: dict[str, Any]) -> bool:
    if parameters["$UUID"] == kdf_uuids["aeskdf"]:
        return _whole(parameters["R"]) <= _MAX_AES_ROUNDS
    memory, rounds, lanes = (_whole(parameters[name]) for name in ("M", "I", "P"))
    return memory <= _MAX_MEMORY and memory * rounds <= _MAX_MEMORY_TIMES_ROUNDS and lanes <= _MAX_LANES


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise malformed("the database has no proper key derivation")
    return value


def _header(kdbx: Any) -> Any:
    return kdbx.header.value.dynamic_header


# --- the content -----------------------------------------------------------------------------------------------------


def _check_inflated(kdbx: Any, data: bytes, derived: bytes) -> None:
    """See how large the content is: the library inflates it without a bound."""
    size = 0
    with contextlib.suppress(_Damaged):  # or the key is wrong: the library tells which
        for piece in _content(kdbx, data, derived):
            size += len(piece)
            if size > _MAX_INFLATED:
                raise PortabilityError("the database is too large inside", PortabilityProblem.TOO_LARGE)


class _Damaged(Exception):
    """The content ends before it should. Never leaves this module."""


def _content(kdbx: Any, data: bytes, derived: bytes) -> Iterator[bytes]:
    """What is in the blocks, decrypted and inflated, in pieces of 1 MiB or less. Raises `_Damaged` at their end."""
    header = _header(kdbx)
    cipher = _cipher(header, hashlib.sha256(header.master_seed.data + derived).digest())
    version_3 = kdbx.header.value.major_version == 3
    body = data[len(kdbx.header.data) :]
    pieces = _pieces_3(body, cipher, header) if version_3 else _pieces_4(kdbx, body, cipher, derived)
    if not header.compression_flags.data.compression:
        yield from pieces
        return
    inflater = zlib.decompressobj(16 + zlib.MAX_WBITS)
    for piece in pieces:
        while piece and not inflater.eof:
            try:
                yield inflater.decompress(piece, 1 << 20)
            except zlib.error:
                raise _Damaged from None
            piece = inflater.unconsumed_tail
    yield inflater.flush(1 << 20)  # a bit that the bound held back
    if not inflater.eof:
        raise _Damaged


def _cipher(header: Any, key: bytes) -> Cipher[Any]:
    iv = header.encryption_iv.data
    match header.cipher_id.data:
        case "aes256":
            return Cipher(algorithms.AES(key), modes.CBC(iv))
        case "chacha20":
            return Cipher(algorithms.ChaCha20(key, bytes(4) + iv), None)
    raise PortabilityError("the database is encrypted with Twofish", PortabilityProblem.VERSION)


def _pieces_4(kdbx: Any, body: bytes, cipher: Cipher[Any], derived: bytes) -> Iterator[bytes]:
    """Blocks of KDBX 4, after two checksums: tag, size, content, all of it encrypted as one."""
    base = hashlib.sha512(_header(kdbx).master_seed.data + derived + b"\x01").digest()
    if not hmac.compare_digest(_tag(base, b"\xff" * 8, kdbx.header.data), body[32:64]):
        raise _Damaged
    decryptor = cipher.decryptor()
    start, number = 64, 0
    while True:
        tag, size = body[start : start + 32], body[start + 32 : start + 36]
        block = body[start + 36 : start + 36 + int.from_bytes(size, "little")]
        place = number.to_bytes(8, "little")
        if not hmac.compare_digest(_tag(base, place, place + size + block), tag):
            raise _Damaged
        if not block:
            return
        yield decryptor.update(block)
        start, number = start + 36 + len(block), number + 1


def _tag(base: bytes, place: bytes, data: bytes) -> bytes:
    return hmac.digest(hashlib.sha512(place + base).digest(), data, "sha256")


def _pieces_3(body: bytes, cipher: Cipher[Any], header: Any) -> Iterator[bytes]:
    """The same in KDBX 3: decrypted first, then 32 bytes that prove the key, then blocks of number, hash, size."""
    plain = cipher.decryptor().update(body)
    if plain[:32] != header.stream_start_bytes.data:
        raise _Damaged
    start, block = 32, b" "
    while block:
        size = int.from_bytes(plain[start + 36 : start + 40], "little")
        block = plain[start + 40 : start + 40 + size]
        if plain[start + 4 : start + 36] != (hashlib.sha256(block).digest() if block else bytes(32)):
            raise _Damaged
        yield block
        start += 40 + size


def _read_back(data: bytes, derived: bytes) -> tuple[tuple[Any, ...], bytes] | None:
    """What a file that was just written holds: how its key is derived, and the document in canonical XML.

    None if it cannot be read.
    Not by the library that wrote it, which takes a second for 10,000 passkeys: it decrypts secrets one at a time.
    """
    try:
        head = pykeepass.PyKeePass(io.BytesIO(data), transformed_key=derived, decrypt=False)
        return _derivation(head), _document(head.kdbx, data, derived)
    except Exception:  # parsers of three libraries: what they raise on damage is no matter
        return None


def _document(kdbx: Any, data: bytes, derived: bytes) -> bytes:
    content = b"".join(_content(kdbx, data, derived))
    header = _header(kdbx)
    if kdbx.header.value.major_version == 3:
        kind, stream_key = header.protected_stream_id.data, header.protected_stream_key.data
    else:
        if not header.compression_flags.data.compression and header.cipher_id.data == "aes256":
            content = content[: -content[-1]]  # PKCS 7; after compressed content nobody looks at it
        kind, stream_key, content = _after_inner_header(content)
    tree = etree.fromstring(content, etree.XMLParser(huge_tree=True, resolve_entities=False)).getroottree()
    values = tree.xpath("//Value[@Protected='True']") if kind != "none" else []
    secrets = [base64.b64decode(value.text or "") for value in values]
    plain, start = _stream(kind, stream_key).decrypt(b"".join(secrets)), 0
    for value, secret in zip(values, secrets, strict=True):
        value.text = plain[start : start + len(secret)].decode()
        start += len(secret)
    return bytes(etree.tostring(tree, method="c14n"))


def _stream(kind: str, key: bytes) -> Any:
    """The cipher that runs through all secrets of a document, one after another."""
    if kind == "salsa20":
        return Salsa20.new(hashlib.sha256(key).digest(), nonce=_SALSA20_NONCE)
    digest = hashlib.sha512(key).digest()
    return ChaCha20.new(key=digest[:32], nonce=digest[32:44])


def _after_inner_header(content: bytes) -> tuple[str, bytes, bytes]:
    """Kind and key of the secrets' stream, and what comes after the header inside KDBX 4: kind, size, value of each."""
    start, kind, key = 0, "none", b""
    while True:
        item, size = content[start], int.from_bytes(content[start + 1 : start + 5], "little")
        value, start = content[start + 5 : start + 5 + size], start + 5 + size
        match item:
            case 0:
                return kind, key, content[start:]
            case 1:
                kind = {0: "none", 2: "salsa20"}.get(int.from_bytes(value, "little"), "chacha20")
            case 2:
                key = value
