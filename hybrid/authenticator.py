"""The phone on asyncio: drives `hybrid.protocol.authenticator` with an advertiser, a tunnel service and a backend.

The machine decides; this file awaits. Cancelling the caller's task takes the advert off the air, closes the tunnel and
cancels the backend at any point.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import time
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import assert_never

from cryptography.hazmat.primitives.asymmetric import ec

from hybrid.driving import MessageChannel, OnEvent, Progress, check_simulation, default_tunnels, in_time, stop
from hybrid.errors import HybridError, InvalidQR, PeerClosed, PeerTimeout, QRProblem, Stage, TunnelError
from hybrid.events import Advertising, CodeIsOld, Event, ResponseSent
from hybrid.ports import Advertiser, CtapBackend, Peer, TunnelService
from hybrid.protocol.authenticator import (
    Advertise,
    AuthenticatorMachine,
    CloseChannel,
    OpenTunnel,
    QrIntroduction,
    Send,
    Serve,
    State,
    StopAdvertising,
)
from hybrid.protocol.eid import NONCE_SIZE
from hybrid.protocol.frames import Opener
from hybrid.protocol.habits import Habits
from hybrid.protocol.qr import QrInvitation

log = logging.getLogger(__name__)

OLD_CODE = 300  # seconds; real clients may leave the time out, so it only warns

_used_codes: set[bytes] = set()  # hashes of QR secrets that this process has answered


@dataclass(frozen=True, slots=True)
class PhoneTimeouts:
    """Seconds that each stage of the phone may take.

    `tunnel`: TCP, TLS and WebSocket; `advertise`: on the air until a client comes; `request`: the client's next
    request; `close`: the client's own close after the answer.
    """

    tunnel: float = 15
    advertise: float = 60
    request: float = 120
    close: float = 2


@dataclass(slots=True)
class Served:
    """What a session came to: CTAP status bytes of the answers that were sent, in order."""

    statuses: list[int] = field(default_factory=list)


async def answer(
    code: str,
    backend: CtapBackend,
    *,
    advertiser: Advertiser | None = None,
    tunnels: TunnelService | None = None,
    on_event: OnEvent | None = None,
    timeouts: PhoneTimeouts | None = None,
    service_id: int | None = None,
    many: bool = False,
    habits: Habits | None = None,
) -> Served:
    """Be the phone for the client that shows `code`, until one command is answered (`many`: until it leaves).

    `code`: ``FIDO:/`` and digits; `backend`: answers CTAP requests; `advertiser`, `tunnels`: left out, they are this
    machine's Bluetooth and the real relays; `habits`: how this phone keeps a session, where phones differ;
    `service_id`: the tunnel service to meet at in place of that of the habits.

    A client that leaves without a request, or before its answer, is no error: the backend is cancelled then. Nor is a
    phone that leaves in place of an answer, because that is its habit: `Served` has no status then.

    Raises:
        InvalidQR: not a code, or one that cannot be served; nothing was sent.
        BluetoothUnavailable, TunnelError, PeerTimeout, PeerClosed, RemoteProtocolError
        LocalProtocolError: a simulated air meets a relay of others.
    """
    qr = QrInvitation.parse(code)
    habits = habits or Habits()
    habits.check(qr)
    service_id = habits.service_id if service_id is None else service_id
    introduction = QrIntroduction(qr, service_id, secrets.token_bytes(NONCE_SIZE))
    advertiser = advertiser if advertiser is not None else _default_advertiser()
    tunnels = tunnels if tunnels is not None else default_tunnels()
    check_simulation(advertiser.proximity, tunnels)
    _use(qr)
    machine = AuthenticatorMachine(
        introduction, ephemeral=ec.generate_private_key(ec.SECP256R1()), get_info=backend.get_info, habits=habits
    )
    peer = Peer(channel="qr", hint=qr.stated_hint, linked_name=None, proximity=advertiser.proximity)
    many = many and not habits.one_command
    run = _Run(machine, backend, peer, advertiser, tunnels, on_event, timeouts or PhoneTimeouts(), many)
    run.check_age(qr)
    try:
        await run.serve()
    finally:
        await run.aclose()
    return run.served


def _use(qr: QrInvitation) -> None:
    digest = hashlib.sha256(qr.secret).digest()
    if digest in _used_codes:
        raise InvalidQR("this code was answered before", QRProblem.USED)
    _used_codes.add(digest)


def _default_advertiser() -> Advertiser:
    from hybrid.adapters.bluez_advertiser import BluezAdvertiser

    return BluezAdvertiser()


class _Run:
    """One session's tasks: at most one reader and one backend call besides the caller's own."""

    def __init__(
        self,
        machine: AuthenticatorMachine,
        backend: CtapBackend,
        peer: Peer,
        advertiser: Advertiser,
        tunnels: TunnelService,
        on_event: OnEvent | None,
        timeouts: PhoneTimeouts,
        many: bool,
    ) -> None:
        self.served = Served()
        self._machine = machine
        self._backend = backend
        self._peer = peer
        self._advertiser = advertiser
        self._tunnels = tunnels
        self._on_event = on_event
        self._timeouts = timeouts
        self._many = many
        self._progress = Progress()
        self._news = False
        self._air = AsyncExitStack()
        self._channel: MessageChannel | None = None
        self._reader: asyncio.Task[None] | None = None
        self._work: asyncio.Task[None] | None = None

    def check_age(self, qr: QrInvitation) -> None:
        """Warn of an old code; it is served all the same."""
        age = int(time.time()) - qr.timestamp if qr.timestamp is not None else 0
        if age > OLD_CODE:
            self._emit(CodeIsOld(age))

    # the ceremony

    async def serve(self) -> None:
        """From the tunnel to the last answer."""
        self._machine.start()
        await self._act()
        while self._machine.state in (State.ADVERTISING, State.SERVING, State.BUSY):
            if self._machine.state is State.SERVING and self._is_served():
                await self._await_goodbye()
                return
            await self._progress.wait(self._has_news, self._machine.stage, self._limit())
            await self._act()
        if not self._is_served():
            self._progress.check()

    def _is_served(self) -> bool:
        return bool(self.served.statuses) and not self._many

    def _limit(self) -> float | None:
        match self._machine.state:
            case State.ADVERTISING:
                return self._timeouts.advertise
            case State.SERVING:
                return self._timeouts.request
            case _:
                return None  # the backend owns the time that its person has

    def _has_news(self) -> bool:
        return self._news

    async def _await_goodbye(self) -> None:
        # The answer is out. A client that closes badly, or not at all, changes nothing about it.
        with suppress(HybridError):
            await self._progress.wait(self._has_news, Stage.REQUEST, self._timeouts.close)

    async def aclose(self) -> None:
        """Take everything down, whatever state it is in."""
        async with AsyncExitStack() as ending:  # from the last to the first, each whatever happens to the others
            ending.callback(self._tell)
            ending.push_async_callback(self._close_channel)
            ending.push_async_callback(self._air.aclose)
            ending.push_async_callback(stop, self._reader)
            ending.push_async_callback(stop, self._work)
            self._machine.fail()

    async def _close_channel(self) -> None:
        if self._channel is not None:
            await self._channel.aclose()

    # wishes and news

    async def _act(self) -> None:
        self._news = False
        self._tell()
        for action in self._machine.actions():
            match action:
                case OpenTunnel(request):
                    channel = await in_time(self._tunnels.open(request), Stage.TUNNEL, self._timeouts.tunnel)
                    self._channel = MessageChannel(channel)
                    self._machine.tunnel_opened(channel.routing_id)
                    self._reader = self._progress.spawn(self._read, self._channel)
                    await self._act()
                case Advertise(service_data, service_uuid):
                    advertising = self._advertiser.advertise(service_data, service_uuid=service_uuid)
                    advert = self._air.enter_async_context(advertising)
                    await in_time(advert, Stage.ADVERTISE, self._timeouts.advertise)
                    self._emit(Advertising(self._timeouts.advertise))
                case StopAdvertising():
                    await self._air.aclose()
                case Serve(request):
                    self._work = self._progress.spawn(self._work_on, request)
                case Send(message):
                    await self._send(message)
                case CloseChannel():
                    await self._close_channel()
                case _:
                    assert_never(action)

    async def _send(self, message: bytes) -> None:
        assert self._channel is not None
        try:
            await self._channel.send(message)
        except TunnelError:
            # The client may have left a moment ago, which is no error; the reader finds out.
            with suppress(PeerTimeout):
                await self._progress.wait(self._is_left, self._machine.stage, self._timeouts.close)
            self._progress.check()
            if not self._is_left():
                raise

    def _is_left(self) -> bool:
        return self._machine.state in (State.FINISHING, State.CLOSED)

    def _tell(self) -> None:
        for event in self._machine.events():
            if isinstance(event, ResponseSent):
                self.served.statuses.append(event.status)
            self._emit(event)

    def _emit(self, event: Event) -> None:
        log.debug("%s", type(event).__name__)
        if self._on_event is not None:
            self._on_event(event)

    def _changed(self) -> None:
        self._news = True
        self._progress.changed()

    # tasks

    async def _read(self, channel: MessageChannel) -> None:
        try:
            while (message := await channel.receive(self._opener)) is not None:
                self._machine.message(message)
                self._changed()
            self._machine.channel_closed()
        except PeerClosed as error:
            if error.stage is Stage.ADVERTISE:
                raise
            # The client has left without its answer; it knows why.
        except HybridError:
            self._machine.fail()
            raise
        self._changed()

    async def _work_on(self, request: bytes) -> None:
        response = await self._backend.call(request, peer=self._peer)
        if self._machine.state is State.BUSY:
            self._machine.response(response)
            self._changed()

    def _opener(self) -> Opener | None:
        return self._machine.opener
