"""``hybrid serve-authenticator``: one authenticator on a socket, for test suites and benches.

The framing is in `hybrid.testing.door`. Not for signing in: what comes over the socket is near only to this machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hmac
import ipaddress
import os
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hybrid.cli.database import open_chosen_store
from hybrid.cli.files import reason
from hybrid.cli.messages import UsageProblem, explain_at_phone
from hybrid.cli.running import run_politely
from hybrid.cli.terminal import Screen
from hybrid.errors import VaultError
from hybrid.passkeys.consent import (
    AlwaysApprove,
    Consent,
    LimitedConsent,
    NeverApprove,
    PinConsent,
    PinKeeper,
    normal_pin,
)
from hybrid.passkeys.engine import PROMPT_TIMEOUT, SoftwareAuthenticator
from hybrid.passkeys.presets import preset
from hybrid.passkeys.profiles import PROFILES, ROAMING, Profile
from hybrid.passkeys.store import CredentialStore, MemoryStore
from hybrid.passkeys.vault import Vault
from hybrid.passkeys.vault_pin import VaultPin
from hybrid.ports import LOCAL_PEER
from hybrid.testing.door import Door, Presence, private_socket

MEMORY = "memory"
_MAX_SOCKET_PATH = 107  # bytes, of Linux


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """The command line of ``hybrid serve-authenticator``."""

    screen: Screen
    socket: Path | None
    tcp: str | None
    profile: str | None
    preset: str | None
    fido_2_3: bool
    store: str
    vault_key: str
    approve: str
    control: Path | None
    reset_window: float | None
    more_algorithms: bool
    user_timeout: float | None


def serve_authenticator(options: ServeOptions) -> int:
    """Serve until SIGTERM, which is its good end."""
    if (options.socket is None) == (options.tcp is None):
        raise UsageProblem("there is no socket to serve on, or two", "give --socket PATH or --tcp 127.0.0.1:PORT")
    profile = _profile(options)
    with contextlib.ExitStack() as opened:
        listener, where = opened.enter_context(_listener(options))
        control = None if options.control is None else opened.enter_context(_unix_socket(options.control))
        store = opened.enter_context(_store(options))
        presence = Presence(_consent(options, profile, store, opened))
        authenticator = SoftwareAuthenticator(
            store,
            presence,
            profile=profile,
            more_algorithms=options.more_algorithms,
            fido_2_3=options.fido_2_3,
            reset_window=options.reset_window,
            prompt_timeout=options.user_timeout or PROMPT_TIMEOUT,
        )
        door = Door(Served(authenticator, options.screen), presence)
        return run_politely(_serve(options.screen, door, listener, where, control), options.screen, explain_at_phone)


def _profile(options: ServeOptions) -> Profile:
    if options.preset is None:
        return PROFILES[options.profile or ROAMING.name]
    if options.profile == ROAMING.name:
        raise UsageProblem(
            "presets are phones, and no phone is a roaming authenticator", "leave out --profile or --preset"
        )
    return preset(options.preset)


async def _serve(screen: Screen, door: Door, listener: socket.socket, where: str, control: socket.socket | None) -> int:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with door.open(listener, control):
        screen.listening(where)
        await ended.wait()
    return 0


class Served:
    """The engine as `hybrid.testing.door.Authenticator`; tells whoever runs it when its store fails."""

    def __init__(self, authenticator: SoftwareAuthenticator, screen: Screen) -> None:
        self._authenticator = authenticator
        self._screen = screen
        self.max_message_size = authenticator.profile.max_message_size

    async def call(self, request: bytes, *, channel: object) -> bytes:
        answer = await self._authenticator.call(request, peer=LOCAL_PEER, channel=channel)
        failure, self._authenticator.failure = self._authenticator.failure, None
        if failure is not None:
            self._screen.fail(failure.identifier, explain_at_phone(failure))
        return answer

    def undelivered(self) -> None:
        try:
            self._authenticator.undelivered()
        except VaultError as failure:
            self._screen.fail(failure.identifier, explain_at_phone(failure))

    def power_cycle(self) -> None:
        self._authenticator.power_cycle()


@contextlib.contextmanager
def _listener(options: ServeOptions) -> Iterator[tuple[socket.socket, str]]:
    """A bound socket and its name for people."""
    if options.socket is not None:
        with _unix_socket(options.socket) as bound:
            yield bound, str(options.socket)
        return
    assert options.tcp is not None
    address, port = _loopback(options.tcp)
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((str(address), port))
        except OSError as error:
            raise UsageProblem(f"{options.tcp} cannot be used: {reason(error)}", "choose another port") from None
        host = str(address) if address.version == 4 else f"[{address}]"
        yield bound, f"{host}:{bound.getsockname()[1]}"


def _loopback(text: str) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]:
    host, _, port = text.rpartition(":")
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host.strip("[]"))
        number = int(port) if port.isascii() and port.isdigit() else -1
    except ValueError:
        number = -1
    if not 0 <= number <= 0xFFFF:
        raise UsageProblem(f"{text} is no address to listen on", "write --tcp as in 127.0.0.1:8765 or [::1]:8765")
    if not address.is_loopback:
        raise UsageProblem(
            "an authenticator is not served to other machines: whoever reaches it can use its passkeys",
            "give --tcp an address of this machine alone, e.g. 127.0.0.1:8765",
        )
    return address, number


@contextlib.contextmanager
def _unix_socket(path: Path) -> Iterator[socket.socket]:
    if len(os.fsencode(path)) > _MAX_SOCKET_PATH:
        raise UsageProblem(
            f"a socket's path is at most {_MAX_SOCKET_PATH} bytes long, and this one is longer",
            "choose a shorter path, e.g. one from the current folder",
        )
    with contextlib.ExitStack() as opened:
        try:
            bound = opened.enter_context(private_socket(path))
        except OSError as error:
            problem = "somebody listens there already" if error.errno == errno.EADDRINUSE else reason(error)
            raise UsageProblem(f"the socket {path} cannot be made: {problem}", "choose another path") from None
        yield bound


@contextlib.contextmanager
def _store(options: ServeOptions) -> Iterator[CredentialStore]:
    if options.store == MEMORY:
        yield MemoryStore()
        return
    with open_chosen_store(Path(options.store), options.vault_key, options.screen, make=True) as store:
        yield store


def _consent(options: ServeOptions, profile: Profile, store: CredentialStore, opened: contextlib.ExitStack) -> Consent:
    match options.approve:
        case "always":
            options.screen.warn("every request is approved without asking anybody (--approve always)")
            return AlwaysApprove()
        case "never":
            return NeverApprove()
    from hybrid.cli.consent import Terminal, TerminalConsent

    terminal = Terminal()
    opened.callback(terminal.close)
    person = TerminalConsent(terminal)
    if profile.roaming:  # verifies by PIN/UV tokens; who is asked here only has to be there
        return LimitedConsent(person)
    keeper: PinKeeper = VaultPin(store) if isinstance(store, Vault) else _MemoryPin()
    return LimitedConsent(PinConsent(person, person, keeper))


class _MemoryPin:
    """A `PinKeeper` that is gone with the process; `PinConsent` ends a session of wrong ones."""

    def __init__(self) -> None:
        self._pin: str | None = None

    @property
    def is_set(self) -> bool:
        return self._pin is not None

    def wait_seconds(self) -> int:
        return 0

    def set(self, pin: str) -> bool:
        self._pin = normal_pin(pin)
        return True

    def check(self, pin: str) -> bool:
        return self._pin is not None and hmac.compare_digest(normal_pin(pin).encode(), self._pin.encode())
