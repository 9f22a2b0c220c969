"""The virtual authenticator for users of python-fido2, judged by python-fido2's own client and server."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import pytest
from fido2.client import ClientError, DefaultClientDataCollector, Fido2Client
from fido2.ctap import STATUS, CtapError
from fido2.ctap2.base import Ctap2
from fido2.ctap2.credman import CredentialManagement
from fido2.ctap2.pin import ClientPin
from fido2.hid import CTAPHID
from fido2.server import Fido2Server
from fido2.webauthn import PublicKeyCredentialRpEntity, PublicKeyCredentialUserEntity, UserVerificationRequirement

from hybrid.errors import PeerClosed
from hybrid.fido2_bridge import HybridClientDataCollector, HybridWebAuthnClient, SoftwareCtapDevice
from hybrid.passkeys.consent import Decision, NeverApprove, Prompt
from hybrid.passkeys.presets import PRESETS
from hybrid.passkeys.profiles import PHONE
from hybrid.passkeys.store import MemoryStore

USER = PublicKeyCredentialUserEntity(id=b"1", name="ann", display_name="Ann")
PIN = "1234"


class Absent:
    """A consent that never comes."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.dismissed = threading.Event()

    async def ask(self, prompt: Prompt) -> Decision:
        self.asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.dismissed.set()
        raise AssertionError("unreachable")


def _sign_up_and_in(client: Fido2Client, **options: Any) -> None:
    server = Fido2Server(PublicKeyCredentialRpEntity(id="example.com", name="x"))
    creation, state = server.register_begin(USER, **options)
    made = server.register_complete(state, client.make_credential(creation["publicKey"]))
    assert made.credential_data is not None
    request, state = server.authenticate_begin(
        [made.credential_data], user_verification=options.get("user_verification")
    )
    answer = client.get_assertion(request["publicKey"]).get_response(0)
    server.authenticate_complete(state, [made.credential_data], answer)


def _client(device: SoftwareCtapDevice) -> Fido2Client:
    return Fido2Client(device, DefaultClientDataCollector("https://example.com"), device.interaction)


def test_one_line_is_enough() -> None:
    with SoftwareCtapDevice(pin=PIN) as device:
        _sign_up_and_in(_client(device))


def test_without_a_pin() -> None:
    with SoftwareCtapDevice() as device:
        _sign_up_and_in(_client(device), user_verification=UserVerificationRequirement.DISCOURAGED)


def test_discoverable_passkeys_can_be_managed() -> None:
    with SoftwareCtapDevice(pin=PIN) as device:
        _sign_up_and_in(_client(device), resident_key_requirement="required")
        ctap = Ctap2(device)
        pin = ClientPin(ctap)
        token = pin.get_pin_token(PIN, ClientPin.PERMISSION.CREDENTIAL_MGMT)
        assert len(CredentialManagement(ctap, pin.protocol, token).enumerate_rps()) == 1


def test_the_pin_of_a_store_stays() -> None:
    store = MemoryStore()
    SoftwareCtapDevice(store, pin=PIN).close()
    with SoftwareCtapDevice(store, pin="another") as device, pytest.raises(ClientError, match="PIN_INVALID"):
        _sign_up_and_in(_client(device))


def test_who_holds_the_store_sees_the_passkeys() -> None:
    store = MemoryStore()
    with SoftwareCtapDevice(store, pin=PIN) as device:
        _sign_up_and_in(_client(device))
    assert [credential.rp_id for credential in store.credentials()] == ["example.com"]


def test_the_profile_of_a_phone() -> None:
    with SoftwareCtapDevice(profile=PHONE) as device:
        assert Ctap2(device).info.options["uv"]
        with pytest.raises(CtapError, match="INVALID_COMMAND"):
            Ctap2(device).reset()


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_of_a_phone(preset: str) -> None:
    server = Fido2Server(PublicKeyCredentialRpEntity(id="example.com", name="x"))
    with SoftwareCtapDevice(preset=preset) as device:
        client = HybridWebAuthnClient(device.session, HybridClientDataCollector("https://example.com"))
        creation, state = server.register_begin(USER)
        made = server.register_complete(state, client.make_credential(creation.public_key))
        assert Ctap2(device).info.aaguid == PRESETS[preset].aaguid.bytes
    assert made.credential_data is not None
    assert str(made.credential_data.aaguid) == str(PRESETS[preset].passkey_aaguid)


