"""The relay's bounds, tried by a stranger with raw sockets: time, connections, addresses, descriptors, the end."""

from __future__ import annotations

import contextlib
import resource
import signal
import socket
import struct
import time
from collections.abc import Iterator

import pytest

from .probe_rig import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PATIENCE,
    PING,
    PONG,
    Ended,
    Peer,
    RelayProcess,
    closing,
    frame,
    new_path,
    request,
    running,
    still_works,
    tunnel_id,
    works,
)
from .tls import Certificate

pytestmark = pytest.mark.slow

SOON = "1"  # s; long enough for a loaded machine to do what comes before


def retry_after(peer: Peer, path: str, status: int, **changes: str) -> None:
    answer = peer.ask(path, **changes)
    assert answer.status == status
    assert int(answer.one("retry-after")) > 0
    peer.until_end()


# ---- time


@pytest.fixture(scope="module")
def impatient() -> Iterator[RelayProcess]:
    with running("--pending", SOON, "--idle", SOON, "--head", SOON, "--linger", SOON) as relay:
        yield relay


def test_nobody_comes(impatient: RelayProcess) -> None:
    tunnel = tunnel_id()
    owner, routing_id = impatient.owner(tunnel)
    assert owner.close_code() == 1008
    assert impatient.status(f"/cable/connect/{routing_id}/{tunnel}") == 404


def test_nobody_says_anything(impatient: RelayProcess) -> None:
    owner, guest = impatient.pair()
    assert (owner.close_code(), guest.close_code()) == (1008, 1008)


def test_pings_are_no_sign_of_life(impatient: RelayProcess) -> None:
    owner, guest = impatient.pair()
    opcode = PONG
    while opcode == PONG:
        owner.send(frame(PING, b""))
        opcode, payload = owner.frame()
        time.sleep(0.01)  # the pace of a client that keeps itself alive
    assert (opcode, payload) == (CLOSE, struct.pack("!H", 1008))
    assert guest.close_code() == 1008


def test_messages_are_a_sign_of_life() -> None:
    with running("--idle", "2") as relay:
        owner, guest = relay.pair()
        start = time.monotonic()
        while time.monotonic() < start + 2.5:
            owner.send(frame(BINARY, b"x"))
            assert guest.message() == b"x"
            time.sleep(0.1)  # talking now and then is what is tried
        owner.send(frame(BINARY, b"last"))
        assert guest.message() == b"last"


def test_nothing_lives_for_ever() -> None:
    with running("--lifetime", SOON) as relay:
        owner, guest = relay.pair()
        assert (owner.close_code(), guest.close_code()) == (1008, 1008)
        waiting, _ = relay.owner(tunnel_id())
        assert waiting.close_code() == 1008


@pytest.mark.parametrize(
    "head", [b"", b"GET /cable/new/", request(new_path(32 * "a"))[:-1]], ids=["no", "some", "all but one"]
)
def test_a_head_that_does_not_come(impatient: RelayProcess, head: bytes) -> None:
    peer = impatient.peer()
    peer.send(head)
    assert b" 101 " not in peer.until_end()


def test_a_trickle_does_not_move_the_end_of_a_head(impatient: RelayProcess) -> None:
    peer = impatient.peer()
    peer.socket.settimeout(0.02)
    for byte in request(new_path(32 * "a"), X="x" * 4000):
        peer.send(bytes([byte]))
        try:
            if not peer.socket.recv(1000):
                return
        except TimeoutError:
            continue
        except ConnectionResetError:
            return
    pytest.fail("4 kB took 80 s, and nobody minded")


def test_a_tls_client_that_never_speaks_and_one_that_speaks_otherwise(certificate: Certificate) -> None:
    files = ("--cert", str(certificate.cert), "--key", str(certificate.key))
    with running(*files, "--head", SOON, tls=certificate.client_context()) as relay:
        for words in (b"", bytes.fromhex("16030100c8010000c4"), request(new_path(tunnel_id()))):
            silent = Peer(relay.tcp())
            silent.send(words)
            assert b"HTTP" not in silent.until_end()
            silent.close()
        silent = relay.peer()  # after the handshake
        silent.until_end()
        works(relay)


def test_a_side_that_ignores_a_close_is_cut(impatient: RelayProcess) -> None:
    owner, guest = impatient.pair()
    guest.send(closing(1000))
    owner.until_end()
    guest.until_end()


def test_a_reader_that_stalls_is_cut_and_the_other_side_is_told() -> None:
    with running("--stall", SOON, "--max-total", str(1 << 30), "--max-messages", "1000000") as relay:
        tunnel = tunnel_id()
        owner = Peer(relay.narrow())
        routing_id = owner.ask(new_path(tunnel)).one("x-cable-routing-id")
        guest = relay.join(routing_id, tunnel)
        message = frame(BINARY, bytes(100_000))
        guest.socket.setblocking(False)
        told = b""
        while not told:  # the time-out of the test is the limit
            with contextlib.suppress(BlockingIOError):
                guest.socket.send(message)
            with contextlib.suppress(BlockingIOError):
                told = guest.socket.recv(4)
            time.sleep(0.001)  # neither direction may block
        assert told == b"\x88\x02" + struct.pack("!H", 1008)
        works(relay)


