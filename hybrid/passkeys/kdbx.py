"""KeePass databases (KDBX 3.1 and 4): read and write passkeys, or be the place where the phone keeps them.

Through pykeepass, an optional part under the GPL that is loaded here and nowhere else. Other programs may have the same
file open: it is read anew when it changed, and replaced as a whole. Changed entries go to their history first, entries
and attributes of others stay as they are. Databases encrypted with Twofish are not read.
"""

from __future__ import annotations

import copy
import hashlib
import io
import os
import stat
import uuid
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pykeepass
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from pykeepass.entry import Entry
from pykeepass.exceptions import CredentialsError
from pykeepass.kdbx_parsing import kdf_uuids

from hybrid.errors import PortabilityError, PortabilityProblem, VaultError, VaultProblem
from hybrid.passkeys import kdbx_entry
from hybrid.passkeys.kdbx_entry import FORMAT
from hybrid.passkeys.portability import (
    MAX_FILE_SIZE,
    Exported,
    Imported,
    Report,
    UnusablePasskey,
    b64url,
    checked,
    from_b64url,
    malformed,
    offered,
    read_file,
    take,
    write_private,
)
from hybrid.passkeys.store import Credential, CredentialState
from hybrid.passkeys.vault_disk import locked

_MAX_INFLATED = 256 << 20
_MAX_MEMORY = 1 << 30
_MAX_MEMORY_TIMES_ROUNDS = 64 << 30  # about a minute
_MAX_LANES = 64
_MAX_AES_ROUNDS = 20_000_000  # pykeepass runs them in Python, about a million a second
_GROUP = "Passkeys"
_SETTING = kdbx_entry.PREFIX + "SETTING_"
_BINNED = (CredentialState.SUPERSEDED, CredentialState.DELETED)


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


def read_kdbx(data: bytes, key: DatabaseKey, *, absent_flags: bool = True) -> Imported:
    """Passkeys of a database, those in its recycle bin left out. `absent_flags`: BE and BS of entries without them.

    KeePassXC takes absent flags for 1 since 2.7.12, older versions for 0. Raises `PortabilityError`.
    """
    report = Report(FORMAT)
    database = _open(data, key)

    def build(entry: Any) -> Callable[[], Credential]:
        return lambda: replace(
            kdbx_entry.to_credential(entry, absent_flags=absent_flags, binned=False), origin_store=FORMAT
        )

    bin_group = _bin_of(database)
    entries = [entry for entry in _entries(database) if not _is_in(entry, bin_group)]
    passkeys = [entry for entry in entries if kdbx_entry.is_passkey(entry)]
    report.others = len(entries) - len(passkeys)
    return take(((*kdbx_entry.names_of(entry), build(entry)) for entry in passkeys), report)


def write_kdbx(
    credentials: Iterable[Credential], key: DatabaseKey, *, cost: KdfCost | None = None, into: bytes | None = None
) -> Exported:
    """Write a new database, or `into` anew: there, passkeys with the same id are brought up to date, others stay.

    Raises `PortabilityError`.
    """
    report = Report(FORMAT)
    database = _open(into, key) if into is not None else _new_database(key, cost or KdfCost())
    places = {kdbx_entry.credential_id_of(entry): entry for entry in _entries(database) if kdbx_entry.is_passkey(entry)}
    report.others = sum(1 for entry in _entries(database) if not kdbx_entry.is_passkey(entry))
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
            _remember(database, entry)
            kdbx_entry.write(entry, credential)
            _place(database, entry, credential.state)
        report.lost(credential, lost)
        report.lost(credential, kept, kept_for_us=True)
        report.moved.append(credential.credential_id)
    _add(database, new)
    return Exported(_saved(database), report)


@dataclass(slots=True)
class _Loaded:
    """The database as it was read: its file's stamp, and the passkeys in it with their entries."""

    stamp: tuple[int, int, int]
    database: Any
    passkeys: list[tuple[Any, Credential]]
    unreadable: Report


