"""What both drivers share: messages over any channel, news to the user interface, waiting with a stage's deadline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from hybrid.errors import LocalProtocolError, PeerTimeout, Stage
from hybrid.events import Event, Proximity
from hybrid.ports import Channel, TunnelService
from hybrid.protocol.frames import STREAM_END, Opener, StreamReader

OnEvent = Callable[[Event], None]
_T = TypeVar("_T")
_P = ParamSpec("_P")
_Work = Callable[_P, Coroutine[Any, Any, None]]


class EventStream:
    """A callable for ``on_event=`` that one can also ``async for`` over; it ends after `close`."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Event | None] = asyncio.Queue()

    def __call__(self, event: Event) -> None:
        self._queue.put_nowait(event)

    def close(self) -> None:
        """No more events will come."""
        self._queue.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[Event]:
        while (event := await self._queue.get()) is not None:
            yield event


class MessageChannel:
    """Whole messages over a channel of either kind (see `hybrid.ports.Channel`)."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._stream = None if channel.bounded else StreamReader()

    async def send(self, message: bytes) -> None:
        await self._channel.send(message if self._stream is None else message + STREAM_END)

    async def receive(self, opener: Callable[[], Opener | None]) -> bytes | None:
        """Give the next message, None once the peer closed. `opener` gives the receive cipher of the moment."""
        if self._stream is None:
            return await self._channel.receive()
        while (message := self._stream.next_message(opener())) is None:
            data = await self._channel.receive()
            if data is None:
                return None
            self._stream.feed(data)
        return message

    async def aclose(self) -> None:
        await self._channel.aclose()


class Progress:
    """Lets one task wait until others have changed something, or failed."""

    def __init__(self) -> None:
        self._wake = asyncio.Event()
        self._failure: BaseException | None = None

    def changed(self) -> None:
        """Something happened: whoever waits looks again."""
        self._wake.set()

    def failed(self, error: BaseException) -> None:
        """Whoever waits gets the first such error raised."""
        if self._failure is None:
            self._failure = error
        self._wake.set()

    def spawn(self, work: _Work[_P], *args: _P.args, **kwargs: _P.kwargs) -> asyncio.Task[None]:
        """Run beside the waiting task; whatever it raises fails the wait."""
        return asyncio.create_task(self._report(work, *args, **kwargs))

    async def _report(self, work: _Work[_P], *args: _P.args, **kwargs: _P.kwargs) -> None:
        # The failure must be known before anybody else runs again: who waits may be on the way to wake up already.
        try:
            await work(*args, **kwargs)
        except (Exception, asyncio.CancelledError) as error:  # a border: it is raised again where the caller waits
            if isinstance(error, asyncio.CancelledError) and _is_being_cancelled():
                raise
            self.failed(error)

    def check(self) -> None:
        """Raise what failed, if anything did."""
        if self._failure is not None:
            raise self._failure

    async def wait(self, done: Callable[[], bool], stage: Stage, seconds: float | None) -> None:
        """Return once `done()`. Raises what failed, or `PeerTimeout` for `stage` after `seconds` (None: never)."""
        try:
            async with asyncio.timeout(seconds) as limit:
                while not done():
                    self.check()
                    self._wake.clear()
                    await self._wake.wait()
        except TimeoutError:
            if seconds is None or not limit.expired():
                raise
            raise PeerTimeout(stage, seconds) from None


async def in_time(awaitable: Awaitable[_T], stage: Stage, seconds: float) -> _T:
    """Await something that is a stage of its own. Raises `PeerTimeout`."""
    try:
        async with asyncio.timeout(seconds) as limit:
            return await awaitable
    except TimeoutError:
        if not limit.expired():
            raise
        raise PeerTimeout(stage, seconds) from None


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def stop(task: asyncio.Task[None] | None) -> None:
    """Cancel a task and wait until it is gone; what it raised was reported through `Progress`.

    Cancelled meanwhile, this still waits: nobody's task outlives the session.
    """
    if task is None or task.done():
        return
    task.cancel()
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


def check_simulation(proximity: Proximity, tunnels: TunnelService) -> None:
    """Nearness that nobody vouched for stays on this machine.

    Raises:
        LocalProtocolError: a simulated air together with a relay that others can reach.
    """
    if proximity is Proximity.SIMULATED and not tunnels.loopback:
        raise LocalProtocolError("the simulated air works only with a relay in memory or on this machine")


def default_tunnels() -> TunnelService:
    """The real relays, for callers that name none."""
    from hybrid.adapters.websocket_tunnel import WebSocketTunnels

    return WebSocketTunnels()
