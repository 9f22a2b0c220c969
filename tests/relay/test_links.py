"""Links between workers of two nodes, both here in one process: one join after another over one TLS connection."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tunnel_server import links
from tunnel_server.app import Server, serve
from tunnel_server.connection import Connection
from tunnel_server.foreign import ForeignJoin
from tunnel_server.forwarding import Forwarder, Peer, gift_path, socket_path, take_gifts
from tunnel_server.links import Links, PeerContexts, PeerFiles
from tunnel_server.passing import piece
from tunnel_server.peering import CalledLink, CalledLinks, NodeConnection, listen
from tunnel_server.relay import Limits
from tunnel_server.tls import Tls

from .cluster_rig import PATIENCE, Refused, Side, eventually, opened
from .tls import Certificate

LOOPS = ("asyncio", "uvloop")
OWNER, OTHER = b"\x01\0\0", b"\x02\0\0"
SIZE = 60000


class Counted(CalledLinks):
    """Counts the links that were ever made."""

    made = 0

    def make(self) -> CalledLink:
        self.made += 1
        return super().make()


@dataclass
class Nodes:
    """`owner` has the tunnels, and the limits; joins arrive at `other`."""

    owner: Server
    other: Server
    contexts: PeerContexts
    links: Counted
    peers: int
    forwarder: Forwarder
    sides: list[Side] = field(default_factory=list)

    async def passed_on(self) -> tuple[Side, Side]:
        """A tunnel whose guest came to the wrong node."""
        number = secrets.token_hex(16)
        first = await opened(self.owner.port, f"/cable/new/{number}")
        self.sides.append(first)
        second = await opened(self.other.port, f"/cable/connect/{first.routing_id}/{number}")
        self.sides.append(second)
        return first, second

    async def whole(self) -> None:
        """A tunnel from its beginning to its end."""
        before = len(self.owner.connections), len(self.other.connections)
        first, second = await self.passed_on()
        assert await first.alive(second)
        first.send(b"\x03\xe8", 8)
        assert (await second.ending(), await first.ending()) == (1000, 1000)
        first.abort()
        second.abort()
        await eventually(lambda: (len(self.owner.connections), len(self.other.connections)) == before)

    async def quiet(self) -> None:
        """Until no connection is left on either side."""
        for side in self.sides:
            side.abort()
        self.sides.clear()
        await eventually(lambda: not (self.owner.connections or self.other.connections))


def contexts_of(files: Certificate) -> PeerContexts:
    return PeerFiles(files.cert, files.key, files.ca).contexts()


@asynccontextmanager
async def two(certificate: Certificate, folder: Path, limits: Limits | None = None) -> AsyncIterator[Nodes]:
    contexts = contexts_of(certificate)
    async with AsyncExitStack() as stack:
        gifts = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        gifts.bind(gift_path(socket_path(folder, OWNER)))
        bound = socket.create_server(("127.0.0.1", 0))
        peers = await stack.enter_async_context(await listen(bound, folder, 100))
        port = peers.sockets[0].getsockname()[1]
        forwarder = Forwarder(2, folder, peers={1: Peer("127.0.0.1", port)}, peers_tls=contexts)
        owner = await stack.enter_async_context(serve(routing_id=OWNER, limits=limits))
        other = await stack.enter_async_context(serve(routing_id=OTHER, router=forwarder.route))
        called = Counted(owner, contexts_of(certificate), 100)
        take_gifts(owner, gifts, called.make)
        stack.callback(asyncio.get_running_loop().remove_reader, gifts)
        made = Nodes(owner, other, contexts, called, port, forwarder)
        try:
            async with asyncio.timeout(PATIENCE):
                yield made
        finally:
            for side in made.sides:
                side.abort()
            forwarder.close()
            called.close()
            await eventually(lambda: not called.open)


@pytest.fixture
async def nodes(certificate: Certificate, tmp_path: Path) -> AsyncIterator[Nodes]:
    async with two(certificate, tmp_path) as made:
        yield made


async def test_one_join_after_another(nodes: Nodes) -> None:
    for _ in range(5):
        await nodes.whole()
    assert (nodes.links.made, len(nodes.links.open)) == (1, 1)


async def test_joins_at_once_have_a_link_each(nodes: Nodes) -> None:
    tunnels = [await nodes.passed_on() for _ in range(3)]
    for first, second in tunnels:
        assert await first.alive(second)
    assert nodes.links.made == 3
    await nodes.quiet()
    tunnels = [await nodes.passed_on() for _ in range(3)]
    for first, second in tunnels:
        assert await first.alive(second)
    assert nodes.links.made == 3


async def test_a_refusal_leaves_a_good_link(nodes: Nodes) -> None:
    for _ in range(3):
        with pytest.raises(Refused, match="404"):
            await opened(nodes.other.port, f"/cable/connect/{OWNER.hex()}/{secrets.token_hex(16)}")
        await nodes.whole()
    assert nodes.links.made == 1


@pytest.mark.parametrize("leaves", ["owner", "guest"])
async def test_a_side_that_vanishes_leaves_a_good_link(nodes: Nodes, leaves: str) -> None:
    for _ in range(2):
        first, second = await nodes.passed_on()
        assert await first.alive(second)
        gone, left = (first, second) if leaves == "owner" else (second, first)
        gone.abort()
        assert await left.ending() == 1001
        await nodes.quiet()
    assert nodes.links.made == 1


async def test_messages_of_any_size_whoever_reads_slowly(nodes: Nodes) -> None:
    """More than a socket takes, both ways, before anybody reads: all of it arrives, and the link is good after it."""
    for _ in range(2):
        first, second = await nodes.passed_on()
        sent = [secrets.token_bytes(SIZE) for _ in range(15)]
        for sender, receiver in ((first, second), (second, first)):
            for payload in sent:
                sender.send(payload)
            assert [await receiver.receive() for _ in sent] == sent
        await nodes.quiet()
    assert nodes.links.made == 1


async def test_a_link_that_ended_meanwhile_costs_no_join(nodes: Nodes) -> None:
    await nodes.whole()
    for link in list(nodes.links.open):
        link.abort()  # the other end does not know yet
    await nodes.whole()
    assert nodes.links.made == 2


async def test_new_certificates_end_links_before_their_next_join(nodes: Nodes, certificate: Certificate) -> None:
    first, second = await nodes.passed_on()
    await nodes.whole()
    nodes.links.contexts.replace_by(contexts_of(certificate))
    assert await first.alive(second), "what is open goes on"
    await nodes.passed_on()
    assert nodes.links.made == 3
    await nodes.quiet()
    await nodes.whole()
    nodes.contexts.replace_by(contexts_of(certificate))
    await nodes.whole()
    await eventually(lambda: len(nodes.links.open) == 1)


async def test_links_made_with_certificates_that_were_replaced_carry_no_other_join(
    nodes: Nodes, certificate: Certificate
) -> None:
    await nodes.whole()
    nodes.contexts.replace_by(contexts_of(certificate))
    await nodes.passed_on()
    assert nodes.links.made == 2
    nodes.contexts.replace_by(contexts_of(certificate))
    await nodes.quiet()
    await eventually(lambda: not nodes.links.open)


async def test_a_link_waits_only_so_long(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "_IDLE_TIME", 0.01)
    await nodes.whole()
    await eventually(lambda: not nodes.links.open)
    await nodes.whole()
    assert nodes.links.made == 2


async def test_a_link_that_has_its_next_join_waits_no_more(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "_IDLE_TIME", 0.3)
    for _ in range(2):
        await nodes.passed_on()
    await nodes.quiet()
    first, second = await nodes.passed_on()
    for side in await nodes.passed_on():
        side.abort()  # so that its link begins to wait after that of the other tunnel did
    await eventually(lambda: len(nodes.links.open) == 1)
    assert await first.alive(second)


async def test_only_so_many_links_wait(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "_MAX_IDLE", 1)
    for _ in range(3):
        await nodes.passed_on()
    await nodes.quiet()
    await eventually(lambda: len(nodes.links.open) == 1)


async def test_a_side_that_reads_nothing_is_cut_and_its_link_with_it(certificate: Certificate, tmp_path: Path) -> None:
    limits = Limits(stall=0.2, total=1 << 26, messages=10000, linger=0.2)
    async with two(certificate, tmp_path, limits) as nodes:
        first, second = await nodes.passed_on()
        for _ in range(400):
            first.send(bytes(SIZE))
        assert await first.ending() == 1008
        second.abort()
        await nodes.quiet()
        await nodes.whole()
        assert nodes.links.made == 2


async def test_who_leaves_before_the_owner_answers(nodes: Nodes) -> None:
    number = secrets.token_hex(16)
    first = await opened(nodes.owner.port, f"/cable/new/{number}")
    nodes.sides.append(first)
    hasty = asyncio.ensure_future(opened(nodes.other.port, f"/cable/connect/{first.routing_id}/{number}"))
    await eventually(lambda: len(nodes.other.connections) == 1)
    hasty.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        (await hasty).abort()
    await nodes.quiet()
    await nodes.whole()


class Caller:
    """The calling side of a link, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, tls: Tls) -> None:
        self._reader = reader
        self._writer = writer
        self._tls = tls

    def send(self, *parts: bytes) -> None:
        """All of them in one packet."""
        self._writer.write(self._tls.send(b"".join(map(piece, parts))))

    async def receive(self) -> bytes:
        """What comes next, as it comes; nothing at the end."""
        async with asyncio.timeout(PATIENCE):
            while data := await self._reader.read(65536):
                if plain := self._tls.receive(data):
                    return plain
        return b""

    def abort(self) -> None:
        self._writer.transport.abort()


