"""The file that keeps passkeys between runs, and the PIN that is kept with them.

Format: ``FHVAULT``, a 16-bit big-endian version, a CBOR map (1: kind of key, 2: SHA-256 of what follows), then the
body, a CBOR map (1: generation, 2: list of records, each a map with text keys and a "kind"). Version 1 knows the key
kind "none": **not encrypted**, protected by the file's mode alone. Members and record kinds that this program does not
know are written back as they were.

The file is read anew for every use and replaced as a whole, so that any number of processes may share it and a crash
leaves the old file or the new one. Calls block for the time of one file write.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import os
import secrets
import stat
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import platformdirs

from hybrid import cbor
from hybrid.errors import RemoteProtocolError, VaultError, VaultProblem
from hybrid.passkeys.store import Credential, CredentialState

MAGIC = b"FHVAULT"
VERSION = 1
KEY_KIND_NONE = "none"
MAX_SIZE = 64 << 20

_HEADER_KEY_KIND = 1
_HEADER_CHECKSUM = 2
_BODY_GENERATION = 1
_BODY_RECORDS = 2
_PASSKEY = "passkey"
_SETTING = "setting"
_LOCK_SECONDS = 5.0  # others hold it for one file write
_LOCK_INTERVAL = 0.01

Record = dict[str, Any]


def default_vault_path() -> Path:
    """The vault in the user's data folder."""
    return platformdirs.user_data_path("fido-hybrid", appauthor=False) / "passkeys.vault"


@dataclass(slots=True, repr=False)
class _Contents:
    """A decoded file: `body` is as read, so that members unknown to us survive a write."""

    header: dict[Any, Any]
    body: dict[Any, Any]

    @property
    def records(self) -> list[Record]:
        records: list[Record] = self.body[_BODY_RECORDS]
        return records

    def encode(self) -> bytes:
        body = cbor.encode(self.body)
        header = cbor.encode({**self.header, _HEADER_CHECKSUM: hashlib.sha256(body).digest()})
        return MAGIC + VERSION.to_bytes(2, "big") + header + body

    @classmethod
    def empty(cls) -> _Contents:
        return cls({_HEADER_KEY_KIND: KEY_KIND_NONE}, {_BODY_GENERATION: 0, _BODY_RECORDS: []})

    @classmethod
    def decode(cls, data: bytes) -> _Contents:
        """Read a file's bytes. Raises `VaultError`."""
        if not data.startswith(MAGIC):
            raise VaultError("the file is not a vault", VaultProblem.NOT_A_VAULT)
        start = len(MAGIC) + 2
        if len(data) < start:
            raise _corrupt()
        version = int.from_bytes(data[len(MAGIC) : start], "big")
        if version != VERSION:
            raise VaultError(f"the vault has version {version}, this program reads {VERSION}", VaultProblem.VERSION)
        try:
            header, size = cbor.decode_prefix(data[start:])
        except RemoteProtocolError:
            raise _corrupt() from None
        if not isinstance(header, dict) or not isinstance(header.get(_HEADER_KEY_KIND), str):
            raise _corrupt()
        if header[_HEADER_KEY_KIND] != KEY_KIND_NONE:
            raise VaultError("the vault is encrypted, which this version cannot open", VaultProblem.KEY_KIND)
        body_bytes = data[start + size :]
        if header.get(_HEADER_CHECKSUM) != hashlib.sha256(body_bytes).digest():
            raise _corrupt()
        try:
            body = cbor.decode_map(body_bytes)
        except RemoteProtocolError:
            raise _corrupt() from None
        _check_body(body)
        return cls(header, body)


def _corrupt() -> VaultError:
    return VaultError("the vault is damaged", VaultProblem.CORRUPT)


def _check_body(body: dict[Any, Any]) -> None:
    generation, records = body.get(_BODY_GENERATION), body.get(_BODY_RECORDS)
    if type(generation) is not int or generation < 0 or not isinstance(records, list):
        raise _corrupt()
    for record in records:
        if not isinstance(record, dict) or not isinstance(record.get("kind"), str):
            raise _corrupt()
        if record["kind"] == _PASSKEY:
            _to_credential(record)
        if record["kind"] == _SETTING and (
            type(record.get("name")) is not str or type(record.get("value")) is not bytes
        ):
            raise _corrupt()


