"""Bitwarden's JSON export: passkeys are in ``login.fido2Credentials`` of its items.

Everything else in an export that is written anew stays as it was. Only ES256 keys are known to be taken by Bitwarden,
so others are left out. What a password protects is opened by `bitwarden_sealed`; an export that is encrypted for the
account it came from is not read.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any

from hybrid.errors import PortabilityError, PortabilityProblem
from hybrid.passkeys.bitwarden_sealed import is_sealed, seal, unseal
from hybrid.passkeys.portability import (
    ES256,
    Exported,
    Imported,
    LeftOut,
    Loss,
    Report,
    UnusablePasskey,
    algorithms_of,
    b64url,
    from_b64url,
    losses_of,
    malformed,
    offered,
    read_json,
    take,
    text_of,
    time_of,
    write_json,
)
from hybrid.passkeys.store import Credential

FORMAT = "bitwarden"

_LOGIN = 1  # item type
_KEY_KIND = {"keyType": "public-key", "keyAlgorithm": "ECDSA", "keyCurve": "P-256"}
_ID_PREFIX = "b64."
_CARRIED = (Loss.RP_NAME, Loss.DISPLAY_NAME, Loss.TIMES, Loss.COUNTER, Loss.DISCOVERABLE)

Json = dict[str, Any]
Random = Callable[[int], bytes]


def read_bitwarden(
    data: bytes, *, now: int, synced: bool = True, password: Callable[[], str] | None = None
) -> Imported:
    """Passkeys of an export. `synced`: what BE and BS become, which the format does not carry.

    `password`: asked for that of a password protected export.

    Raises:
        PortabilityError: not such an export, an encrypted one, or the password is wrong.
    """
    report = Report(FORMAT)
    document = _document(data, password)
    return take(_passkeys(document, report, now, synced), report)


def write_bitwarden(
    credentials: Iterable[Credential], *, random: Random, into: bytes | None = None, password: str | None = None
) -> Exported:
    """Write an export, or `into` anew: there, passkeys with the same id are brought up to date, others stay.

    `password`: protects what is written, and opens `into`. Raises `PortabilityError`.
    """
    report = Report(FORMAT)
    document = (
        _document(into, None if password is None else lambda: password)
        if into is not None
        else {"encrypted": False, "folders": [], "items": []}
    )
    places = {_id_of(passkey): passkey for item in _items(document) for passkey in _fido2_credentials(item)}
    report.others = sum(1 for item in _items(document) if not _fido2_credentials(item))
    for credential in offered(credentials, report):
        try:
            losses = losses_of(credential, carried=_CARRIED)
            members = _to_members(credential)
        except UnusablePasskey as unusable:
            report.leave_out(credential.rp_id, credential.user_name, unusable.why)
            continue
        place = places.get((credential.rp_id, credential.credential_id))
        if place is not None:
            place.update(members)
        else:
            _items(document).append(_item(credential, members, random))
        report.lost(credential, losses)
        report.moved.append(credential.credential_id)
    written = write_json(document)
    return Exported(written if password is None else seal(written, password, random), report)


def is_protected(data: bytes) -> bool:
    """Whether this is an export that a password opens. Raises `PortabilityError`."""
    return is_sealed(read_json(data))


# --- the document ----------------------------------------------------------------------------------------------------


def _document(data: bytes, password: Callable[[], str] | None) -> Json:
    document = read_json(data)
    if is_sealed(document) and password is not None:
        document = read_json(unseal(document, password()))
    if is_sealed(document):
        raise PortabilityError("this export of Bitwarden is encrypted", PortabilityProblem.ENCRYPTED)
    if document.get("encrypted") is True:
        raise PortabilityError(
            "this export of Bitwarden opens in the account that it came from, and nowhere else",
            PortabilityProblem.ENCRYPTED,
        )
    items = document.get("items")
    if document.get("encrypted") is not False or not isinstance(items, list):
        raise PortabilityError("the file is not an export of Bitwarden", PortabilityProblem.FORMAT)
    if not all(isinstance(item, dict) for item in items):
        raise malformed("items of the export are not objects")
    return document


def _items(document: Json) -> list[Json]:
    items: list[Json] = document["items"]
    return items


def _fido2_credentials(item: Json) -> list[Json]:
    login = item.get("login")
    passkeys = login.get("fido2Credentials") if isinstance(login, dict) else None
    if passkeys is None:
        return []
    if not isinstance(passkeys, list) or not all(isinstance(passkey, dict) for passkey in passkeys):
        raise malformed("fido2Credentials of an item is not a list of objects")
    return passkeys


def _id_of(passkey: Json) -> tuple[str | None, bytes | None]:
    rp_id = passkey.get("rpId")
    try:
        return (rp_id if isinstance(rp_id, str) else None), _read_id(passkey.get("credentialId"))
    except ValueError:
        return None, None


# --- in --------------------------------------------------------------------------------------------------------------


def _passkeys(
    document: Json, report: Report, now: int, synced: bool
) -> Iterator[tuple[object, object, Callable[[], Credential]]]:
    for item in _items(document):
        passkeys = _fido2_credentials(item)
        if not passkeys:
            report.others += 1
        for passkey in passkeys:
            names = passkey.get("rpId"), passkey.get("userName")
            if item.get("deletedDate") is not None:  # in the bin there
                report.leave_out(*names, LeftOut.STATE)
            else:
                yield *names, partial(_build, item, passkey, now, synced)


def _build(item: Json, passkey: Json, now: int, synced: bool) -> Credential:
    if any(passkey.get(name) != value for name, value in _KEY_KIND.items()):
        raise UnusablePasskey(LeftOut.KEY_KIND)
    try:
        key = from_b64url(passkey.get("keyValue"))
    except ValueError:
        raise UnusablePasskey(LeftOut.KEY) from None
    try:
        credential_id = _read_id(passkey.get("credentialId"))
    except ValueError:
        raise UnusablePasskey(LeftOut.CREDENTIAL_ID) from None
    try:
        user_id = from_b64url(passkey.get("userHandle") or "")
    except ValueError:
        raise UnusablePasskey(LeftOut.USER_HANDLE) from None
    created_at = _read_time(passkey.get("creationDate"), now)
    return Credential(
        credential_id=credential_id,
        rp_id=text_of(passkey.get("rpId")),
        rp_name=text_of(passkey.get("rpName")),
        user_id=user_id,
        user_name=text_of(passkey.get("userName")),
        user_display_name=text_of(passkey.get("userDisplayName")),
        algorithm=ES256,
        private_key=key,
        created_at=created_at,
        modified_at=_read_time(item.get("revisionDate"), created_at),
        backup_eligible=synced,
        backed_up=synced,
        sign_count=_read_counter(passkey.get("counter")),
        discoverable=passkey.get("discoverable") not in ("false", False),
        origin_store=FORMAT,
    )


def _read_id(value: Any) -> bytes:
    """Bytes of ``b64.`` and base64url, or of a UUID's text. Raises `ValueError`."""
    if not isinstance(value, str):
        raise ValueError("not an id")
    if value.startswith(_ID_PREFIX):
        return from_b64url(value.removeprefix(_ID_PREFIX))
    return uuid.UUID(value).bytes