@asynccontextmanager
async def caller(nodes: Nodes, owner: bytes = OWNER) -> AsyncIterator[Caller]:
    reader, writer = await asyncio.open_connection("127.0.0.1", nodes.peers)
    tls = Tls(nodes.contexts.calling, "127.0.0.1")
    tls.receive(b"")
    writer.write(owner + tls.outgoing())
    try:
        while not tls.ready:
            tls.receive(await reader.read(65536))
            writer.write(tls.outgoing())
        yield Caller(reader, writer, tls)
    finally:
        writer.transport.abort()


def head(path: str) -> bytes:
    lines = (
        f"GET {path} HTTP/1.1",
        "Host: a",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Protocol: fido.cable",
        "X-Tunnel-Hops: 1",
    )
    return "\r\n".join((*lines, "", "")).encode()


async def test_the_next_join_may_stand_right_behind_the_end_of_the_last_one(nodes: Nodes) -> None:
    nobody = head(f"/cable/connect/{OWNER.hex()}/{secrets.token_hex(16)}")
    async with caller(nodes) as link:
        link.send(nobody)
        answer = await link.receive()
        assert b" 404 " in answer
        while not answer.endswith(bytes(4)):
            answer += await link.receive()
        link.send(b"", nobody)
        assert b" 404 " in await link.receive()
        assert nodes.links.made == 1


