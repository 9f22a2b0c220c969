"""The Chrome DevTools protocol, as much as a test needs: calls over one WebSocket.

Source: chromedevtools.github.io/devtools-protocol, "Target" with flattened sessions.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from hybrid.errors import HybridError

CALL_TIMEOUT = 30.0

_GONE = "the browser is gone: it has crashed, or somebody closed its last tab; Browser.page can stay open"
_CLOSED = "this tab is closed; Browser.new_page() opens another"


class DevToolsError(HybridError):
    """The browser refuses a command, or is gone."""

    @property
    def identifier(self) -> str:
        return "browser.devtools"


class DevTools:
    """One connection to a browser. `open_devtools` makes it."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, tuple[str, asyncio.Future[dict[str, Any]]]] = {}
        self._ended: set[str] = set()

    async def call(
        self, method: str, session: str = "", *, limit: float | None = CALL_TIMEOUT, **parameters: Any
    ) -> dict[str, Any]:
        """Call a method of the browser, or of one target if `session` is given. Raises `DevToolsError`."""
        if session in self._ended:
            raise DevToolsError(f"{method}: {_CLOSED}")
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        answer = asyncio.get_running_loop().create_future()
        self._answers[number] = (session, answer)
        try:
            async with asyncio.timeout(limit):
                await self._socket.send(json.dumps(message))
                result: dict[str, Any] = await answer
                return result
        except ConnectionClosed as error:
            raise DevToolsError(f"{method}: {_GONE}") from error
        except TimeoutError as error:
            raise DevToolsError(f"{method}: no answer within {limit:g} s") from error
        finally:
            self._answers.pop(number, None)

    async def read(self) -> None:
        """Take what comes until the connection ends."""
        with contextlib.suppress(ConnectionClosed):
            async for text in self._socket:
                self._answered(json.loads(text))
        for session in {session for session, _ in self._answers.values()}:
            self._fail(session, _GONE)

    def has_ended(self, session: str) -> bool:
        """Whether its tab is closed."""
        return session in self._ended

    def _fail(self, session: str, why: str) -> None:
        """Whoever waits for an answer in a session waits in vain."""
        for asked_in, answer in self._answers.values():
            if asked_in == session and not answer.done():
                answer.set_exception(DevToolsError(why))

    def _answered(self, message: dict[str, Any]) -> None:
        if message.get("method") == "Target.detachedFromTarget":
            session = message["params"]["sessionId"]
            self._ended.add(session)
            self._fail(session, _CLOSED)
        _, answer = self._answers.get(message.get("id", 0), ("", None))  # events have none
        if answer is None or answer.done():
            return
        if "error" in message:
            answer.set_exception(DevToolsError(message["error"]["message"]))
        else:
            answer.set_result(message["result"])


@contextlib.asynccontextmanager
async def open_devtools(url: str) -> AsyncIterator[DevTools]:
    """Talk to the browser at ``ws://...`` while the context is open."""
    async with connect(url, max_size=None, proxy=None, ping_interval=None) as socket:
        devtools = DevTools(socket)
        reader = asyncio.create_task(devtools.read())
        try:
            yield devtools
        finally:
            reader.cancel()
            await asyncio.wait({reader})
