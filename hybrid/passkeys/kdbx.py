"""KeePass databases (KDBX 3.1 and 4): read and write passkeys, or be the place where the phone keeps them.

Other programs may have the same file open: it is read anew when it changed, and replaced as a whole. Changed entries go
to their history first, entries and attributes of others stay as they are. Entries and groups are in `kdbx_tree` and
`kdbx_entry`, the bytes of the file in `kdbx_file`.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from hybrid.errors import PortabilityError, VaultError, VaultProblem
from hybrid.passkeys import kdbx_entry, kdbx_tree
from hybrid.passkeys.kdbx_entry import FORMAT
from hybrid.passkeys.kdbx_file import DatabaseKey, KdfCost, new_database, open_database, saved
from hybrid.passkeys.portability import (
    Exported,
    Imported,
    LeftOut,
    Report,
    UnusablePasskey,
    checked,
    offered,
    read_file,
    take,
    write_private,
)
from hybrid.passkeys.store import Credential, CredentialState
from hybrid.passkeys.vault_disk import Stamp, locked

__all__ = ["DatabaseKey", "KdbxStore", "KdfCost", "open_kdbx", "read_kdbx", "write_kdbx"]

_HEAD_SIZE = 256  # seeds are in there that are new with every write
_TRIES = 5  # to be faster than other programs


def read_kdbx(data: bytes, key: DatabaseKey, *, absent_flags: bool = True) -> Imported:
    """Passkeys of a database, those in its recycle bin left out. `absent_flags`: BE and BS of entries without them.

    KeePassXC takes absent flags for 1 since 2.7.12, older versions for 0. Raises `PortabilityError`.
    """
    report = Report(FORMAT)
    database = open_database(data, key)

    def build(entry: Any) -> Callable[[], Credential]:
        return lambda: replace(
            kdbx_entry.to_credential(entry, absent_flags=absent_flags, binned=False), origin_store=FORMAT
        )

    def passkeys() -> Iterator[tuple[str, str, Callable[[], Credential]]]:
        bin_group = kdbx_tree.bin_of(database)
        for entry in kdbx_tree.entries_of(database):
            if kdbx_tree.is_in(entry, bin_group):
                continue
            texts = kdbx_entry.strings(entry)
            if kdbx_entry.is_passkey(texts):
                yield *kdbx_entry.names_in(texts), build(entry)
            else:
                report.others += 1

    return take(passkeys(), report)


def write_kdbx(
    credentials: Iterable[Credential], key: DatabaseKey, *, cost: KdfCost | None = None, into: bytes | None = None
) -> Exported:
    """Write a new database, or `into` anew: there, passkeys with the same id are brought up to date, others stay.

    Raises `PortabilityError`.
    """
    report = Report(FORMAT)
    database = open_database(into, key) if into is not None else new_database(key, cost or KdfCost())
    places = {}
    for entry in kdbx_tree.entries_of(database):
        texts = kdbx_entry.strings(entry)
        if kdbx_entry.is_passkey(texts):
            places[kdbx_entry.credential_id_in(texts)] = entry
        else:
            report.others += 1
    new = []
    for credential in offered(credentials, report):
        try:
            lost, kept = kdbx_entry.losses_for(credential)
        except UnusablePasskey as unusable:
            report.leave_out(credential.rp_id, credential.user_name, unusable.why)
            continue
        entry = places.get(credential.credential_id)
        if entry is None:
            new.append(credential)
        else:
            kdbx_tree.remember(database, entry)
            kdbx_entry.write(entry, credential)
            kdbx_tree.settle(database, entry, credential.state, credential.modified_at)
        report.lost(credential, lost)
        report.lost(credential, kept, kept_for_us=True)
        report.moved.append(credential.credential_id)
    kdbx_tree.add(database, new)
    return Exported(saved(database), report)


class _Contents:
    """A database as it was read, and where its passkeys are. An entry is decoded when it is asked for."""

    def __init__(self, database: Any, stamp: tuple[Stamp, bytes], *, absent_flags: bool) -> None:
        self.database = database
        self.stamp = stamp
        self._absent_flags = absent_flags
        self._places: dict[Any, tuple[bytes | None, str]] = {}  # by entry: id and RP id
        self._by_id: dict[bytes | None, list[Any]] = {}
        self._by_rp_id: dict[str, list[Any]] = {}
        self._decoded: dict[Any, Credential | LeftOut] = {}
        self._bin = kdbx_tree.bin_of(database)  # as it was: what is put there later has its state written on it
        for entry in kdbx_tree.entries_of(database):
            self._put(entry)

    def touched(self, entry: Any) -> None:
        """Look at an entry again, which was changed, added or taken out."""
        if entry in self._places:
            credential_id, rp_id = self._places.pop(entry)
            self._by_id[credential_id].remove(entry)
            self._by_rp_id[rp_id].remove(entry)
            self._decoded.pop(entry, None)
        if entry.getparent() is not None:
            self._put(entry)

    def entries(self, credential_ids: Collection[bytes]) -> list[tuple[Any, Credential]]:
        """Those with these ids that can be used."""
        found = (entry for credential_id in credential_ids for entry in self._by_id.get(credential_id, ()))
        return [(entry, one) for entry in found if isinstance(one := self._decode(entry), Credential)]

    def credentials(self, rp_id: str | None) -> list[Credential]:
        entries = self._places if rp_id is None else self._by_rp_id.get(rp_id, ())
        return [one for entry in entries if isinstance(one := self._decode(entry), Credential)]

    def unreadable(self) -> Report:
        report = Report(FORMAT)
        for entry in self._places:
            if isinstance(why := self._decode(entry), LeftOut):
                report.leave_out(*kdbx_entry.names_in(kdbx_entry.strings(entry)), why)
        return report

    def _put(self, entry: Any) -> None:
        texts = kdbx_entry.strings(entry)
        if not kdbx_entry.is_passkey(texts):
            return
        credential_id, rp_id = kdbx_entry.credential_id_in(texts), kdbx_entry.names_in(texts)[0]
        self._places[entry] = credential_id, rp_id
        self._by_id.setdefault(credential_id, []).append(entry)
        self._by_rp_id.setdefault(rp_id, []).append(entry)

    def _decode(self, entry: Any) -> Credential | LeftOut:
        if entry not in self._decoded:
            binned = kdbx_tree.is_in(entry, self._bin)
            try:
                credential = kdbx_entry.to_credential(entry, absent_flags=self._absent_flags, binned=binned)
                # The checks of an import, but nothing is changed: it is the owner's own database.
                checked(credential, Report(FORMAT))
                self._decoded[entry] = credential
            except UnusablePasskey as unusable:
                self._decoded[entry] = unusable.why
        return self._decoded[entry]


class KdbxStore:
    """A `CredentialStore` in a KeePass database. Make it with `open_kdbx`; use it as a context, or call `close`.

    Removed and superseded passkeys lie in the recycle bin, if the database has one, so that other programs do not offer
    them either. New ones count as synced, because such a file is made to be carried about.
    """

    synced = True

    def __init__(self, path: Path, key: DatabaseKey, contents: _Contents, *, absent_flags: bool = True) -> None:
        self._path = path
        self._key: DatabaseKey | None = key
        self._absent_flags = absent_flags
        self._contents: _Contents | None = contents

    def __repr__(self) -> str:
        return f"<KdbxStore {self._path}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Forget the key and the content, as far as Python does. The store cannot be used after that."""
        self._key = self._contents = None

    @property
    def path(self) -> Path:
        return self._path

    @property
    def label(self) -> str:
        return str(self._path)

    @property
    def verifies(self) -> bool:
        """Whether what opened it shows that its owner is there: a password does, a key file alone does not."""
        return self._key is not None and self._key.password is not None

    @property
    def unreadable(self) -> Report:
        """Entries that look like passkeys and cannot be used. They are left as they are."""
        return self._load().unreadable()

    def credentials(self, rp_id: str | None = None) -> list[Credential]:
        return sorted(self._load().credentials(rp_id), key=lambda credential: credential.created_at)

    def find(self, credential_id: bytes) -> Credential | None:
        found = self._load().entries([credential_id])
        return found[0][1] if found else None

    def add(self, credential: Credential, *, superseding: Collection[bytes] = ()) -> None:
        def edit(contents: _Contents) -> bool:
            _set_state(contents, superseding, CredentialState.SUPERSEDED, credential.created_at)
            return _add(contents, [credential])

        self._change(edit)

    def add_all(self, credentials: Sequence[Credential]) -> None:
        """Keep all of them, or none: every write encrypts the whole file."""
        self._change(lambda contents: _add(contents, credentials))

    def set_state(self, credential_ids: Collection[bytes], state: CredentialState, at: int) -> None:
        self._change(lambda contents: _set_state(contents, credential_ids, state, at))

    def update(self, credential: Credential) -> None:
        def edit(contents: _Contents) -> bool:
            found = contents.entries([credential.credential_id])
            for entry, _ in found:
                kdbx_tree.remember(contents.database, entry)
                kdbx_entry.write(entry, credential)
                _settle(contents, entry, credential.state, credential.modified_at)
            return bool(found)

        self._change(edit)

    def note_use(self, credential_id: bytes, at: int) -> None:
        def edit(contents: _Contents) -> bool:
            found = contents.entries([credential_id])
            for entry, old in found:
                kdbx_entry.write_use(entry, old.use_count + 1, at)
                if old.state is CredentialState.UNCONFIRMED:
                    kdbx_entry.write_state(entry, CredentialState.ACTIVE, at)
                contents.touched(entry)
            return bool(found)

        self._change(edit)

    def purge(self, credential_ids: Collection[bytes]) -> None:
        """Take passkeys out for good, and out of all histories. What else their entries hold stays."""

        def edit(contents: _Contents) -> bool:
            entries = [entry for entry, _ in contents.entries(credential_ids)]
            kdbx_tree.purge(contents.database, entries, credential_ids, int(time.time()))
            for entry in entries:
                contents.touched(entry)
            return bool(entries)

        self._change(edit)

    def setting(self, name: str) -> bytes | None:
        return kdbx_tree.setting(self._load().database, name)

    def keep_setting(self, name: str, value: bytes | None) -> None:
        def edit(contents: _Contents) -> bool:
            if kdbx_tree.setting(contents.database, name) == value:
                return False
            kdbx_tree.keep_setting(contents.database, name, value)
            return True

        self._change(edit)

    # the file

    def _load(self) -> _Contents:
        """Read the file if it is not the one that was read last. Raises `VaultError`."""
        if self._key is None:
            raise VaultError(f"{self._path} is closed", VaultProblem.ACCESS)
        known = self._contents
        try:
            stamp = _stamp(self._path)
            if known is not None and known.stamp == stamp:
                return known
            before = known.database if known is not None else None
            database = open_database(read_file(self._path), self._key, before=before)
        except FileNotFoundError:
            raise VaultError(f"{self._path} is not there any more", VaultProblem.MISSING) from None
        except OSError as error:
            raise VaultError(f"{self._path} cannot be used: {error.strerror}", VaultProblem.ACCESS) from error
        except PortabilityError as error:
            raise VaultError(str(error), VaultProblem.CORRUPT) from error
        self._contents = _Contents(database, stamp, absent_flags=self._absent_flags)
        return self._contents

    def _change(self, edit: Callable[[_Contents], bool]) -> None:
        """Edit the database as it is now and put it on disk, unless `edit` finds nothing to do. Raises `VaultError`.

        Other programs know nothing of our lock. If one writes while this does, its file is read and edited again.
        """
        with locked(self._path):
            for _ in range(_TRIES):
                contents = self._load()
                self._contents = None  # half-edited if anything goes wrong from here on
                if edit(contents):
                    try:
                        data = saved(contents.database)
                        if _stamp(self._path) != contents.stamp:
                            continue
                        mode = stat.S_IMODE(os.stat(self._path).st_mode)
                        stamp = write_private(self._path, data, overwrite=True, mode=mode)
                    except (PortabilityError, OSError) as error:
                        raise VaultError(f"{self._path} cannot be written: {error}", VaultProblem.ACCESS) from error
                    contents.stamp = stamp, data[:_HEAD_SIZE]
                self._contents = contents
                return
        raise VaultError(f"another program keeps {self._path} busy", VaultProblem.BUSY)