async def test_what_a_node_must_not_say(nodes: Nodes) -> None:
    for parts in ((b"",), (b"nonsense\r\n\r\n",), (b"GET", b"", b"GET", b"")):
        async with caller(nodes) as link:
            link.send(*parts)
            answer = await link.receive()
            assert not any(answer) or b" 400 " in answer or b" 404 " in answer
    await nodes.quiet()
    await nodes.whole()


@pytest.mark.parametrize(("owner", "hops"), [(OWNER, ""), (OTHER, ""), (OTHER, "X-Tunnel-Hops: 1\r\n")])
async def test_what_a_node_asks_goes_no_further(nodes: Nodes, owner: bytes, hops: str) -> None:
    taken: list[ForeignJoin] = []
    nodes.owner.router = taken.append
    number = secrets.token_hex(16)
    first = await opened(nodes.owner.port, f"/cable/new/{number}")
    nodes.sides.append(first)
    async with caller(nodes) as link:
        link.send(head(f"/cable/connect/{owner.hex()}/{number}").replace(b"X-Tunnel-Hops: 1\r\n", hops.encode()))
        assert b" 404 " in await link.receive()
    assert not taken


async def test_random_words_of_a_node(nodes: Nodes) -> None:
    for _ in range(20):
        async with caller(nodes) as link:
            link.send(secrets.token_bytes(100), b"", secrets.token_bytes(10))
            link.send(b"", b"")
    await nodes.quiet()
    await eventually(lambda: not nodes.links.open)
    await nodes.whole()


