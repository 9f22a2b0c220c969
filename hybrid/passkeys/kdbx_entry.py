"""A passkey as an entry of a KeePass database: string attributes of the KeePassXC family, and our own for the rest.

KeePassXC, Strongbox, KeePassDX and others share the names that begin with KPEX_PASSKEY. What those have no place for is
kept in attributes that begin with FIDO_HYBRID, which only this program reads. Attributes of others are not touched.
Works on XML elements of KDBX and loads no library of its own: opening and saving is in `hybrid.passkeys.kdbx`.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from hybrid.passkeys.portability import (
    LeftOut,
    Loss,
    UnusablePasskey,
    algorithms_of,
    b64url,
    from_b64url,
    from_pem,
    losses_of,
    pem_of,
    time_of,
)
from hybrid.passkeys.store import Credential, CredentialState

FORMAT = "kdbx"
TAG: Final = "Passkey"

CREDENTIAL_ID = "KPEX_PASSKEY_CREDENTIAL_ID"
PRIVATE_KEY = "KPEX_PASSKEY_PRIVATE_KEY_PEM"
RELYING_PARTY = "KPEX_PASSKEY_RELYING_PARTY"
USER_HANDLE = "KPEX_PASSKEY_USER_HANDLE"
USERNAME = "KPEX_PASSKEY_USERNAME"
FLAG_BE = "KPEX_PASSKEY_FLAG_BE"
FLAG_BS = "KPEX_PASSKEY_FLAG_BS"
PRF = "KPEX_PASSKEY_PRF"  # KeePassDX 4.5: the secret with user verification, in base64
OLD_CREDENTIAL_ID = "KPEX_PASSKEY_GENERATED_USER_ID"  # Strongbox; KeePassXC takes it over the newer name
OLD_USERNAME = "KPXC_PASSKEY_USERNAME"  # likewise

PREFIX = "FIDO_HYBRID_"
_STATE = PREFIX + "STATE"
_SHARED_PROTECTED = (CREDENTIAL_ID, PRIVATE_KEY, USER_HANDLE, PRF)
_FAMILY = ("KPEX_PASSKEY_", OLD_USERNAME, PREFIX)
_LABELS = ("Title", "UserName", "URL")
_TRUE = ("1", "true")
_MAX_TEXT = 1 << 20
_YEAR_ONE = 62_135_596_800  # seconds from the year 1, where KDBX 4 counts from, to 1970

# What the shared attributes and the entry itself have a place for. KPEX_PASSKEY_PRF is read by KeePassDX alone so far.
_SHARED_PARTS = (Loss.TIMES, Loss.BACKUP_FLAGS, Loss.USE)


Texts = Mapping[str, str]  # the string attributes of an entry, as `strings` gives them


@dataclass(frozen=True, slots=True)
class _Own:
    """One of our attributes: its name without prefix, the field of `Credential`, how it is written and read."""

    name: str
    field: str
    write: Callable[[Any], str]
    read: Callable[[str], Any]
    protected: bool = False


def _write_large_blob(blob: tuple[bytes, int]) -> str:
    return f"{blob[1]}:{b64url(blob[0])}"


def _read_large_blob(text: str) -> tuple[bytes, int]:
    size, _, data = text.partition(":")
    return from_b64url(data), int(size)


_OWN: tuple[_Own, ...] = (
    _Own("RP_NAME", "rp_name", str, str),
    _Own("USER_DISPLAY_NAME", "user_display_name", str, str),
    _Own("ALGORITHM", "algorithm", str, int),
    _Own("STATE", "state", str, CredentialState),
    _Own("SIGN_COUNT", "sign_count", str, int),
    _Own("DISCOVERABLE", "discoverable", lambda on: "1" if on else "0", lambda text: text in _TRUE),
    _Own("CRED_PROTECT", "cred_protect", str, int),
    _Own("SECRET_UV", "secret_uv", b64url, from_b64url, protected=True),
    _Own("SECRET_NO_UV", "secret_no_uv", b64url, from_b64url, protected=True),
    _Own("CRED_BLOB", "cred_blob", b64url, from_b64url, protected=True),
    _Own("LARGE_BLOB_KEY", "large_blob_key", b64url, from_b64url, protected=True),
    _Own("LARGE_BLOB", "large_blob", _write_large_blob, _read_large_blob, protected=True),
    _Own("PAYMENTS", "payments", lambda on: "1" if on else "0", lambda text: text in _TRUE),
    _Own("AAGUID", "aaguid", bytes.hex, bytes.fromhex),
    _Own("ORIGIN_STORE", "origin_store", str, str),
    _Own("NOTE", "note", str, str, protected=True),
    _Own("USER_ICON", "user_icon", str, str),
)
_DEFAULTS: dict[str, Any] = {
    "rp_name": "",
    "user_display_name": "",
    "state": CredentialState.ACTIVE,
    "sign_count": None,
    "discoverable": True,
    "cred_protect": 1,
    "secret_uv": None,
    "secret_no_uv": None,
    "cred_blob": None,
    "large_blob_key": None,
    "large_blob": None,
    "payments": False,
    "aaguid": None,
    "origin_store": None,
    "note": None,
    "user_icon": None,
}


def is_passkey(texts: Texts) -> bool:
    """Whether an entry with these attributes holds a passkey: its private key's marks it."""
    return PRIVATE_KEY in texts


