"""``hybrid phone``: be the phone for a code, with passkeys from a vault and a person who is asked first."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hybrid.authenticator import PhoneTimeouts, answer
from hybrid.cli.database import is_database, open_chosen_store
from hybrid.cli.files import check_relay, reason
from hybrid.cli.messages import CtapFailure, MissingExtra, UsageProblem, explain_at_phone
from hybrid.cli.running import run_politely
from hybrid.cli.terminal import Screen
from hybrid.cli.vault_keys import UnlockedConsent, parse_vault_key
from hybrid.events import Event, LeftUnanswered, RequestReceived, ResponseSent
from hybrid.passkeys.consent import AlwaysApprove, Consent, LimitedConsent, NeverApprove, PinConsent
from hybrid.passkeys.engine import PROMPT_TIMEOUT, SoftwareAuthenticator
from hybrid.passkeys.presets import preset
from hybrid.passkeys.profiles import PHONE, Profile
from hybrid.passkeys.vault import Vault
from hybrid.passkeys.vault_file import KeyKind
from hybrid.passkeys.vault_pin import VaultPin
from hybrid.ports import Advertiser, TunnelService
from hybrid.protocol.ctap import Status
from hybrid.protocol.qr import QrInvitation

if TYPE_CHECKING:  # it loads a library that is not always here
    from hybrid.passkeys.kdbx import KdbxStore

_MAX_CODE = 1 << 16  # characters


@dataclass(frozen=True, slots=True)
class PhoneOptions:
    """The command line of ``hybrid phone``."""

    screen: Screen
    code: str | None
    qr_image: Path | None
    vault: Path | None
    vault_key: str
    approve: str
    preset: str | None
    fido_2_3: bool
    service_id: int | None
    adapter: str | None
    relay: str | None
    relay_name: str | None
    relay_ca: Path | None
    many: bool
    user_timeout: float | None
    timeouts: dict[str, float]


def phone(options: PhoneOptions) -> int:
    """Answer one code. Exit code 0 also for a client that left by itself."""
    check_relay(options.relay, options.relay_name, options.relay_ca)
    code = _code(options)
    QrInvitation.parse(code)  # before anybody is asked anything
    parse_vault_key(options.vault_key)
    profile = _profile(options)
    store: Vault | KdbxStore | None = None
    terminal = None
    if options.approve == "ask":
        from hybrid.cli.consent import Terminal

        terminal = Terminal()
    try:
        store = _open_store(options)
        consent = _consent(options, store, terminal)
        timeout = options.user_timeout or PROMPT_TIMEOUT
        authenticator = SoftwareAuthenticator(
            store, consent, profile=profile, fido_2_3=options.fido_2_3, prompt_timeout=timeout
        )
        return run_politely(_serve(options, code, authenticator), options.screen, explain_at_phone)
    finally:
        if store is not None:
            store.close()
        if terminal is not None:
            terminal.close()


def _profile(options: PhoneOptions) -> Profile:
    if options.preset is None:
        return PHONE
    profile = preset(options.preset)
    if options.many and profile.habits.one_command:
        raise UsageProblem(f"{profile.name} ends a session after one command", "leave out --many or --preset")
    options.screen.say(f"behaving as {profile.name}, as far as others have told; compared with no real one")
    return profile


def _open_store(options: PhoneOptions) -> Vault | KdbxStore:
    without_password = parse_vault_key(options.vault_key).kind is not KeyKind.PASSPHRASE
    if is_database(options.vault) and options.approve == "ask" and without_password:
        raise UsageProblem(
            "a key file does not say who is at the keyboard", "open the database with its password instead"
        )
    return open_chosen_store(options.vault, options.vault_key, options.screen, make=True)


def _code(options: PhoneOptions) -> str:
    if options.qr_image is not None:
        return _read_image(options.qr_image)
    if options.code != "-":
        assert options.code is not None
        return options.code.strip()
    if sys.stdin.isatty():
        options.screen.say("paste the code and press return")
    line = sys.stdin.readline(_MAX_CODE).strip()  # not to the end of input: whoever writes it may stay
    if not line:
        raise UsageProblem("no code came on standard input", "write it there, in one line")
    return line


def _read_image(path: Path) -> str:
    try:
        from hybrid.adapters.qr_image import read_code
    except ImportError:
        raise MissingExtra("reading a code from a picture", "image") from None
    try:
        return read_code(path)
    except OSError as error:
        raise UsageProblem(f"the picture cannot be read: {reason(error)}", f"check the path {path}") from None


def _consent(options: PhoneOptions, store: Vault | KdbxStore, terminal: object) -> Consent:
    match options.approve:
        case "always":
            options.screen.warn("every request is approved without asking anybody (--approve always)")
            return AlwaysApprove()
        case "never":
            return NeverApprove()
        case _:
            from hybrid.cli.consent import Terminal, TerminalConsent

            assert isinstance(terminal, Terminal)
            person = TerminalConsent(terminal)
            if not isinstance(store, Vault) or store.key_kind is KeyKind.PASSPHRASE:
                return LimitedConsent(UnlockedConsent(person))
            return LimitedConsent(PinConsent(person, person, VaultPin(store)))


class _Delivery:
    """Shows events, and remembers what became of the last request."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self.pending = False
        self.status = int(Status.OK)

    def __call__(self, event: Event) -> None:
        match event:
            case RequestReceived():
                self.pending = True
            case ResponseSent(status) | LeftUnanswered(status=status):
                self.pending = False
                self.status = status
        self._screen.on_event(event)


async def _serve(options: PhoneOptions, code: str, authenticator: SoftwareAuthenticator) -> int:
    delivery = _Delivery(options.screen)
    try:
        await answer(
            code,
            authenticator,
            advertiser=_advertiser(options),
            tunnels=_tunnels(options),
            on_event=delivery,
            timeouts=PhoneTimeouts(**options.timeouts),
            service_id=options.service_id,
            many=options.many,
            habits=authenticator.profile.habits,
        )
    finally:
        if delivery.pending:
            authenticator.undelivered()
    if authenticator.failure is not None:
        raise authenticator.failure
    if delivery.status != Status.OK:
        raise CtapFailure(delivery.status)
    return 0


def _advertiser(options: PhoneOptions) -> Advertiser:
    from hybrid.adapters.bluez_advertiser import BluezAdvertiser

    return BluezAdvertiser(options.adapter)


def _tunnels(options: PhoneOptions) -> TunnelService:
    from hybrid.adapters.websocket_tunnel import WebSocketTunnels

    return WebSocketTunnels(relay=options.relay, relay_name=options.relay_name, relay_ca=options.relay_ca)
