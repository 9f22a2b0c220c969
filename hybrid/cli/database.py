"""A KeePass database in the place of the vault: ``--vault NAME.kdbx``, opened by its password or a key file."""

from __future__ import annotations

import asyncio
import os
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from hybrid.cli.messages import MissingExtra, UsageProblem
from hybrid.cli.vault_keys import parse_vault_key
from hybrid.errors import PortabilityError, PortabilityProblem
from hybrid.passkeys.portability import read_file
from hybrid.passkeys.vault_file import KeyKind

if TYPE_CHECKING:  # it loads a library that is not always here
    from hybrid.passkeys.kdbx import DatabaseKey, KdbxStore

_MIN_PASSWORD = 8
_TRIES = 3


def is_database(path: Path | None) -> bool:
    return path is not None and path.suffix.lower() == ".kdbx"


def kdbx_module() -> ModuleType:
    """Raises `MissingExtra`."""
    try:
        return import_module("hybrid.passkeys.kdbx")
    except ImportError:
        raise MissingExtra("a KeePass database", "kdbx") from None


def open_chosen_database(path: Path, vault_key: str) -> KdbxStore:
    """Open a database as the phone's store, and make it if it is not there.

    Raises `UsageProblem`, `MissingExtra`, `PortabilityError`, `VaultError`.
    """
    kdbx = kdbx_module()
    choice = parse_vault_key(vault_key)
    made = not os.path.lexists(path)
    if choice.kind is KeyKind.FILE and choice.path is not None:
        store: KdbxStore = kdbx.open_kdbx(path, kdbx.DatabaseKey(None, read_file(choice.path)), create=True)
        return store
    if choice.kind is not KeyKind.PASSPHRASE:
        raise UsageProblem(
            f"a KeePass database does not open with {choice.kind}", "use --vault-key passphrase, or file:PATH"
        )
    if made:
        store = kdbx.open_kdbx(path, new_database_key(), create=True)
        return store
    for left in reversed(range(_TRIES)):
        try:
            store = kdbx.open_kdbx(path, kdbx.DatabaseKey(ask_secret("password of the KeePass database: ")))
        except PortabilityError as error:
            if error.reason is not PortabilityProblem.KEY or not left:
                raise
        else:
            return store
    raise AssertionError("unreachable")


def database_key(key_file: Path | None, *, new: bool = False) -> DatabaseKey:
    """What opens the database that is exported to or imported from. Raises as `open_chosen_database`."""
    kdbx = kdbx_module()
    if key_file is not None:
        key: DatabaseKey = kdbx.DatabaseKey(None, read_file(key_file))
        return key
    if new:
        return new_database_key()
    key = kdbx.DatabaseKey(ask_secret("password of the KeePass database: "))
    return key


def new_database_key() -> DatabaseKey:
    password = ask_secret(f"choose a password for the KeePass database ({_MIN_PASSWORD} characters or more): ")
    if len(password) < _MIN_PASSWORD:
        raise UsageProblem("that password is too short", f"choose {_MIN_PASSWORD} characters or more")
    if ask_secret("the same password again: ") != password:
        raise UsageProblem("the two passwords are not the same", "start again")
    key: DatabaseKey = kdbx_module().DatabaseKey(password)
    return key


def ask_secret(question: str) -> str:
    """One line that is not shown, from the controlling terminal. Not inside an event loop. Raises `UsageProblem`."""
    from hybrid.cli.consent import Terminal

    try:
        terminal: Any = Terminal()
    except UsageProblem:
        raise UsageProblem(
            "there is no terminal to ask you for a password on", "run it in a terminal, or give a key file"
        ) from None
    try:
        line: str | None = asyncio.run(terminal.read_line(question, echo=False))
    finally:
        terminal.close()
    if not line:
        raise UsageProblem("no password was given", "start again, or give a key file")
    return line