def names_in(texts: Texts) -> tuple[str, str]:
    """RP id and user name as the entry has them, for a report."""
    return texts.get(RELYING_PARTY, ""), texts.get(OLD_USERNAME) or texts.get(USERNAME, "")


def credential_id_in(texts: Texts) -> bytes | None:
    """The id as the entry has it, None if it cannot be read."""
    try:
        return from_b64url(texts.get(OLD_CREDENTIAL_ID) or texts.get(CREDENTIAL_ID))
    except ValueError:
        return None


def losses_for(credential: Credential) -> tuple[list[Loss], list[Loss]]:
    """What an entry cannot hold, and what it holds where only this program looks. Raises `UnusablePasskey`."""
    names = (credential.rp_name, credential.user_name, credential.user_display_name, credential.note or "")
    lost = [Loss.NAME] if any(clean(name) != name or name.isspace() for name in names) else []
    return lost, losses_of(credential, carried=_SHARED_PARTS)


def to_credential(entry: Any, *, absent_flags: bool, binned: bool) -> Credential:
    """Read an entry. `absent_flags`: BE and BS where it has none; `binned`: it lies in the recycle bin.

    Raises `UnusablePasskey`.
    """
    texts = strings(entry)
    private_key = from_pem(texts.get(PRIVATE_KEY))
    credential_id = credential_id_in(texts)
    if credential_id is None:
        raise UnusablePasskey(LeftOut.CREDENTIAL_ID)
    rp_id, user_name = names_in(texts)
    own = _own_fields(texts)
    algorithms = algorithms_of(private_key)
    algorithm = own.pop("algorithm", None)
    if "secret_uv" not in own and texts.get(PRF):
        own["secret_uv"] = _from_standard_base64(texts[PRF])
    state = own.pop("state", CredentialState.ACTIVE)
    if binned and state not in (CredentialState.SUPERSEDED, CredentialState.HIDDEN):
        state = CredentialState.DELETED
    backup_eligible = _flag(texts.get(FLAG_BE), absent_flags)
    created_at = _time(entry, "CreationTime", 0)
    uses = _uses(entry)
    return Credential(
        credential_id=credential_id,
        rp_id=rp_id,
        rp_name=own.pop("rp_name", ""),
        user_id=_bytes(texts.get(USER_HANDLE), LeftOut.USER_HANDLE),
        user_name=user_name,
        user_display_name=own.pop("user_display_name", ""),
        algorithm=algorithm if algorithm in algorithms else algorithms[0],
        private_key=private_key,
        created_at=created_at,
        modified_at=_time(entry, "LastModificationTime", created_at),
        last_used_at=_time(entry, "LastAccessTime", created_at) if uses else None,
        use_count=uses,
        backup_eligible=backup_eligible,
        backed_up=backup_eligible and _flag(texts.get(FLAG_BS), absent_flags),
        state=state,
        **own,
    )


def write(entry: Any, credential: Credential) -> None:
    """Put a passkey into an entry. Attributes of others stay; the older names are kept in step where they are."""
    shared = {
        CREDENTIAL_ID: b64url(credential.credential_id),
        PRIVATE_KEY: pem_of(credential.private_key),
        RELYING_PARTY: credential.rp_id,
        USER_HANDLE: b64url(credential.user_id),
        USERNAME: credential.user_name,
        FLAG_BE: "1" if credential.backup_eligible else "0",
        FLAG_BS: "1" if credential.backed_up else "0",
    }
    texts = strings(entry)
    for old, new in ((OLD_CREDENTIAL_ID, CREDENTIAL_ID), (OLD_USERNAME, USERNAME)):
        if old in texts:  # it wins where both are there
            shared[old] = shared[new]
    if credential.secret_uv is not None:
        shared[PRF] = standard_base64(credential.secret_uv)
    else:
        _remove(entry, PRF)
    for name, value in shared.items():
        _set(entry, name, value, protected=name in _SHARED_PROTECTED)
    defaults = _DEFAULTS | {"algorithm": algorithms_of(credential.private_key)[0]}
    for own in _OWN:
        value = getattr(credential, own.field)
        if value == defaults[own.field]:
            _remove(entry, PREFIX + own.name)
        else:
            _set(entry, PREFIX + own.name, own.write(value), protected=own.protected)
    _add_tag(entry)
    _set_time(entry, "CreationTime", credential.created_at)
    _set_time(entry, "LastModificationTime", credential.modified_at)
    write_use(entry, credential.use_count, credential.last_used_at)


def write_state(entry: Any, state: CredentialState, at: int) -> None:
    if state is CredentialState.ACTIVE:
        _remove(entry, _STATE)
    else:
        _set(entry, _STATE, str(state), protected=False)
    _set_time(entry, "LastModificationTime", at)


