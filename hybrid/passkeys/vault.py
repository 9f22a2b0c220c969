"""The file that keeps passkeys between runs: a `CredentialStore` that loses nothing.

The format is in `vault_file`, what happens on the disk in `vault_disk`, what opens it in `vault_keys`. A write takes
the lock, reads what others wrote meanwhile, and replaces the file as a whole, so that any number of processes may share
it and a crash leaves the old file or the new one; the generation before is kept as ``NAME.previous``. A file that has
not changed is not read again. Calls block for the time of one file write.

Records have a kind. Those of a kind that this program does not know, and members that it does not know, are written
back as they were. A vault of version 1 is migrated when it is opened, with a copy kept as ``NAME.v1``.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from dataclasses import replace as with_changes
from pathlib import Path
from typing import Self

import platformdirs
from cryptography.exceptions import UnsupportedAlgorithm

from hybrid import cbor
from hybrid.errors import VaultError, VaultProblem
from hybrid.passkeys import vault_disk as disk
from hybrid.passkeys import vault_file as file
from hybrid.passkeys.store import Credential, CredentialState
from hybrid.passkeys.vault_file import Cost, KeyKind, Record, SecretBytes, UnreadableFile, usual_cost
from hybrid.passkeys.vault_keys import NoKey, VaultKey
from hybrid.passkeys.vault_record import PASSKEY, changed, to_credential, to_record

_SETTING = "setting"
_KEY_NAMES = {
    KeyKind.NONE: "no key, for it is not encrypted",
    KeyKind.PASSPHRASE: "a passphrase",
    KeyKind.KEYRING: "a key in the key ring",
    KeyKind.FILE: "a key file",
}


def default_vault_path() -> Path:
    """The vault in the user's data folder."""
    return platformdirs.user_data_path("fido-hybrid", appauthor=False) / "passkeys.vault"


@dataclass(frozen=True, slots=True, repr=False)
class _Entry:
    """A record as it is in the file, and what is looked up in it. `credential`: of a passkey; `name`: of a setting."""

    encoded: bytes
    kind: str
    credential: Credential | None
    name: str | None

    @classmethod
    def of(cls, record: Record, encoded: bytes | None = None) -> _Entry:
        kind = record.get("kind")
        if not isinstance(kind, str):
            raise UnreadableFile
        credential = to_credential(record) if kind == PASSKEY else None
        name = record.get("name") if kind == _SETTING else None
        if kind == _SETTING and (type(name) is not str or type(record.get("value")) is not bytes):
            raise UnreadableFile
        return cls(cbor.encode(record) if encoded is None else encoded, kind, credential, name)

    @property
    def record(self) -> Record:
        """A copy to do with what one likes."""
        (record,) = file.decode_records([self.encoded])
        return record


class _Contents:
    """A file's content, decoded once. Never changed: a write makes another one."""

    __slots__ = ("_by_id", "_by_rp_id", "entries", "head", "others", "stamp")

    def __init__(self, head: file.Head, others: file.Members, entries: list[_Entry], stamp: disk.Stamp) -> None:
        self.head = head
        self.others = others
        self.entries = entries
        self.stamp = stamp
        self._by_id: dict[bytes, int] = {}
        self._by_rp_id: dict[str, list[Credential]] = {}
        for position, entry in enumerate(entries):
            if entry.credential is not None:
                self._by_id.setdefault(entry.credential.credential_id, position)
                self._by_rp_id.setdefault(entry.credential.rp_id, []).append(entry.credential)

    def credentials(self, rp_id: str | None) -> list[Credential]:
        if rp_id is not None:
            return list(self._by_rp_id.get(rp_id, ()))
        return [entry.credential for entry in self.entries if entry.credential is not None]

    def position(self, credential_id: bytes) -> int | None:
        return self._by_id.get(credential_id)

    def setting(self, name: str) -> _Entry | None:
        return next((entry for entry in self.entries if entry.name == name), None)