@pytest.mark.parametrize("kind", [frame(CONTINUATION, fin=False), frame(PONG), frame(PING)])
def test_frames_that_carry_nothing(kind: bytes) -> None:
    """A million of them take one connection a few seconds to send, and would take those from everybody."""
    with running("--max-frames", "1000") as relay:
        owner, guest = relay.pair()
        owner.send(frame(BINARY, b"a", fin=False), 998 * kind, frame(CONTINUATION, b"b"))
        assert guest.message() == b"ab"
        owner.send(frame(PONG))
        assert guest.frame() == (CLOSE, struct.pack("!H", 1008))
        works(relay)


def test_a_reader_stalls_with_what_one_side_may_send() -> None:
    """All of it would fit into the buffer that Linux gives a socket."""
    with running("--stall", SOON) as relay:
        tunnel = tunnel_id()
        owner = Peer(relay.narrow())
        guest = relay.join(owner.ask(new_path(tunnel)).one("x-cable-routing-id"), tunnel)
        guest.send(*(frame(BINARY, bytes(131072)) for _ in range(8)))
        assert guest.frame() == (CLOSE, struct.pack("!H", 1008))
        works(relay)


# ---- how many


def test_connections_in_all() -> None:
    with running("--max-connections", "4") as relay:
        relay.pair()
        waiting, _ = relay.owner(tunnel_id())
        relay.owner(tunnel_id())
        retry_after(relay.peer(), new_path(tunnel_id()), 503)
        waiting.close()
        relay.close_all()
        works(relay)


def test_connections_of_one_address() -> None:
    with running("--limit-loopback", "--max-per-address", "2") as relay:
        relay.pair()
        retry_after(relay.peer(), new_path(tunnel_id()), 429)
        assert relay.peer("127.0.0.2").ask(new_path(tunnel_id())).status == 101


def test_loopback_is_not_limited_unless_asked() -> None:
    with running("--max-per-address", "1", "--new-per-minute", "1") as relay:
        for _ in range(4):
            relay.pair()


def test_new_tunnels_a_minute() -> None:
    with running("--limit-loopback", "--new-per-minute", "3") as relay:
        for _ in range(3):
            owner, _ = relay.owner(tunnel_id())
            owner.close()
        retry_after(relay.peer(), new_path(tunnel_id()), 429)
        assert relay.status("/cable/connect/000000/" + tunnel_id()) == 404, "only new ones are counted"
        assert relay.peer("127.9.9.9").ask(new_path(tunnel_id())).status == 101


def proxy_v2(source: str, family: int = 0x11) -> bytes:
    kind = socket.AF_INET if family == 0x11 else socket.AF_INET6
    address = socket.inet_pton(kind, source)
    body = address + address + struct.pack("!HH", 1234, 443)
    return b"\r\n\r\n\x00\r\nQUIT\n" + struct.pack("!BBH", 0x21, family, len(body)) + body


def test_addresses_told_by_the_proxy_protocol() -> None:
    with running("--proxy-protocol", "--trusted-proxy", "127.0.0.1", "--new-per-minute", "1") as relay:
        for source, status in (
            (proxy_v2("203.0.113.1"), 101),
            (proxy_v2("203.0.113.1"), 429),
            (proxy_v2("203.0.113.2"), 101),
            (proxy_v2("2001:db8:0:1::1", 0x21), 101),
            (proxy_v2("2001:db8:0:1::2", 0x21), 429),
            (proxy_v2("2001:db8:0:2::1", 0x21), 101),
        ):
            peer = relay.peer()
            peer.send(source)
            assert peer.ask(new_path(tunnel_id())).status == status
        for broken in (b"", proxy_v2("203.0.113.9")[:-5] + b"", b"PROXY TCP4 203.0.113.9 203.0.113.9 1 2\r\n"):
            peer = relay.peer()
            peer.send(broken, request(new_path(tunnel_id())))
            assert b" 101 " not in peer.until_end()


def test_the_proxy_protocol_in_front_of_tls_in_pieces_and_with_more_in_it(certificate: Certificate) -> None:
    files = ("--cert", str(certificate.cert), "--key", str(certificate.key))
    context = certificate.client_context()
    told = proxy_v2("203.0.113.1")
    more = told[:14] + struct.pack("!H", 12 + 7) + told[16:] + b"\x05\x00\x04abcd"  # with a unique id
    local = told[:12] + b"\x20\x00\x00\x00"  # the proxy for itself: a health check
    with running(*files, "--proxy-protocol", "--trusted-proxy", "127.0.0.1", "--new-per-minute", "1") as relay:
        for header, status in ((told, 101), (more, 429), (local, 101), (local, 101)):
            connection = relay.tcp()
            for byte in header:
                connection.sendall(bytes([byte]))
            secured = relay.keep(context.wrap_socket(connection, server_hostname="localhost"))
            assert Peer(secured).ask(new_path(tunnel_id())).status == status


