"""The private folder of the workers' unix sockets: made or checked at start, and gone when nobody needs it any more.

Whoever uses it holds a lock on the folder itself (flock), which the system takes back however a process ends. So a
temporary folder that can be locked for oneself alone is one that a killed supervisor left behind.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tunnel_server.complaints import EXIT_USAGE, CommandError
from tunnel_server.forwarding import gift_path, socket_path

_PREFIX = "tunnel-server-"
_LONGEST_ADDRESS = 103  # bytes of a unix socket's path: 107 on Linux, less elsewhere (unix(7), sys/un.h)


@contextmanager
def private_folder(wanted: Path | None) -> Iterator[Path]:
    """Folder for the workers' sockets, ours alone; a temporary one if none is given.

    Raises:
        CommandError: it cannot be used, or others can enter it.
    """
    if wanted is None and (given := os.environ.get("RUNTIME_DIRECTORY")):
        wanted = Path(given.partition(":")[0])
    if wanted is None:
        with _temporary_folder() as made:
            yield made
        return
    if len(os.fsencode(gift_path(socket_path(wanted, bytes(3))))) > _LONGEST_ADDRESS:
        raise CommandError(
            "the runtime folder's path is too long for unix sockets", "choose another --runtime-dir", EXIT_USAGE
        )
    try:
        wanted.mkdir(mode=0o700, exist_ok=True)
        info = wanted.stat()
    except OSError as exc:
        raise CommandError(
            f"the runtime folder cannot be used: {(exc.strerror or '').lower()}",
            "choose another --runtime-dir",
            EXIT_USAGE,
        ) from exc
    if info.st_uid != os.geteuid() or stat.S_IMODE(info.st_mode) & 0o077:
        raise CommandError(
            "others can enter the runtime folder",
            "give --runtime-dir a folder for the relay alone; it is made if it is not there",
            EXIT_USAGE,
        )
    yield wanted


@contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """As long as this context is open, nobody takes the folder for one that was left behind.

    Raises:
        FileNotFoundError: somebody did already.
    """
    with _opened(folder) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        if not os.path.samestat(os.fstat(descriptor), folder.stat()):
            raise FileNotFoundError(folder)
        yield


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        _remove_if_left_behind(folder)
    with contextlib.ExitStack() as stack:
        while True:
            made = Path(tempfile.mkdtemp(prefix=_PREFIX))
            try:
                stack.enter_context(in_use(made))
            except FileNotFoundError:  # another relay starts now, and saw a folder that nobody used yet
                continue
            break
        stack.callback(shutil.rmtree, made, ignore_errors=True)
        yield made


def _remove_if_left_behind(folder: Path) -> None:
    with contextlib.suppress(OSError), _opened(folder) as descriptor:  # somebody else's, or in use
        if os.fstat(descriptor).st_uid == os.geteuid():
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
