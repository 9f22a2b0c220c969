"""Several workers on one host, as processes: joins find their owner, and neither a restart nor a death spreads."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import resource
import secrets
import shutil
import signal
import socket
import ssl
import stat
import struct
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from .cluster_rig import (
    PATIENCE,
    Node,
    Refused,
    Side,
    eventually,
    http_get,
    load,
    node,
    opened,
    opened_at,
    transaction,
    tunnel,
)
from .tls import Certificate, make_certificate

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

_AS_SYSTEMD = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""
_RELAY = (sys.executable, "-m", "tunnel_server", "--port", "0")

Figure = Callable[[str, object], None]

FULL = bool(os.environ.get("HYBRID_SOAK"))


async def accepted_by(relay: Node, owner: int, guest: int, context: ssl.SSLContext | None) -> tuple[Side, Side]:
    """A tunnel whose sides were accepted by the workers with these routing ids."""
    number = secrets.token_hex(16)
    first = await opened_at(relay, owner, f"/cable/new/{number}", context)
    assert first.owner == owner
    return first, await opened_at(relay, guest, f"/cable/connect/{first.routing_id}/{number}", context)


async def some(stack: AsyncExitStack, relay: Node, context: ssl.SSLContext | None = None) -> list[tuple[Side, Side]]:
    """Tunnels of two workers: each owns half of them, and half of each half's joins are passed on."""
    tunnels = []
    for owner, guest in itertools.product(relay.workers(), repeat=2):
        for _ in range(2):
            tunnels.append(await accepted_by(relay, owner, guest, context))
            for side in tunnels[-1]:
                stack.callback(side.abort)
    return tunnels


def worker_of(side: Side) -> int:
    return side.owner >> 10 & 0x3F


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_every_join_finds_its_owner(loop: str, secure: bool, certificate: Certificate) -> None:
    files = ("--cert", str(certificate.cert), "--key", str(certificate.key)) if secure else ()
    context = certificate.client_context() if secure else None
    async with node("--workers", "2", "--loop", loop, *files) as relay, AsyncExitStack() as stack:
        tunnels = await some(stack, relay, context)
        assert {worker_of(owner) for owner, _ in tunnels} == {0, 1}
        assert {owner.owner for owner, _ in tunnels} == set(relay.workers())
        assert len({owner.owner >> 16 for owner, _ in tunnels}) == 1, "one node"
        for owner, guest in tunnels:
            assert await owner.alive(guest)
            payload = secrets.token_bytes(60000)
            guest.send(payload)
            guest.send(struct.pack("!H", 1000), opcode=8)
            assert await owner.receive() == payload, "what was sent before the close arrives"
            assert await owner.ending() == 1000
            assert await guest.ending() == 1000
            owner.abort()
            guest.abort()
        figures = await relay.figures()
        assert figures["handed_over_total"] == len(tunnels) / 2
        assert figures["tunnels_total/joined"] == len(tunnels)
        await relay.until(connections=0, pending=0, joined=0)


async def test_what_is_nobodys_is_refused_and_the_tunnel_survives() -> None:
    async with node("--workers", "2") as relay:
        number = secrets.token_hex(16)
        owner = await opened(relay.port, f"/cable/new/{number}")
        for wrong in (owner.owner ^ 1, owner.owner ^ 1 << 10, owner.owner ^ 1 << 16):
            with pytest.raises(Refused, match="404"):
                await opened(relay.port, f"/cable/connect/{wrong:06x}/{number}")
        other = secrets.token_hex(16)
        for _ in range(8):  # so that both workers are asked
            with pytest.raises(Refused, match="404"):
                await opened(relay.port, f"/cable/connect/{owner.routing_id}/{other}")
        guest = await opened(relay.port, f"/cable/connect/{owner.routing_id}/{number}")
        assert await owner.alive(guest)
        for _ in range(8):
            with pytest.raises(Refused, match="404"):
                await opened(relay.port, f"/cable/connect/{owner.routing_id}/{number}")
        assert await owner.alive(guest), "a third party leaves a pair untouched"
        owner.abort()
        guest.abort()


