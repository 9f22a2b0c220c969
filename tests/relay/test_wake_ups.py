"""Messages that find a phone elsewhere: one contract for both ways, then the real NATS server."""

from __future__ import annotations

import asyncio
import re
import secrets
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import nkeys
import pytest

from tests.packaging.programs import need
from tunnel_server.nats_wake_ups import NatsOptions, NatsWakeUps, nats_wake_ups
from tunnel_server.wake_ups import MAX_MESSAGE, Handler, InProcess, WakeUps, address

from .cluster_rig import PATIENCE, eventually
from .tls import Certificate

PHONE, STRANGER = b"contact id of a phone", b"contact id of another"
STUB = b"tunnel id, routing id, client payload"


@asynccontextmanager
async def nats_server(folder: Path, config: str = "", *, port: int = -1) -> AsyncIterator[int]:
    """A NATS server on a free port, or on `port`."""
    need("nats-server")
    file = folder / "nats.conf"
    file.write_text(f"listen: '127.0.0.1:{port}'\n{config}\n")
    process = await asyncio.create_subprocess_exec("nats-server", "-c", str(file), stderr=asyncio.subprocess.PIPE)
    found = port
    try:
        assert process.stderr is not None
        async with asyncio.timeout(PATIENCE):
            async for line in process.stderr:
                text = line.decode()
                if match := re.search(r"client connections on 127\.0\.0\.1:(\d+)", text):
                    found = int(match[1])
                if "Server is ready" in text:
                    break
                assert "[FTL]" not in text, text
        reading = asyncio.ensure_future(process.stderr.read())
        yield found
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
    await reading


@asynccontextmanager
async def connected(port: int, **options: Any) -> AsyncIterator[NatsWakeUps]:
    """A relay's end that is connected."""
    async with nats_wake_ups(NatsOptions((f"nats://127.0.0.1:{port}",), **options)) as made:
        await eventually(lambda: made.connected)
        yield made


def keeping(heard: list[bytes]) -> Handler:
    """A phone that is there, and what it got."""

    def take(message: bytes) -> bool:
        heard.append(message)
        return True

    return take


@asynccontextmanager
async def in_process(folder: Path) -> AsyncIterator[tuple[WakeUps, WakeUps]]:
    made = InProcess()
    yield made, made


@asynccontextmanager
async def over_nats(folder: Path) -> AsyncIterator[tuple[WakeUps, WakeUps]]:
    async with nats_server(folder) as port, connected(port) as here, connected(port) as there:
        yield here, there


Ways = Callable[[Path], AbstractAsyncContextManager[tuple[WakeUps, WakeUps]]]
both = pytest.mark.parametrize("way", [in_process, pytest.param(over_nats, marks=pytest.mark.slow)])


@both
async def test_a_message_finds_its_phone_and_no_other(way: Ways, tmp_path: Path) -> None:
    heard: list[bytes] = []
    overheard: list[bytes] = []
    async with way(tmp_path) as (here, there), AsyncExitStack() as stack:
        await stack.enter_async_context(there.listen(PHONE, keeping(heard)))
        await stack.enter_async_context(there.listen(STRANGER, keeping(overheard)))
        assert await here.wake(PHONE, STUB)
        assert await there.wake(PHONE, bytes(MAX_MESSAGE))
    assert (heard, overheard) == ([STUB, bytes(MAX_MESSAGE)], [])


@both
async def test_nobody_listens(way: Ways, tmp_path: Path) -> None:
    async with way(tmp_path) as (here, there):
        assert not await here.wake(PHONE, STUB)
        async with there.listen(PHONE, lambda message: True):
            assert await here.wake(PHONE, STUB)
        assert not await here.wake(PHONE, STUB)


@both
async def test_a_phone_that_is_gone_does_not_count(way: Ways, tmp_path: Path) -> None:
    async with way(tmp_path) as (here, there), there.listen(PHONE, lambda message: False):
        assert not await here.wake(PHONE, STUB)
        async with here.listen(PHONE, lambda message: True):
            assert await here.wake(PHONE, STUB), "one of two is enough"
            assert await there.wake(PHONE, STUB)