class Vault:
    """A `CredentialStore` in one file. Make it with `open_vault`."""

    synced = False

    def __init__(self, path: Path) -> None:
        self._path = path

    def __repr__(self) -> str:
        return f"<Vault {self._path}>"

    @property
    def label(self) -> str:
        return str(self._path)

    def credentials(self, rp_id: str | None = None) -> list[Credential]:
        return [
            _to_credential(record)
            for record in self.records()
            if record["kind"] == _PASSKEY and rp_id in (None, record["rp_id"])
        ]

    def find(self, credential_id: bytes) -> Credential | None:
        for record in self.records():
            if record["kind"] == _PASSKEY and record["id"] == credential_id:
                return _to_credential(record)
        return None

    def update(self, credential: Credential) -> None:
        with self.change() as records:
            for record in records:
                if record["kind"] == _PASSKEY and record["id"] == credential.credential_id:
                    for member, _, _ in _OPTIONAL_MEMBERS:
                        record.pop(member, None)
                    record.update(_to_record(credential))

    def setting(self, name: str) -> bytes | None:
        for record in self.records():
            if record["kind"] == _SETTING and record["name"] == name:
                value: bytes = record["value"]
                return value
        return None

    def keep_setting(self, name: str, value: bytes | None) -> None:
        with self.change() as records:
            records[:] = [record for record in records if record["kind"] != _SETTING or record["name"] != name]
            if value is not None:
                records.append({"kind": _SETTING, "name": name, "value": value})

    def add(self, credential: Credential, *, superseding: Collection[bytes] = ()) -> None:
        with self.change() as records:
            _set_state(records, superseding, CredentialState.SUPERSEDED, credential.created_at)
            records.append(_to_record(credential))

    def set_state(self, credential_ids: Collection[bytes], state: CredentialState, at: int) -> None:
        with self.change() as records:
            _set_state(records, credential_ids, state, at)

    def note_use(self, credential_id: bytes, at: int) -> None:
        with self.change() as records:
            for record in records:
                if record["kind"] == _PASSKEY and record["id"] == credential_id:
                    record["use_count"] += 1
                    record["last_used_at"] = at
                    if record["state"] == CredentialState.UNCONFIRMED:
                        record["state"] = CredentialState.ACTIVE.value

    def records(self) -> list[Record]:
        """Everything in the file, as it is now. Raises `VaultError`."""
        return _Contents.decode(_read(self._path)).records

    @contextmanager
    def change(self) -> Iterator[list[Record]]:
        """Edit the records as they are now; when the block ends well, they are on disk. Raises `VaultError`.

        Other processes wait meanwhile. An exception in the block leaves the file as it was.
        """
        with _locked(self._path):
            contents = _Contents.decode(_read(self._path))
            before = contents.encode()
            yield contents.records
            if contents.encode() == before:
                return
            contents.body[_BODY_GENERATION] += 1
            _replace(self._path, contents.encode())


def open_vault(path: Path | None = None) -> Vault:
    """Open the vault at `path` (default: the user's data folder) and make it if it is not there.

    Raises:
        VaultError: others can get at the file, or it cannot be read or made, or it is no vault of ours.
    """
    # The real place, so that a symbolic link to a vault stays one when the file is replaced.
    path = Path(os.path.realpath(path or default_vault_path()))
    with _access_problems(path):
        _make_folders(path.parent)
    if not os.path.lexists(path):
        with _locked(path):
            if not os.path.lexists(path):
                _replace(path, _Contents.empty().encode())
    vault = Vault(path)
    vault.records()
    return vault


# --- records ---------------------------------------------------------------------------------------------------------

_MEMBERS: tuple[tuple[str, str, type], ...] = (  # member in the file, field of `Credential`, type
    ("id", "credential_id", bytes),
    ("rp_id", "rp_id", str),
    ("rp_name", "rp_name", str),
    ("user_id", "user_id", bytes),
    ("user_name", "user_name", str),
    ("user_display_name", "user_display_name", str),
    ("alg", "algorithm", int),
    ("key", "private_key", bytes),
    ("created_at", "created_at", int),
    ("modified_at", "modified_at", int),
    ("use_count", "use_count", int),
    ("be", "backup_eligible", bool),
    ("bs", "backed_up", bool),
)
_OPTIONAL_MEMBERS: tuple[tuple[str, str, type], ...] = (  # absent where the field has its default
    ("sign_count", "sign_count", int),
    ("discoverable", "discoverable", bool),
    ("cred_protect", "cred_protect", int),
    ("secret_uv", "secret_uv", bytes),
    ("secret_no_uv", "secret_no_uv", bytes),
    ("cred_blob", "cred_blob", bytes),
    ("large_blob_key", "large_blob_key", bytes),
    ("large_blob", "large_blob", list),
    ("payments", "payments", bool),
    ("aaguid", "aaguid", bytes),
    ("origin_store", "origin_store", str),
    ("note", "note", str),
)
_DEFAULTS = {field.name: field.default for field in fields(Credential)}


