"""``--vault-key`` of every command: what opens a vault, asked of a person where that is needed.

A passphrase is asked on the controlling terminal, twice when a vault is made, and never taken from an argument or the
environment, where others could read it.
"""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hybrid.cli.messages import MissingExtra, UsageProblem
from hybrid.cli.terminal import Screen
from hybrid.errors import VaultError, VaultProblem
from hybrid.passkeys.consent import Consent, Decision, PinConsent, PinKeeper, Prompt
from hybrid.passkeys.vault import Vault, default_vault_path, needs_new_key, open_vault
from hybrid.passkeys.vault_file import KeyKind
from hybrid.passkeys.vault_keys import MIN_PASSPHRASE_LENGTH, FileKey, KeyringKey, NoKey, PassphraseKey, VaultKey

_TRIES = 3


_BOTH = "passphrase+file"


@dataclass(frozen=True, slots=True)
class KeyChoice:
    """What ``--vault-key`` says. `path`: of a key file; with a passphrase both are needed, as KeePass has it."""

    kind: KeyKind
    path: Path | None = None


def parse_vault_key(text: str) -> KeyChoice:
    """Raises `UsageProblem`."""
    name, colon, path = text.partition(":")
    if name in (KeyKind.FILE, _BOTH) and path:
        return KeyChoice(KeyKind.FILE if name == KeyKind.FILE else KeyKind.PASSPHRASE, Path(path))
    if colon or name not in (KeyKind.NONE, KeyKind.PASSPHRASE, KeyKind.KEYRING):
        raise UsageProblem(
            "this is no kind of vault key", "choose passphrase, keyring, file:PATH or none with --vault-key"
        )
    return KeyChoice(KeyKind(name))


def open_chosen_vault(path: Path | None, vault_key: str, screen: Screen, *, make: bool = True) -> Vault:
    """Open the vault of a command line, asking for a passphrase if there is one; say what its owner should know.

    Not inside an event loop. Without `make` a vault that is not there is an error. Raises `UsageProblem`,
    `MissingExtra`, `VaultError`.
    """
    choice = _vault_choice(vault_key)
    leave_no_core_dump()
    path = path or default_vault_path()
    if not make:
        check_there(path)
    match choice.kind:
        case KeyKind.PASSPHRASE:
            vault = _open_with_passphrase(path, screen)
        case KeyKind.NONE:
            vault = open_vault(path)
            screen.warn("this vault is not encrypted: whoever reads the file can use its passkeys")
        case _:
            vault = open_vault(path, _silent_key(choice))
    _tell(vault, screen)
    return vault


