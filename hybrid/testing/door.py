"""A door for other people's test suites: one authenticator on stream sockets.

A message is a 4-byte big-endian length, then a command byte and CBOR; an answer is a length, then a status byte and
CBOR. That is CTAP's own message (CTAP 2.3 §8, "Message Encoding") in a framing of ours, not CTAPHID: no channels to
allocate, no keep-alives. Each connection is a channel of its own, requests of all of them are served one at a time (but
getInfo at once), and what the authenticator knows outlives them. A client that leaves while its request waits has
cancelled it, and the authenticator is told of an answer that reached nobody; a client that only ends its own sending,
as pipes into a Unix socket do, still gets its answer.

A second socket controls the world around the authenticator, one JSON value a line, one JSON object back::

    {"command": "power-cycle"}                   unplugged and plugged in; the request under way is cancelled
    {"command": "presence", "value": "off"}      nobody answers prompts from now on; "on" answers them again
    {"command": "cancel"}                        the request under way is answered with KEEPALIVE_CANCEL

    {"ok": true}    or    {"ok": false, "error": "..."}

``{"presence": "off"}``, ``"presence off"`` and the bare words mean the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import os
import select
import socket
import stat
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Protocol

from hybrid.passkeys.consent import Consent, Decision, Prompt
from hybrid.protocol.ctap import Command, Status
from hybrid.testing.servers import stop_accepting

_LENGTH_SIZE = 4
_CHUNK = 1 << 16

_log = logging.getLogger(__name__)


class Authenticator(Protocol):
    """What stands behind the door.

    `max_message_size`: bytes of the longest request, its command byte included.
    """

    @property
    def max_message_size(self) -> int: ...

    async def call(self, request: bytes, *, channel: object) -> bytes:
        """Answer one request; of those, only getInfo may come while another is under way.

        Cancelled when it no longer matters.
        """
        ...

    def undelivered(self) -> None:
        """The answer to the last call did not reach its client."""
        ...

    def power_cycle(self) -> None:
        """Forget what does not survive a loss of power."""
        ...


class Presence:
    """A `Consent` that keeps its prompts waiting while nobody is there, then asks `consent`."""

    def __init__(self, consent: Consent) -> None:
        self._consent = consent
        self._somebody = asyncio.Event()
        self._somebody.set()

    def set(self, *, there: bool) -> None:
        if there:
            self._somebody.set()
        else:
            self._somebody.clear()

    async def ask(self, prompt: Prompt) -> Decision:
        await self._somebody.wait()
        return await self._consent.ask(prompt)


class ControlProblem(Exception):
    """A line on the control socket that means nothing. Never leaves the door."""


class Door:
    """Serves `authenticator` and, on the control socket, the world around it."""

    def __init__(self, authenticator: Authenticator, presence: Presence) -> None:
        self._authenticator = authenticator
        self._presence = presence
        self._turn = asyncio.Lock()
        self._under_way: asyncio.Task[bytes] | None = None

    @contextlib.asynccontextmanager
    async def open(self, listener: socket.socket, control: socket.socket | None = None) -> AsyncIterator[None]:
        """Serve on bound sockets while the context is open; every connection ends with it."""
        connections: set[asyncio.Task[None]] = set()
        servers = [await _serve(listener, self._serve_requests, connections)]
        try:
            if control is not None:
                servers.append(await _serve(control, self._serve_control, connections))
            yield
        finally:
            for server in servers:
                await stop_accepting(server)
                server.close()
            for connection in connections:
                connection.cancel()
            await asyncio.gather(*connections, return_exceptions=True)

    async def _serve_requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        channel = object()
        request = await self._read(reader)
        while request is not None:
            # Reading on is how a client is noticed that leaves while a person is asked.
            answering = asyncio.create_task(self._answer(request, channel, reader, writer))
            reading = asyncio.create_task(self._read(reader))
            try:
                await asyncio.wait((answering, reading), return_when=asyncio.FIRST_COMPLETED)
                if not answering.done() and reading.result() is None and _has_left(writer):
                    return
                await answering
                await writer.drain()
                request = await reading
            finally:
                for task in (answering, reading):
                    task.cancel()
                await asyncio.gather(answering, reading, return_exceptions=True)

    async def _read(self, reader: asyncio.StreamReader) -> bytes | None:
        """Give the next request, empty if its length is none that is served, None if the client left."""
        try:
            size = int.from_bytes(await reader.readexactly(_LENGTH_SIZE), "big")
            if size <= self._authenticator.max_message_size:
                return await reader.readexactly(size)
            while size:
                size -= len(await reader.readexactly(min(size, _CHUNK)))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        return b""

    async def _answer(
        self, request: bytes, channel: object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Call the authenticator and send its answer, all before another request has its turn."""
        if not request:
            _send(writer, bytes([Status.REQUEST_TOO_LARGE]))
            return
        if request[0] == Command.GET_INFO:  # asks nobody, so it need not wait until somebody else has answered
            _send(writer, await self._call(request, channel))
            return
        async with self._turn:
            call = self._under_way = asyncio.create_task(self._call(request, channel))
            try:
                answer = await call
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    if call.done() and not call.cancelled():  # the client left in the moment of the answer
                        self._authenticator.undelivered()
                    raise
                answer = bytes([Status.KEEPALIVE_CANCEL])
            finally:
                self._under_way = None
            if not (reader.at_eof() and _has_left(writer)):
                _send(writer, answer)
                if not writer.is_closing():  # as it is at once if nobody can take it
                    return
            self._authenticator.undelivered()

    async def _call(self, request: bytes, channel: object) -> bytes:
        try:
            return await self._authenticator.call(request, channel=channel)
        except Exception:  # the border: a suite goes on to its next test, and its owner reads what happened
            _log.exception("the authenticator failed on a request with command 0x%02x", request[0])
            return bytes([Status.OTHER])

    async def _serve_control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                line = await reader.readline()
            except ValueError:  # longer than the reader's limit
                return
            if not line:
                return
            try:
                await self._control(*parse_control(line))
                answer: dict[str, Any] = {"ok": True}
            except ControlProblem as problem:
                answer = {"ok": False, "error": str(problem)}
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()

    async def _control(self, command: str, there: bool) -> None:
        if command == "presence":
            self._presence.set(there=there)
            return
        await self._cancel()
        if command == "power-cycle":
            self._authenticator.power_cycle()

    async def _cancel(self) -> None:
        """Cancel the request under way, and return when it has let go of the authenticator."""
        if self._under_way is not None:
            self._under_way.cancel()
            await asyncio.wait((self._under_way,))