def test_a_preset_leaves_as_its_phone_does() -> None:
    with SoftwareCtapDevice(preset="android-chrome2022") as device:
        with pytest.raises(PeerClosed):
            Ctap2(device).get_assertion("example.com", bytes(32))
        with pytest.raises(CtapError, match="NO_CREDENTIALS"):
            Ctap2(device).get_assertion("example.com", bytes(32), [{"id": b"x", "type": "public-key"}])


def test_a_person_may_decline() -> None:
    with SoftwareCtapDevice(consent=NeverApprove(), pin=PIN) as device, pytest.raises(ClientError):
        _sign_up_and_in(_client(device))


async def test_on_a_thread_that_runs_a_loop() -> None:
    with SoftwareCtapDevice(pin=PIN) as device:
        _sign_up_and_in(_client(device))


def test_from_many_threads() -> None:
    with SoftwareCtapDevice() as device:
        answers: list[bytes] = []
        threads = [
            threading.Thread(target=lambda: answers.append(device.call(CTAPHID.CBOR, b"\x04"))) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(answers) == 8
    assert len(set(answers)) == 1


def test_an_event_cancels_a_prompt_and_nothing_is_left() -> None:
    person, event = Absent(), threading.Event()
    with SoftwareCtapDevice(consent=person) as device:
        heard: list[int] = []

        def hear(status: int) -> None:
            heard.append(status)
            event.set()

        with pytest.raises(CtapError, match="KEEPALIVE_CANCEL"):
            Ctap2(device).selection(event=event, on_keepalive=hear)
        assert heard == [STATUS.UPNEEDED]
        assert person.asked.is_set()
        assert person.dismissed.is_set()
        assert device.call(CTAPHID.CBOR, b"\x04")[0] == 0


def test_a_power_cycle_ends_tokens() -> None:
    with SoftwareCtapDevice(pin=PIN) as device:
        ctap = Ctap2(device)
        pin = ClientPin(ctap)
        token = pin.get_pin_token(PIN, ClientPin.PERMISSION.CREDENTIAL_MGMT)
        management = CredentialManagement(ctap, pin.protocol, token)
        management.get_metadata()
        device.power_cycle()
        with pytest.raises(CtapError, match="PIN_AUTH_INVALID"):
            management.get_metadata()


def test_commands_that_are_not_cbor() -> None:
    with SoftwareCtapDevice() as device, pytest.raises(CtapError, match="INVALID_COMMAND"):
        device.call(CTAPHID.PING, b"hello")


def _threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "software authenticator"}


def test_closing_ends_its_thread_once_and_refuses_what_comes_later() -> None:
    others = _threads()
    device = SoftwareCtapDevice()
    assert len(_threads() - others) == 1
    device.close()
    device.close()
    assert not _threads() - others
    with pytest.raises(RuntimeError):
        device.call(CTAPHID.CBOR, b"\x0b")


def test_a_forgotten_device_ends_its_thread() -> None:
    others = _threads()
    device = SoftwareCtapDevice()
    assert len(_threads() - others) == 1
    del device
    gc.collect()
    assert not _threads() - others


def test_closing_ends_an_open_prompt() -> None:
    person = Absent()
    device = SoftwareCtapDevice(consent=person)
    failures: list[BaseException] = []

    def select() -> None:
        try:
            Ctap2(device).selection()
        except (RuntimeError, CtapError) as error:
            failures.append(error)

    asking = threading.Thread(target=select)
    asking.start()
    assert person.asked.wait(10)
    device.close()
    asking.join()
    assert person.dismissed.is_set()
    assert len(failures) == 1
