"""A roaming authenticator for tests, as bytes and as a device of python-fido2, which judges its answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from threading import Event
from typing import Any

from fido2.ctap import STATUS, CtapDevice
from fido2.ctap2.base import Ctap2
from fido2.ctap2.pin import ClientPin, PinProtocol, PinProtocolV1, PinProtocolV2
from fido2.hid import CAPABILITY, CTAPHID

from hybrid import cbor
from hybrid.passkeys.consent import AlwaysApprove, Consent
from hybrid.passkeys.engine import SoftwareAuthenticator
from hybrid.passkeys.profiles import ROAMING
from hybrid.passkeys.store import CredentialStore, MemoryStore
from tests.passkeys.rig import PEER, Clock, counting_random

PIN = "a1b2c3d4"
PROTOCOLS: tuple[type[PinProtocol], ...] = (PinProtocolV1, PinProtocolV2)


def roaming(
    store: CredentialStore | None = None, consent: Consent | None = None, **options: Any
) -> SoftwareAuthenticator:
    """A roaming authenticator with a willing person, a still clock and repeatable dice."""
    options = {"profile": ROAMING, "clock": Clock(), "random": counting_random(), **options}
    return SoftwareAuthenticator(store or MemoryStore(), consent or AlwaysApprove(), **options)


class Device(CtapDevice):
    """The way of python-fido2 to an authenticator, for tests without an event loop of their own."""

    def __init__(self, authenticator: SoftwareAuthenticator, channel: str = "first") -> None:
        self.authenticator = authenticator
        self._channel = channel

    @property
    def capabilities(self) -> CAPABILITY:
        return CAPABILITY.CBOR

    def call(
        self,
        cmd: int,
        data: bytes = b"",
        event: Event | None = None,
        on_keepalive: Callable[[STATUS], None] | None = None,
    ) -> bytes:
        assert cmd == CTAPHID.CBOR
        answer = asyncio.run(self.authenticator.call(data, peer=PEER, channel=self._channel))
        if len(answer) > 1:
            assert cbor.encode(cbor.decode_map(answer[1:])) == answer[1:], "the answer is not canonical"
        return answer

    def close(self) -> None:
        pass

    @classmethod
    def list_devices(cls) -> Iterator[CtapDevice]:
        return iter(())


class Key:
    """A roaming authenticator in the hands of python-fido2."""

    def __init__(self, *, pin: str | None = PIN, protocol: type[PinProtocol] = PinProtocolV2, **options: Any) -> None:
        self.store: CredentialStore = options.pop("store", None) or MemoryStore()
        self.clock: Clock = options.pop("clock", None) or Clock()
        self.authenticator = roaming(self.store, clock=self.clock, **options)
        self.device = Device(self.authenticator)
        self.protocol = protocol()
        if pin is not None:
            self.client_pin.set_pin(pin)

    @property
    def ctap(self) -> Ctap2:
        """With a fresh getInfo each time."""
        return Ctap2(self.device)

    @property
    def client_pin(self) -> ClientPin:
        return ClientPin(self.ctap, self.protocol)

    def agreement(self) -> tuple[dict[int, Any], bytes]:
        """Our side's COSE key, and the shared secret."""
        key_agreement, shared = self.client_pin._get_shared_secret()  # type: ignore[no-untyped-call]  # python-fido2 leaves it so
        return dict(key_agreement), shared

    def token(self, permissions: int, rp_id: str | None = None, pin: str = PIN) -> bytes:
        return self.client_pin.get_pin_token(pin, ClientPin.PERMISSION(permissions), rp_id)

    def signed(self, token: bytes, message: bytes) -> dict[str, Any]:
        """The two members that carry a signature by a token."""
        return {
            "pin_uv_param": self.protocol.authenticate(token, message),
            "pin_uv_protocol": self.protocol.VERSION,
        }

    def status(self, command: int, fields: dict[int, Any] | None = None) -> int:
        """The status byte of a request made by hand."""
        return self.device.call(CTAPHID.CBOR, bytes([command]) + (cbor.encode(fields) if fields else b""))[0]