class Vault:
    """A `CredentialStore` in one file. Make it with `open_vault`; use it as a context, or call `close`.

    `restored_from`: the highest generation seen, if the file that was opened is older, so that somebody put it back;
    `migrated_copy`: where the file of version 1 is, if there was one.
    """

    synced = False

    def __init__(self, path: Path, key: VaultKey, cost: Cost) -> None:
        self._path = path
        self._kind = key.kind
        self._cost = cost
        self._key: VaultKey = key
        self._data_key: SecretBytes | None = None
        self._vault_id: bytes | None = None
        self._seen = disk.SeenGeneration(path)
        self._highest = 0
        self._contents: _Contents | None = None
        self.restored_from: int | None = None
        self.migrated_copy: Path | None = None

    def __repr__(self) -> str:
        return f"<Vault {self._path}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Overwrite the key. The vault cannot be used after that."""
        if self._data_key is not None:
            self._data_key.wipe()
        self._contents = None

    @property
    def path(self) -> Path:
        return self._path

    @property
    def label(self) -> str:
        return str(self._path)

    @property
    def key_kind(self) -> KeyKind:
        """What opens it."""
        return self._kind

    @property
    def generation(self) -> int:
        """How many times it was written."""
        return self._load().head.generation

    def previous_generation(self) -> int | None:
        """The generation of ``NAME.previous``; None if there is none that this key opens."""
        try:
            with disk.opened(disk.previous_of(self._path)) as descriptor:
                data = disk.read_all(descriptor, self._path)
            head = file.parse_head(data)
            _entries(file.open_body(head, data, self._data_key).records)
        except (VaultError, UnreadableFile):
            return None
        return head.generation if head.version == file.VERSION and head.vault_id == self._vault_id else None

    # as a store

    def credentials(self, rp_id: str | None = None) -> list[Credential]:
        return self._load().credentials(rp_id)

    def find(self, credential_id: bytes) -> Credential | None:
        contents = self._load()
        position = contents.position(credential_id)
        return None if position is None else contents.entries[position].credential

    def add(self, credential: Credential, *, superseding: Collection[bytes] = ()) -> None:
        def edit(contents: _Contents) -> list[_Entry]:
            entries = list(contents.entries)
            _set_state(contents, entries, superseding, CredentialState.SUPERSEDED, credential.created_at)
            return [*entries, _Entry.of(to_record(credential))]

        self._write(edit)

    def add_all(self, credentials: Sequence[Credential]) -> None:
        """Keep new passkeys, all in one write."""
        if credentials:
            self._write(lambda contents: [*contents.entries, *(_Entry.of(to_record(one)) for one in credentials)])

    def set_state(self, credential_ids: Collection[bytes], state: CredentialState, at: int) -> None:
        def edit(contents: _Contents) -> list[_Entry]:
            entries = list(contents.entries)
            _set_state(contents, entries, credential_ids, state, at)
            return entries

        self._write(edit)

    def update(self, credential: Credential) -> None:
        def edit(contents: _Contents) -> list[_Entry]:
            entries = list(contents.entries)
            _put(contents, entries, credential.credential_id, lambda _: credential)
            return entries

        self._write(edit)

    def note_use(self, credential_id: bytes, at: int) -> None:
        def used(old: Credential) -> Credential:
            state = CredentialState.ACTIVE if old.state is CredentialState.UNCONFIRMED else old.state
            return with_changes(old, state=state, last_used_at=at, use_count=old.use_count + 1)

        def edit(contents: _Contents) -> list[_Entry]:
            entries = list(contents.entries)
            _put(contents, entries, credential_id, used)
            return entries

        self._write(edit)

    def setting(self, name: str) -> bytes | None:
        entry = self._load().setting(name)
        if entry is None:
            return None
        value: bytes = entry.record["value"]
        return value

    def keep_setting(self, name: str, value: bytes | None) -> None:
        def edit(contents: _Contents) -> list[_Entry]:
            kept = [entry for entry in contents.entries if entry.name != name]
            if value is not None:
                kept.append(_Entry.of({"kind": _SETTING, "name": name, "value": value}))
            return kept

        self._write(edit)

    # beyond a store

    def purge(self, credential_ids: Collection[bytes]) -> None:
        """Take passkeys out for good. They are in ``NAME.previous`` until the next write."""

        def edit(contents: _Contents) -> list[_Entry]:
            gone = {contents.position(credential_id) for credential_id in credential_ids}
            return [entry for position, entry in enumerate(contents.entries) if position not in gone]

        self._write(edit)

    def records(self, kind: str | None = None) -> list[Record]:
        """Copies of the records of this kind, or of all, as the file has them now. Raises `VaultError`."""
        entries = self._load().entries
        return file.decode_records([entry.encoded for entry in entries if kind in (None, entry.kind)])

    @contextmanager
    def change(self, kind: str | None = None) -> Iterator[list[Record]]:
        """Edit the records of this kind, or all, as they are now; when the block ends well, they are on disk.

        Other processes wait meanwhile. An exception in the block leaves the file as it was. Raises `VaultError`.
        """
        with disk.locked(self._path):
            contents = self._load()
            chosen = [entry for entry in contents.entries if kind in (None, entry.kind)]
            before = file.decode_records([entry.encoded for entry in chosen])
            copies = deepcopy(before)
            records = list(copies)
            yield records
            if records != before:
                self._store(contents, _edited(contents.entries, chosen, before, copies, records))

    def change_key(self, key: VaultKey, cost: Cost | None = None) -> None:
        """Let another key open the vault from now on, and ``NAME.previous`` with it. Raises `VaultError`.

        The data key stays, unless the vault was not encrypted. Whoever had the old key and an old copy has it still.
        """
        with disk.locked(self._path):
            contents = self._load()
            data_key = self._data_key
            if key.kind is KeyKind.NONE:
                data_key = None
            elif data_key is None:
                data_key = file.new_data_key(secrets.token_bytes)
            members = _wrapped(contents.head.members, key, data_key, cost or self._cost)
            self._data_key, self._kind, self._key = data_key, key.kind, key
            self._store(contents, contents.entries, members=members)
            with disk.access_problems(self._path):
                disk.keep_as(self._path, disk.previous_of(self._path))

    # the file

    def _write(self, edit: Callable[[_Contents], list[_Entry]]) -> None:
        with disk.locked(self._path):
            contents = self._load()
            entries = edit(contents)
            if entries != contents.entries:
                self._store(contents, entries)

    def _load(self) -> _Contents:
        """What the file has now. Raises `VaultError`."""
        with disk.opened(self._path) as descriptor:
            stamp = disk.Stamp.of(descriptor)
            known = self._contents
            if known is not None and known.stamp == stamp:
                # The header has the generation, and a nonce that is new with every write.
                if os.pread(descriptor, len(known.head.raw), 0) == known.head.raw:
                    return known
            data = disk.read_all(descriptor, self._path)
        try:
            head = file.parse_head(data)
            if head.version == 1 or head.vault_id != self._vault_id:
                raise UnreadableFile  # another one was put in its place
            if (head.kind is KeyKind.NONE) != (self._data_key is None):
                raise _wrong_kind(head.kind)
            body = file.open_body(head, data, self._data_key)
            contents = _Contents(head, body.others, _entries(body.records), stamp)
        except UnreadableFile:
            raise _unreadable(self._kind) from None
        self._contents = contents
        self._notice(head)
        return contents

    def _notice(self, head: file.Head) -> None:
        beside = self._seen.read(head.vault_id)
        self._highest = max(self._highest, beside, head.generation)
        if head.generation < self._highest:
            self.restored_from = self._highest
        elif beside < head.generation:
            self._seen.keep(head.vault_id, head.generation)

    def _store(
        self, contents: _Contents, entries: list[_Entry], *, members: file.Members | None = None,
        previous: bool = True,
    ) -> None:  # fmt: skip
        """Write it all; the lock is held."""
        generation = max(self._highest, contents.head.generation) + 1
        body = file.Body([entry.encoded for entry in entries], contents.others)
        head, data = file.seal(
            contents.head.members if members is None else members, generation, body, self._data_key, secrets.token_bytes
        )
        stamp = disk.replace(self._path, data, previous=previous)
        self._contents = _Contents(head, contents.others, entries, stamp)
        self._highest = generation
        self._seen.keep(head.vault_id, generation)
        self._key.keep_generation(head.vault_id, generation)

    # opening

    def _make(self) -> None:
        """Write an empty vault; the lock is held."""
        if os.path.lexists(disk.previous_of(self._path)):
            raise VaultError(f"{self._path} is gone, but the generation before it is there", VaultProblem.LOST)
        self._begin(file.Body([], {}), generation=0, previous=False)

    def _begin(self, body: file.Body, *, generation: int, previous: bool) -> None:
        if self._kind is not KeyKind.NONE:
            self._data_key = file.new_data_key(secrets.token_bytes)
        members = file.new_header(self._kind, secrets.token_bytes)
        members = _wrapped(members, self._key, self._data_key, self._cost)
        head, data = file.seal(members, generation, body, self._data_key, secrets.token_bytes)
        disk.replace(self._path, data, previous=previous)
        self._vault_id = head.vault_id

    def _migrate(self) -> None:
        """Write the file of version 1 anew; the lock is held."""
        with disk.opened(self._path) as descriptor:
            data = disk.read_all(descriptor, self._path)
        head = file.parse_head(data)
        if head.version != 1:
            return  # another process was faster
        body = file.open_body(head, data, None)
        _entries(body.records)
        self.migrated_copy = disk.keep_copy(self._path, data)
        self._begin(body, generation=file.version_1_generation(data, head) + 1, previous=False)

    def _unlock(self) -> None:
        head = _read_head(self._path)
        if head.version == 1:
            with disk.locked(self._path):
                self._migrate()
            head = _read_head(self._path)
        if head.kind is not self._kind:
            raise _wrong_kind(head.kind)
        if self._data_key is None and self._kind is not KeyKind.NONE:
            secret = self._key.secret(head.vault_id)
            if secret is None:
                raise UnreadableFile
            try:
                self._data_key = file.unwrap_key(head, secret)
            except UnsupportedAlgorithm:
                raise VaultError("this machine lacks Argon2id, which the vault needs", VaultProblem.KDF) from None
            finally:
                secret.wipe()
        self._vault_id = head.vault_id
        self._highest = self._key.highest_generation(head.vault_id)
        self._load()


