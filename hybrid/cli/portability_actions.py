"""``hybrid passkeys export`` and ``import``: files for other password managers and from them.

stdout has the report: what went along and what did not. Every export and import is a line in ``NAME.audit`` beside the
vault as well, with ids and no secrets.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hybrid.cli.database import ask_secret, database_key, kdbx_module, new_password, open_chosen_store
from hybrid.cli.messages import EXIT_DECLINED, UsageProblem
from hybrid.cli.passkeys_actions import WHY, find
from hybrid.cli.terminal import Screen
from hybrid.cli.vault_keys import ask_pin, ask_yes
from hybrid.errors import PortabilityError, PortabilityProblem
from hybrid.events import PasskeysExported, PasskeysImported
from hybrid.passkeys import bitwarden, cxf, keepassxc_file
from hybrid.passkeys.archive import unpacked
from hybrid.passkeys.consent import harmless, shown_rp_id
from hybrid.passkeys.portability import (
    Exported,
    Finding,
    Imported,
    LeftOut,
    Report,
    access_problems,
    import_into,
    read_file,
    read_json,
    write_private,
)
from hybrid.passkeys.store import Credential, MemoryStore
from hybrid.passkeys.vault import Vault
from hybrid.passkeys.vault_file import KeyKind
from hybrid.passkeys.vault_pin import VaultPin

if TYPE_CHECKING:  # it loads a library that is not always here
    from hybrid.passkeys.kdbx import KdbxStore

KDBX = "kdbx"
_KDBX_MAGIC = b"\x03\xd9\xa2\x9a"
_QUESTION = "password of this export: "
_ENDINGS = {".kdbx": KDBX, ".passkey": keepassxc_file.FORMAT, ".cxf": cxf.FORMAT}


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """The command line of ``hybrid passkeys export``."""

    screen: Screen
    vault: Path | None
    vault_key: str
    file: Path
    wanted: tuple[str, ...]
    format: str | None
    clear_text: bool
    update: bool
    overwrite: bool
    key_file: Path | None
    with_password: bool
    yes: bool
    as_json: bool


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """The command line of ``hybrid passkeys import``."""

    screen: Screen
    vault: Path | None
    vault_key: str
    file: Path
    format: str | None
    synced: bool
    absent_flags: bool
    dry_run: bool
    key_file: Path | None
    with_password: bool
    as_json: bool


# --- out -------------------------------------------------------------------------------------------------------------


def export(options: ExportOptions) -> int:
    """Write the file. Nothing is asked and nothing opened before the command line makes sense."""
    name = options.format or _ENDINGS.get(options.file.suffix.lower(), KDBX)
    _check_export(options, name)
    if name == KDBX:
        kdbx_module()
    with open_chosen_store(options.vault, options.vault_key, options.screen, make=False) as vault:
        if options.file.exists() and vault.path.samefile(options.file):
            raise UsageProblem(f"{options.file} is where the passkeys are", "export them to another file")
        chosen = [find(vault, one) for one in options.wanted] or vault.credentials()
        if name == keepassxc_file.FORMAT and len(chosen) != 1:
            raise UsageProblem(f"a .passkey file holds one passkey, not {len(chosen)}", "name one of them")
        if not _is_allowed(options, vault, sum(one.usable for one in chosen)):
            options.screen.say("nothing is exported")
            return EXIT_DECLINED
        into = read_file(options.file) if options.update else None
        data, report = _exported(options, name, chosen, into)
        if not report.carried:
            _print_report(options.as_json, report, options.file)
            raise PortabilityError("there is no passkey to export", PortabilityProblem.NOTHING)
        if into is not None and read_file(options.file) != into:
            raise PortabilityError(
                f"{options.file} was changed by another program meanwhile", PortabilityProblem.ACCESS
            )
        event = PasskeysExported(report.carried, name, encrypted=name == KDBX or not options.clear_text)
        _audit(vault, "export", options.file, report, chosen, encrypted=event.encrypted)
        options.screen.on_event(event)
        write_private(options.file, data, overwrite=options.update or options.overwrite)
    _print_report(options.as_json, report, options.file)
    if not event.encrypted:
        options.screen.warn(f"{options.file} is not encrypted: whoever reads it can use these passkeys")
    return 0


def _is_allowed(options: ExportOptions, vault: Vault | KdbxStore, number: int) -> bool:
    """See that somebody who may do so wants private keys to leave.

    A passphrase was typed for this command. Otherwise whoever runs it has not shown who they are: a PIN that is kept
    with the vault is asked for in any case, and where there is none, a person must agree or ``--yes`` say so.
    """
    if isinstance(vault, Vault):
        if vault.key_kind is KeyKind.PASSPHRASE:
            return True
        if (pin := VaultPin(vault)).is_set:
            return ask_pin(pin)
    elif vault.verifies:
        return True
    what = f"{number} passkeys with their private keys" if number > 1 else "a passkey with its private key"
    return options.yes or not number or ask_yes(f"write {what} to {options.file}? [y/N] ")


def _export_password(*, new: bool) -> str:
    return new_password("this export") if new else ask_secret(_QUESTION)


def _check_export(options: ExportOptions, name: str) -> None:
    if name not in (KDBX, bitwarden.FORMAT) and not options.clear_text:
        raise PortabilityError(f"a {name} file is not encrypted", PortabilityProblem.CLEAR_TEXT)
    if name != KDBX and (options.key_file is not None or options.with_password):
        raise UsageProblem("a key file is for KeePass databases", "leave out --key-file, or choose --format kdbx")
    if options.update and (options.overwrite or name == keepassxc_file.FORMAT):
        raise UsageProblem("this cannot be updated", "--update takes a kdbx, cxf or bitwarden file, and no --overwrite")
    if options.update and not options.file.exists():
        raise UsageProblem(f"there is no {options.file} to update", "leave out --update")
    if (
        options.update
        and name == bitwarden.FORMAT
        and bitwarden.is_protected(read_file(options.file)) is options.clear_text
    ):
        if options.clear_text:
            raise UsageProblem(f"{options.file} is encrypted, and stays so", "leave out --clear-text")
        raise PortabilityError(f"{options.file} is not encrypted", PortabilityProblem.CLEAR_TEXT)
    if not options.update and not options.overwrite and os.path.lexists(options.file):
        raise PortabilityError(f"{options.file} is there already", PortabilityProblem.EXISTS)


def _exported(
    options: ExportOptions, name: str, chosen: Sequence[Credential], into: bytes | None
) -> tuple[bytes, Report]:
    exported: Exported
    match name:
        case cxf.FORMAT:
            exported = cxf.write_cxf(chosen, now=int(time.time()), random=secrets.token_bytes, into=into)
        case bitwarden.FORMAT:
            password = None if options.clear_text else _export_password(new=into is None)
            exported = bitwarden.write_bitwarden(chosen, random=secrets.token_bytes, into=into, password=password)
        case keepassxc_file.FORMAT:
            exported = keepassxc_file.write_passkey_file(chosen[0])
        case _:
            key = database_key(options.key_file, password=options.with_password, new=into is None)
            exported = kdbx_module().write_kdbx(chosen, key, into=into)
    return exported.data, exported.report


# --- in --------------------------------------------------------------------------------------------------------------


def import_(options: ImportOptions) -> int:
    """Read the file first, then open the vault: a wrong file asks nobody for a passphrase."""
    data = unpacked(read_file(options.file))
    imported = _read(options, data, options.format or _found_format(data))
    name = imported.report.format
    encrypted = name == KDBX or (name == bitwarden.FORMAT and bitwarden.is_protected(data))
    if options.dry_run:
        report = import_into(MemoryStore(), imported)
    else:
        with open_chosen_store(options.vault, options.vault_key, options.screen, make=True) as vault:
            report = import_into(vault, imported)
            _audit(vault, "import", options.file, report, imported.credentials, encrypted=encrypted)
        options.screen.on_event(PasskeysImported(report.carried, name))
    _print_report(options.as_json, report, options.file)
    if not report.carried and any(f.what is not LeftOut.ALREADY_THERE for f in report.left_out):
        raise PortabilityError("no passkey of this file can be used", PortabilityProblem.MALFORMED)
    if not report.carried and not report.findings:
        raise PortabilityError("there is no passkey in this file", PortabilityProblem.NOTHING)
    if not encrypted and not options.dry_run:
        options.screen.warn(f"{options.file} is not encrypted: delete it if you need it no more")
    return 0


def _read(options: ImportOptions, data: bytes, name: str) -> Imported:
    now = int(time.time())
    if name == KDBX:
        kdbx = kdbx_module()
        key = database_key(options.key_file, password=options.with_password)
        read: Imported = kdbx.read_kdbx(data, key, absent_flags=options.absent_flags)
        if options.synced:
            return read
        bound = [replace(one, backup_eligible=False, backed_up=False) for one in read.credentials]
        return Imported(tuple(bound), read.report)
    if name == bitwarden.FORMAT:
        return bitwarden.read_bitwarden(data, now=now, synced=options.synced, password=lambda: ask_secret(_QUESTION))
    reader = cxf.read_cxf if name == cxf.FORMAT else keepassxc_file.read_passkey_file
    return reader(data, now=now, synced=options.synced)


def _found_format(data: bytes) -> str:
    if data.startswith(_KDBX_MAGIC):
        return KDBX
    members = read_json(data)
    if "accounts" in members and "version" in members:
        return cxf.FORMAT
    if "encrypted" in members:
        return bitwarden.FORMAT
    if "privateKey" in members:
        return keepassxc_file.FORMAT
    raise PortabilityError("the file is of no format that is known here", PortabilityProblem.FORMAT)


# --- both ------------------------------------------------------------------------------------------------------------


def _audit(
    vault: Vault | KdbxStore,
    what: str,
    file: Path,
    report: Report,
    credentials: Sequence[Credential],
    *,
    encrypted: bool,
) -> None:
    """One line a time, before passkeys leave: what cannot be written down does not happen."""
    ids = set(report.moved)
    moved = [credential for credential in credentials if credential.credential_id in ids]
    line = {
        "time": int(time.time()),
        "event": what,
        "format": report.format,
        "encrypted": encrypted,
        "file": str(file.absolute()),
        "passkeys": [{"id": one.credential_id.hex(), "rpId": one.rp_id} for one in moved],
    }
    path = vault.path.with_name(vault.path.name + ".audit")
    with access_problems(path):
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        with open(os.open(path, flags, 0o600), "ab") as log:
            log.write(json.dumps(line).encode() + b"\n")
            log.flush()
            os.fsync(log.fileno())


def _print_report(as_json: bool, report: Report, file: Path) -> None:
    if as_json:
        print(json.dumps({"file": str(file), **report.as_json()}))
        return
    print(f"passkeys     {report.carried}")
    if report.others:
        print(f"other items  {report.others}")
    if report.same_account:
        print(f"beside one   {report.same_account} of an account that had one already")
    for finding in report.left_out:
        print(f"left out     {_shown(finding)}: {WHY[LeftOut(finding.what)]}")
    counted = Counter(
        (finding.what, finding.kept_for_us) for finding in report.findings if finding not in report.left_out
    )
    for (what, kept_for_us), number in counted.items():
        print(f"{'only for us' if kept_for_us else 'lost':11}  {what} of {number}")


def _shown(finding: Finding) -> str:
    return f"{harmless(finding.user_name) or '(no name)'} at {shown_rp_id(finding.rp_id) or '(no site)'}"