def open_kdbx(
    path: Path, key: DatabaseKey, *, create: bool = False, absent_flags: bool = True, cost: KdfCost | None = None
) -> KdbxStore:
    """Open a database as a store. `create`: make it if it is not there. `absent_flags` as in `read_kdbx`.

    Raises:
        PortabilityError: it is no database that can be read, or the key is wrong.
    """
    # The real place, so that a symbolic link to a database stays one when the file is replaced.
    path = Path(os.path.realpath(path))
    if create and not path.exists():
        write_private(path, saved(new_database(key, cost or KdfCost())))
    data = read_file(path)
    database = open_database(data, key)
    stamp = _stamp(path)
    if stamp[1] != data[:_HEAD_SIZE]:  # replaced in between, so the first use reads it again
        stamp = stamp[0], b""
    return KdbxStore(path, key, _Contents(database, stamp, absent_flags=absent_flags), absent_flags=absent_flags)


def _stamp(path: Path) -> tuple[Stamp, bytes]:
    with open(path, "rb") as file:
        return Stamp.of(file.fileno()), file.read(_HEAD_SIZE)


def _add(contents: _Contents, credentials: Sequence[Credential]) -> bool:
    for entry in kdbx_tree.add(contents.database, credentials):
        contents.touched(entry)
    return bool(credentials)


def _set_state(contents: _Contents, credential_ids: Collection[bytes], state: CredentialState, at: int) -> bool:
    found = contents.entries(credential_ids)
    for entry, _ in found:
        kdbx_tree.remember(contents.database, entry)
        kdbx_entry.write_state(entry, state, at)
        _settle(contents, entry, state, at)
    return bool(found)


def _settle(contents: _Contents, entry: Any, state: CredentialState, at: int) -> None:
    holder = kdbx_tree.settle(contents.database, entry, state, at)
    contents.touched(entry)
    if holder is not entry:
        contents.touched(holder)
