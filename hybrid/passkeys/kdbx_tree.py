"""Where passkeys are in a KeePass database: entries and their groups, the recycle bin, histories, settings beside them.

Entries of others are shared ground: one may hold a password as well as a passkey. What is removed takes the passkey
out of such an entry, and leaves the rest where it was.
"""

from __future__ import annotations

import copy
import uuid
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from pykeepass.entry import Entry

from hybrid.errors import VaultError, VaultProblem
from hybrid.passkeys import kdbx_entry
from hybrid.passkeys.portability import b64url, from_b64url
from hybrid.passkeys.store import Credential, CredentialState

BINNED = (CredentialState.SUPERSEDED, CredentialState.DELETED)
_GROUP = "Passkeys"
_SETTING = kdbx_entry.PREFIX + "SETTING_"


def entries_of(database: Any) -> Iterator[Any]:
    """Elements of all entries, those of the histories not among them."""
    return (entry for entry in database.tree.getroot().iter("Entry") if entry.getparent().tag == "Group")


def bin_of(database: Any) -> Any | None:
    wanted = database.tree.getroot().findtext("Meta/RecycleBinUUID")
    groups = list(database.tree.getroot().find("Root").iterchildren("Group")) if wanted else []
    while groups:  # not by iterating over the document, which has thousands of elements for each group
        group = groups.pop()
        if group.findtext("UUID") == wanted:
            return group
        groups += group.iterchildren("Group")
    return None


def is_in(entry: Any, group: Any | None) -> bool:
    return group is not None and any(ancestor is group for ancestor in entry.iterancestors("Group"))


def add(database: Any, credentials: Sequence[Credential]) -> list[Any]:
    """Make an entry for each."""
    if not credentials:
        return []
    home = _home_of(database)  # once: finding groups walks through all entries
    made = []
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
        binned = credential.state in BINNED
        made.append(
            settle(database, entry._element, credential.state, credential.modified_at) if binned else entry._element
        )
    return made


def settle(database: Any, entry: Any, state: CredentialState, at: int) -> Any:
    """Move what its state wants there into the recycle bin, or out of it. Gives the entry that has the passkey then.

    An entry that holds more than a passkey stays where it is, and its passkey gets an entry of its own.
    """
    bin_group = bin_of(database)
    binned = is_in(entry, bin_group)
    if state in BINNED and not binned:
        if database.tree.getroot().findtext("Meta/RecycleBinEnabled") != "False":
            if kdbx_entry.holds_more(entry):
                entry = _moved_out(entry)
            if bin_group is None:
                database.trash_entry(Entry(element=entry, kp=database))  # makes one; slow, as it walks through all
            else:
                bin_group.append(entry)
            kdbx_entry.note_move(entry, at)
    elif state not in BINNED and binned:
        _home_of(database).append(Entry(element=entry, kp=database))
        kdbx_entry.note_move(entry, at)
    return entry


def remember(database: Any, entry: Any) -> None:
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


def purge(database: Any, entries: Collection[Any], credential_ids: Collection[bytes], at: int) -> None:
    """Take passkeys out for good, out of every history, too. Entries that hold more than a passkey stay without it."""
    for entry in entries:
        if kdbx_entry.holds_more(entry):
            kdbx_entry.strip(entry, at)
        else:
            _note_deletion(database, entry, at)
            entry.getparent().remove(entry)
    for version in database.tree.getroot().iter("Entry"):
        if version.getparent().tag == "History":
            texts = kdbx_entry.strings(version)
            if kdbx_entry.is_passkey(texts) and kdbx_entry.credential_id_in(texts) in credential_ids:
                kdbx_entry.strip(version)


def setting(database: Any, name: str) -> bytes | None:
    """Raises `VaultError`."""
    item = _setting_item(database, name)
    try:
        return from_b64url(item.findtext("Value")) if item is not None else None
    except ValueError:
        raise VaultError("a setting in the database is damaged", VaultProblem.CORRUPT) from None


def keep_setting(database: Any, name: str, value: bytes | None) -> None:
    data = _custom_data(database)
    item = _setting_item(database, name)
    if item is not None:
        data.remove(item)
    if value is not None:
        data.append(_element(data, "Item", Key=_SETTING + name, Value=b64url(value)))


def _home_of(database: Any) -> Any:
    root = database.root_group
    for group in root.subgroups:
        if group.name == _GROUP and group._element is not bin_of(database):
            return group
    group = database.add_group(root, _GROUP)
    group.uuid = uuid.uuid4()
    return group


def _moved_out(entry: Any) -> Any:
    """An entry of its own beside this one, with the passkey that this one then has no more."""
    own = copy.deepcopy(entry)
    kdbx_entry.strip_others(own)
    own.find("UUID").text = kdbx_entry.standard_base64(uuid.uuid4().bytes)
    entry.addnext(own)
    kdbx_entry.strip(entry)  # its state was changed, so it bears the time of it
    return own


def _note_deletion(database: Any, entry: Any, at: int) -> None:
    """Without this line, merging with an older copy of the database would bring the entry back."""
    root = database.tree.getroot().find("Root")
    deleted = root.find("DeletedObjects")
    if deleted is None:
        deleted = root.makeelement("DeletedObjects")
        root.append(deleted)
    when = kdbx_entry.written_time(at, like=entry.findtext("Times/CreationTime"))
    deleted.append(_element(deleted, "DeletedObject", UUID=entry.findtext("UUID"), DeletionTime=when))


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


def _element(maker: Any, tag: str, **texts: str) -> Any:
    element = maker.makeelement(tag)
    for name, text in texts.items():
        child = element.makeelement(name)
        child.text = text
        element.append(child)
    return element
