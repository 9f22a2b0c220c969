"""``hybrid passkeys``: tables for people, JSON for programs. Secrets of passkeys are in neither.

A vault and a KeePass database behave alike, but for what such a database has no place for: a copy of the generation
before, and another key, which is given to it by the program that it belongs to.

stdout has the table, the JSON, or one line a passkey that was changed.
"""

from __future__ import annotations

import base64
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from hybrid.cli.database import is_database, open_chosen_store
from hybrid.cli.messages import EXIT_DECLINED, UsageProblem
from hybrid.cli.terminal import Screen
from hybrid.cli.vault_keys import ask_yes, chosen_key, open_chosen_vault, parse_vault_key
from hybrid.errors import VaultError, VaultProblem
from hybrid.passkeys.consent import harmless, shown_rp_id
from hybrid.passkeys.portability import Finding, LeftOut
from hybrid.passkeys.store import Credential, CredentialState, CredentialStore
from hybrid.passkeys.vault import Vault

if TYPE_CHECKING:  # it loads a library that is not always here
    from hybrid.passkeys.kdbx import KdbxStore

SHORT_ID = 8  # hex digits
WHY = {
    LeftOut.MALFORMED: "its members are not what they should be",
    LeftOut.RP_ID: "its site is not the name of one",
    LeftOut.CREDENTIAL_ID: "its id cannot be read",
    LeftOut.USER_HANDLE: "its user handle cannot be read, or is missing",
    LeftOut.KEY: "its key cannot be read",
    LeftOut.KEY_KIND: "its key is of a kind that is not known there",
    LeftOut.PUBLIC_KEY: "its key does not belong to its public key",
    LeftOut.COUNTER: "it counts its uses, which this format forbids",
    LeftOut.STATE: "it is removed, replaced or hidden",
    LeftOut.DUPLICATE: "it is in the file twice",
    LeftOut.ALREADY_THERE: "it is in the vault already",
    LeftOut.ID_CLASH: "another passkey has its id",
}
_MIN_ID = 4
_PURGEABLE = (CredentialState.DELETED, CredentialState.SUPERSEDED)


def _opened(screen: Screen, path: Path | None, vault_key: str) -> Vault | KdbxStore:
    return open_chosen_store(path, vault_key, screen, make=False)


# --- what the commands do ---------------------------------------------------------------------------------------------


def list_all(screen: Screen, path: Path | None, vault_key: str, *, everything: bool, as_json: bool) -> int:
    with _opened(screen, path, vault_key) as vault:
        found = vault.credentials()
        chosen = sorted(
            (credential for credential in found if everything or credential.usable),
            key=lambda credential: (credential.rp_id, credential.created_at),
        )
        if as_json:
            _print_json({"vault": vault.label, "passkeys": [as_document(credential) for credential in chosen]})
            return 0
        if chosen:
            _print_table(chosen, _short_ids(found))
        else:
            screen.say("there is no passkey in this vault")
        hidden = len(found) - len(chosen)
        if hidden:
            screen.say(f"{hidden} more, removed or replaced: see them with --all")
        unusable = 0 if isinstance(vault, Vault) else len(vault.unreadable.findings)
        if unusable:
            screen.say(f"{unusable} more that cannot be used: see why with hybrid passkeys verify")
    return 0


def show(screen: Screen, path: Path | None, vault_key: str, wanted: str, *, as_json: bool) -> int:
    with _opened(screen, path, vault_key) as vault:
        credential = find(vault, wanted)
    document = as_document(credential)
    if as_json:
        _print_json(document)
        return 0
    width = max(len(name) for name in document)
    for name, value in document.items():
        print(f"{name:{width}}  {_shown(name, value)}")
    return 0


def rename(
    screen: Screen, path: Path | None, vault_key: str, wanted: str, name: str, display_name: str | None, *,
    as_json: bool,
) -> int:  # fmt: skip
    with _opened(screen, path, vault_key) as vault:
        old = find(vault, wanted)
        shown = old.user_display_name if display_name is None else display_name
        vault.update(replace(old, user_name=name, user_display_name=shown, modified_at=int(time.time())))
        _print_changed(vault, [old.credential_id], "renamed", as_json=as_json)
    return 0


def remove(screen: Screen, path: Path | None, vault_key: str, wanted: Sequence[str], *, as_json: bool) -> int:
    with _opened(screen, path, vault_key) as vault:
        chosen = [find(vault, one) for one in wanted]
        ids = [credential.credential_id for credential in chosen if credential.state is not CredentialState.DELETED]
        vault.set_state(ids, CredentialState.DELETED, int(time.time()))
        _print_changed(vault, ids, "removed", as_json=as_json)
    screen.say("bring back what was removed with hybrid passkeys restore, until it is purged")
    return 0


