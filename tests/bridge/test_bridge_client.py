"""python-fido2's client and device over a session: one command a ceremony, threads, cancelling."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from typing import Any

import pytest
from fido2 import cbor
from fido2.client import ClientError, DefaultClientDataCollector
from fido2.ctap import CtapError
from fido2.ctap2.base import Ctap2
from fido2.hid import CTAPHID
from fido2.server import Fido2Server
from fido2.webauthn import (
    CollectedClientData,
    PublicKeyCredentialCreationOptions,
    PublicKeyCredentialRequestOptions,
    PublicKeyCredentialRpEntity,
    PublicKeyCredentialUserEntity,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from hybrid.errors import HybridError, PeerTimeout, RemoteProtocolError, RequestRefused, ResponseRejected, Stage
from hybrid.fido2_bridge import HybridClientDataCollector, HybridCtapDevice, HybridWebAuthnClient
from tests.bridge.bridge_phone import FakeSession, Phone, StuckSession, loop_in_thread

ORIGIN = "https://login.example.com"
USER = PublicKeyCredentialUserEntity(id=b"user-1", name="alice")


def members(message: bytes) -> Any:
    """Decode the map behind a command or status byte."""
    return cbor.decode(message[1:])


def server() -> Fido2Server:
    return Fido2Server(PublicKeyCredentialRpEntity(id="example.com", name="Example"))


def request_options(**members: Any) -> PublicKeyCredentialRequestOptions:
    return PublicKeyCredentialRequestOptions(challenge=bytes(32), rp_id="example.com", **members)


@pytest.mark.parametrize("collector", [HybridClientDataCollector, DefaultClientDataCollector])
@pytest.mark.parametrize("verification", [*UserVerificationRequirement, None])
async def test_registers_and_signs_in_with_one_command_each(
    collector: Any, verification: UserVerificationRequirement | None
) -> None:
    phone = Phone()
    session = FakeSession(asyncio.get_running_loop(), phone)
    client = HybridWebAuthnClient(session, collector(ORIGIN))
    assert phone.requests == []
    rp = server()

    creation, state = rp.register_begin(USER, user_verification=verification)
    registered = await asyncio.to_thread(client.make_credential, creation.public_key)
    auth_data = rp.register_complete(state, registered)
    assert [request[0] for request in phone.requests] == [1]
    made = members(phone.requests[0])
    assert made[2] == {"id": "example.com", "name": "Example"}
    assert made[3] == {"id": b"user-1", "name": "alice", "displayName": "alice"}

    credential = auth_data.credential_data
    assert credential is not None
    others = [{"type": "public-key", "id": bytes([number]) * 300} for number in range(1, 65)]
    allow: list[Any] = [*others, {"type": "public-key", "id": credential.credential_id}]
    asked, state = rp.authenticate_begin(allow, user_verification=verification)
    selection = await asyncio.to_thread(client.get_assertion, asked.public_key)
    rp.authenticate_complete(state, [credential], selection.get_response(0))
    assert [request[0] for request in phone.requests] == [1, 2]
    got = members(phone.requests[1])
    assert len(got[3]) == 65
    assert got[5] == {"uv": True}


@pytest.mark.parametrize(
    ("wish", "rk"),
    [
        (ResidentKeyRequirement.REQUIRED, True),
        (ResidentKeyRequirement.PREFERRED, True),
        (ResidentKeyRequirement.DISCOURAGED, False),
        (None, False),
    ],
)
async def test_asks_for_a_discoverable_passkey_unless_discouraged(
    wish: ResidentKeyRequirement | None, rk: bool
) -> None:
    phone = Phone()
    client = HybridWebAuthnClient(FakeSession(asyncio.get_running_loop(), phone), HybridClientDataCollector(ORIGIN))
    creation, _ = server().register_begin(USER, resident_key_requirement=wish)
    await asyncio.to_thread(client.make_credential, creation.public_key)
    assert members(phone.requests[0])[7] == {"rk": rk, "uv": True}


async def test_takes_the_extension_inputs_and_outputs_of_python_fido2() -> None:
    phone = Phone()
    client = HybridWebAuthnClient(FakeSession(asyncio.get_running_loop(), phone), HybridClientDataCollector(ORIGIN))
    extensions = {"prf": {"eval": {"first": b"salt"}}, "credProps": True, "largeBlob": {"support": "required"}}
    creation, _ = server().register_begin(USER, extensions=extensions)
    registered = await asyncio.to_thread(client.make_credential, creation.public_key)
    outputs = registered.client_extension_results
    assert outputs.prf.enabled is True
    assert len(outputs.prf.results.first) == 32
    assert outputs.cred_props.rk is True
    assert outputs.large_blob.supported is True

    asked = request_options(extensions={"prf": {"eval": {"first": "c2FsdA"}}})
    selection = await asyncio.to_thread(client.get_assertion, asked)
    results = selection.get_response(0).client_extension_results
    assert results.prf.results.first == outputs.prf.results.first


async def test_takes_a_mapping_as_options_and_refuses_nonsense() -> None:
    phone = Phone()
    client = HybridWebAuthnClient(FakeSession(asyncio.get_running_loop(), phone), HybridClientDataCollector(ORIGIN))
    options: Any = {
        "rp": {"name": "Example"},
        "user": {"id": "AQ", "name": "a"},
        "challenge": "AAAA",
        "pubKeyCredParams": [{"type": "public-key", "alg": -7}],
        "timeout": 60000,
    }
    await asyncio.to_thread(client.make_credential, options)
    assert members(phone.requests[0])[2]["id"] == "login.example.com"
    for broken in ({}, {"challenge": 1}, {"challenge": "AAAA", "allowCredentials": "x"}, 5, "x"):
        with pytest.raises(RequestRefused):
            client.get_assertion(broken)  # type: ignore[arg-type]  # as untyped callers do
    with pytest.raises(RequestRefused):
        client.make_credential(options | {"user": {"id": bytes(65), "name": "a"}})
    assert len(phone.requests) == 1


async def test_hands_the_timeout_of_the_options_to_the_session() -> None:
    session = FakeSession(asyncio.get_running_loop(), Phone())
    client = HybridWebAuthnClient(session, HybridClientDataCollector(ORIGIN))
    for timeout in (45_000, None):
        with pytest.raises(CtapError):
            await asyncio.to_thread(client.get_assertion, request_options(timeout=timeout))
    assert session.timeouts == [45.0, None]


class CarelessCollector(DefaultClientDataCollector):
    """Believes every RP id, like python-fido2's check believes too many."""

    def __init__(self, origin: str) -> None:
        super().__init__(origin, lambda rp_id, origin: True)