def write_use(entry: Any, count: int, at: int | None) -> None:
    """Where every program of the family counts uses."""
    element = entry.find("Times/UsageCount")
    if element is not None:
        element.text = str(count)
    if at is not None:
        _set_time(entry, "LastAccessTime", at)


def note_move(entry: Any, at: int) -> None:
    """That an entry came into another group, which tells a merge where it belongs."""
    _set_time(entry, "LocationChanged", at)


def holds_more(entry: Any) -> bool:
    """Whether there is something in an entry that its owner would miss, beside a passkey and what names it."""
    foreign = (text for name, text in strings(entry).items() if name not in _LABELS and not name.startswith(_FAMILY))
    return any(foreign) or entry.find("Binary") is not None


def strip(entry: Any, at: int | None = None) -> None:
    """Take the passkey out of an entry, its history not looked at. `at`: when, if this is a change of the entry."""
    for element in entry.findall("String"):
        if (element.findtext("Key") or "").startswith(_FAMILY):
            entry.remove(element)
    tags = entry.find("Tags")
    if tags is not None and tags.text:
        tags.text = ";".join(tag for tag in tags.text.replace(",", ";").split(";") if tag != TAG)
    if at is not None:
        _set_time(entry, "LastModificationTime", at)


def strip_others(entry: Any) -> None:
    """Leave nothing in an entry but the passkey and what names it."""
    for element in entry.findall("String"):
        name = element.findtext("Key") or ""
        if name == "Password":  # every entry has one
            element.find("Value").text = None
        elif name not in _LABELS and not name.startswith(_FAMILY):
            entry.remove(element)
    for tag in ("History", "Binary"):
        for element in entry.findall(tag):
            entry.remove(element)


def clean(text: str) -> str:
    """`text` without what XML has no way to write."""
    return "".join(
        char for char in text if char in "\t\n\r" or (ord(char) >= 0x20 and ord(char) not in (0xFFFE, 0xFFFF))
    )


# --- attributes ------------------------------------------------------------------------------------------------------


def strings(entry: Any) -> dict[str, str]:
    """The string attributes of an entry, without its history's."""
    found = {}
    for element in entry.iterchildren("String"):
        name, value = None, ""
        for child in element:  # not by name, which takes three times as long
            if child.tag == "Key":
                name = child.text
            elif child.tag == "Value":
                value = child.text or ""
        if name is not None and len(value) <= _MAX_TEXT:
            found[name] = value
    return found


def _elements(entry: Any, name: str) -> list[Any]:
    return [element for element in entry.findall("String") if element.findtext("Key") == name]


def _set(entry: Any, name: str, value: str, *, protected: bool) -> None:
    elements = _elements(entry, name)
    if not elements:
        element = entry.makeelement("String")
        for tag in ("Key", "Value"):
            element.append(element.makeelement(tag))
        element.find("Key").text = name
        entry.append(element)
        elements = [element]
    place = elements[0].find("Value")
    place.text = clean(value)
    if protected:
        place.set("Protected", "True")


def _remove(entry: Any, name: str) -> None:
    for element in _elements(entry, name):
        entry.remove(element)


def _add_tag(entry: Any) -> None:
    element = entry.find("Tags")
    if element is None:
        element = entry.makeelement("Tags")
        entry.append(element)
    tags = element.text or ""
    if TAG not in tags.replace(",", ";").split(";"):
        element.text = f"{tags};{TAG}" if tags else TAG


def _own_fields(texts: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for own in _OWN:
        text = texts.get(PREFIX + own.name)
        if text is not None:
            try:
                found[own.field] = own.read(text)
            except ValueError:
                raise UnusablePasskey(LeftOut.MALFORMED) from None
    return found


def _bytes(text: str | None, why: LeftOut) -> bytes:
    try:
        return from_b64url(text)
    except ValueError:
        raise UnusablePasskey(why) from None


def _from_standard_base64(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except ValueError:
        raise UnusablePasskey(LeftOut.MALFORMED) from None


def _flag(text: str | None, absent: bool) -> bool:
    return absent if text is None else text.strip().lower() in _TRUE


def _uses(entry: Any) -> int:
    text = entry.findtext("Times/UsageCount") or ""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _time(entry: Any, name: str, default: int) -> int:
    """Seconds since 1970 of base64 of a 64-bit count, as KDBX 4 has it, or of an ISO 8601 time."""
    text = entry.findtext(f"Times/{name}") or ""
    try:
        raw = base64.b64decode(text, validate=True)
        if len(raw) == 8:
            return time_of(int.from_bytes(raw, "little") - _YEAR_ONE, default)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
        return time_of(int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()), default)
    except (ValueError, OverflowError):
        return default


def _set_time(entry: Any, name: str, seconds: int) -> None:
    element = entry.find(f"Times/{name}")
    if element is not None:
        element.text = written_time(seconds, like=element.text)


def written_time(seconds: int, *, like: str | None) -> str:
    """A time in the way of another one in the database: KDBX 3 writes ISO 8601."""
    if ":" in (like or ""):
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return standard_base64((seconds + _YEAR_ONE).to_bytes(8, "little"))


def standard_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