def restore(screen: Screen, path: Path | None, vault_key: str, wanted: Sequence[str], *, as_json: bool) -> int:
    with _opened(screen, path, vault_key) as vault:
        ids = [credential.credential_id for one in wanted if not (credential := find(vault, one)).usable]
        vault.set_state(ids, CredentialState.ACTIVE, int(time.time()))
        _print_changed(vault, ids, "restored", as_json=as_json)
    return 0


def purge(
    screen: Screen, path: Path | None, vault_key: str, wanted: Sequence[str], *, everything: bool, yes: bool,
    as_json: bool,
) -> int:  # fmt: skip
    if everything == bool(wanted):
        raise UsageProblem("it is not clear which passkeys to purge", "name them, or give --all")
    with _opened(screen, path, vault_key) as vault:
        if everything:
            chosen = [credential for credential in vault.credentials() if credential.state in _PURGEABLE]
        else:
            chosen = [find(vault, one) for one in wanted]
        for credential in chosen:
            if credential.state not in _PURGEABLE:
                raise UsageProblem(
                    f"the passkey {credential.credential_id.hex()[:SHORT_ID]} is in use",
                    "remove it first, then purge it",
                )
        number = len(chosen)
        if number and not yes and not ask_yes(f"destroy {number} passkey{'s' * (number > 1)} for good? [y/N] "):
            screen.say("nothing is purged")
            return EXIT_DECLINED
        lines = [_line(credential, "purged") for credential in chosen]
        vault.purge([credential.credential_id for credential in chosen])
        if as_json:
            _print_json({"purged": [_base64url(credential.credential_id) for credential in chosen]})
        else:
            sys.stdout.writelines(f"{line}\n" for line in lines)
        if number and isinstance(vault, Vault):
            screen.say(f"the file of the generation before, {vault.path.name}.previous, has them until the next change")
        elif number:
            screen.say("what else their entries hold stays; copies of the database, such as backups, still have them")
    return 0


def verify(screen: Screen, path: Path | None, vault_key: str, *, as_json: bool) -> int:
    from hybrid.passkeys.vault_check import problem_of

    with _opened(screen, path, vault_key) as vault:
        found = vault.credentials()
        problems = [(one, problem) for one in found if (problem := problem_of(one)) is not None]
        problems += [(one, "another passkey has the same id") for one in _doubles(found)]
        unusable: list[Finding] = [] if isinstance(vault, Vault) else vault.unreadable.findings
        generations = (vault.generation, vault.previous_generation()) if isinstance(vault, Vault) else (None, None)
        where = vault.path
        keeps_a_copy = isinstance(vault, Vault)
    if as_json:
        named = [{"id": _base64url(one.credential_id), "rpId": one.rp_id, "problem": said} for one, said in problems]
        named += [{"id": "", "rpId": one.rp_id, "problem": _why(one)} for one in unusable]
        _print_json(
            {
                "vault": str(where), "generation": generations[0], "previousGeneration": generations[1],
                "checked": len(found) + len(unusable), "problems": named,
            }
        )  # fmt: skip
    else:
        for one, said in problems:
            print(f"{_line(one, 'bad')}: {said}")
        for lost in unusable:
            print(f"bad {'-' * SHORT_ID} {shown_rp_id(lost.rp_id)} {harmless(lost.user_name)}: {_why(lost)}")
        print(f"checked {len(found) + len(unusable)} good {len(found) - len({id(one) for one, _ in problems})}")
    if not keeps_a_copy:
        screen.say("a KeePass database keeps no copy of the generation before, but a history of every entry")
    elif generations[1] is None:
        screen.say("there is no readable copy of the generation before")
    if problems or unusable:
        raise VaultError("some passkeys in the vault do not work", VaultProblem.PASSKEYS)
    return 0


def rekey(screen: Screen, path: Path | None, vault_key: str, new_vault_key: str) -> int:
    parse_vault_key(new_vault_key)
    if is_database(path):
        raise UsageProblem(
            "what opens a KeePass database is not changed here", "change it in the program that made it, e.g. KeePassXC"
        )
    with open_chosen_vault(path, vault_key, screen, make=False) as vault:
        vault.change_key(chosen_key(new_vault_key, screen))
        screen.say(f"{vault.path} opens with the new key from now on; copies elsewhere still open with the old one")
    return 0


# --- finding and showing ----------------------------------------------------------------------------------------------


