"""Credential Exchange Format 1.0 (FIDO Alliance, Proposed Standard): one JSON document, in clear text.

Reads and writes the passkeys in it; everything else in a document that is written anew stays as it was, members that
are not known here included. Not the exchange protocol CXP, which encrypts such a document on its way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from hybrid.errors import PortabilityError, PortabilityProblem
from hybrid.passkeys.portability import (
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

FORMAT = "cxf"
MAJOR, MINOR = 1, 0

_EXPORTER = "fido-hybrid.invalid"  # an RP id is asked for, and this project has no domain
_EXPORTER_NAME = "fido-hybrid"
_HMAC_ALGORITHM = "hmac-sha256"
_SECRET_SIZE = 32
_ID_SIZE = 16
_PASSKEY = "passkey"
_CARRIED = (
    Loss.RP_NAME,
    Loss.DISPLAY_NAME,
    Loss.TIMES,
    Loss.PRF,
    Loss.CRED_BLOB,
    Loss.LARGE_BLOB,
    Loss.PAYMENTS,
)

Json = dict[str, Any]
Random = Callable[[int], bytes]


def read_cxf(data: bytes, *, now: int, synced: bool = True) -> Imported:
    """Passkeys of a document. `synced`: what BE and BS become, which the format does not carry.

    Raises:
        PortabilityError: not a CXF 1.x document.
    """
    report = Report(FORMAT)
    document = _document(data)
    return take(_passkeys(document, report, now, synced), report)


def write_cxf(credentials: Iterable[Credential], *, now: int, random: Random, into: bytes | None = None) -> Exported:
    """Write a document, or `into` anew: there, passkeys with the same id are brought up to date, others stay.

    Passkeys with a signature counter are left out, because the format forbids them. Raises `PortabilityError`.
    """
    report = Report(FORMAT)
    document = _document(into) if into is not None else _empty(random)
    places = {_id_of(credential): credential for _, credential in _all_passkeys(document)}
    report.others = sum(1 for _, _, credential in _credentials(document) if credential.get("type") != _PASSKEY)
    items = _accounts(document)[0]["items"]
    for credential in offered(credentials, report):
        try:
            losses = losses_of(credential, carried=_CARRIED)
            members = _to_members(credential, random)
        except UnusablePasskey as unusable:
            report.leave_out(credential.rp_id, credential.user_name, unusable.why)
            continue
        place = places.get((credential.rp_id, members["credentialId"]))
        if place is not None:
            _merge(place, members)
        else:
            items.append(_item(credential, members, random))
        report.lost(credential, losses)
        report.moved.append(credential.credential_id)
    document["timestamp"] = now
    return Exported(write_json(document), report)


# --- the document ----------------------------------------------------------------------------------------------------


def _empty(random: Random) -> Json:
    account = {"id": b64url(random(_ID_SIZE)), "username": "", "email": "", "collections": [], "items": []}
    return {
        "version": {"major": MAJOR, "minor": MINOR},
        "exporterRpId": _EXPORTER,
        "exporterDisplayName": _EXPORTER_NAME,
        "timestamp": 0,
        "accounts": [account],
    }


def _document(data: bytes) -> Json:
    document = read_json(data)
    version = document.get("version")
    if not isinstance(version, dict) or "accounts" not in document:
        raise PortabilityError("the file is not a credential exchange document", PortabilityProblem.FORMAT)
    if type(version.get("major")) is not int or version["major"] != MAJOR:  # minor versions only add
        raise PortabilityError("the document has another version than CXF 1", PortabilityProblem.VERSION)
    if not _accounts(document):
        raise malformed("the document has no account")
    return document


def _list(owner: Json, name: str) -> list[Json]:
    entries = owner.get(name)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise malformed(f"{name} of the document is not a list of objects")
    return entries


def _accounts(document: Json) -> list[Json]:
    return _list(document, "accounts")


def _credentials(document: Json) -> Iterator[tuple[Json, Json, Json]]:
    """Give account, item and credential of everything in the document."""
    for account in _accounts(document):
        for item in _list(account, "items"):
            for credential in _list(item, "credentials"):
                yield account, item, credential


def _all_passkeys(document: Json) -> Iterator[tuple[Json, Json]]:
    return ((item, credential) for _, item, credential in _credentials(document) if credential.get("type") == _PASSKEY)


def _id_of(passkey: Json) -> tuple[Any, Any]:
    try:
        return _hashable(passkey.get("rpId")), b64url(from_b64url(passkey.get("credentialId")))
    except ValueError:
        return None, None


def _hashable(value: Any) -> str | None:
    return value if isinstance(value, str) else None


# --- in --------------------------------------------------------------------------------------------------------------


def _passkeys(
    document: Json, report: Report, now: int, synced: bool
) -> Iterator[tuple[object, object, Callable[[], Credential]]]:
    for _, item, passkey in _credentials(document):
        if passkey.get("type") == _PASSKEY:
            yield passkey.get("rpId"), passkey.get("username"), partial(_build, item, passkey, report, now, synced)
        else:
            report.others += 1


def _build(item: Json, passkey: Json, report: Report, now: int, synced: bool) -> Credential:
    rp_id = text_of(passkey.get("rpId"))
    key = _bytes(passkey, "key", LeftOut.KEY)
    title = text_of(item.get("title"))
    created_at = time_of(item.get("creationAt"), now)
    credential = Credential(
        credential_id=_bytes(passkey, "credentialId", LeftOut.CREDENTIAL_ID),
        rp_id=rp_id,
        rp_name="" if title == rp_id else title,
        user_id=_bytes(passkey, "userHandle", LeftOut.USER_HANDLE),
        user_name=text_of(passkey.get("username")),
        user_display_name=text_of(passkey.get("userDisplayName")),
        algorithm=algorithms_of(key)[0],
        private_key=key,
        created_at=created_at,
        modified_at=time_of(item.get("modifiedAt"), created_at),
        backup_eligible=synced,
        backed_up=synced,
        origin_store=FORMAT,
        **_extensions(passkey.get("fido2Extensions")),
    )
    report.lost(credential, _unread(passkey.get("fido2Extensions")))
    return credential


def _bytes(passkey: Json, name: str, why: LeftOut) -> bytes:
    try:
        return from_b64url(passkey.get(name))
    except ValueError:
        raise UnusablePasskey(why) from None


def _extensions(extensions: Any) -> dict[str, Any]:
    """Fields of `Credential` out of fido2Extensions. What is malformed there is named by `_unread`."""
    if not isinstance(extensions, dict):
        return {}
    found: dict[str, Any] = {}
    secrets = _secrets(extensions.get("hmacCredentials"))
    if secrets is not None:
        found["secret_uv"], found["secret_no_uv"] = secrets
    try:
        if extensions.get("credBlob") is not None:
            found["cred_blob"] = from_b64url(extensions["credBlob"])
    except ValueError:
        pass
    large_blob = _large_blob(extensions.get("largeBlob"))
    if large_blob is not None:
        found["large_blob"] = large_blob
    return found | {"payments": extensions.get("payments") is True}


def _unread(extensions: Any) -> list[Loss]:
    if extensions is None:
        return []
    if not isinstance(extensions, dict):
        return [Loss.PRF, Loss.CRED_BLOB, Loss.LARGE_BLOB, Loss.PAYMENTS]
    read = _extensions(extensions)
    members = (
        ("hmacCredentials", "secret_uv", Loss.PRF),
        ("credBlob", "cred_blob", Loss.CRED_BLOB),
        ("largeBlob", "large_blob", Loss.LARGE_BLOB),
    )
    losses = [loss for member, name, loss in members if extensions.get(member) is not None and name not in read]
    return losses + [Loss.PAYMENTS] * (extensions.get("payments") not in (None, True, False))


def _secrets(hmac: Any) -> tuple[bytes, bytes] | None:
    if not isinstance(hmac, dict) or hmac.get("algorithm") != _HMAC_ALGORITHM:
        return None
    try:
        secrets = from_b64url(hmac.get("credWithUV")), from_b64url(hmac.get("credWithoutUV"))
    except ValueError:
        return None
    return secrets if all(secrets) else None


def _large_blob(blob: Any) -> tuple[bytes, int] | None:
    if not isinstance(blob, dict) or type(blob.get("uncompressedSize")) is not int:
        return None
    try:
        return from_b64url(blob.get("data")), blob["uncompressedSize"]
    except ValueError:
        return None


# --- out -------------------------------------------------------------------------------------------------------------


def _merge(place: Json, members: Json) -> None:
    """Bring a passkey of the document up to date; what is not known here stays."""
    old = place.get("fido2Extensions")
    place.update(members)
    if isinstance(old, dict):
        place["fido2Extensions"] = {**old, **members.get("fido2Extensions", {})}


def _item(credential: Credential, members: Json, random: Random) -> Json:
    return {
        "id": b64url(random(_ID_SIZE)),
        "creationAt": credential.created_at,
        "modifiedAt": credential.modified_at,
        "title": credential.rp_name or credential.rp_id,
        "credentials": [members],
    }


def _to_members(credential: Credential, random: Random) -> Json:
    if credential.sign_count:  # CXF 1.0, passkey: a counter other than zero must not be exported
        raise UnusablePasskey(LeftOut.COUNTER)
    members: Json = {
        "type": _PASSKEY,
        "credentialId": b64url(credential.credential_id),
        "rpId": credential.rp_id,
        "username": credential.user_name,
        "userDisplayName": credential.user_display_name,
        "userHandle": b64url(credential.user_id),
        "key": b64url(credential.private_key),
    }
    extensions: Json = {}
    if credential.secret_uv is not None or credential.secret_no_uv is not None:
        # The format wants both. One that was never there has never given a value to anybody, so any will do.
        extensions["hmacCredentials"] = {
            "algorithm": _HMAC_ALGORITHM,
            "credWithUV": b64url(credential.secret_uv or random(_SECRET_SIZE)),
            "credWithoutUV": b64url(credential.secret_no_uv or random(_SECRET_SIZE)),
        }
    if credential.cred_blob is not None:
        extensions["credBlob"] = b64url(credential.cred_blob)
    if credential.large_blob is not None:
        data, size = credential.large_blob
        extensions["largeBlob"] = {"uncompressedSize": size, "data": b64url(data)}
    if credential.payments:
        extensions["payments"] = True
    if extensions:
        members["fido2Extensions"] = extensions
    return members