class KdbxStore:
    """A `CredentialStore` in a KeePass database. Make it with `open_kdbx`.

    Removed and superseded passkeys lie in the recycle bin, if the database has one, so that other programs do not offer
    them either. New ones count as synced, because such a file is made to be carried about.
    """

    synced = True

    def __init__(self, path: Path, key: DatabaseKey, *, absent_flags: bool = True) -> None:
        self._path = path
        self._key = key
        self._absent_flags = absent_flags
        self._loaded: _Loaded | None = None

    def __repr__(self) -> str:
        return f"<KdbxStore {self._path}>"

    @property
    def label(self) -> str:
        return str(self._path)

    @property
    def unreadable(self) -> Report:
        """Entries that look like passkeys and cannot be used. They are left as they are."""
        return self._load().unreadable

    def credentials(self, rp_id: str | None = None) -> list[Credential]:
        found = [credential for _, credential in self._load().passkeys if rp_id in (None, credential.rp_id)]
        return sorted(found, key=lambda credential: credential.created_at)

    def find(self, credential_id: bytes) -> Credential | None:
        for _, credential in self._load().passkeys:
            if credential.credential_id == credential_id:
                return credential
        return None

    def add(self, credential: Credential, *, superseding: Collection[bytes] = ()) -> None:
        with self._change() as loaded:
            _set_state(loaded, superseding, CredentialState.SUPERSEDED, credential.created_at)
            _add(loaded.database, [credential])

    def add_all(self, credentials: Sequence[Credential]) -> None:
        """Keep all of them, or none: every write derives no key, but encrypts the whole file."""
        if credentials:
            with self._change() as loaded:
                _add(loaded.database, credentials)

    def set_state(self, credential_ids: Collection[bytes], state: CredentialState, at: int) -> None:
        with self._change() as loaded:
            _set_state(loaded, credential_ids, state, at)

    def update(self, credential: Credential) -> None:
        with self._change() as loaded:
            for entry, old in loaded.passkeys:
                if old.credential_id == credential.credential_id:
                    _remember(loaded.database, entry)
                    kdbx_entry.write(entry, credential)
                    _place(loaded.database, entry, credential.state)

    def note_use(self, credential_id: bytes, at: int) -> None:
        with self._change() as loaded:
            for entry, old in loaded.passkeys:
                if old.credential_id == credential_id:
                    kdbx_entry.write_use(entry, old.use_count + 1, at)
                    if old.state is CredentialState.UNCONFIRMED:
                        kdbx_entry.write_state(entry, CredentialState.ACTIVE, at)

    def setting(self, name: str) -> bytes | None:
        item = _setting_item(self._load().database, name)
        try:
            return from_b64url(item.findtext("Value")) if item is not None else None
        except ValueError:
            raise VaultError("a setting in the database is damaged", VaultProblem.CORRUPT) from None

    def keep_setting(self, name: str, value: bytes | None) -> None:
        with self._change() as loaded:
            data = _custom_data(loaded.database)
            item = _setting_item(loaded.database, name)
            if item is not None:
                data.remove(item)
            if value is not None:
                item = data.makeelement("Item")
                for tag, text in (("Key", _SETTING + name), ("Value", b64url(value))):
                    element = item.makeelement(tag)
                    element.text = text
                    item.append(element)
                data.append(item)

    # the file

    def _load(self) -> _Loaded:
        """Read the file if it is not the one that was read last. Raises `VaultError`."""
        try:
            stamp = _stamp(self._path)
            if self._loaded is None or self._loaded.stamp != stamp:
                self._loaded = self._decoded(stamp, _open(read_file(self._path), self._key))
        except FileNotFoundError:
            raise VaultError(f"{self._path} is not there any more", VaultProblem.MISSING) from None
        except OSError as error:
            raise VaultError(f"{self._path} cannot be used: {error.strerror}", VaultProblem.ACCESS) from error
        except PortabilityError as error:
            raise VaultError(str(error), VaultProblem.CORRUPT) from error
        return self._loaded

    def _decoded(self, stamp: tuple[int, int, int], database: Any) -> _Loaded:
        loaded = _Loaded(stamp, database, [], Report(FORMAT))
        bin_group = _bin_of(database)
        for entry in _entries(database):
            if kdbx_entry.is_passkey(entry):
                try:
                    credential = kdbx_entry.to_credential(
                        entry, absent_flags=self._absent_flags, binned=_is_in(entry, bin_group)
                    )
                    # The checks of an import, but nothing is changed: it is the owner's own database.
                    checked(credential, Report(FORMAT))
                except UnusablePasskey as unusable:
                    loaded.unreadable.leave_out(*kdbx_entry.names_of(entry), unusable.why)
                else:
                    loaded.passkeys.append((entry, credential))
        return loaded

    @contextmanager
    def _change(self) -> Iterator[_Loaded]:
        """Edit the database as it is now; when the block ends well, it is on disk. Raises `VaultError`."""
        with locked(self._path):
            loaded = self._load()
            self._loaded = None  # half-edited if anything goes wrong from here on
            yield loaded
            data = _saved(loaded.database)
            try:
                mode = stat.S_IMODE(os.stat(self._path).st_mode)
                write_private(self._path, data, overwrite=True, mode=mode)
                stamp = _stamp(self._path)
            except (PortabilityError, OSError) as error:
                raise VaultError(f"{self._path} cannot be written: {error}", VaultProblem.ACCESS) from error
            self._loaded = self._decoded(stamp, loaded.database)


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
        write_private(path, _saved(_new_database(key, cost or KdfCost())))
    _open(read_file(path), key)
    return KdbxStore(path, key, absent_flags=absent_flags)