async def test_who_proves_nothing_is_put_out(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunnel_server.peering._PROOF_TIME", 0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", nodes.peers)
    writer.write(OWNER)
    async with asyncio.timeout(PATIENCE):
        assert await reader.read() == b""
    writer.close()


async def test_only_so_many_links_are_let_in(nodes: Nodes) -> None:
    nodes.links.limit = 1
    _, writer = await asyncio.open_connection("127.0.0.1", nodes.peers)
    writer.write(OWNER)
    await eventually(lambda: len(nodes.links.open) == 1)
    with pytest.raises(Refused, match="404"):
        await nodes.passed_on()
    writer.transport.abort()
    await eventually(lambda: not nodes.links.open)
    await nodes.whole()


async def test_nothing_of_a_join_reaches_the_next_one(nodes: Nodes) -> None:
    """Whoever breaks off, with how much still on its way."""
    for number in range(12):
        first, second = await nodes.passed_on()
        assert await first.alive(second)
        ours = bytes([number]) * 1000
        for _ in range(3):
            first.send(ours)
            second.send(ours)
        gone, left = (first, second) if number % 2 else (second, first)
        gone.abort()
        while (got := await left.frame())[0] == 2:
            assert got[1] == ours
        await nodes.quiet()
    assert nodes.links.made == 1