@pytest.mark.parametrize(
    ("rp_id", "origin"),
    [
        ("1.2", "https://10.0.1.2"),
        ("2", "https://10.0.1.2"),
        ("lan", "https://nas.lan"),
        ("example.com.", "https://example.com."),
        ("xn--p1ai", "https://a.xn--p1ai"),
        ("com", "https://example.com"),
        ("evil.org", "https://example.com"),
    ],
)
@pytest.mark.parametrize("collector", [DefaultClientDataCollector, CarelessCollector])
async def test_judges_rp_ids_itself_whatever_the_collector(collector: Any, rp_id: str, origin: str) -> None:
    phone = Phone()
    session = FakeSession(asyncio.get_running_loop(), phone)
    client = HybridWebAuthnClient(session, collector(origin))
    creation = PublicKeyCredentialCreationOptions(
        rp=PublicKeyCredentialRpEntity(id=rp_id, name="x"),
        user=USER,
        challenge=bytes(32),
        pub_key_cred_params=[],
    )
    with pytest.raises((RequestRefused, ClientError)):
        client.make_credential(creation)
    with pytest.raises((RequestRefused, ClientError)):
        client.get_assertion(PublicKeyCredentialRequestOptions(challenge=bytes(32), rp_id=rp_id))
    assert phone.requests == []
    if collector is CarelessCollector:
        with pytest.raises(RequestRefused):
            client.make_credential(creation)