def _to_record(credential: Credential) -> Record:
    record: Record = {member: getattr(credential, name) for member, name, _ in _MEMBERS}
    for member, name, kind in _OPTIONAL_MEMBERS:
        value = getattr(credential, name)
        if value != _DEFAULTS[name]:
            record[member] = list(value) if kind is list else value
    return record | {"kind": _PASSKEY, "last_used_at": credential.last_used_at, "state": credential.state.value}


def _to_credential(record: Record) -> Credential:
    if any(type(record.get(member)) is not kind for member, _, kind in _MEMBERS):
        raise _corrupt()
    last_used_at, state = record.get("last_used_at"), record.get("state")
    if not (last_used_at is None or type(last_used_at) is int) or not isinstance(state, str):
        raise _corrupt()
    try:
        known_state = CredentialState(state)
    except ValueError:
        known_state = CredentialState.HIDDEN  # of a later version: keep it, do not offer it
    values = {name: record[member] for member, name, _ in _MEMBERS}
    for member, name, kind in _OPTIONAL_MEMBERS:
        if member in record:
            values[name] = _optional(record[member], kind)
    return Credential(**values, last_used_at=last_used_at, state=known_state)


def _optional(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise _corrupt()
    if kind is not list:
        return value
    match value:  # the one list: a large blob
        case [bytes(data), int(size)] if size >= 0:
            return data, size
        case _:
            raise _corrupt()


def _set_state(records: list[Record], credential_ids: Collection[bytes], state: CredentialState, at: int) -> None:
    for record in records:
        if record["kind"] == _PASSKEY and record["id"] in credential_ids:
            record["state"] = state.value
            record["modified_at"] = at


# --- the file --------------------------------------------------------------------------------------------------------


@contextmanager
def _access_problems(path: Path) -> Iterator[None]:
    """Turn what the system says into `VaultError`."""
    try:
        yield
    except FileNotFoundError as error:
        raise VaultError(f"{path} is not there any more", VaultProblem.MISSING) from error
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        problem = VaultProblem.FULL if full else VaultProblem.ACCESS
        raise VaultError(f"{path} cannot be used: {error.strerror}", problem) from error


def _make_folders(folder: Path) -> None:
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    for parent in reversed(missing):
        parent.mkdir(mode=0o700, exist_ok=True)


def _check_folder(folder: Path) -> None:
    mode = os.stat(folder).st_mode
    if mode & (stat.S_IWGRP | stat.S_IWOTH) and not mode & stat.S_ISVTX:
        raise VaultError(f"others can write in the folder {folder}", VaultProblem.FOLDER)


def _check_file(descriptor: int, path: Path) -> None:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise VaultError(f"{path} is not a file", VaultProblem.NOT_A_VAULT)
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO) or status.st_uid != os.geteuid():
        raise VaultError(f"others than you can read or write {path}", VaultProblem.PERMISSIONS)


def _read(path: Path) -> bytes:
    with _access_problems(path):
        _check_folder(path.parent)
        # Non-blocking, because opening a pipe would wait for its other end.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            _check_file(descriptor, path)
            with open(descriptor, "rb", closefd=False) as file:
                data = file.read(MAX_SIZE + 1)
        finally:
            os.close(descriptor)
    if len(data) > MAX_SIZE:
        raise VaultError(f"{path} is too large for a vault", VaultProblem.NOT_A_VAULT)
    return data


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other writers out. The lock file stays: removing it would let two writers hold two different ones."""
    lock = path.with_name(path.name + ".lock")
    with _access_problems(lock):
        _check_folder(path.parent)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    try:
        _check_file(descriptor, lock)
        deadline = time.monotonic() + _LOCK_SECONDS
        while not _try_lock(descriptor):
            if time.monotonic() > deadline:
                raise VaultError(f"another program keeps {path} busy", VaultProblem.BUSY)
            time.sleep(_LOCK_INTERVAL)
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _replace(path: Path, data: bytes) -> None:
    """Put `data` in the place of `path`: after a crash it is the old file or the new one. The lock is held."""
    if len(data) > MAX_SIZE:
        raise VaultError(f"{path} is full", VaultProblem.FULL)
    with _access_problems(path):
        for left_over in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
            with suppress(OSError):  # of somebody else in a shared folder: not ours to clean
                left_over.unlink()
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            with open(os.open(temporary, flags, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with suppress(FileNotFoundError):
                temporary.unlink()
            raise
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