def leave_no_core_dump() -> None:
    """Let a crash of this process from now on leave no image of its memory on the disk."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def check_there(path: Path) -> None:
    """Raises `UsageProblem` if nothing is at `path`, for those who make no vault."""
    if not os.path.lexists(path):
        raise UsageProblem(f"there is no vault at {path}", "name another with --vault; hybrid phone makes one")


def _vault_choice(vault_key: str) -> KeyChoice:
    choice = parse_vault_key(vault_key)
    if choice.kind is KeyKind.PASSPHRASE and choice.path is not None:
        raise UsageProblem(
            "a vault opens with a passphrase or with a key file, not with both", "choose one of them with --vault-key"
        )
    return choice


def _silent_key(choice: KeyChoice) -> VaultKey:
    if choice.path is not None:
        return FileKey(choice.path)
    try:
        return KeyringKey()
    except ImportError:
        raise MissingExtra("a vault key in the key ring", "keyring") from None


def chosen_key(vault_key: str, screen: Screen) -> VaultKey:
    """A key for a vault that gets a new one; a passphrase is asked twice. Raises as `open_chosen_vault`."""
    choice = _vault_choice(vault_key)
    match choice.kind:
        case KeyKind.PASSPHRASE:
            key: PassphraseKey = _ask(lambda terminal: _new_passphrase(terminal, screen))
            return key
        case KeyKind.NONE:
            return NoKey()
        case _:
            return _silent_key(choice)


def _open_with_passphrase(path: Path, screen: Screen) -> Vault:
    if needs_new_key(path, KeyKind.PASSPHRASE):
        key: PassphraseKey = _ask(lambda terminal: _new_passphrase(terminal, screen))
        try:
            return open_vault(path, key)
        finally:
            key.wipe()
    vault: Vault = _ask(lambda terminal: _try_passphrases(terminal, path))
    return vault


def _ask(questions: Callable[[Any], Any]) -> Any:
    """Give `questions` a terminal."""
    from hybrid.cli.consent import Terminal

    try:
        terminal = Terminal()
    except UsageProblem:
        raise UsageProblem(
            "there is no terminal to ask you for a passphrase on", "run it in a terminal, or choose another --vault-key"
        ) from None
    try:
        return questions(terminal)
    finally:
        terminal.close()


def _try_passphrases(terminal: Any, path: Path) -> Vault:
    for left in reversed(range(_TRIES)):
        key = PassphraseKey(_line(terminal, "passphrase of this vault: "))
        try:
            return open_vault(path, key)
        except VaultError as error:
            if error.reason is not VaultProblem.KEY or not left:
                raise
            terminal.write("that does not open it\n")
        finally:
            key.wipe()
    raise AssertionError("unreachable")


def _new_passphrase(terminal: Any, screen: Screen) -> PassphraseKey:
    screen.say("nobody can open this vault without its passphrase, neither can we")
    problem = ""
    while True:
        question = f"{problem}choose a passphrase ({MIN_PASSPHRASE_LENGTH} characters or more, empty to stop): "
        passphrase = _line(terminal, question)
        if len(passphrase) < MIN_PASSPHRASE_LENGTH:
            problem = "that is too short; "
        elif _line(terminal, "the same passphrase again: ") == passphrase:
            return PassphraseKey(passphrase)
        else:
            problem = "the two are not the same; "


def _line(terminal: Any, question: str) -> str:
    line: str | None = asyncio.run(terminal.read_line(question, echo=False))
    if not line:
        raise UsageProblem("no passphrase was given", "start again, or choose another --vault-key")
    return line


def ask_yes(question: str) -> bool:
    """Ask a person at the terminal; no by default. Raises `UsageProblem` if nobody is there."""
    from hybrid.cli.consent import Terminal

    try:
        terminal = Terminal()
    except UsageProblem:
        raise UsageProblem("there is no terminal to ask you on", "add --yes if you mean it") from None
    try:
        line = asyncio.run(terminal.read_line(question))
    finally:
        terminal.close()
    return (line or "").strip().lower() in ("y", "yes")


def ask_pin(keeper: PinKeeper) -> bool:
    """Ask a person at the terminal for the PIN that is kept with a vault; three tries. Raises `UsageProblem`."""
    from hybrid.cli.consent import Terminal, TerminalConsent

    try:
        terminal = Terminal()
    except UsageProblem:
        raise UsageProblem(
            "there is no terminal to ask you for the PIN of this vault on", "run it in a terminal"
        ) from None
    try:
        person = TerminalConsent(terminal)
        return asyncio.run(PinConsent(person, person, keeper).enter())
    finally:
        terminal.close()


def _tell(vault: Vault, screen: Screen) -> None:
    if vault.migrated_copy is not None:
        screen.warn(
            f"the vault has a new format; the old one, which is not encrypted, is kept as {vault.migrated_copy}"
        )
    if vault.restored_from is not None:
        screen.warn(
            f"an old copy of this vault was put back (generation {vault.generation}, {vault.restored_from} was there "
            "before): passkeys made since are gone, and removed ones are back"
        )


class UnlockedConsent:
    """A `Consent` of the person who typed the vault's passphrase for this process, which verified them.

    For the one session that the process serves. A vault that stays open needs a `PinConsent`.
    """

    def __init__(self, consent: Consent) -> None:
        self._consent = consent

    async def ask(self, prompt: Prompt) -> Decision:
        decision = await self._consent.ask(prompt)
        return replace(decision, verified=True) if decision.approved else decision