def open_vault(path: Path | None = None, key: VaultKey | None = None, *, cost: Cost | None = None) -> Vault:
    """Open the vault at `path` (default: the user's data folder) and make it if it is not there.

    `key`: what opens it; by default nothing, so that a vault made here is not encrypted. `cost`: of a vault made here.

    Raises:
        VaultError: others can get at the file, or it cannot be read or made, it is no vault of ours, or the key is not
            the right one.
    """
    path = _real(path)
    with disk.access_problems(path):
        disk.make_folders(path.parent)
    vault = Vault(path, key or NoKey(), cost or usual_cost())
    try:
        if not os.path.lexists(path):
            with disk.locked(path):
                if not os.path.lexists(path):
                    vault._make()
        vault._unlock()
    except UnreadableFile:
        raise _unreadable(vault.key_kind) from None
    return vault


def needs_new_key(path: Path | None, kind: KeyKind) -> bool:
    """Whether `open_vault` with a key of this kind would make or migrate the vault, so that the key is a new one.

    For those who must ask a person. The file may be damaged all the same. Raises `VaultError`.
    """
    path = _real(path)
    if not os.path.lexists(path):
        return True
    try:
        head = _read_head(path)
    except UnreadableFile:
        raise _unreadable(kind) from None
    if head.version == 1:
        return True
    if head.kind is not kind:
        raise _wrong_kind(head.kind)
    return False