async def test_a_join_is_passed_on_once() -> None:
    """Whoever claims to have been passed on already is served where it arrives, or not at all."""
    async with node("--workers", "2") as relay:
        first, second = relay.workers()
        number = secrets.token_hex(16)
        owner = await opened_at(relay, first, f"/cable/new/{number}")
        join = f"/cable/connect/{owner.routing_id}/{number}"
        with pytest.raises(Refused, match="404"):
            await opened_at(relay, second, join, None, "X-Tunnel-Hops: 1")
        guest = await opened_at(relay, first, join, None, "X-Tunnel-Hops: 1")
        assert await owner.alive(guest)
        assert (await relay.figures())["handed_over_total"] == 0
        owner.abort()
        guest.abort()


async def test_limits_are_the_owners_through_another_worker() -> None:
    async with node("--workers", "2", "--max-message", "100") as relay, AsyncExitStack() as stack:
        for owner, guest in await some(stack, relay):
            guest.send(bytes(101))
            assert await guest.ending() == 1009
            assert await owner.ending() == 1009


async def test_addresses_count_at_the_owner_too() -> None:
    """The limit of new tunnels counts the client's address, not that of the worker in between."""
    async with node("--workers", "2", "--limit-loopback", "--max-per-address", "4") as relay:
        held = []
        for worker in relay.workers():
            for _ in range(4):
                held.append(await opened_at(relay, worker, f"/cable/new/{secrets.token_hex(16)}"))
            with pytest.raises(Refused, match="429"):
                await opened_at(relay, worker, f"/cable/new/{secrets.token_hex(16)}")
        for side in held:
            side.abort()


async def outcomes(tunnels: list[tuple[Side, Side]], dead: int) -> dict[str, int]:
    """What became of tunnels when the process of the routing id `dead` was killed."""
    counts = {"untouched": 0, "guest told": 0, "owner told": 0, "ended": 0}
    for owner, guest in tunnels:
        if owner.owner != dead and await owner.alive(guest):
            counts["untouched"] += 1
            continue
        async with asyncio.timeout(PATIENCE):
            endings = await owner.ending(), await guest.ending()
        assert set(endings) <= {None, 1001}
        if owner.owner == dead:  # the owner's own socket may have gone with the process, and the guest's
            counts["guest told" if endings[1] else "ended"] += 1
        else:  # the guest's went with it, and the owner's worker tells
            assert endings == (1001, None)
            counts["owner told"] += 1
    return counts


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_a_killed_worker_takes_nobody_along(
    secure: bool, certificate: Certificate, record_property: Figure
) -> None:
    files = ("--cert", str(certificate.cert), "--key", str(certificate.key)) if secure else ()
    context = certificate.client_context() if secure else None
    async with node("--workers", "2", *files) as relay:
        first, second = relay.workers()
        pairs = [(first, first), (first, second), (second, first), (second, second)]
        tunnels = [await accepted_by(relay, *pair, context) for pair in pairs]
        loop = asyncio.get_running_loop()
        start = loop.time()
        os.kill(relay.workers()[first], signal.SIGKILL)
        counts = await outcomes(tunnels, first)
        record_property("seconds until every side knew of the end of a worker", round(loop.time() - start, 3))
        if secure:
            assert counts == {"ended": 1, "guest told": 1, "owner told": 1, "untouched": 1}
        else:  # a connection was given to its owner, so no worker but the dead one held a side of its tunnels
            assert counts == {"ended": 2, "guest told": 0, "owner told": 0, "untouched": 2}
        await relay.until(workers=2, worker_restarts_total=1)
        assert first not in relay.workers()
        for _ in range(10):
            await transaction(relay.port, context=context)
        for side in itertools.chain(*tunnels):
            side.abort()


async def test_a_worker_that_hangs_is_replaced() -> None:
    async with node("--workers", "2") as relay:
        hung, pid = next(iter(relay.workers().items()))
        os.kill(pid, signal.SIGSTOP)
        await eventually(lambda: hung not in relay.workers())
        await relay.until(workers=2, worker_restarts_total=1)
        await transaction(relay.port)


