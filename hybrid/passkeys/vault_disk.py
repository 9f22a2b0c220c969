"""The vault's file on the disk: who may get at it, one writer at a time, replaced as a whole or not at all.

Knows nothing of what is in it. Beside ``NAME`` live ``NAME.lock``, which stays; ``NAME.previous``, one generation back;
``NAME.seen``, the highest generation that was seen; and ``NAME.v1``, a copy from before a migration.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from hybrid.errors import VaultError, VaultProblem

MAX_SIZE = 64 << 20
_LOCK_SECONDS = 5.0  # others hold it for one file write
_LOCK_INTERVAL = 0.001  # short, so that one who writes all the time does not keep the others out


@contextmanager
def access_problems(path: Path) -> Iterator[None]:
    """Turn what the system says into `VaultError`."""
    try:
        yield
    except FileNotFoundError as error:
        raise VaultError(f"{path} is not there any more", VaultProblem.MISSING) from error
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        problem = VaultProblem.FULL if full else VaultProblem.ACCESS
        raise VaultError(f"{path} cannot be used: {(error.strerror or 'no reason given').lower()}", problem) from error


def make_folders(folder: Path) -> None:
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    for parent in reversed(missing):
        parent.mkdir(mode=0o700, exist_ok=True)


def check_folder(folder: Path) -> None:
    mode = os.stat(folder).st_mode
    if mode & (stat.S_IWGRP | stat.S_IWOTH) and not mode & stat.S_ISVTX:
        raise VaultError(f"others can write in the folder {folder}", VaultProblem.FOLDER)


def check_file(descriptor: int, path: Path) -> None:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise VaultError(f"{path} is not a file", VaultProblem.NOT_A_VAULT)
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO) or status.st_uid != os.geteuid():
        raise VaultError(f"others than you can read or write {path}", VaultProblem.PERMISSIONS)


@dataclass(frozen=True, slots=True)
class Stamp:
    """What tells one file from the next without reading it."""

    device: int
    inode: int
    modified_ns: int
    size: int

    @classmethod
    def of(cls, descriptor: int) -> Stamp:
        status = os.fstat(descriptor)
        return cls(status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """A descriptor to read the file, which is ours alone. Raises `VaultError`."""
    with access_problems(path):
        check_folder(path.parent)
        # Non-blocking, because opening a pipe would wait for its other end.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            check_file(descriptor, path)
            yield descriptor
        finally:
            os.close(descriptor)


def read_all(descriptor: int, path: Path) -> bytes:
    """The whole file. Raises `VaultError`."""
    with open(descriptor, "rb", closefd=False) as file:
        data = file.read(MAX_SIZE + 1)
    if len(data) > MAX_SIZE:
        raise VaultError(f"{path} is too large for a vault", VaultProblem.NOT_A_VAULT)
    return data


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other writers out. The lock file stays: removing it would let two writers hold two different ones."""
    lock = path.with_name(path.name + ".lock")
    with access_problems(lock):
        check_folder(path.parent)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    try:
        check_file(descriptor, lock)
        deadline = time.monotonic() + _LOCK_SECONDS
        while not _try_lock(descriptor):
            if time.monotonic() > deadline:
                raise VaultError(f"another program keeps {path} busy", VaultProblem.BUSY)
            time.sleep(_LOCK_INTERVAL)  # flock() has no time limit
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def previous_of(path: Path) -> Path:
    """Where the generation before is."""
    return path.with_name(path.name + ".previous")


def replace(path: Path, data: bytes, *, previous: bool) -> Stamp:
    """Put `data` in the place of `path`: after a crash it is the old file or the new one. The lock is held.

    With `previous` the old file stays under its other name.
    """
    if len(data) > MAX_SIZE:
        raise VaultError(f"{path} is full", VaultProblem.FULL)
    with access_problems(path):
        for left_over in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
            with suppress(OSError):  # of somebody else in a shared folder: not ours to clean
                left_over.unlink()
        temporary = _temporary(path)
        try:
            stamp = _write(temporary, data)
            if previous:
                keep_as(path, previous_of(path))
            os.replace(temporary, path)
        except BaseException:  # whatever ends it, the file stays what it was and nothing lies beside it
            with suppress(FileNotFoundError):
                temporary.unlink()
            raise
        _sync_folder(path.parent)
    return stamp


def keep_as(path: Path, name: Path) -> None:
    """Let `name` be the file that `path` is now, in the place of what it was. `path` is never absent meanwhile."""
    temporary = _temporary(path)
    try:
        try:
            os.link(path, temporary)
        except OSError:  # some file systems know no second name
            _write(temporary, path.read_bytes())
        os.replace(temporary, name)
    finally:
        with suppress(FileNotFoundError):  # there still if both were names of one file already
            temporary.unlink()


def keep_copy(path: Path, data: bytes) -> Path:
    """Keep `data`, which `path` holds, under a name of its own; nothing is overwritten."""
    with access_problems(path):
        for number in range(1000):
            copy = path.with_name(f"{path.name}.v1" + (f".{number}" if number else ""))
            if os.path.lexists(copy):
                if copy.is_file() and copy.read_bytes() == data:  # of a migration that did not come to its end
                    return copy
                continue
            _write(copy, data)
            _sync_folder(path.parent)
            return copy
    raise VaultError(f"{path} has too many copies beside it", VaultProblem.ACCESS)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")


def _write(path: Path, data: bytes) -> Stamp:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    with open(os.open(path, flags, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
        return Stamp.of(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class SeenGeneration:
    """The highest generation of a vault, in a small file beside it. A hint for people, so its loss is no failure.

    Whoever puts back both files, or the whole folder, is not noticed by it; `VaultKey.highest_generation` may do so.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(path.name + ".seen")

    def read(self, vault_id: bytes) -> int:
        """0 if it is not known."""
        words: list[bytes] = []
        with suppress(OSError):
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                words = os.read(descriptor, 100).split()
            finally:
                os.close(descriptor)
        if len(words) != 2 or words[0] != vault_id.hex().encode() or not words[1].isdigit():
            return 0
        return int(words[1])

    def keep(self, vault_id: bytes, generation: int) -> None:
        """In place and not synced: if it is lost in a crash, a roll-back of one write is not noticed."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        with suppress(OSError):
            descriptor = os.open(self._path, flags, 0o600)
            try:
                os.pwrite(descriptor, f"{vault_id.hex()} {generation:020d}\n".encode(), 0)
            finally:
                os.close(descriptor)
