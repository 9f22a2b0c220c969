"""Bitwarden's password protected export: a clear export in one text that is encrypted with a password of its own.

The key is made of the password by PBKDF2-SHA-256 or Argon2id, and stretched by HKDF (RFC 5869 §2.3); the text is
``2.`` and IV, AES-256-CBC and HMAC-SHA-256 over both, in base64. As Bitwarden's clients do it since 2022, seen in the
open sources of several readers. The other kind, for the account that it came from, opens nowhere else.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import uuid
from collections.abc import Callable
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from hybrid.errors import PortabilityError, PortabilityProblem
from hybrid.passkeys.portability import malformed, write_json

_VALIDATION: Final = "encKeyValidation_DO_NOT_EDIT"
_KEY_SIZE = 32
_IV_SIZE = _SALT_SIZE = 16
_MAX_PBKDF2 = 10_000_000  # rounds; Bitwarden allows 2 million
_MAX_MEMORY = 1024  # MiB
_MAX_MEMORY_TIMES_ROUNDS = 64 << 10
_MAX_LANES = 64
_OURS = {"kdfType": 1, "kdfIterations": 3, "kdfMemory": 64, "kdfParallelism": 4}  # Argon2id as Bitwarden has it

Json = dict[str, Any]


def is_sealed(document: Json) -> bool:
    """Whether this is an encrypted export that a password of its own opens."""
    return document.get("encrypted") is True and document.get("passwordProtected") is True


def unseal(document: Json, password: str) -> bytes:
    """The clear export inside. Raises `PortabilityError`."""
    keys = _keys(document, password)
    if _decrypted(document.get(_VALIDATION), keys) is None:
        raise PortabilityError("the password is wrong", PortabilityProblem.KEY)
    data = _decrypted(document.get("data"), keys)
    if data is None:
        raise malformed("the encrypted export is damaged")
    return data


def seal(data: bytes, password: str, random: Callable[[int], bytes]) -> bytes:
    """Encrypt a clear export. `random`: gives so many bytes."""
    document: Json = {
        "encrypted": True,
        "passwordProtected": True,
        "salt": base64.b64encode(random(_SALT_SIZE)).decode(),
        **_OURS,
    }
    keys = _keys(document, password)
    validation = str(uuid.UUID(bytes=random(16), version=4)).encode()
    document[_VALIDATION] = _encrypted(validation, keys, random(_IV_SIZE))
    document["data"] = _encrypted(data, keys, random(_IV_SIZE))
    return write_json(document)


def _keys(document: Json, password: str) -> tuple[bytes, bytes]:
    """Keys of cipher and MAC, the work for them bounded first."""
    salt, rounds = document.get("salt"), _number(document, "kdfIterations")
    if not isinstance(salt, str):
        raise malformed("the encrypted export has no salt")
    match document.get("kdfType"):
        case 0 if rounds <= _MAX_PBKDF2:
            key = hashlib.pbkdf2_hmac("sha256", password.encode(), salt.encode(), rounds, _KEY_SIZE)
        case 1:
            memory, lanes = _number(document, "kdfMemory"), _number(document, "kdfParallelism")
            if memory > _MAX_MEMORY or memory * rounds > _MAX_MEMORY_TIMES_ROUNDS or lanes > _MAX_LANES:
                raise _absurd()
            digest = hashlib.sha256(salt.encode()).digest()
            key = _argon2id(password.encode(), digest, rounds, memory << 10, lanes)
        case 0:
            raise _absurd()
        case _:
            raise malformed("the encrypted export has no proper key derivation")
    return _stretched(key, b"enc"), _stretched(key, b"mac")


def _argon2id(password: bytes, salt: bytes, rounds: int, memory_kib: int, lanes: int) -> bytes:
    try:
        kdf = Argon2id(salt=salt, length=_KEY_SIZE, iterations=rounds, lanes=lanes, memory_cost=memory_kib)
    except UnsupportedAlgorithm:  # OpenSSL before 3.2
        raise PortabilityError(
            "this machine lacks Argon2id, which the export needs", PortabilityProblem.VERSION
        ) from None
    return kdf.derive(password)


def _stretched(key: bytes, info: bytes) -> bytes:
    return HKDFExpand(hashes.SHA256(), _KEY_SIZE, info).derive(key)


def _number(document: Json, name: str) -> int:
    value = document.get(name)
    if type(value) is not int or value < 1:
        raise malformed("the encrypted export has no proper key derivation")
    return value


def _absurd() -> PortabilityError:
    return PortabilityError("opening this export would take absurd work", PortabilityProblem.TOO_LARGE)


def _encrypted(data: bytes, keys: tuple[bytes, bytes], iv: bytes) -> str:
    padder = padding.PKCS7(128).padder()
    encryptor = Cipher(algorithms.AES(keys[0]), modes.CBC(iv)).encryptor()
    text = encryptor.update(padder.update(data) + padder.finalize()) + encryptor.finalize()
    parts = iv, text, hmac.digest(keys[1], iv + text, "sha256")
    return "2." + "|".join(base64.b64encode(part).decode() for part in parts)


def _decrypted(value: Any, keys: tuple[bytes, bytes]) -> bytes | None:
    """None if these are not the keys, or it is damaged."""
    parts = value[2:].split("|") if isinstance(value, str) and value.startswith("2.") else []
    try:
        iv, text, tag = (base64.b64decode(part, validate=True) for part in parts)
    except (binascii.Error, ValueError):  # or there are not three
        return None
    if len(iv) != _IV_SIZE or not text or len(text) % 16:
        return None
    if not hmac.compare_digest(hmac.digest(keys[1], iv + text, "sha256"), tag):
        return None
    decryptor = Cipher(algorithms.AES(keys[0]), modes.CBC(iv)).decryptor()
    unpadder = padding.PKCS7(128).unpadder()
    try:
        return unpadder.update(decryptor.update(text) + decryptor.finalize()) + unpadder.finalize()
    except ValueError:
        return None
