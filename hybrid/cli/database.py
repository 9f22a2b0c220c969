"""Vaults and KeePass databases alike: ``--vault NAME.kdbx`` is opened by its password, a key file, or both."""

from __future__ import annotations

import asyncio
import os
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from hybrid.cli.messages import MissingExtra, UsageProblem
from hybrid.cli.terminal import Screen
from hybrid.cli.vault_keys import check_there, leave_no_core_dump, open_chosen_vault, parse_vault_key
from hybrid.errors import PortabilityError, PortabilityProblem
from hybrid.passkeys.portability import read_file
from hybrid.passkeys.vault import Vault
from hybrid.passkeys.vault_file import KeyKind

if TYPE_CHECKING:  # it loads a library that is not always here
    from hybrid.passkeys.kdbx import DatabaseKey, KdbxStore

_MIN_PASSWORD = 8
_TRIES = 3
_QUESTION = "password of the KeePass database: "


def is_database(path: Path | None) -> bool:
    return path is not None and path.suffix.lower() == ".kdbx"


def kdbx_module() -> ModuleType:
    """Raises `MissingExtra`."""
    try:
        return import_module("hybrid.passkeys.kdbx")
    except ImportError:
        raise MissingExtra("a KeePass database", "kdbx") from None


def open_chosen_store(path: Path | None, vault_key: str, screen: Screen, *, make: bool) -> Vault | KdbxStore:
    """Open the vault or the KeePass database of a command line. Use it as a context, or close it.

    Without `make` one that is not there is an error. Raises `UsageProblem`, `MissingExtra`, `PortabilityError`,
    `VaultError`.
    """
    if path is None or not is_database(path):
        return open_chosen_vault(path, vault_key, screen, make=make)
    parse_vault_key(vault_key)
    if not make:
        check_there(path)
    return open_chosen_database(path, vault_key)


def open_chosen_database(path: Path, vault_key: str) -> KdbxStore:
    """Open a database as a store, and make it if it is not there. Raises as `open_chosen_store`."""
    leave_no_core_dump()
    kdbx = kdbx_module()
    choice = parse_vault_key(vault_key)
    if choice.kind not in (KeyKind.PASSPHRASE, KeyKind.FILE):
        raise UsageProblem(
            f"a KeePass database does not open with {choice.kind}", "use --vault-key passphrase, or file:PATH"
        )
    key_file = None if choice.path is None else read_file(choice.path)
    store: KdbxStore
    if choice.kind is KeyKind.FILE:
        store = kdbx.open_kdbx(path, kdbx.DatabaseKey(None, key_file), create=True)
        return store
    if not os.path.lexists(path):
        store = kdbx.open_kdbx(path, _new_key(key_file), create=True)
        return store
    for left in reversed(range(_TRIES)):
        try:
            store = kdbx.open_kdbx(path, kdbx.DatabaseKey(ask_secret(_QUESTION), key_file))
        except PortabilityError as error:
            if error.reason is not PortabilityProblem.KEY or not left:
                raise
        else:
            return store
    raise AssertionError("unreachable")


def database_key(key_file: Path | None, *, password: bool, new: bool = False) -> DatabaseKey:
    """What opens the database that is exported to or imported from. `password`: asked for beside a key file, too.

    Raises as `open_chosen_store`.
    """
    kdbx = kdbx_module()
    content = None if key_file is None else read_file(key_file)
    if content is not None and not password:
        key: DatabaseKey = kdbx.DatabaseKey(None, content)
        return key
    if new:
        return _new_key(content)
    key = kdbx.DatabaseKey(ask_secret(_QUESTION), content)
    return key


def _new_key(key_file: bytes | None) -> DatabaseKey:
    key: DatabaseKey = kdbx_module().DatabaseKey(new_password("the KeePass database"), key_file)
    return key


def new_password(what: str) -> str:
    """Ask for it twice. Raises `UsageProblem`."""
    password = ask_secret(f"choose a password for {what} ({_MIN_PASSWORD} characters or more): ")
    if len(password) < _MIN_PASSWORD:
        raise UsageProblem("that password is too short", f"choose {_MIN_PASSWORD} characters or more")
    if ask_secret("the same password again: ") != password:
        raise UsageProblem("the two passwords are not the same", "start again")
    return password


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