def _real(path: Path | None) -> Path:
    # The real place, so that a symbolic link to a vault stays one when the file is replaced.
    return Path(os.path.realpath(path or default_vault_path()))


def _read_head(path: Path) -> file.Head:
    with disk.opened(path) as descriptor:
        return file.parse_head(os.pread(descriptor, file.MAX_HEADER, 0))


def _wrapped(members: file.Members, key: VaultKey, data_key: SecretBytes | None, cost: Cost) -> file.Members:
    secret = None if data_key is None else key.make_secret(file.id_in(members))
    try:
        return file.with_key(members, key.kind, secret, data_key, cost, secrets.token_bytes)
    finally:
        if secret is not None:
            secret.wipe()


def _entries(records: list[bytes]) -> list[_Entry]:
    decoded = file.decode_records(records)
    return [_Entry.of(record, encoded) for record, encoded in zip(decoded, records, strict=True)]


def _edited(
    entries: list[_Entry], chosen: list[_Entry], before: list[Record], copies: list[Record], records: list[Record]
) -> list[_Entry]:
    """All entries after the `copies` of some were edited, and the list of them, too. What stays keeps its place."""
    kept = {id(record) for record in records}
    edited = {
        id(entry): entry if copy == old else _Entry.of(copy)
        for entry, old, copy in zip(chosen, before, copies, strict=True)
        if id(copy) in kept
    }
    of_others = {id(entry) for entry in entries} - {id(entry) for entry in chosen}
    stay = [edited.get(id(entry), entry) for entry in entries if id(entry) in of_others or id(entry) in edited]
    known = {id(copy) for copy in copies}
    return stay + [_Entry.of(record) for record in records if id(record) not in known]


def _put(
    contents: _Contents, entries: list[_Entry], credential_id: bytes, make: Callable[[Credential], Credential]
) -> None:
    """Put another passkey in the place of this one; nothing happens if there is none."""
    position = contents.position(credential_id)
    if position is None:
        return
    old = entries[position].credential
    assert old is not None
    entries[position] = _Entry.of(changed(entries[position].record, make(old)))


def _set_state(
    contents: _Contents, entries: list[_Entry], credential_ids: Iterable[bytes], state: CredentialState, at: int
) -> None:
    for credential_id in credential_ids:
        _put(contents, entries, credential_id, lambda old: with_changes(old, state=state, modified_at=at))


def _unreadable(kind: KeyKind) -> VaultError:
    """Depends on what the caller brought, never on what is in the file."""
    if kind is KeyKind.NONE:
        return VaultError("the vault is damaged", VaultProblem.CORRUPT)
    return VaultError("the key is not the right one, or the vault is damaged", VaultProblem.KEY)


def _wrong_kind(kind: KeyKind) -> VaultError:
    return VaultError(f"the vault opens with {_KEY_NAMES[kind]}", VaultProblem.KEY_KIND)