def _read_counter(value: Any) -> int | None:
    """A counter, which is a number or its text; the import takes it for 0 and says so if it was another."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 10:
        value = int(value)
    if value is None or value == "" or (type(value) is int and value == 0):
        return None
    if type(value) is int and 0 < value < 1 << 32:
        return value
    raise UnusablePasskey(LeftOut.MALFORMED)


def _read_time(value: Any, default: int) -> int:
    """Seconds of an ISO 8601 time."""
    try:
        moment = datetime.fromisoformat(value)
        return time_of(int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()), default)
    except (TypeError, ValueError, OverflowError):
        return default


# --- out -------------------------------------------------------------------------------------------------------------


def _to_members(credential: Credential) -> Json:
    if algorithms_of(credential.private_key)[0] != ES256:
        raise UnusablePasskey(LeftOut.KEY_KIND)
    return {
        "credentialId": _write_id(credential.credential_id),
        **_KEY_KIND,
        "keyValue": b64url(credential.private_key),
        "rpId": credential.rp_id,
        "userHandle": b64url(credential.user_id),
        "userName": credential.user_name,
        "counter": str(credential.sign_count or 0),
        "rpName": credential.rp_name,
        "userDisplayName": credential.user_display_name,
        "discoverable": "true" if credential.discoverable else "false",
        "creationDate": _write_time(credential.created_at),
    }


def _item(credential: Credential, members: Json, random: Random) -> Json:
    return {
        "id": str(uuid.UUID(bytes=random(16), version=4)),
        "organizationId": None,
        "folderId": None,
        "type": _LOGIN,
        "reprompt": 0,
        "name": credential.rp_name or credential.rp_id,
        "notes": None,
        "favorite": False,
        "login": {
            "fido2Credentials": [members],
            "uris": [{"match": None, "uri": f"https://{credential.rp_id}"}],
            "username": credential.user_name,
            "password": None,
            "totp": None,
        },
        "collectionIds": None,
        "revisionDate": _write_time(credential.modified_at),
        "creationDate": _write_time(credential.created_at),
        "deletedDate": None,
    }


def _write_id(credential_id: bytes) -> str:
    if len(credential_id) == 16:
        return str(uuid.UUID(bytes=credential_id))
    return _ID_PREFIX + b64url(credential_id)


def _write_time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