def find(vault: CredentialStore, wanted: str) -> Credential:
    """The passkey with this id: base64url of all of it, or the first hex digits. Raises `UsageProblem`."""
    every = vault.credentials()
    for credential in every:
        if _base64url(credential.credential_id) == wanted.rstrip("="):
            return credential
    if len(wanted) < _MIN_ID:
        raise UsageProblem(f"{wanted} is too short for an id", f"give {_MIN_ID} digits of it or more")
    found = [credential for credential in every if credential.credential_id.hex().startswith(wanted.lower())]
    if not found:
        raise UsageProblem(
            f"no passkey has an id that begins with {harmless(wanted)}", "hybrid passkeys list --all shows them"
        )
    if len(found) > 1:
        raise UsageProblem(f"{len(found)} passkeys have an id that begins with {wanted}", "give more of it")
    return found[0]


def as_document(credential: Credential) -> dict[str, Any]:
    """All about a passkey but its secrets, for JSON."""
    return {
        "id": _base64url(credential.credential_id),
        "hexId": credential.credential_id.hex(),
        "rpId": credential.rp_id,
        "rpName": credential.rp_name,
        "userId": _base64url(credential.user_id),
        "userName": credential.user_name,
        "userDisplayName": credential.user_display_name,
        "algorithm": credential.algorithm,
        "state": credential.state.value,
        "createdAt": credential.created_at,
        "modifiedAt": credential.modified_at,
        "lastUsedAt": credential.last_used_at,
        "useCount": credential.use_count,
        "backupEligible": credential.backup_eligible,
        "backedUp": credential.backed_up,
        "discoverable": credential.discoverable,
        "credProtect": credential.cred_protect,
        "prf": credential.secret_uv is not None,
        "credBlob": credential.cred_blob is not None,
        "largeBlob": credential.large_blob is not None,
        "payments": credential.payments,
        "aaguid": None if credential.aaguid is None else str(UUID(bytes=credential.aaguid)),
        "originStore": credential.origin_store,
        "note": credential.note,
    }


def _base64url(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")


def _print_json(document: Any) -> None:
    print(json.dumps(document))


def _print_changed(vault: CredentialStore, ids: Iterable[bytes], what: str, *, as_json: bool) -> None:
    changed = [credential for one in ids if (credential := vault.find(one)) is not None]
    if as_json:
        _print_json({what: [as_document(credential) for credential in changed]})
    else:
        sys.stdout.writelines(f"{_line(credential, what)}\n" for credential in changed)


def _why(finding: Finding) -> str:
    return WHY[LeftOut(finding.what)]


def _line(credential: Credential, what: str) -> str:
    return f"{what} {credential.credential_id.hex()[:SHORT_ID]} {shown_rp_id(credential.rp_id)} {_account(credential)}"


def _account(credential: Credential) -> str:
    return harmless(credential.user_name) or harmless(credential.user_display_name) or "(no name)"


def _print_table(credentials: Sequence[Credential], short_ids: dict[bytes, str]) -> None:
    rows = [("ID", "SITE", "ACCOUNT", "MADE", "LAST USED", "USES", "WHERE", "STATE")]
    rows += [
        (
            short_ids[credential.credential_id],
            shown_rp_id(credential.rp_id),
            _account(credential),
            _day(credential.created_at),
            _day(credential.last_used_at),
            str(credential.use_count),
            "synced" if credential.backed_up else "may be synced" if credential.backup_eligible else "here only",
            credential.state.value,
        )
        for credential in credentials
    ]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def _short_ids(credentials: Sequence[Credential]) -> dict[bytes, str]:
    """Hex digits that tell each id from all others: eight, or more if that many begin alike."""
    ids = [credential.credential_id for credential in credentials]
    size = SHORT_ID
    while len({one.hex()[:size] for one in ids}) < len(set(ids)):
        size += 2
    return {one: one.hex()[:size] for one in ids}


def _doubles(credentials: Sequence[Credential]) -> list[Credential]:
    numbers = Counter(one.credential_id for one in credentials)
    return [one for one in credentials if numbers[one.credential_id] > 1]


def _day(seconds: int | None) -> str:
    if seconds is None:
        return "never"
    try:
        return time.strftime("%Y-%m-%d", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):
        return "unknown"  # somebody's file said so


def _shown(name: str, value: Any) -> str:
    match value:
        case None:
            return "never" if name == "lastUsedAt" else "-"
        case bool():
            return "yes" if value else "no"
        case int() if name.endswith("At"):
            return _day(value)
        case str():
            return harmless(value, limit=4096) or "-"
        case _:
            return str(value)
