"""What opens a vault: a passphrase, a key file, the key ring of the desktop, or nothing.

Gives the secret from which `hybrid.passkeys.vault_file` derives a key. Asks nobody: see `hybrid.cli.vault_keys`.
"""

from __future__ import annotations

import base64
import binascii
import os
import secrets
import stat
import unicodedata
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from hybrid.errors import VaultError, VaultProblem
from hybrid.passkeys.vault_file import KeyKind, SecretBytes

MIN_PASSPHRASE_LENGTH = 8
_SECRET_SIZE = 32
_MIN_FILE_SIZE, _MAX_FILE_SIZE = 16, 4096
_SERVICE = "fido-hybrid vault"  # in the key ring


class VaultKey(Protocol):
    """What opens vaults of its kind. All may raise `VaultError`."""

    @property
    def kind(self) -> KeyKind: ...

    def secret(self, vault_id: bytes) -> SecretBytes | None:
        """The secret of this vault; None if there is none, as always for `NoKey`."""
        ...

    def make_secret(self, vault_id: bytes) -> SecretBytes | None:
        """The secret of a vault about to be made; kept durably if it is a new one."""
        ...

    def highest_generation(self, vault_id: bytes) -> int:
        """The highest generation of this vault that was kept in another place than beside it; 0 if none was."""
        ...

    def keep_generation(self, vault_id: bytes, generation: int) -> None:
        """Keep it, if there is such a place."""
        ...


class _NoOtherPlace:
    """Knows no place for the generation but the one beside the vault."""

    def highest_generation(self, vault_id: bytes) -> int:
        return 0

    def keep_generation(self, vault_id: bytes, generation: int) -> None:
        return None


class NoKey(_NoOtherPlace):
    """Opens vaults that are not encrypted."""

    kind = KeyKind.NONE

    def secret(self, vault_id: bytes) -> None:
        return None

    def make_secret(self, vault_id: bytes) -> None:
        return None


class PassphraseKey(_NoOtherPlace):
    """A passphrase that somebody typed. Composed as NFC, so that every keyboard gives the same bytes."""

    kind = KeyKind.PASSPHRASE

    def __init__(self, passphrase: str) -> None:
        self._secret = SecretBytes(unicodedata.normalize("NFC", passphrase).encode(errors="replace"))

    def secret(self, vault_id: bytes) -> SecretBytes:
        return SecretBytes(self._secret.value)

    def make_secret(self, vault_id: bytes) -> SecretBytes:
        return self.secret(vault_id)

    def wipe(self) -> None:
        """Overwrite the passphrase; the key opens nothing after that."""
        self._secret.wipe()


class FileKey(_NoOtherPlace):
    """The content of a file, without line ends after it. Made with random content if a new vault needs it."""

    kind = KeyKind.FILE

    def __init__(self, path: Path) -> None:
        self._path = path

    def secret(self, vault_id: bytes) -> SecretBytes:
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    raise self._problem("is not a file")
                if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO) or status.st_uid != os.geteuid():
                    raise self._problem("can be read or written by others than you")
                content = os.read(descriptor, _MAX_FILE_SIZE + 1).rstrip(b"\r\n")
            finally:
                os.close(descriptor)
        except OSError as error:
            raise self._problem("cannot be read", error) from error
        if not _MIN_FILE_SIZE <= len(content) <= _MAX_FILE_SIZE:
            raise self._problem(f"does not hold {_MIN_FILE_SIZE} to {_MAX_FILE_SIZE} bytes")
        return SecretBytes(content)

    def make_secret(self, vault_id: bytes) -> SecretBytes:
        if not os.path.lexists(self._path):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            try:
                with open(os.open(self._path, flags, 0o600), "wb") as file:
                    file.write(base64.b64encode(secrets.token_bytes(_SECRET_SIZE)) + b"\n")
                    file.flush()
                    os.fsync(file.fileno())
                folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    os.fsync(folder)
                finally:
                    os.close(folder)
            except OSError as error:
                raise self._problem("cannot be made", error) from error
        return self.secret(vault_id)

    def _problem(self, what: str, error: OSError | None = None) -> VaultError:
        reason = f": {os.strerror(error.errno).lower()}" if error is not None and error.errno else ""
        return VaultError(f"the key file {self._path} {what}{reason}", VaultProblem.KEY_FILE)


class KeyringKey:
    """A random secret in the key ring of the desktop, under the vault's id. Needs the extra ``keyring``.

    Remembers the generation there as well: whoever puts back an old folder of files does not put back the key ring.
    `backend`: a ``keyring.backend.KeyringBackend``; None for the one that is set up here. Raises `ImportError`.
    """

    kind = KeyKind.KEYRING

    def __init__(self, backend: Any = None) -> None:
        import keyring
        import keyring.errors

        self._errors = keyring.errors
        self._backend = keyring.get_keyring() if backend is None else backend

    def secret(self, vault_id: bytes) -> SecretBytes | None:
        text = self._get(vault_id.hex())
        try:
            return None if text is None else SecretBytes(base64.b64decode(text, validate=True))
        except binascii.Error:
            return None

    def make_secret(self, vault_id: bytes) -> SecretBytes:
        made = SecretBytes(secrets.token_bytes(_SECRET_SIZE))
        self._set(vault_id.hex(), base64.b64encode(made.value).decode())
        kept = self.secret(vault_id)
        if kept is None or kept.value != made.value:
            raise VaultError("the key ring does not keep what it is given", VaultProblem.KEYRING)
        return made

    def highest_generation(self, vault_id: bytes) -> int:
        text = self._get(f"{vault_id.hex()} generation") or ""
        return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0

    def keep_generation(self, vault_id: bytes, generation: int) -> None:
        with suppress(VaultError):  # the vault itself is written: this is a hint for people
            self._set(f"{vault_id.hex()} generation", str(generation))

    def _get(self, name: str) -> str | None:
        try:
            value: str | None = self._backend.get_password(_SERVICE, name)
        except self._errors.KeyringError as error:
            raise self._problem(error) from None
        return value

    def _set(self, name: str, value: str) -> None:
        try:
            self._backend.set_password(_SERVICE, name, value)
        except self._errors.KeyringError as error:
            raise self._problem(error) from None

    def _problem(self, error: Exception) -> VaultError:
        if isinstance(error, self._errors.NoKeyringError):
            return VaultError("there is no key ring on this machine", VaultProblem.KEYRING)
        # Not its text: it may be several lines, and says where the library lives.
        return VaultError(f"the key ring cannot be used ({type(error).__name__})", VaultProblem.KEYRING)
