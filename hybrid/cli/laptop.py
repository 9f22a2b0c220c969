"""``hybrid get``, ``create`` and ``info``: the client's side. The code is shown before anything slow is loaded."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybrid.cli.files import check_relay, reason
from hybrid.cli.messages import CtapFailure, NoPasskeys, UsageProblem
from hybrid.cli.results import print_result
from hybrid.cli.terminal import Screen, save_qr
from hybrid.errors import RequestRefused
from hybrid.events import Proximity
from hybrid.invitation import Invitation, invite
from hybrid.protocol.ctap import Status
from hybrid.protocol.qr import Hint

if TYPE_CHECKING:
    from hybrid.client import ClientTimeouts, Session
    from hybrid.ports import Scanner, TunnelService

Ceremony = Callable[["Session"], Awaitable[dict[str, Any]]]

_CHALLENGE_SIZE = 32
_USER_ID_SIZE = 32


@dataclass(frozen=True, slots=True)
class LaptopOptions:
    """Options that all three commands share."""

    screen: Screen
    qr_file: Path | None
    invert: bool
    no_qr: bool
    adapter: str | None
    relay: str | None
    relay_name: str | None
    relay_ca: Path | None
    timeouts: dict[str, float]


def get(
    options: LaptopOptions, rp_id: str, origin: str | None, options_json: bytes | None, public_key: bytes | None
) -> int:
    """Sign in; print AuthenticationResponseJSON."""
    from hybrid.fido2_bridge.ceremony import plan_assertion
    from hybrid.fido2_bridge.credential_key import load_public_key
    from hybrid.fido2_bridge.options import assertion_options

    wanted = assertion_options(rp_id, options_json, challenge=secrets.token_bytes(_CHALLENGE_SIZE))
    plan = plan_assertion(wanted, origin or f"https://{rp_id}")
    try:
        key = load_public_key(public_key) if public_key is not None else None
    except RequestRefused as error:
        raise UsageProblem(str(error), "give the passkey's public key with --public-key") from None

    async def ceremony(session: Session) -> dict[str, Any]:
        request = plan.request(_get_info(session))
        answer = await session.call(request.message)
        _check_status(answer)
        return request.result(answer, public_key=key).to_json()

    return _run(options, Hint.GET_ASSERTION, ceremony, wanted.timeout)


def create(options: LaptopOptions, rp_id: str, user: str | None, origin: str | None, options_json: bytes | None) -> int:
    """Register; print RegistrationResponseJSON."""
    from hybrid.fido2_bridge.ceremony import plan_registration
    from hybrid.fido2_bridge.options import registration_options

    wanted = registration_options(
        rp_id,
        options_json,
        user_name=user,
        challenge=secrets.token_bytes(_CHALLENGE_SIZE),
        user_id=secrets.token_bytes(_USER_ID_SIZE),
    )
    plan = plan_registration(wanted, origin or f"https://{rp_id}")

    async def ceremony(session: Session) -> dict[str, Any]:
        request = plan.request(_get_info(session))
        answer = await session.call(request.message)
        _check_status(answer)
        return request.result(answer).to_json()

    return _run(options, Hint.MAKE_CREDENTIAL, ceremony, wanted.timeout)


def info(options: LaptopOptions) -> int:
    """Print the getInfo that the phone sent by itself."""

    async def ceremony(session: Session) -> dict[str, Any]:
        from hybrid.fido2_bridge.info import describe_get_info

        if not session.get_info:
            return {"features": list(session.features)}
        return describe_get_info(session.get_info, session.features)

    return _run(options, Hint.GET_ASSERTION, ceremony, None)


def _get_info(session: Session) -> bytes:
    if not session.get_info:
        raise NoPasskeys
    return session.get_info


def _check_status(answer: bytes) -> None:
    if answer and answer[0] != Status.OK:
        raise CtapFailure(answer[0])


def _run(options: LaptopOptions, hint: Hint, ceremony: Ceremony, user_timeout: float | None) -> int:
    check_relay(options.relay, options.relay_name, options.relay_ca)
    invitation = invite(hint)
    if options.qr_file is not None:
        _save(invitation, options)
    options.screen.show_code(invitation.url, invert=options.invert, picture=not options.no_qr)

    from hybrid.cli.running import run_politely
    from hybrid.client import ClientTimeouts

    given = dict(options.timeouts)
    if user_timeout is not None:
        given.setdefault("user", user_timeout)
    return run_politely(_meet(options, invitation, ceremony, ClientTimeouts(**given)), options.screen)


def _save(invitation: Invitation, options: LaptopOptions) -> None:
    assert options.qr_file is not None
    try:
        save_qr(invitation.url, options.qr_file, invert=options.invert)
    except ValueError as error:
        raise UsageProblem(str(error), "name the file code.png or code.svg") from None
    except OSError as error:
        raise UsageProblem(f"the picture cannot be written: {reason(error)}", "check --qr-file") from None


async def _meet(options: LaptopOptions, invitation: Invitation, ceremony: Ceremony, timeouts: ClientTimeouts) -> int:
    from hybrid.client import connect

    async with connect(
        invitation,
        on_event=options.screen.on_event,
        scanner=_scanner(options),
        tunnels=_tunnels(options),
        timeouts=timeouts,
    ) as session:
        result = await ceremony(session)
        if session.proximity is not Proximity.BLUETOOTH:
            result["proximity"] = session.proximity.value
        return print_result(result)


def _scanner(options: LaptopOptions) -> Scanner:
    from hybrid.adapters.bleak_scanner import BluetoothScanner

    return BluetoothScanner(options.adapter)


def _tunnels(options: LaptopOptions) -> TunnelService:
    from hybrid.adapters.websocket_tunnel import WebSocketTunnels

    return WebSocketTunnels(relay=options.relay, relay_name=options.relay_name, relay_ca=options.relay_ca)