async def test_a_worker_without_descriptors_goes_on() -> None:
    """Nor does it take what it cannot count for the end of the supervisor."""
    async with node("--workers", "2", "--drain", "0.2") as relay, AsyncExitStack() as stack:
        tunnels = await some(stack, relay)
        for pid in relay.workers().values():
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (0, resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]))
        before = relay.workers()
        for _ in range(2):
            assert (await relay.figures())["workers"] == 2
        for owner, guest in tunnels:
            assert await owner.alive(guest)
        for pid in relay.workers().values():
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (1024, 1024))
        await transaction(relay.port)
        assert relay.workers() == before


async def test_a_worker_asked_to_go_leaves_in_peace() -> None:
    async with node("--workers", "2") as relay, AsyncExitStack() as stack:
        tunnels = await some(stack, relay)
        asked, pid = next(iter(relay.workers().items()))
        os.kill(pid, signal.SIGTERM)
        await eventually(lambda: len(relay.workers()) == 3)
        for owner, guest in tunnels:
            assert await owner.alive(guest)
        await stack.aclose()
        await eventually(lambda: asked not in relay.workers())
        await relay.until(workers=2, worker_restarts_total=0)


async def test_signals_for_the_supervisor_do_no_harm_to_a_worker() -> None:
    """``systemctl kill`` sends them to every process of the unit."""
    async with node("--workers", "2", "--log-level", "info") as relay, AsyncExitStack() as stack:
        tunnels = await some(stack, relay)
        before = relay.workers()
        for number in (signal.SIGHUP, signal.SIGUSR2):
            for pid in (*before.values(), relay.process.pid):
                os.kill(pid, number)
        await eventually(lambda: relay.said("every worker is a new one"))
        for owner, guest in tunnels:
            assert await owner.alive(guest)
        assert before.items() <= relay.workers().items()
        await relay.until(worker_restarts_total=0)