async def test_a_join_that_ends_without_an_answer_is_not_tried_again(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when one address has so many connections at the owner that it gets not even a refusal."""
    await nodes.whole()
    heads: list[bytes] = []

    def drop(connection: NodeConnection, head: bytes) -> None:
        heads.append(head)
        connection.drop()

    monkeypatch.setattr(NodeConnection, "_ask", drop)
    with pytest.raises(Refused, match="404"):
        await nodes.passed_on()
    assert (len(heads), nodes.links.made) == (1, 1)


async def test_a_join_that_ends_while_its_node_is_made_to_wait(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that the other side does not take, and the goodbye, in one packet; the link is good all the same."""

    def made_to_wait(connection: NodeConnection, answer: bytes) -> None:
        connection.pause_reading()
        Connection._take_close(connection, answer)

    monkeypatch.setattr(NodeConnection, "_take_close", made_to_wait, raising=False)
    for _ in range(3):
        first, second = await nodes.passed_on()
        second.send(b"\x03\xe8", 8)
        assert (await second.ending(), await first.ending()) == (1000, 1000)
        await nodes.quiet()
    assert nodes.links.made == 1


async def test_a_node_that_never_ends_a_join(certificate: Certificate, tmp_path: Path) -> None:
    async with two(certificate, tmp_path, Limits(linger=0.1)) as nodes, caller(nodes) as link:
        link.send(head(f"/cable/connect/{OWNER.hex()}/{secrets.token_hex(16)}"))
        assert b" 404 " in await link.receive()
        while await link.receive():
            pass
        assert not nodes.owner.connections


class Nobody:
    """Asks for a link and is told nothing that matters."""

    def owner_said(self, data: bytes) -> None:
        raise AssertionError(data)

    def owner_is_gone(self) -> None: ...

    def pause_client(self) -> None: ...

    def resume_client(self) -> None: ...


async def test_an_owner_that_never_ends_a_join(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "_END_TIME", 0.05)
    monkeypatch.setattr(CalledLink, "send", lambda link, data: None)
    turn = await Links(nodes.contexts).turn(OWNER, "127.0.0.1", nodes.peers, Nobody())
    turn.write(b"GET")
    await eventually(lambda: len(nodes.owner.connections) == 1)
    turn.close()
    await eventually(lambda: not nodes.links.open)


async def test_an_owner_that_ends_a_join_while_it_is_made_to_wait(nodes: Nodes) -> None:
    """The answer, for which the client has no room, and the end come in one packet; the link is good all the same."""

    class Full(Nobody):
        def __init__(self) -> None:
            self.over = asyncio.Event()

        def owner_said(self, data: bytes) -> None:
            turn.pause_reading()

        def owner_is_gone(self) -> None:
            self.over.set()

    made = Links(nodes.contexts)
    for _ in range(2):
        full = Full()
        turn = await made.turn(OWNER, "127.0.0.1", nodes.peers, full)
        turn.write(head(f"/cable/connect/{OWNER.hex()}/{secrets.token_hex(16)}"))
        async with asyncio.timeout(PATIENCE):
            await full.over.wait()
    assert nodes.links.made == 1
    made.close()


async def test_a_client_that_goes_while_the_owner_is_made_to_wait(nodes: Nodes) -> None:
    made = Links(nodes.contexts)
    turn = await made.turn(OWNER, "127.0.0.1", nodes.peers, Nobody())
    turn.write(head(f"/cable/connect/{OWNER.hex()}/{secrets.token_hex(16)}"))
    turn.pause_reading()
    turn.close()
    await eventually(lambda: bool(made._idle.get(OWNER)))
    made.close()


async def test_an_owner_that_speaks_out_of_turn(nodes: Nodes) -> None:
    """Nobody ever gets what it says: it could be meant for the join before."""
    await nodes.whole()
    for link in list(nodes.links.open):
        link.send(b"HTTP/1.1 101 ")
    await eventually(lambda: not nodes.links.open)
    await nodes.whole()


async def test_a_link_that_closes_ends_also_if_nobody_reads(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "_END_TIME", 0.05)
    async with caller(nodes) as other:
        other.send(b"GET")
        await eventually(lambda: len(nodes.owner.connections) == 1)
        for link in list(nodes.links.open):
            link.send(bytes(1 << 24))
            assert link.transport.get_write_buffer_size()
            link.close()
        await eventually(lambda: not nodes.links.open)


async def test_who_proves_something_and_wants_nothing_is_put_out(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that was cut off says nothing more either; a tunnel may be as silent as it likes."""
    monkeypatch.setattr("tunnel_server.peering._SILENT_TIME", 0.3)
    first, second = await nodes.passed_on()
    nobody = head(f"/cable/connect/{OWNER.hex()}/{secrets.token_hex(16)}")
    for parts in ((), (nobody, b"")):
        async with caller(nodes) as link:
            if parts:
                link.send(*parts)
            while await link.receive():
                pass
    assert await first.alive(second)


async def test_the_last_words_of_a_relay_that_stops_are_waited_for(nodes: Nodes) -> None:
    async with caller(nodes) as link:
        number = secrets.token_hex(16)
        first = await opened(nodes.owner.port, f"/cable/new/{number}")
        nodes.sides.append(first)
        link.send(head(f"/cable/connect/{OWNER.hex()}/{number}"))
        assert b" 101 " in await link.receive()
        stopping = asyncio.ensure_future(nodes.owner.aclose())
        assert await first.ending() == 1001
        first.abort()
        await eventually(lambda: [type(left) for left in nodes.owner.connections.values()] == [NodeConnection])
        link.send(b"")
        await stopping


async def test_whoever_asks_for_a_link_may_leave_at_any_step(nodes: Nodes) -> None:
    made = Links(nodes.contexts)
    for steps in range(100):
        asking = asyncio.ensure_future(made.turn(OWNER, "127.0.0.1", nodes.peers, Nobody()))
        for _ in range(steps):
            await asyncio.sleep(0)
        if steps % 2:
            made.close()
        asking.cancel()
        try:
            turn = await asking
        except (asyncio.CancelledError, ConnectionError):
            continue
        turn.abort()
        break
    assert steps > 2
    await eventually(lambda: not nodes.links.open)