def _stamp(path: Path) -> tuple[int, int, int]:
    status = os.stat(path)
    return status.st_ino, status.st_mtime_ns, status.st_size


# --- entries ---------------------------------------------------------------------------------------------------------


def _entries(database: Any) -> Iterator[Any]:
    """Elements of all entries, those of the histories not among them."""
    return (entry for entry in database.tree.getroot().iter("Entry") if entry.getparent().tag == "Group")


def _bin_of(database: Any) -> Any | None:
    wanted = database.tree.getroot().findtext("Meta/RecycleBinUUID")
    for group in database.tree.getroot().iter("Group"):
        if wanted and group.findtext("UUID") == wanted:
            return group
    return None


def _is_in(entry: Any, group: Any | None) -> bool:
    return group is not None and any(ancestor is group for ancestor in entry.iterancestors("Group"))


def _add(database: Any, credentials: Sequence[Credential]) -> None:
    if not credentials:
        return
    home = _home_of(database)  # once: finding groups walks through all entries
    for credential in credentials:
        entry = Entry(
            title=kdbx_entry.clean(credential.rp_name) or credential.rp_id,
            username=kdbx_entry.clean(credential.user_name),
            url=f"https://{credential.rp_id}",
            kp=database,
        )
        entry.uuid = uuid.uuid4()  # the library's own tells the time and the network card
        home.append(entry)
        kdbx_entry.write(entry._element, credential)
        if credential.state in _BINNED:
            _place(database, entry._element, credential.state)


def _home_of(database: Any) -> Any:
    root = database.root_group
    for group in root.subgroups:
        if group.name == _GROUP and group._element is not _bin_of(database):
            return group
    group = database.add_group(root, _GROUP)
    group.uuid = uuid.uuid4()
    return group


def _set_state(loaded: _Loaded, credential_ids: Collection[bytes], state: CredentialState, at: int) -> None:
    for entry, old in loaded.passkeys:
        if old.credential_id in credential_ids:
            _remember(loaded.database, entry)
            kdbx_entry.write_state(entry, state, at)
            _place(loaded.database, entry, state)


def _place(database: Any, entry: Any, state: CredentialState) -> None:
    """Into the recycle bin, or out of it, as its state wants."""
    binned = _is_in(entry, _bin_of(database))
    if state in _BINNED and not binned:
        if database.tree.getroot().findtext("Meta/RecycleBinEnabled") != "False":
            database.trash_entry(Entry(element=entry, kp=database))
    elif state not in _BINNED and binned:
        _home_of(database).append(Entry(element=entry, kp=database))


def _remember(database: Any, entry: Any) -> None:
    """Put the entry as it is into its history, which keeps as many versions as the database says."""
    text = database.tree.getroot().findtext("Meta/HistoryMaxItems") or ""
    most = int(text) if text.removeprefix("-").isdigit() and len(text) < 10 else -1
    if most == 0:
        return
    version = copy.deepcopy(entry)
    history = entry.find("History")
    old = version.find("History")
    if old is not None:
        version.remove(old)
    if history is None:
        history = entry.makeelement("History")
        entry.append(history)
    history.append(version)
    versions = history.findall("Entry")
    for oldest in versions[: len(versions) - most] if most > 0 else ():
        history.remove(oldest)


def _custom_data(database: Any) -> Any:
    meta = database.tree.getroot().find("Meta")
    data = meta.find("CustomData")
    if data is None:
        data = meta.makeelement("CustomData")
        meta.append(data)
    return data


def _setting_item(database: Any, name: str) -> Any | None:
    for item in _custom_data(database).findall("Item"):
        if item.findtext("Key") == _SETTING + name:
            return item
    return None


# --- bytes -----------------------------------------------------------------------------------------------------------


