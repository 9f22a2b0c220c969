"""`WakeUps` over NATS, for a relay of several processes or machines. Needs the extra ``relay``.

Subjects: ``tunnel-server.wake.NAME`` with `wake_ups.address` of a contact id as the name, and inboxes for answers under
``tunnel-server.inbox``; a user of the server needs ``tunnel-server.>`` and nothing else. A worker subscribes while a
phone is connected to it, and answers a request when the phone got the message. Nothing is stored: a message is for now
or for nobody.

NATS being away never stops a relay: the client connects when it can, again and again for ever, subscribes anew by
itself, and until then a phone cannot be reached, which is the 503 that a client expects of that.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error

from tunnel_server.wake_ups import Handler, address, check_size

logger = logging.getLogger(__name__)

PREFIX = "tunnel-server"
_YES = b"1"
_ANSWER_TIME = 1.0  # s for a phone's worker to answer
_AGAIN = 1  # s between two attempts to connect
_CONNECT_TIME = 2  # s for one attempt


@dataclass(frozen=True, slots=True)
class NatsOptions:
    """Where the servers are and who we are: a user and a password, or a token, or an nkey, or a certificate, or nobody.

    `nkey`: file with the seed, which needs the package ``nkeys``. `tls`: for servers that speak TLS, with our
    certificate if they want to see one.
    """

    servers: tuple[str, ...]
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    nkey: Path | None = None
    tls: ssl.SSLContext | None = None


@asynccontextmanager
async def nats_wake_ups(options: NatsOptions) -> AsyncIterator[NatsWakeUps]:
    """Be connected, or try to be, while the context is open."""
    wake_ups = NatsWakeUps()
    connecting = asyncio.ensure_future(wake_ups.stay_connected(options))
    try:
        yield wake_ups
    finally:
        connecting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await connecting


class NatsWakeUps:
    """Made by `nats_wake_ups`."""

    def __init__(self) -> None:
        self._client: Client | None = None
        self._handlers: dict[str, list[Handler]] = {}
        self._subscriptions: dict[str, Subscription] = {}
        self._subscribing = asyncio.Lock()

    @property
    def connected(self) -> bool:
        """Whether messages can be sent now."""
        return self._client is not None and self._client.is_connected

    async def stay_connected(self, options: NatsOptions) -> None:
        """Connect, and end the connection when cancelled."""
        try:
            while self._client is None:
                self._client = await self._connect(options)
            for name in list(self._handlers):
                await self._subscribe(name)
            await asyncio.Event().wait()
        finally:
            if self._client is not None:
                await self._client.close()

    async def _connect(self, options: NatsOptions) -> Client | None:
        """A client that is connected and will connect again by itself; None after a failure and a pause."""
        client = Client()
        try:
            await client.connect(
                list(options.servers),
                name=PREFIX,
                inbox_prefix=f"{PREFIX}.inbox",
                user=options.user,
                password=options.password,
                token=options.token,
                nkeys_seed=str(options.nkey) if options.nkey else None,
                tls=options.tls,
                connect_timeout=_CONNECT_TIME,
                reconnect_time_wait=_AGAIN,
                max_reconnect_attempts=-1,
                error_cb=_on_error,
                disconnected_cb=_on_disconnect,
                reconnected_cb=_on_reconnect,
            )
        except (Error, OSError, TimeoutError) as exc:
            logger.warning("NATS cannot be reached: %s", type(exc).__name__)
            await asyncio.sleep(_AGAIN)
            return None
        return client

    @asynccontextmanager
    async def listen(self, contact_id: bytes, handler: Handler) -> AsyncIterator[None]:
        name = address(contact_id)
        self._handlers.setdefault(name, []).append(handler)
        try:
            await self._subscribe(name)
            yield
        finally:
            self._handlers[name].remove(handler)
            if not self._handlers[name]:
                del self._handlers[name]
                subscription = self._subscriptions.pop(name, None)
                if subscription is not None:
                    with contextlib.suppress(Error):
                        await subscription.unsubscribe()

    async def _subscribe(self, name: str) -> None:
        """Once for each name; without a connection `stay_connected` does it."""

        async def take(message: Msg) -> None:
            if any([handler(message.data) for handler in list(self._handlers.get(name, ()))]) and message.reply:
                with contextlib.suppress(Error):
                    await message.respond(_YES)

        async with self._subscribing:
            client = self._client
            if name in self._subscriptions or client is None or not client.is_connected:
                return
            with contextlib.suppress(Error):  # the connection is gone; the client subscribes anew when it is back
                self._subscriptions[name] = await client.subscribe(f"{PREFIX}.wake.{name}", cb=take)
                # nats-py's flush() sends its ping ahead of what waits to be sent; while the first one is answered, that
                # is sent, and the second one follows it. From then on the server knows.
                await client.flush()
                await client.flush()

    async def wake(self, contact_id: bytes, message: bytes) -> bool:
        check_size(message)
        if self._client is None or not self._client.is_connected:
            return False
        subject = f"{PREFIX}.wake.{address(contact_id)}"
        try:
            answer = await self._client.request(subject, message, timeout=_ANSWER_TIME)
        except (Error, TimeoutError) as exc:  # nobody listens, nobody answers, or the connection is gone
            logger.debug("a phone is not woken: %s", type(exc).__name__)
            return False
        return answer.data == _YES


async def _on_error(exc: Exception) -> None:
    logger.debug("NATS: %s", type(exc).__name__)


async def _on_disconnect() -> None:
    logger.warning("NATS is gone; phones elsewhere cannot be reached")


async def _on_reconnect() -> None:
    logger.warning("NATS is back")