async def test_sends_the_normal_form_of_an_rp_id() -> None:
    phone = Phone()
    client = HybridWebAuthnClient(
        FakeSession(asyncio.get_running_loop(), phone), CarelessCollector("https://EXAMPLE.com")
    )
    with pytest.raises(CtapError):
        await asyncio.to_thread(
            client.get_assertion,
            PublicKeyCredentialRequestOptions(challenge=bytes(32), rp_id="Example.COM"),
        )
    assert members(phone.requests[0])[1] == "example.com"


async def test_a_status_is_python_fido2s_error_and_sent_once() -> None:
    session = FakeSession(asyncio.get_running_loop(), Phone(), answer=b"\x36")  # PUAT_REQUIRED
    client = HybridWebAuthnClient(session, HybridClientDataCollector(ORIGIN))
    with pytest.raises(CtapError) as caught:
        await asyncio.to_thread(client.get_assertion, request_options())
    assert caught.value.code == CtapError.ERR.PUAT_REQUIRED
    assert len(session.phone.requests) == 1


@pytest.mark.parametrize("answer", [b"", b"\x00", b"\x00\xa0", b"\x00\x80", b"\x00\xa1\x02\x41\x00"])
async def test_a_malformed_answer_is_a_protocol_error(answer: bytes) -> None:
    session = FakeSession(asyncio.get_running_loop(), Phone(), answer=answer)
    client = HybridWebAuthnClient(session, HybridClientDataCollector(ORIGIN))
    with pytest.raises(RemoteProtocolError):
        await asyncio.to_thread(client.get_assertion, request_options())


async def test_an_answer_that_python_fido2_cannot_read_is_a_protocol_error() -> None:
    phone = Phone()
    session = FakeSession(asyncio.get_running_loop(), phone)
    client = HybridWebAuthnClient(session, HybridClientDataCollector(ORIGIN))
    creation, _ = server().register_begin(USER)
    await asyncio.to_thread(client.make_credential, creation.public_key)
    answer = members(phone.answer(b"\x02" + cbor.encode({1: "example.com", 2: bytes(32)})))
    head: bytes = answer[2]
    with_float = head[:32] + bytes([head[32] | 0x80]) + head[33:] + bytes.fromhex("a16178fb3ff0000000000000")
    session.answer = b"\x00" + cbor.encode({**answer, 2: with_float})
    with pytest.raises(RemoteProtocolError):
        await asyncio.to_thread(client.get_assertion, request_options())


async def test_the_loop_thread_is_refused_at_once() -> None:
    phone = Phone()
    session = FakeSession(asyncio.get_running_loop(), phone)
    client = HybridWebAuthnClient(session, HybridClientDataCollector(ORIGIN))
    with pytest.raises(RuntimeError, match="another thread"):
        client.get_assertion(request_options())
    with pytest.raises(RuntimeError, match="another thread"):
        HybridCtapDevice(session).call(CTAPHID.CBOR, b"\x02\xa0")
    assert phone.requests == []


async def test_getinfo_needs_no_round_trip_even_on_the_loop_thread() -> None:
    phone = Phone()
    device = HybridCtapDevice(FakeSession(asyncio.get_running_loop(), phone))
    assert device.call(CTAPHID.CBOR, b"\x04") == b"\x00" + phone.get_info
    assert Ctap2(device).info.extensions == ["largeBlob", "prf"]
    assert phone.requests == []


async def test_the_device_passes_other_commands_on() -> None:
    phone = Phone()
    device = HybridCtapDevice(FakeSession(asyncio.get_running_loop(), phone, answer=b"\x01"))
    with device:
        request = b"\x02" + cbor.encode({1: "example.com", 2: bytes(32)})
        assert await asyncio.to_thread(device.call, CTAPHID.CBOR, request) == b"\x01"
    assert phone.requests == [request]
    with pytest.raises(CtapError) as caught:
        device.call(CTAPHID.MSG, b"")
    assert caught.value.code == CtapError.ERR.INVALID_COMMAND
    assert list(HybridCtapDevice.list_devices()) == []


