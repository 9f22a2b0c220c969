"""KeePassXC's ``.passkey`` file: one passkey as a JSON object of six texts, in clear.

Members as KeePassXC 2.7 writes and wants them, some of which may be empty: relyingParty, url, username, credentialId,
userHandle (both base64url) and privateKey (PEM). Databases of KeePassXC are in `hybrid.passkeys.kdbx`.
"""

from __future__ import annotations

from typing import Any

from hybrid.errors import PortabilityError, PortabilityProblem
from hybrid.passkeys.portability import (
    Exported,
    Imported,
    LeftOut,
    Report,
    UnusablePasskey,
    algorithms_of,
    b64url,
    from_b64url,
    from_pem,
    losses_of,
    offered,
    pem_of,
    read_json,
    take,
    text_of,
    write_json,
)
from hybrid.passkeys.store import Credential

FORMAT = "passkey"

_NEEDED = ("relyingParty", "username", "credentialId", "userHandle", "privateKey")


def read_passkey_file(data: bytes, *, now: int, synced: bool = True) -> Imported:
    """The passkey of a file. `synced`: what BE and BS become, which the format does not carry.

    Raises:
        PortabilityError: not such a file.
    """
    members = read_json(data)
    if any(name not in members for name in _NEEDED):
        raise PortabilityError("the file is not a passkey of KeePassXC", PortabilityProblem.FORMAT)
    report = Report(FORMAT)
    build = (members["relyingParty"], members["username"], lambda: _build(members, now, synced))
    return take([build], report)


def write_passkey_file(credential: Credential) -> Exported:
    """Write one passkey; the report says if KeePassXC would refuse it, and the data are empty then."""
    report = Report(FORMAT)
    for passkey in offered([credential], report):
        try:
            losses = losses_of(passkey, carried=())
        except UnusablePasskey as unusable:
            report.leave_out(passkey.rp_id, passkey.user_name, unusable.why)
            continue
        report.lost(passkey, losses)
        report.moved.append(passkey.credential_id)
        return Exported(write_json(_members(passkey)), report)
    return Exported(b"", report)


def _members(credential: Credential) -> dict[str, str]:
    return {
        "relyingParty": credential.rp_id,
        "url": f"https://{credential.rp_id}",
        "username": credential.user_name,
        "credentialId": b64url(credential.credential_id),
        "userHandle": b64url(credential.user_id),
        "privateKey": pem_of(credential.private_key),
    }


def _build(members: dict[str, Any], now: int, synced: bool) -> Credential:
    key = from_pem(members["privateKey"])
    try:
        credential_id = from_b64url(members["credentialId"])
    except ValueError:
        raise UnusablePasskey(LeftOut.CREDENTIAL_ID) from None
    try:
        user_id = from_b64url(members["userHandle"])
    except ValueError:
        raise UnusablePasskey(LeftOut.USER_HANDLE) from None
    return Credential(
        credential_id=credential_id,
        rp_id=text_of(members["relyingParty"]),
        rp_name="",
        user_id=user_id,
        user_name=text_of(members["username"]),
        user_display_name="",
        algorithm=algorithms_of(key)[0],
        private_key=key,
        created_at=now,
        modified_at=now,
        backup_eligible=synced,
        backed_up=synced,
        origin_store=FORMAT,
    )
