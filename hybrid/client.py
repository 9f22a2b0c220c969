"""The client on asyncio: drives `hybrid.protocol.client` with a scanner and a tunnel service, yields a `Session`.

The machine decides; this file awaits. Cancelling the caller's task stops scan, tunnel and tasks at any point.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import assert_never

from cryptography.hazmat.primitives.asymmetric import ec

from hybrid.driving import MessageChannel, OnEvent, Progress, check_simulation, default_tunnels, in_time, stop
from hybrid.errors import HybridError, LinkGone, LocalProtocolError, PeerClosed, PeerTimeout, Stage, TunnelError
from hybrid.events import Event, LinkForgotten, Proximity, RequestSent, Scanning
from hybrid.invitation import Invitation
from hybrid.ports import Channel, Scanner, TunnelService
from hybrid.protocol.client import (
    ClientMachine,
    CloseTunnel,
    Introduction,
    LinkIntroduction,
    OpenTunnel,
    QrIntroduction,
    Scan,
    Send,
    State,
    StopScan,
)
from hybrid.protocol.contact import CLIENT_NONCE_SIZE
from hybrid.protocol.frames import Opener
from hybrid.protocol.linking import Link
from hybrid.protocol.qr import Hint
from hybrid.protocol.tunnel import TunnelRequest

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ClientTimeouts:
    """Seconds that each stage of the client may take.

    `scan`: code shown, no advert; `tunnel`: TCP, TLS and WebSocket; `handshake`: message 2; `greeting`: the phone's
    introduction; `user`: the person at the phone, per request; `linger`: late updates after the last answer, while
    the session stays open; `close`: the phone's own close, when the session is left.
    """

    scan: float = 120
    tunnel: float = 15
    handshake: float = 15
    greeting: float = 15
    user: float = 120
    linger: float = 120
    close: float = 2

    def of(self, stage: Stage) -> float:
        match stage:
            case Stage.SCAN | Stage.ADVERTISE:
                return self.scan
            case Stage.TUNNEL:
                return self.tunnel
            case Stage.HANDSHAKE:
                return self.handshake
            case Stage.GREETING:
                return self.greeting
            case Stage.REQUEST | Stage.RESPONSE:
                return self.user
            case _:
                assert_never(stage)


class Session:
    """An encrypted session with a phone. Made by `connect`; one `call` at a time."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self.loop = asyncio.get_running_loop()

    def __repr__(self) -> str:
        return f"<Session {self._run.machine.state.name.lower()}>"

    @property
    def get_info(self) -> bytes:
        """CBOR of the getInfo response map that the phone sent by itself; empty if it does not speak CTAP."""
        greeting = self._run.machine.greeting
        return (greeting.get_info or b"") if greeting is not None else b""

    @property
    def features(self) -> tuple[str, ...]:
        """What the phone announced, e.g. ``("ctap", "dc")``."""
        greeting = self._run.machine.greeting
        return greeting.features if greeting is not None else ()

    @property
    def proximity(self) -> Proximity:
        """Who vouches that the phone is near."""
        return self._run.proximity

    @property
    def link(self) -> Link | None:
        """The link that the phone offered, its proof checked; None so far."""
        return self._run.machine.link

    async def call(self, request: bytes, *, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 caller's default
        """Send one CTAP request (command byte and CBOR); give status byte and CBOR.

        `timeout`: seconds for the person at the phone, instead of `ClientTimeouts.user`.

        Raises:
            LocalProtocolError: another call is open, or the session is over.
            PeerClosed: the phone left without an answer.
            PeerTimeout, RemoteProtocolError, TunnelError
        """
        return await self._run.call(request, timeout)

    async def finish(self) -> None:
        """Tell the phone that no more requests come. Updates are read on for `ClientTimeouts.linger` seconds, then
        the channel closes.
        """
        await self._run.finish()

    async def wait_for_link(self) -> Link | None:
        """Finish, then wait for a link until the phone closes or the linger time ends.

        Raises:
            RemoteProtocolError, TunnelError: the session broke meanwhile; answers that came before stay good.
        """
        await self._run.finish()
        return await self._run.linger()


@asynccontextmanager
async def connect(
    to: Invitation | Link,
    *,
    on_event: OnEvent | None = None,
    scanner: Scanner | None = None,
    tunnels: TunnelService | None = None,
    timeouts: ClientTimeouts | None = None,
    hint: Hint = Hint.GET_ASSERTION,
) -> AsyncIterator[Session]:
    """Meet a phone and yield a `Session` that is ready for `Session.call`.

    `to`: the invitation whose code the phone scans, or a link to a phone met before; `on_event`: told what happens;
    `scanner`, `tunnels`: left out, they are this machine's Bluetooth and the real relays; `hint`: what a linked
    session is about to ask (an invitation carries its own).

    Raises:
        BluetoothUnavailable, TunnelError, PeerTimeout, PeerClosed, RemoteProtocolError
        LinkGone: forget this link.
        LocalProtocolError: the invitation was used before, or a simulated air meets a relay of others.
    """
    scanner = scanner if scanner is not None else _default_scanner()
    tunnels = tunnels if tunnels is not None else default_tunnels()
    check_simulation(scanner.proximity, tunnels)
    run = _Run(to, _introduction(to, hint), on_event, scanner, tunnels, timeouts or ClientTimeouts())
    clean = False
    try:
        await run.meet()
        yield Session(run)
        clean = True
    finally:
        await run.aclose(wait=clean)


def _introduction(to: Invitation | Link, hint: Hint) -> Introduction:
    if isinstance(to, Invitation):
        to.use()
        return QrIntroduction(to.qr, to.identity)
    return LinkIntroduction(to, secrets.token_bytes(CLIENT_NONCE_SIZE), hint)


def _default_scanner() -> Scanner:
    from hybrid.adapters.bleak_scanner import BluetoothScanner

    return BluetoothScanner()


class _Run:
    """One session's tasks: at most a scan, a reader and the end of lingering besides the caller's own."""

    def __init__(
        self,
        to: Invitation | Link,
        introduction: Introduction,
        on_event: OnEvent | None,
        scanner: Scanner,
        tunnels: TunnelService,
        timeouts: ClientTimeouts,
    ) -> None:
        self.machine = ClientMachine(
            introduction, ephemeral=ec.generate_private_key(ec.SECP256R1()), proximity=scanner.proximity
        )
        self.proximity = scanner.proximity
        self._to = to
        self._on_event = on_event
        self._scanner = scanner
        self._tunnels = tunnels
        self._timeouts = timeouts
        self._progress = Progress()
        self._channel: MessageChannel | None = None
        self._scan: asyncio.Task[None] | None = None
        self._reader: asyncio.Task[None] | None = None
        self._end_of_linger: asyncio.Task[None] | None = None
        self._is_over = False

    # the ceremony

    async def meet(self) -> None:
        self.machine.start()
        while self.machine.greeting is None:
            await self._act()
            stage = self.machine.stage
            await self._progress.wait(partial(self._has_left, stage), stage, self._timeouts.of(stage))
            self._progress.check()
        self._tell()

    def _has_left(self, stage: Stage) -> bool:
        # The phone can be quick enough to have greeted before we begin to wait.
        return self.machine.greeting is not None or self.machine.stage is not stage

    async def call(self, request: bytes, timeout: float | None) -> bytes:  # noqa: ASYNC109 handed on
        if self._is_over:
            raise LocalProtocolError("this session is over")
        self._progress.check()
        if self.machine.state is State.CLOSED:
            raise PeerClosed(Stage.REQUEST)
        seconds = self._timeouts.user if timeout is None else timeout
        self.machine.request(request)
        response: bytes | None = None
        try:
            self._emit(RequestSent(request[0], seconds))  # first: the answer may overtake the end of `send`
            await self._act()
            await self._progress.wait(self._is_answered, Stage.RESPONSE, seconds)
            response = self.machine.take_response()
        finally:
            if response is None:
                await self._say_goodbye()  # an answer that still comes is one that nobody waits for
        if response is None:
            self._progress.check()
            raise PeerClosed(Stage.RESPONSE)
        return response

    def _is_answered(self) -> bool:
        return self.machine.state is not State.REQUESTED

    async def finish(self) -> None:
        if self.machine.state in (State.READY, State.REQUESTED):
            await self._say_goodbye()

    async def linger(self) -> Link | None:
        await self._progress.wait(self._has_link_or_end, Stage.RESPONSE, None)  # lingering ends by itself
        return self.machine.link

    def _has_link_or_end(self) -> bool:
        return self.machine.link is not None or self._is_closed()

    def _is_closed(self) -> bool:
        return self.machine.state is State.CLOSED

    async def aclose(self, *, wait: bool) -> None:
        """Say goodbye, give the phone a moment to close if `wait`, then close whatever is open."""
        self._is_over = True
        async with AsyncExitStack() as ending:  # from the last to the first, each whatever happens to the others
            ending.callback(self._tell)
            ending.push_async_callback(self._close_channel)
            ending.push_async_callback(stop, self._reader)
            ending.push_async_callback(stop, self._scan)
            ending.push_async_callback(stop, self._end_of_linger)
            # A call may be open in another task, e.g. one that a worker thread waits for.
            ending.callback(self._progress.failed, LocalProtocolError("this session is over"))
            ending.callback(self.machine.fail)
            await self._say_goodbye()
            if wait and self.machine.state is State.LINGERING:
                with suppress(HybridError):
                    await self._progress.wait(self._is_closed, Stage.RESPONSE, self._timeouts.close)

    async def _close_channel(self) -> None:
        if self._channel is not None:
            await self._channel.aclose()

    async def _say_goodbye(self) -> None:
        self.machine.actions()  # void: what a session that ends wished for, such as a tunnel
        self.machine.finish()
        with suppress(HybridError, TimeoutError):
            async with asyncio.timeout(self._timeouts.close):
                await self._act()
        if self.machine.state is State.LINGERING and self._end_of_linger is None and not self._is_over:
            self._end_of_linger = self._progress.spawn(self._stop_lingering)

    # wishes and news

    async def _act(self) -> None:
        self._tell()
        for action in self.machine.actions():
            match action:
                case Scan():
                    self._emit(Scanning(self._timeouts.scan))
                    self._scan = self._progress.spawn(self._listen)
                case StopScan():
                    await stop(self._scan)
                case OpenTunnel(request):
                    channel = await self._open(request)
                    self._channel = MessageChannel(channel)
                    self.machine.tunnel_opened(signals=channel.signals)
                    self._reader = self._progress.spawn(self._read, self._channel)
                    await self._act()
                case Send(message):
                    await self._send(message)
                case CloseTunnel():
                    await self._close_channel()
                case _:
                    assert_never(action)

    async def _send(self, message: bytes) -> None:
        assert self._channel is not None
        try:
            await self._channel.send(message)
        except TunnelError:
            # The phone may have closed a moment ago; then the reader finds out, and tells better what happened.
            with suppress(PeerTimeout):
                await self._progress.wait(self._is_closed, self.machine.stage, self._timeouts.close)
            self._progress.check()
            raise

    async def _open(self, request: TunnelRequest) -> Channel:
        try:
            return await in_time(self._tunnels.open(request), Stage.TUNNEL, self._timeouts.tunnel)
        except LinkGone:
            if isinstance(self._to, Link):
                self._emit(LinkForgotten(self._to.name))
            raise

    def _tell(self) -> None:
        for event in self.machine.events():
            self._emit(event)

    def _emit(self, event: Event) -> None:
        log.debug("%s", type(event).__name__)
        if self._on_event is not None:
            self._on_event(event)

    # tasks

    async def _listen(self) -> None:
        async with self._scanner.scan() as adverts:
            async for advert in adverts:
                if self.machine.advert_heard(advert.data, advert.rssi):
                    self._progress.changed()
                    return

    async def _read(self, channel: MessageChannel) -> None:
        try:
            while (message := await channel.receive(self._opener)) is not None:
                self.machine.message(message)
                self._tell()
                self._progress.changed()
            self.machine.tunnel_closed()
        except HybridError:
            self.machine.fail()
            raise
        self._progress.changed()

    async def _stop_lingering(self) -> None:
        await asyncio.sleep(self._timeouts.linger)  # this is the time-out itself
        self.machine.fail()
        self._progress.changed()
        await self._close_channel()

    def _opener(self) -> Opener | None:
        return self.machine.opener