async def test_new_workers_that_find_a_bad_file_leave_the_old_ones_alone(tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    file.write_text("workers = 2\n")
    async with node("--config", str(file)) as relay:
        before = relay.workers()
        file.write_text("workers = 2\nlinger = -1\n")
        relay.process.send_signal(signal.SIGUSR2)
        await eventually(lambda: sum("the old one goes on" in line for line in relay.log) == 2)
        assert sum(f"{file}:2: linger" in line for line in relay.log) == 2
        assert not relay.said("Traceback")
        assert relay.workers() == before
        await transaction(relay.port)


async def renewed(relay: Node) -> None:
    """Replace all workers."""
    before, words = set(relay.workers()), "every worker is a new one"
    relay.log.clear()
    relay.process.send_signal(signal.SIGUSR2)
    await eventually(lambda: relay.said(words))
    assert len(set(relay.workers()) - before) == 2


@pytest.mark.soak
@pytest.mark.timeout(0 if FULL else 120)
async def test_rolling_restart_of_workers_under_load(record_property: Figure) -> None:
    rounds = 20 if FULL else 2
    async with node("--workers", "2", "--log-level", "info") as relay, AsyncExitStack() as stack:
        long_lived = await stack.enter_async_context(tunnel(relay.port))
        async with load(100, relay.port) as counted:
            for _ in range(rounds):
                await renewed(relay)
        assert await long_lived[0].alive(long_lived[1])
        record_property("transactions across rolling restarts of both workers", counted.done)
        record_property("of which failed", counted.failures.total())
        assert not counted.failures, (counted, relay.log)
        assert counted.done > 50
        await relay.until(**{"tunnels_total/joined": counted.done})  # figures outlive the workers


async def serial(port: int, context: ssl.SSLContext) -> int:
    """Serial number of the certificate that a relay shows now."""
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    number = int(writer.get_extra_info("peercert")["serialNumber"], 16)
    writer.transport.abort()
    return number


@pytest.mark.parametrize("workers", [1, 2])
async def test_new_certificates_without_dropping_a_tunnel(workers: int, tmp_path: Path) -> None:
    for folder in ("1", "2"):
        (tmp_path / folder).mkdir()
    first, second = make_certificate(tmp_path / "1"), make_certificate(tmp_path / "2")
    context = first.client_context()
    context.load_verify_locations(second.ca)
    used = Certificate(first.ca, tmp_path / "cert.pem", tmp_path / "key.pem")

    def install(certificate: Certificate) -> None:
        shutil.copy(certificate.cert, used.cert)
        shutil.copy(certificate.key, used.key)

    install(first)
    files = ("--cert", str(used.cert), "--key", str(used.key), "--log-level", "info", "--drain", "0")
    async with node("--workers", str(workers), *files) as relay, AsyncExitStack() as stack:
        tunnels = await some(stack, relay, context)
        before = await serial(relay.port, context)
        used.key.write_text("no key at all")
        relay.process.send_signal(signal.SIGHUP)
        await eventually(lambda: relay.said("; the old one stays in use"))
        assert await serial(relay.port, context) == before
        install(second)
        relay.process.send_signal(signal.SIGHUP)
        await eventually(lambda: relay.said("new certificates are in use"))

        async def all_new() -> bool:
            return before not in {await serial(relay.port, context) for _ in range(12)}

        await eventually(all_new)
        for owner, guest in tunnels:
            assert await owner.alive(guest)


async def test_no_log_says_who_met_whom(certificate: Certificate) -> None:
    """At the loudest level, with joins passed on, refused and cut off, in both kinds of lines."""
    for form in ("text", "json"):
        files = ("--cert", str(certificate.cert), "--key", str(certificate.key))
        options = ("--workers", "2", "--log-level", "debug", "--log-format", form)
        context = certificate.client_context()
        async with node(*options, *files, environ={"PYTHONASYNCIODEBUG": "1"}) as relay, AsyncExitStack() as stack:
            tunnels = await some(stack, relay, context)
            ids = {owner.routing_id.lower() for owner, _ in tunnels}
            for _ in range(6):
                with pytest.raises(Refused, match="404"):
                    await opened(relay.port, f"/cable/connect/{tunnels[0][0].routing_id}/{32 * 'C'}", context)
            for pid in relay.workers().values():
                os.kill(pid, signal.SIGKILL)
            await relay.until(workers=2, worker_restarts_total=2)
            relay.process.terminate()
            assert await relay.ended() == 0
        lines = [line for line in relay.log if " on 127.0.0.1:" not in line]
        assert any("answered with 404" in line for line in lines), "it does log"
        text = "\n".join(lines).lower()
        for hidden in (*ids, "127.0.0.1", "cccccccc", "cable/"):
            assert hidden not in text
        if form == "json":
            assert {json.loads(line).get("worker") for line in lines} & {0, 1}


async def end_of(relay: Node, tunnels: list[tuple[Side, Side]]) -> None:
    """SIGTERM; what is open goes on, new ones are refused; it ends with the last one."""
    relay.process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(Refused):
                side = await opened(relay.port, f"/cable/new/{secrets.token_hex(16)}")
                side.abort()
                continue
            break
    with pytest.raises(AssertionError, match="503"):
        await http_get(relay.ports["admin"], "/readyz")
    for owner, guest in tunnels:
        assert await owner.alive(guest)


async def test_drains_all_workers() -> None:
    async with node("--workers", "2") as relay, AsyncExitStack() as stack:
        number = secrets.token_hex(16)
        waiting = await opened(relay.port, f"/cable/new/{number}")
        tunnels = await some(stack, relay)
        await end_of(relay, tunnels)
        late = await opened(relay.port, f"/cable/connect/{waiting.routing_id}/{number}")
        assert await waiting.alive(late)
        await stack.aclose()
        assert relay.process.returncode is None
        waiting.abort()
        late.abort()
        assert await relay.ended() == 0


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("how", ["second signal", "time"])
async def test_draining_ends(how: str, secure: bool, certificate: Certificate) -> None:
    files = ("--cert", str(certificate.cert), "--key", str(certificate.key)) if secure else ()
    drain = ("--drain", "0.2" if how == "time" else "1000", "--log-level", "info")
    async with node("--workers", "2", *drain, *files) as relay, AsyncExitStack() as stack:
        tunnels = await some(stack, relay, certificate.client_context() if secure else None)
        relay.process.send_signal(signal.SIGTERM)
        if how == "second signal":
            await eventually(lambda: relay.said("no new tunnels"))
            relay.process.send_signal(signal.SIGTERM)
        for owner, guest in tunnels:
            assert await owner.ending() == await guest.ending() == 1001
        assert await relay.ended() == 0


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that ended and that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_workers_do_not_outlive_the_supervisor() -> None:
    async with node("--workers", "2", "--drain", "0.2") as relay:
        pids = relay.workers().values()
        relay.process.kill()
        await eventually(lambda: not any(is_alive(pid) for pid in pids))


async def test_the_folder_of_the_sockets_is_private(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    async with node("--workers", "2", "--runtime-dir", str(folder)) as relay:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert {path.name for path in folder.iterdir()} == {f"{number:06x}.sock" for number in relay.workers()} | {
            f"{number:06x}.sock.gift" for number in relay.workers()
        }
        relay.process.terminate()
        assert await relay.ended() == 0
    assert not list(folder.iterdir())
    folder.chmod(0o755)
    with pytest.raises(AssertionError, match="others can enter the runtime folder"):
        async with node("--workers", "2", "--runtime-dir", str(folder)):
            pass
    with pytest.raises(AssertionError, match="too long for unix sockets"):
        async with node("--workers", "2", "--runtime-dir", str(tmp_path / (100 * "x"))):
            pass


async def test_systemd_hands_in_a_socket_and_is_told(tmp_path: Path) -> None:
    """As its manual describes it: a socket as descriptor 3, and words to a datagram socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd, socket.create_server(("127.0.0.1", 0)) as port:
        systemd.bind(str(tmp_path / "notify"))
        systemd.setblocking(False)
        loop = asyncio.get_running_loop()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _AS_SYSTEMD, str(port.fileno()), *_RELAY, "--workers", "2",
            pass_fds=(port.fileno(),),
            env={
                **os.environ,
                "LISTEN_FDS": "1",
                "LISTEN_FDNAMES": "relay",
                "NOTIFY_SOCKET": str(tmp_path / "notify"),
                "WATCHDOG_USEC": "200000",
            },
        )  # fmt: skip
        try:
            async with asyncio.timeout(PATIENCE):
                words = [await loop.sock_recv(systemd, 200) for _ in range(4)]
            assert set(words) == {b"READY=1", b"WATCHDOG=1"}
            await transaction(port.getsockname()[1])
            process.terminate()
            async with asyncio.timeout(PATIENCE):
                while await loop.sock_recv(systemd, 200) != b"STOPPING=1":
                    pass
                assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def test_what_a_killed_relay_left_behind_is_in_nobodys_way(tmp_path: Path) -> None:
    folder = tmp_path / "runtime"
    folder.mkdir(mode=0o700)
    ids = [f"{7 << 16 | worker << 10 | epoch:06x}" for worker in (0, 1) for epoch in range(1024)]
    free = {ids.pop(1500), ids.pop(500)}
    for number in ids:
        (folder / f"{number}.sock").touch()
    (folder / "another.sock").touch()
    async with node("--workers", "2", "--node", "7", "--runtime-dir", str(folder)) as relay:
        assert {f"{number:06x}" for number in relay.workers()} == free
        await transaction(relay.port)


@pytest.mark.parametrize("options", [(), ("--workers", "2")])
async def test_a_socket_of_systemd_that_others_can_reach_is_not_served_plain(options: tuple[str, ...]) -> None:
    with socket.create_server(("0.0.0.0", 0)) as port:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _AS_SYSTEMD, str(port.fileno()), *_RELAY, *options,
            pass_fds=(port.fileno(),),
            env={**os.environ, "LISTEN_FDS": "1", "LISTEN_FDNAMES": "relay"},
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            async with asyncio.timeout(PATIENCE):
                _, words = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 2
        assert b"plain connections are for this machine only" in words
