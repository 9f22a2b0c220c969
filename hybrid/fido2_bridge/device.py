"""A hybrid session as python-fido2's `CtapDevice` (its contract: `fido2.ctap`).

python-fido2 is synchronous and a session lives on an event loop, so calls come from a worker thread and run on that
loop; on the loop's own thread they are refused at once, where they would wait for themselves. getInfo is answered
from the post-handshake message, on any thread, because real phones do not answer it. There are no keep-alives on a
tunnel and no cancel command: cancelling ends our wait, and the phone learns it when the session closes.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from typing import Protocol

from fido2.ctap import STATUS, CtapDevice, CtapError
from fido2.hid import CAPABILITY, CTAPHID

from hybrid.protocol.ctap import Command

_GET_INFO = bytes([Command.GET_INFO])
_CHECK_EVERY = 0.05  # seconds between looks at the caller's threading.Event and at the loop, which cannot wake us


class CtapSession(Protocol):
    """What the bridge needs of a session.

    `get_info`: CBOR of the getInfo response map; `loop`: where the session lives.
    """

    @property
    def get_info(self) -> bytes: ...

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...

    async def call(self, request: bytes, *, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 the session keeps it
        """Send command byte and CBOR, give status byte and CBOR. `timeout` in seconds, None for the session's."""
        ...


class HybridCtapDevice(CtapDevice):
    """A phone behind a hybrid session. `close` does nothing: the session belongs to who opened it."""

    def __init__(self, session: CtapSession) -> None:
        self._session = session

    @property
    def capabilities(self) -> int:
        return CAPABILITY.CBOR

    @property
    def get_info(self) -> bytes:
        """CBOR of the getInfo response map that the phone sent by itself."""
        return self._session.get_info

    def call(
        self,
        cmd: int,
        data: bytes = b"",
        event: threading.Event | None = None,
        on_keepalive: Callable[[STATUS], None] | None = None,
    ) -> bytes:
        """Send one CTAP request and wait for its answer; `on_keepalive` is never called.

        Raises:
            CtapError: `cmd` is not CBOR, or `event` was set (KEEPALIVE_CANCEL).
            RuntimeError: called on the session's own thread, or its loop does not run.
            HybridError: as the session's `call`.
        """
        if cmd != CTAPHID.CBOR:
            raise CtapError(CtapError.ERR.INVALID_COMMAND)
        return self.exchange(data, event=event)

    def exchange(self, request: bytes, *, event: threading.Event | None = None, timeout: float | None = None) -> bytes:
        """Send one CTAP request with the caller's `timeout` in seconds. Raises as `call`."""
        if request == _GET_INFO:
            return b"\x00" + self.get_info
        loop = self._session.loop
        if _running_loop() is loop:
            raise RuntimeError("call the device from another thread, e.g. with asyncio.to_thread()")
        if not loop.is_running():
            raise RuntimeError("the event loop of the session does not run")
        if event is not None and event.is_set():
            raise CtapError(CtapError.ERR.KEEPALIVE_CANCEL)
        call = _Call(self._session, request, timeout)
        try:
            return call.wait(event)
        finally:
            call.cancel()

    @classmethod
    def list_devices(cls) -> Iterator[CtapDevice]:
        """Give nothing: a phone is found by showing it a code, not by looking around."""
        return iter(())


class _Call:
    """One `session.call` on the session's loop, waited for from another thread."""

    def __init__(self, session: CtapSession, request: bytes, timeout: float | None) -> None:
        self._session = session
        self._loop = session.loop
        self._outcome: Future[bytes] = Future()
        self._task: asyncio.Task[bytes] | None = None
        self._loop.call_soon_threadsafe(self._start, request, timeout)

    def _start(self, request: bytes, timeout: float | None) -> None:
        self._task = asyncio.ensure_future(self._session.call(request, timeout=timeout))
        self._task.add_done_callback(self._finish)

    def _finish(self, task: asyncio.Task[bytes]) -> None:
        error = CtapError(CtapError.ERR.KEEPALIVE_CANCEL) if task.cancelled() else task.exception()
        if error is None:
            self._outcome.set_result(task.result())
        else:
            self._outcome.set_exception(error)

    def wait(self, event: threading.Event | None) -> bytes:
        while not wait([self._outcome], timeout=_CHECK_EVERY).done:
            if event is not None and event.is_set():
                raise CtapError(CtapError.ERR.KEEPALIVE_CANCEL)
            if not self._loop.is_running():
                raise RuntimeError("the event loop of the session stopped before the phone answered")
        return self._outcome.result()

    def cancel(self) -> None:
        """End the call if it has not ended, and return when it has let go of the session."""
        if self._outcome.done() or not self._loop.is_running():
            return
        self._loop.call_soon_threadsafe(self._cancel_task)
        while self._loop.is_running() and not wait([self._outcome], timeout=_CHECK_EVERY).done:
            pass

    def _cancel_task(self) -> None:
        assert self._task is not None  # `_start` was scheduled before
        self._task.cancel()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