def test_setting_the_event_ends_the_call_before_it_returns() -> None:
    with loop_in_thread() as loop:
        session = StuckSession(loop)
        event = threading.Event()

        def set_when_entered() -> None:
            session.entered.wait()
            event.set()

        helper = threading.Thread(target=set_when_entered)
        helper.start()
        with pytest.raises(CtapError) as caught:
            HybridCtapDevice(session).call(CTAPHID.CBOR, b"\x02", event)
        helper.join()
        assert caught.value.code == CtapError.ERR.KEEPALIVE_CANCEL
        assert session.left.is_set()
        assert not asyncio.all_tasks(loop)


def test_an_event_set_before_sends_nothing() -> None:
    with loop_in_thread() as loop:
        session = StuckSession(loop)
        event = threading.Event()
        event.set()
        with pytest.raises(CtapError):
            HybridCtapDevice(session).call(CTAPHID.CBOR, b"\x02", event)
        assert not session.entered.is_set()


def test_a_cancelled_session_task_ends_the_call() -> None:
    with loop_in_thread() as loop:
        session = StuckSession(loop)

        def cancel_all() -> None:
            session.entered.wait()
            loop.call_soon_threadsafe(lambda: [task.cancel() for task in asyncio.all_tasks(loop)])

        helper = threading.Thread(target=cancel_all)
        helper.start()
        with pytest.raises(CtapError) as caught:
            HybridCtapDevice(session).call(CTAPHID.CBOR, b"\x02")
        helper.join()
        assert caught.value.code == CtapError.ERR.KEEPALIVE_CANCEL


def test_a_loop_that_does_not_run_is_refused_and_one_that_stops_ends_the_call() -> None:
    idle = asyncio.new_event_loop()
    with pytest.raises(RuntimeError, match="does not run"):
        HybridCtapDevice(StuckSession(idle)).call(CTAPHID.CBOR, b"\x02")
    idle.close()
    with loop_in_thread() as loop:
        session = StuckSession(loop)

        def stop() -> None:
            session.entered.wait()
            loop.call_soon_threadsafe(loop.stop)

        helper = threading.Thread(target=stop)
        helper.start()
        with pytest.raises(RuntimeError, match="stopped"):
            HybridCtapDevice(session).call(CTAPHID.CBOR, b"\x02")
        helper.join()
        _run_out(loop)


def _run_out(loop: asyncio.AbstractEventLoop) -> None:
    for task in asyncio.all_tasks(loop):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(task)


@pytest.mark.parametrize(
    "error", [PeerTimeout(Stage.RESPONSE, 1), RemoteProtocolError("x"), ResponseRejected("x", "y")]
)
@pytest.mark.parametrize("event", [None, threading.Event()])
def test_errors_of_the_session_come_through(error: HybridError, event: threading.Event | None) -> None:
    class Failing(FakeSession):
        async def call(self, request: bytes, *, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 as a session has it
            raise error

    with loop_in_thread() as loop:
        device = HybridCtapDevice(Failing(loop, Phone()))
        with pytest.raises(type(error)) as caught:
            device.call(CTAPHID.CBOR, b"\x02", event)
        assert caught.value is error


def test_the_collector_serialises_its_origin_and_binds_the_challenge() -> None:
    collector = HybridClientDataCollector("HTTPS://Login.EXAMPLE.com:443/")
    client_data, rp_id = collector.collect_client_data(request_options())
    assert rp_id == "example.com"
    assert client_data.origin == ORIGIN
    assert client_data.challenge == bytes(32)
    assert client_data == CollectedClientData.create(CollectedClientData.TYPE.GET, bytes(32), ORIGIN)
    options = PublicKeyCredentialRequestOptions(challenge=bytes(32))
    assert collector.collect_client_data(options)[1] == "login.example.com"
    with pytest.raises(RequestRefused):
        HybridClientDataCollector("http://example.com")


def test_the_pure_modules_load_no_python_fido2_client() -> None:
    code = (
        "import sys, hybrid.fido2_bridge.ceremony, hybrid.fido2_bridge.options\n"
        "print([name for name in sys.modules if name.startswith('fido2.')])\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "['fido2.ctap']"
