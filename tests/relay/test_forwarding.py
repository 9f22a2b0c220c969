"""One join that is passed on, between a client and ways to its owner that we play."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable

import pytest

from tunnel_server import forwarding
from tunnel_server.forwarding import _Pipe
from tunnel_server.frames import Code, close_frame

HEAD = b"GET / HTTP/1.1\r\n\r\n"
ACCEPTED = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"


class Client:
    """Remembers what was done to it."""

    def __init__(self) -> None:
        self.heard = b""
        self.paused = False

    def write(self, data: bytes) -> None:
        self.heard += data

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def close(self) -> None:
        """Nothing here waits for it."""

    def abort(self) -> None:
        """Nothing here waits for it."""


class Way:
    """Remembers too. `then` is what happens as soon as it was asked."""

    def __init__(self, then: Callable[[], None], *, stale: bool = False) -> None:
        self._then = then
        self.stale = stale
        self.heard = b""
        self.paused = False
        self.ended = ""

    def write(self, data: bytes) -> None:
        self.heard += data
        self._then()

    def write_eof(self) -> None:
        self.ended = "eof"

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def close(self) -> None:
        self.ended = "close"

    def abort(self) -> None:
        self.ended = "abort"


def piped(client: Client, *ways: Way) -> _Pipe:
    left = list(ways)

    async def reach(_: _Pipe) -> Way:
        return left.pop(0)

    return _Pipe(client, HEAD, reach, lambda _: None)


async def turns() -> None:
    """Until nothing happens any more."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_an_owner_that_is_full_before_its_answer() -> None:
    """The client waits for the answer, however much of what it said has gone out, and then for the owner to take it."""
    client = Client()
    way = Way(lambda: pipe.pause_client())
    pipe = piped(client, way)
    await turns()
    assert way.heard == HEAD
    pipe.resume_client()
    assert client.paused
    pipe.pause_client()
    pipe.owner_said(ACCEPTED)
    await turns()
    assert (client.heard, client.paused) == (ACCEPTED, True)
    pipe.resume_client()
    assert not client.paused


async def test_a_client_that_is_full_before_the_owner_is_known() -> None:
    client = Client()
    way = Way(lambda: None)
    pipe = piped(client, way)
    await turns()
    pipe.owner_said(ACCEPTED)
    pipe.pause_writing()
    await turns()
    assert way.paused
    pipe.resume_writing()
    assert not way.paused


async def test_a_way_that_is_stale_costs_no_join() -> None:
    client = Client()
    stale = Way(lambda: pipe.owner_is_gone(), stale=True)
    way = Way(lambda: pipe.owner_said(ACCEPTED))
    pipe = piped(client, stale, way)
    pipe.data_received(b"more")
    await turns()
    assert (stale.heard, way.heard, client.heard) == (HEAD + b"more", HEAD + b"more", ACCEPTED)


async def test_an_owner_that_ends_without_an_answer_is_asked_once() -> None:
    client = Client()
    pipe = piped(client, Way(lambda: pipe.owner_is_gone()), Way(lambda: pipe.owner_said(ACCEPTED)))
    await turns()
    assert client.heard.startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize(("why", "status"), [(errno.ECONNREFUSED, 404), (errno.EMFILE, 503), (errno.ENOMEM, 503)])
async def test_an_owner_that_is_not_reached(why: int, status: int) -> None:
    """Not there is as no tunnel; that this process has no descriptors left says nothing about the tunnel."""

    async def reach(_: _Pipe) -> Way:
        raise OSError(why, "")

    client = Client()
    pipe = _Pipe(client, HEAD, reach, lambda _: None)
    await turns()
    assert client.heard.startswith(f"HTTP/1.1 {status} ".encode())
    assert (b"Retry-After: " in client.heard) == (status == 503)
    pipe.connection_lost()


async def test_a_client_that_goes_with_the_answer() -> None:
    client = Client()
    way = Way(lambda: None)
    pipe = piped(client, way)
    await turns()
    pipe.owner_said(ACCEPTED)
    pipe.connection_lost()
    await turns()
    assert way.ended == "abort"


async def test_an_answer_that_comes_just_as_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """No refusal stands behind the answer."""
    monkeypatch.setattr(forwarding, "_ANSWER_TIME", 0)
    client = Client()

    def soon() -> None:
        asyncio.get_running_loop().call_soon(pipe.owner_said, ACCEPTED)

    way = Way(soon)
    pipe = piped(client, way)
    await turns()
    assert way.ended == "abort"
    assert client.heard == ACCEPTED + close_frame(Code.VANISHED)