@both
async def test_too_long_a_message(way: Ways, tmp_path: Path) -> None:
    async with way(tmp_path) as (here, _):
        with pytest.raises(ValueError, match="4097 bytes"):
            await here.wake(PHONE, bytes(MAX_MESSAGE + 1))


def test_a_name_shows_no_contact_id() -> None:
    assert address(b"a") == "14265c927578f1acc5738de862d6d927"
    assert address(b"a") != address(b"b")
    assert re.fullmatch("[0-9a-f]{32}", address(secrets.token_bytes(100)))


RIGHTS = 'permissions: {publish: "tunnel-server.>", subscribe: "tunnel-server.>"}'


@pytest.mark.slow
@pytest.mark.parametrize("how", ["user", "token", "nkey", "certificate"])
async def test_authentication(how: str, certificate: Certificate, tmp_path: Path) -> None:
    """Each way in, with the least rights that the documentation names; and nobody gets in without it."""
    seed = nkeys.encode_seed(secrets.token_bytes(32), nkeys.PREFIX_BYTE_USER)
    (tmp_path / "seed").write_bytes(seed)
    context = certificate.client_context()
    context.load_cert_chain(certificate.cert, certificate.key)
    public = nkeys.from_seed(bytearray(seed)).public_key.decode()
    files = f"cert_file: '{certificate.cert}', key_file: '{certificate.key}', ca_file: '{certificate.ca}'"
    ways: dict[str, tuple[str, dict[str, Any]]] = {
        "user": (f"authorization: {{users: [{{user: relay, password: secret, {RIGHTS}}}]}}",
                 {"user": "relay", "password": "secret"}),
        "token": ("authorization: {token: secret}", {"token": "secret"}),
        "nkey": (f"authorization: {{users: [{{nkey: {public}, {RIGHTS}}}]}}", {"nkey": tmp_path / "seed"}),
        "certificate": (f"tls: {{{files}, verify: true}}", {"tls": context}),
    }  # fmt: skip
    config, options = ways[how]
    async with nats_server(tmp_path, config) as port:
        async with connected(port, **options) as here, connected(port, **options) as there:
            async with there.listen(PHONE, lambda message: True):
                assert await here.wake(PHONE, STUB)
        anonymous = NatsOptions((f"nats://127.0.0.1:{port}",), tls=_without_certificate(certificate, how))
        async with nats_wake_ups(anonymous) as nobody:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await eventually(lambda: nobody.connected)
            assert not await nobody.wake(PHONE, STUB)


def _without_certificate(certificate: Certificate, how: str) -> ssl.SSLContext | None:
    return certificate.client_context() if how == "certificate" else None


def test_secrets_are_in_no_repr() -> None:
    assert "secret" not in repr(NatsOptions(("nats://a",), user="relay", password="secret", token="secret"))


@pytest.mark.slow
async def test_a_server_that_comes_late_and_goes_and_comes_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with nats_server(tmp_path) as port:
        pass
    heard: list[bytes] = []
    where = NatsOptions((f"nats://127.0.0.1:{port}",))
    async with nats_wake_ups(where) as here, nats_wake_ups(where) as there, AsyncExitStack() as stack:
        assert not await here.wake(PHONE, STUB), "at once, not after a while"
        await stack.enter_async_context(there.listen(PHONE, keeping(heard)))
        for number in range(3):
            async with nats_server(tmp_path, port=port):
                await eventually(lambda: here.connected and there.connected)
                await eventually(partial(here.wake, PHONE, b"%d" % number))
            await eventually(lambda: not here.connected and not there.connected)
            assert not await here.wake(PHONE, STUB)
    assert set(heard) == {b"0", b"1", b"2"}
    assert PHONE.decode() not in caplog.text
    assert "127.0.0.1" not in "".join(
        record.getMessage() for record in caplog.records if record.name.startswith("tunnel_server")
    )
