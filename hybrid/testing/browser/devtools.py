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
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}

    async def call(
        self, method: str, session: str = "", *, limit: float | None = CALL_TIMEOUT, **parameters: Any
    ) -> dict[str, Any]:
        """Call a method of the browser, or of one target if `session` is given. Raises `DevToolsError`."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(limit):
                await self._socket.send(json.dumps(message))
                result: dict[str, Any] = await answer
                return result
        except ConnectionClosed as error:
            raise DevToolsError(f"{method}: the browser is gone") from error
        except TimeoutError as error:
            raise DevToolsError(f"{method}: no answer within {limit:g} s") from error
        finally:
            self._answers.pop(number, None)

    async def read(self) -> None:
        """Take what comes until the connection ends."""
        with contextlib.suppress(ConnectionClosed):
            async for text in self._socket:
                self._answered(json.loads(text))
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(DevToolsError("the browser is gone"))

    def _answered(self, message: dict[str, Any]) -> None:
        answer = self._answers.get(message.get("id", 0))  # events have none
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
