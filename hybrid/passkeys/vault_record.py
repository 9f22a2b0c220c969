"""Passkeys as records of the vault: a map with text keys and the kind "passkey", and back.

Members of a later version stay in the record; the state of a later version reads as hidden.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from hybrid.passkeys.store import Credential, CredentialState
from hybrid.passkeys.vault_file import Record, UnreadableFile

PASSKEY = "passkey"

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
    ("user_icon", "user_icon", str),
)
_DEFAULTS = {field.name: field.default for field in fields(Credential)}


def to_record(credential: Credential) -> Record:
    record: Record = {member: getattr(credential, name) for member, name, _ in _MEMBERS}
    for member, name, kind in _OPTIONAL_MEMBERS:
        value = getattr(credential, name)
        if value != _DEFAULTS[name]:
            record[member] = list(value) if kind is list else value
    return record | {"kind": PASSKEY, "last_used_at": credential.last_used_at, "state": credential.state.value}


def changed(record: Record, credential: Credential) -> Record:
    """`record` as `credential` says now, with the members and the state that we do not know left alone."""
    known = {member for member, _, _ in _OPTIONAL_MEMBERS}
    made = {member: value for member, value in record.items() if member not in known} | to_record(credential)
    if to_credential(record).state is credential.state:
        made["state"] = record["state"]
    return made


def to_credential(record: Record) -> Credential:
    """Raises `UnreadableFile`."""
    if any(type(record.get(member)) is not kind for member, _, kind in _MEMBERS):
        raise UnreadableFile
    last_used_at, state = record.get("last_used_at"), record.get("state")
    if not (last_used_at is None or type(last_used_at) is int) or not isinstance(state, str):
        raise UnreadableFile
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
        raise UnreadableFile
    if kind is not list:
        return value
    match value:  # the one list: a large blob
        case [bytes(data), int(size)] if size >= 0:
            return data, size
        case _:
            raise UnreadableFile