def test_the_proxy_protocol_of_who_is_no_proxy() -> None:
    with running("--proxy-protocol", "--trusted-proxy", "127.0.0.2") as relay:
        peer = relay.peer()
        peer.send(proxy_v2("203.0.113.1"), request(new_path(tunnel_id())))
        assert b" 101 " not in peer.until_end()
        works(relay)


def test_addresses_told_by_a_header() -> None:
    with running("--trusted-proxy", "127.0.0.1", "--new-per-minute", "1") as relay:
        for told, status in (
            ("203.0.113.1", 101),
            ("203.0.113.1", 429),
            ("198.51.100.7, 203.0.113.1", 429),  # who is in front of our proxy may say what he likes
            ("203.0.113.1, 203.0.113.2", 101),
            ("2001:db8:0:1::1", 101),
            ("2001:db8:0:1:ffff::1", 429),
        ):
            assert relay.peer().ask(new_path(tunnel_id()), X_Forwarded_For=told).status == status, told
    with running("--limit-loopback", "--new-per-minute", "1") as relay:
        for told, status in (("203.0.113.1", 101), ("203.0.113.2", 429)):  # nobody is trusted here
            assert relay.peer().ask(new_path(tunnel_id()), X_Forwarded_For=told).status == status


# ---- descriptors


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_no_busy_loop_when_descriptors_run_out(loop: str) -> None:
    with running("--loop", loop) as relay:
        owner, guest = relay.pair()
        resource.prlimit(relay.process.pid, resource.RLIMIT_NOFILE, (40, 40))  # behind its back
        crowd = [relay.tcp() for _ in range(120)]
        before = relay.cpu_seconds()
        time.sleep(1)  # the time over which it is measured
        assert relay.cpu_seconds() - before < 0.5
        still_works(owner, guest)
        for connection in crowd:
            connection.close()
        deadline = time.monotonic() + PATIENCE
        while True:  # the kernel's queue first has to empty
            with contextlib.suppress(Ended):
                works(relay)
                break
            assert time.monotonic() < deadline


# ---- the end


def test_draining() -> None:
    with running() as relay:
        owner, guest = relay.pair()
        tunnel = tunnel_id()
        waiting, routing_id = relay.owner(tunnel)
        relay.process.send_signal(signal.SIGTERM)
        while relay.status(new_path(tunnel_id())) != 503:  # until the signal has been seen
            pass
        owner.send(frame(BINARY, b"x"))
        assert guest.message() == b"x"
        retry_after(relay.peer(), new_path(tunnel_id()), 503)
        late = relay.join(routing_id, tunnel)
        late.send(frame(BINARY, b"late"))
        assert waiting.message() == b"late"
        late.send(closing(1000))
        assert waiting.close_code() == 1000
        assert relay.process.poll() is None
        guest.send(closing(1000))
        assert owner.close_code() == 1000
        assert relay.process.wait(PATIENCE) == 0


def test_draining_nothing_takes_no_time() -> None:
    with running("--drain", "1000") as relay:
        relay.tcp()  # says nothing, and is no tunnel
        relay.process.send_signal(signal.SIGTERM)
        assert relay.process.wait(PATIENCE) == 0


@pytest.mark.parametrize(("drain", "signals"), [("0.1", 1), ("1000", 2)])
def test_draining_ends(drain: str, signals: int) -> None:
    with running("--drain", drain) as relay:
        owner, guest = relay.pair()
        for _ in range(signals):
            relay.process.send_signal(signal.SIGTERM)
            owner.send(frame(PING, b""))
            owner.frame()
        assert (owner.close_code(), guest.close_code()) == (1001, 1001)
        assert relay.process.wait(PATIENCE) == 0


def test_silence() -> None:
    with running("--log-level", "debug") as relay:
        tunnel, payload = tunnel_id(), b"payload-nobody-sees"
        owner, routing_id = relay.owner(tunnel)
        guest = relay.join(routing_id, tunnel)
        owner.send(frame(BINARY, payload))
        assert guest.message() == payload
        assert relay.status(new_path(tunnel)) == 409
        assert relay.status("/cable/contact/Y29udGFjdA") == 503
        owner.send(frame(1, payload))
        assert guest.close_code() == 1003
        relay.process.send_signal(signal.SIGTERM)
        relay.process.wait(PATIENCE)
    assert len(relay.said) > 1
    said = "".join(relay.said[1:]).lower()
    for secret in (tunnel, routing_id, payload.decode(), "y29udgfjda", "127.0.0.1"):
        assert secret.lower() not in said
