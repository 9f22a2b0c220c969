"""The socket of an authenticator: framing, connections, control, and what a client that leaves does."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybrid.cli.serve_authenticator import Served
from hybrid.cli.terminal import Screen
from hybrid.events import Proximity
from hybrid.passkeys.consent import AlwaysApprove, Decision, Operation, Prompt
from hybrid.passkeys.engine import SoftwareAuthenticator
from hybrid.passkeys.store import CredentialState, MemoryStore
from hybrid.ports import Peer
from hybrid.testing.door import ControlProblem, Door, Presence, parse_control, private_socket
from tests.door.rig import FAIL, MAX_SIZE, WAIT, Connection, OpenDoor, Scripted, open_door, open_tcp_door
from tests.passkeys.rig import create

TOO_LARGE = b"\x39"
CANCELLED = b"\x2d"


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[OpenDoor]:
    async with open_door(tmp_path) as opened:
        yield opened


# framing


async def test_a_request_is_answered_as_it_came(door: OpenDoor) -> None:
    client = await door.connect()
    assert await client.ask(b"\x04\xa0") == b"\x00\x04\xa0"
    assert await client.ask(bytes(MAX_SIZE)) == bytes(MAX_SIZE + 1)


async def test_a_length_of_zero_is_refused_and_the_next_request_served(door: OpenDoor) -> None:
    client = await door.connect()
    assert await client.ask(b"") == TOO_LARGE
    assert await client.ask(b"\x05") == b"\x00\x05"
    assert door.authenticator.requests == [b"\x05"]


@pytest.mark.parametrize("size", [MAX_SIZE + 1, 200_000])
async def test_a_length_above_the_limit_is_refused_and_the_next_request_served(door: OpenDoor, size: int) -> None:
    client = await door.connect()
    assert await client.ask(bytes(size)) == TOO_LARGE
    assert await client.ask(b"\x05") == b"\x00\x05"
    assert door.authenticator.requests == [b"\x05"]


async def test_a_huge_length_holds_no_memory_and_no_other_client(door: OpenDoor) -> None:
    stuck, client = await door.connect(), await door.connect()
    await stuck.send_raw(b"\xff\xff\xff\xff" + bytes(1 << 20))
    assert await client.ask(b"\x05") == b"\x00\x05"


async def test_a_request_may_come_in_pieces(door: OpenDoor) -> None:
    client = await door.connect()
    for byte in b"\x00\x00\x00\x02\x04\xa0":
        await client.send_raw(bytes([byte]))
        await asyncio.sleep(0)
    assert await client.receive() == b"\x00\x04\xa0"


async def test_requests_sent_ahead_are_answered_in_order(door: OpenDoor) -> None:
    client = await door.connect()
    await client.send_raw(b"".join(bytes([0, 0, 0, 1, number]) for number in range(20)))
    assert [await client.receive() for _ in range(20)] == [bytes([0, number]) for number in range(20)]


@pytest.mark.parametrize("begun", [b"\x00\x00", b"\x00\x00\x00\x05\x05", b"\xff\xff\xff\xff\x00"])
async def test_a_client_that_leaves_in_the_middle_of_a_request_is_forgotten(door: OpenDoor, begun: bytes) -> None:
    client = await door.connect()
    await client.send_raw(begun)
    client.writer.write_eof()
    assert await client.reader.read() == b""
    assert door.authenticator.requests == []


async def test_a_client_that_only_ends_its_sending_gets_its_answer(door: OpenDoor) -> None:
    client = await door.connect()
    await client.send(b"\x05")
    client.writer.write_eof()
    assert await client.receive() == b"\x00\x05"
    assert await client.reader.read() == b""


@settings(max_examples=25, deadline=None)
@given(pieces=st.lists(st.binary(max_size=300), max_size=5))
def test_any_bytes_leave_the_door_open(pieces: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> None:
    async def run() -> None:
        async with open_door(tmp_path_factory.mktemp("door")) as door:
            client = await door.connect()
            for piece in pieces:
                await client.send_raw(piece.replace(bytes([WAIT]), b""))
            client.writer.write_eof()
            await client.reader.read()
            assert await (await door.connect()).ask(b"\x05") == b"\x00\x05"
            answered = (await (await door.control()).command(b"".join(pieces).replace(b"\n", b"")))["ok"]
            assert answered in (True, False)

    asyncio.run(run())


async def test_a_failing_authenticator_is_answered_for_and_logged(
    door: OpenDoor, caplog: pytest.LogCaptureFixture
) -> None:
    client = await door.connect()
    with caplog.at_level(logging.ERROR):
        assert await client.ask(bytes([FAIL])) == b"\x7f"
    assert "command 0x71" in caplog.text
    assert await client.ask(b"\x05") == b"\x00\x05"


# several connections


async def test_connections_are_channels_of_their_own(door: OpenDoor) -> None:
    one, other = await door.connect(), await door.connect()
    for client in (one, other, one):
        await client.ask(b"\x02")
    first, second, third = door.authenticator.channels
    assert first == third != second


async def test_requests_of_all_connections_are_served_one_at_a_time(door: OpenDoor) -> None:
    clients = [await door.connect() for _ in range(10)]
    answers = await asyncio.gather(*(client.ask(bytes([number])) for number, client in enumerate(clients)))
    assert answers == [bytes([0, number]) for number in range(10)]


async def test_a_second_request_waits_for_the_first(door: OpenDoor) -> None:
    one, other, control = await door.connect(), await door.connect(), await door.control()
    await one.send(bytes([WAIT]))
    await door.authenticator.waiting.wait()
    await other.send(b"\x05")
    assert await control.command({"command": "cancel"}) == {"ok": True}
    assert await one.receive() == CANCELLED
    assert await other.receive() == b"\x00\x05"


async def test_get_info_waits_for_nobody(door: OpenDoor) -> None:
    one, other = await door.connect(), await door.connect()
    await one.send(bytes([WAIT]))
    await door.authenticator.waiting.wait()
    assert await other.ask(b"\x04") == b"\x00\x04"


async def test_a_client_that_leaves_has_cancelled_its_request(door: OpenDoor) -> None:
    one, other = await door.connect(), await door.connect()
    await one.send(bytes([WAIT]))
    await door.authenticator.waiting.wait()
    await one.close()
    await door.authenticator.dismissed.wait()
    assert await other.ask(b"\x05") == b"\x00\x05"


async def test_a_client_that_leaves_the_queue_is_never_served(door: OpenDoor) -> None:
    one, other, control = await door.connect(), await door.connect(), await door.control()
    await one.send(bytes([WAIT]))
    await door.authenticator.waiting.wait()
    await other.send(b"\x05")
    await door.until_connections(3)
    await other.close()
    await door.until_connections(2)
    await control.command("cancel")
    assert await one.receive() == CANCELLED
    assert await (await door.connect()).ask(b"\x05") == b"\x00\x05"
    assert door.authenticator.requests == [bytes([WAIT]), b"\x05"]


async def test_an_answer_that_reached_nobody_is_told_of(door: OpenDoor) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(door.path))
        client.sendall(b"\x00\x00\x00\x01\x06")
        door.authenticator.before_answer = client.close
        other = await door.connect()
        assert await other.ask(b"\x05") == b"\x00\x05"
    assert (door.authenticator.requests, door.authenticator.lost) == ([b"\x06", b"\x05"], 1)


async def test_an_answer_is_told_of_whose_client_leaves_as_it_is_given(door: OpenDoor) -> None:
    def leave() -> None:
        (answering,) = [task for task in asyncio.all_tasks() if "Door._answer" in repr(task.get_coro())]
        asyncio.get_running_loop().call_soon(answering.cancel)  # runs when the answer is there, and not yet sent

    one = await door.connect()
    door.authenticator.before_answer = leave
    await one.send(b"\x05")
    assert await one.reader.read() == b""
    assert door.authenticator.lost == 1


async def test_answers_that_arrive_and_requests_that_are_cancelled_are_no_loss(door: OpenDoor) -> None:
    one, control = await door.connect(), await door.control()
    await one.ask(b"\x05")
    await one.send(bytes([WAIT]))
    await door.authenticator.waiting.wait()
    await control.command("cancel")
    await one.receive()
    await one.send(bytes([WAIT]))
    await one.close()
    await door.until_connections(1)
    assert door.authenticator.lost == 0


class Leaving:
    """Approves, with a client that is gone by then."""

    def __init__(self, client: socket.socket) -> None:
        self._client = client

    async def ask(self, prompt: Prompt) -> Decision:
        self._client.close()
        return Decision(True, verified=True)


async def test_a_passkey_whose_client_left_is_unconfirmed(tmp_path: Path) -> None:
    store, request = MemoryStore(), create()
    with private_socket(tmp_path / "door") as listener, socket.socket(socket.AF_UNIX) as client:
        presence = Presence(Leaving(client))
        served = Served(SoftwareAuthenticator(store, presence), Screen())
        async with Door(served, presence).open(listener):
            client.connect(str(tmp_path / "door"))
            client.sendall(len(request).to_bytes(4, "big") + request)
            other = Connection(*await asyncio.open_unix_connection(tmp_path / "door"))
            await other.ask(b"\x05")  # has its turn afterwards
            await other.close()
    assert [credential.state for credential in store.credentials()] == [CredentialState.UNCONFIRMED]


async def test_over_tcp_as_well() -> None:
    async with open_tcp_door() as (authenticator, client):
        assert await client.ask(b"\x05") == b"\x00\x05"
        await client.send(bytes([WAIT]))
        await authenticator.waiting.wait()
        await client.close()
        await authenticator.dismissed.wait()


async def test_closing_the_door_ends_every_connection(tmp_path: Path) -> None:
    async with open_door(tmp_path) as door:
        idle, busy, control = await door.connect(), await door.connect(), await door.control()
        await busy.send(bytes([WAIT]))
        await door.authenticator.waiting.wait()
        door.clients.pop_all()  # they stay
    assert door.authenticator.dismissed.is_set()
    for connection in (idle, busy, control):
        assert await connection.reader.read() == b""
        await connection.close()
    assert not door.path.exists()


# control


async def test_a_power_cycle_cancels_what_is_under_way(door: OpenDoor) -> None:
    client, control = await door.connect(), await door.control()
    await client.send(bytes([WAIT]))
    await door.authenticator.waiting.wait()
    assert await control.command({"command": "power-cycle"}) == {"ok": True}
    assert door.authenticator.power_cycles == 1
    assert await client.receive() == CANCELLED
    assert await client.ask(b"\x05") == b"\x00\x05"


async def test_cancel_without_a_request_does_nothing(door: OpenDoor) -> None:
    control = await door.control()
    assert await control.command({"command": "cancel"}) == {"ok": True}
    assert await (await door.connect()).ask(b"\x05") == b"\x00\x05"


async def test_prompts_wait_while_nobody_is_there() -> None:
    presence = Presence(AlwaysApprove())
    peer = Peer(channel="local", hint=None, linked_name=None, proximity=Proximity.SIMULATED)
    prompt = Prompt(Operation.SELECT, "example.com", "", (), "memory", synced=False, replaces=0, peer=peer)
    assert (await presence.ask(prompt)).approved
    presence.set(there=False)
    asked = asyncio.create_task(presence.ask(prompt))
    done, _ = await asyncio.wait((asked,), timeout=0.02)
    assert not done
    presence.set(there=True)
    assert (await asked).approved


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        (b'{"command": "power-cycle"}', ("power-cycle", True)),
        (b'{"command": "cancel"}', ("cancel", True)),
        (b'{"command": "presence", "value": "on"}', ("presence", True)),
        (b'{"command": "presence", "value": "off"}', ("presence", False)),
        (b'{"command": "presence", "on": false}', ("presence", False)),
        (b'{"command": "presence on"}', ("presence", True)),
        (b'{"cmd": "presence", "value": "off"}', ("presence", False)),
        (b'{"op": "cancel"}', ("cancel", True)),
        (b'{"action": "power-cycle"}', ("power-cycle", True)),
        (b'{"presence": "off"}', ("presence", False)),
        (b'{"presence": true}', ("presence", True)),
        (b'{"power-cycle": true}', ("power-cycle", True)),
        (b'{"cancel": null}', ("cancel", True)),
        (b'"power-cycle"', ("power-cycle", True)),
        (b'"presence off"', ("presence", False)),
        (b"presence on\r\n", ("presence", True)),
    ],
)
def test_control_lines(line: bytes, meant: tuple[str, bool]) -> None:
    assert parse_control(line) == meant


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'"presence"',
        b'{"presence": "maybe"}',
        b'{"presence": null}',
        b'{"command": "explode"}',
        b'{"command": "cancel", "value": 3}',
        b'{"command": "presence", "value": "on", "also": "off"}',
        b'{"presence": "on", "cancel": true}',
        b"\xff\xfe",
        b"[" * 20_000,
    ],
)
def test_control_lines_that_mean_nothing(line: bytes) -> None:
    with pytest.raises(ControlProblem):
        parse_control(line)


async def test_a_senseless_line_is_answered_and_the_next_one_obeyed(door: OpenDoor) -> None:
    control = await door.control()
    answer = await control.command({"command": "explode"})
    assert answer == {"ok": False, "error": "a command is power-cycle, presence on, presence off or cancel"}
    assert await control.command("power-cycle") == {"ok": True}
    assert door.authenticator.power_cycles == 1


async def test_an_endless_line_ends_its_connection_only(door: OpenDoor) -> None:
    control = await door.control()
    await control.send_raw(b"x" * 200_000)
    assert await control.reader.read() == b""
    assert await (await door.control()).command("cancel") == {"ok": True}


# the socket file


def test_the_socket_is_private_from_the_first_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "door"
    modes = []
    bind = socket.socket.bind

    def watched(self: socket.socket, address: str) -> None:
        bind(self, address)
        modes.append(stat.S_IMODE(path.stat().st_mode))

    monkeypatch.setattr(socket.socket, "bind", watched)
    mask = os.umask(0)
    try:
        with private_socket(path):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert os.umask(0) == 0
    finally:
        os.umask(mask)
    assert modes == [0o600]
    assert not path.exists()


async def test_who_finds_the_socket_may_connect_before_the_door_is_open(tmp_path: Path) -> None:
    with private_socket(tmp_path / "door") as listener:
        reader, writer = await asyncio.open_unix_connection(tmp_path / "door")
        client = Connection(reader, writer)
        await client.send(b"\x05")
        async with Door(Scripted(), Presence(AlwaysApprove())).open(listener):
            assert await client.receive() == b"\x00\x05"
            await client.close()


def test_a_socket_that_a_dead_process_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "door"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with private_socket(path):
        assert path.exists()
    assert not path.exists()


def test_a_socket_in_use_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "door"
    with private_socket(path):
        with pytest.raises(OSError, match="in use") as caught, private_socket(path):
            pass
        assert caught.value.errno == errno.EADDRINUSE
        assert path.exists()


def test_another_file_is_never_removed(tmp_path: Path) -> None:
    path = tmp_path / "door"
    path.write_text("precious")
    with pytest.raises(FileExistsError), private_socket(path):
        pass
    assert path.read_text() == "precious"


def test_a_successors_socket_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "door"
    with private_socket(path):
        path.unlink()
        with socket.socket(socket.AF_UNIX) as successor:
            successor.bind(str(path))
    assert path.exists()