def _send(writer: asyncio.StreamWriter, answer: bytes) -> None:
    writer.write(len(answer).to_bytes(_LENGTH_SIZE, "big") + answer)


def _has_left(writer: asyncio.StreamWriter) -> bool:
    """Whether a client that sends no more is gone. TCP does not tell, so there it counts as gone."""
    connection = writer.get_extra_info("socket")
    if connection.family != socket.AF_UNIX:
        return True
    poll = select.poll()
    poll.register(connection.fileno(), 0)
    return any(events & select.POLLHUP for _, events in poll.poll(0))


def parse_control(line: bytes) -> tuple[str, bool]:
    """Give the command of a control line, and for ``presence`` whether somebody is there. Raises `ControlProblem`."""
    try:
        value = json.loads(line)
    except ValueError:  # of UTF-8, too
        value = line.decode(errors="replace")
    except RecursionError:
        raise ControlProblem("that is nested too deeply") from None
    if isinstance(value, dict):
        words = _words_of(value)
    elif isinstance(value, str):
        words = value.split()
    else:
        words = []
    match words:
        case ["power-cycle" | "cancel" as command]:
            return command, True
        case ["presence", "on" | "off" as state]:
            return "presence", state == "on"
    raise ControlProblem("a command is power-cycle, presence on, presence off or cancel")


def _words_of(fields: dict[str, Any]) -> list[str]:
    """``{"command": "presence", "value": "on"}`` or ``{"presence": "on"}`` as words; true and false are on and off."""
    command = next((name for name in ("command", "cmd", "op", "action") if name in fields), None)
    if command is not None:
        values = [value for name, value in fields.items() if name != command]
        words = str(fields[command]).split()
    elif len(fields) == 1:
        ((name, value),) = fields.items()
        words, values = [name], [value] if name == "presence" else []
    else:
        return []
    return words + [{True: "on", False: "off"}[value] if isinstance(value, bool) else str(value) for value in values]


@contextlib.contextmanager
def private_socket(path: Path) -> Iterator[socket.socket]:
    """A socket bound to `path`, mode 0600, and removed at the end. One that a dead process left there is replaced.

    Raises:
        OSError: EADDRINUSE if somebody listens there, EEXIST if it is no socket, or what the system says.
    """
    _remove_stale(path)
    with socket.socket(socket.AF_UNIX) as bound:
        mask = os.umask(0o177)  # from the first moment: a mode set afterwards comes too late
        try:
            bound.bind(str(path))
        finally:
            os.umask(mask)
        bound.listen()  # from now on: who finds the socket may connect, and is served when the door opens
        made = path.stat()
        try:
            yield bound
        finally:
            with contextlib.suppress(OSError):
                if os.path.samestat(made, path.stat()):
                    path.unlink()


def _remove_stale(path: Path) -> None:
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


async def _serve(listener: socket.socket, handler: Handler, connections: set[asyncio.Task[None]]) -> asyncio.Server:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        try:
            await handler(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass  # the client left while we wrote, or the door closes: asyncio would complain of a cancelled handler
        finally:
            connections.discard(task)
            writer.close()

    if listener.family == socket.AF_UNIX:
        return await asyncio.start_unix_server(handle, sock=listener, limit=_CHUNK)
    return await asyncio.start_server(handle, sock=listener, limit=_CHUNK)