def _open(data: bytes, key: DatabaseKey) -> Any:
    """Decrypt a database, with the work it may ask for bounded first. Raises `PortabilityError`."""
    if len(data) > MAX_FILE_SIZE:
        raise PortabilityError("the database is too large", PortabilityProblem.TOO_LARGE)
    try:
        _check_cost(pykeepass.PyKeePass(io.BytesIO(data), transformed_key=bytes(32), decrypt=False))
        head = pykeepass.PyKeePass(io.BytesIO(data), password=key.password, keyfile=key.stream(), decrypt=False)
        _check_inflated(head.kdbx, data)
        database = pykeepass.PyKeePass(
            io.BytesIO(data), password=key.password, keyfile=key.stream(), transformed_key=head.transformed_key
        )
        if database.root_group is None or database.tree.getroot().find("Meta") is None:
            raise malformed("the database has no root group")
    except PortabilityError:
        raise
    except CredentialsError:
        raise PortabilityError("the password or the key file is wrong", PortabilityProblem.KEY) from None
    except Exception:  # a foreign parser on somebody's bytes: it raises whatever its parts do
        if data[:4] != b"\x03\xd9\xa2\x9a":
            raise PortabilityError("the file is not a KeePass database", PortabilityProblem.FORMAT) from None
        raise malformed("the database is damaged") from None
    return database


def _check_cost(database: Any) -> None:
    header = _header(database.kdbx)
    if database.version[0] not in (3, 4):
        raise PortabilityError("the database has another version than KDBX 3 or 4", PortabilityProblem.VERSION)
    if database.version[0] == 3:
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


def _check_inflated(kdbx: Any, data: bytes) -> None:
    """See how large the content is: the library inflates it without a bound.

    With a wrong key this is noise that does not inflate at all, and the library says so later.
    """
    header = _header(kdbx)
    if not header.compression_flags.data.compression:
        return
    key = hashlib.sha256(header.master_seed.data + kdbx.body.transformed_key).digest()
    iv = header.encryption_iv.data
    cipher: Cipher[Any]
    match header.cipher_id.data:
        case "aes256":
            cipher = Cipher(algorithms.AES(key), modes.CBC(iv))
        case "chacha20":
            cipher = Cipher(algorithms.ChaCha20(key, bytes(4) + iv), None)
        case _:
            raise PortabilityError("the database is encrypted with Twofish", PortabilityProblem.VERSION)
    pieces = _pieces_3 if kdbx.header.value.major_version == 3 else _pieces_4
    inflater = zlib.decompressobj(16 + zlib.MAX_WBITS)
    size = 0
    for piece in pieces(data[len(kdbx.header.data) :], cipher):
        while piece and not inflater.eof:
            try:
                size += len(inflater.decompress(piece, 1 << 20))
            except zlib.error:
                return
            if size > _MAX_INFLATED:
                raise PortabilityError("the database is too large inside", PortabilityProblem.TOO_LARGE)
            piece = inflater.unconsumed_tail


def _pieces_4(body: bytes, cipher: Cipher[Any]) -> Iterator[bytes]:
    """What the blocks hold, after two checksums; each has a tag and its size in front, and is encrypted."""
    decryptor = cipher.decryptor()
    for block in _blocks(body[64:], 32):
        yield decryptor.update(block)


def _pieces_3(body: bytes, cipher: Cipher[Any]) -> Iterator[bytes]:
    """The same in KDBX 3: the blocks are inside, with a number more in front, after 32 bytes that prove the key."""
    return _blocks(cipher.decryptor().update(body)[32:], 36)


def _blocks(data: bytes, size_at: int) -> Iterator[bytes]:
    start, head = 0, size_at + 4
    while start + head <= len(data):
        size = int.from_bytes(data[start + size_at : start + head], "little")
        yield data[start + head : start + head + size]
        start += head + size
        if not size:
            return


def _new_database(key: DatabaseKey, cost: KdfCost) -> Any:
    buffer = io.BytesIO()
    database = pykeepass.PyKeePass(pykeepass.pykeepass.BLANK_DATABASE_LOCATION, "password")
    parameters = _header(database.kdbx).kdf_parameters.data.dict
    parameters["$UUID"].value = kdf_uuids["argon2id"]
    parameters["M"].value, parameters["I"].value, parameters["P"].value = cost.memory, cost.rounds, cost.lanes
    database.password = key.password
    database.keyfile = key.stream()
    database.save(buffer)
    return _open(buffer.getvalue(), key)


def _saved(database: Any) -> bytes:
    """The bytes of the file, seen to open again: somebody's other secrets are in it as well.

    Seeds and nonce are new each time; the salt of the passphrase stays, so that its key need not be derived anew.
    """
    meta = database.tree.getroot().find("Meta")
    header_hash = meta.find("HeaderHash")  # of KDBX 3, over the old header; it may be absent
    if header_hash is not None:
        meta.remove(header_hash)
    buffer = io.BytesIO()
    database.save(buffer, transformed_key=database.transformed_key)
    data = buffer.getvalue()
    again = pykeepass.PyKeePass(io.BytesIO(data), transformed_key=database.transformed_key)
    if len(list(_entries(again))) != len(list(_entries(database))):
        raise malformed("the database would lose entries by writing it")
    return data
