"""Fixed keys, and both machines wired back to back: no event loop, no sockets, nothing random.

`Pair` plays the radio, the relay and the phone's backend by hand. A wire is bounded (one message is one message) or a
run of bytes that is cut wherever `cut` says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from hybrid import cbor
from hybrid.events import Event
from hybrid.protocol import authenticator as phone_side
from hybrid.protocol import client as client_side
from hybrid.protocol.authenticator import AuthenticatorMachine
from hybrid.protocol.client import ClientMachine
from hybrid.protocol.contact import ClientPayload
from hybrid.protocol.frames import STREAM_END, Opener, StreamReader
from hybrid.protocol.habits import Habits
from hybrid.protocol.keys import PrivateKey, PublicKey, private_key
from hybrid.protocol.linking import Link, linking_map
from hybrid.protocol.qr import Hint, QrInvitation
from hybrid.protocol.tunnel import SIGNAL_MESSAGE


def secret(label: str, size: int) -> bytes:
    """Bytes that look random and are always the same."""
    return hashlib.shake_256(label.encode()).digest(size)


def key(label: str) -> PrivateKey:
    return private_key(secret(label, 32))


CLIENT_IDENTITY = key("client identity")
CLIENT_EPHEMERAL = key("client ephemeral")
PHONE_IDENTITY = key("phone identity")
PHONE_EPHEMERAL = key("phone ephemeral")
ROUTING_ID = secret("routing id", 3)
TUNNEL_ID = secret("tunnel id", 16)
NONCE = secret("advert nonce", 10)
CLIENT_NONCE = secret("client nonce", 16)
LINK_RANDOM = secret("linked advert", 14) + b"\x01"
GET_INFO = cbor.encode({1: ["FIDO_2_0"], 3: bytes(16), 4: {"rk": True, "uv": True}})
GET_ASSERTION = b"\x02\xa1\x01\x6bexample.com"
MAKE_CREDENTIAL = b"\x01\xa0"


def invitation(
    identity: PublicKey | None = None, *, hint: str | None = "ga", state_assisted: bool | None = None
) -> QrInvitation:
    return QrInvitation(
        public_key=identity or CLIENT_IDENTITY.public_key(),
        secret=secret("qr secret", 16),
        timestamp=1_700_000_000,
        state_assisted=state_assisted,
        hint_text=hint,
    )


def a_link(service_id: int = 0) -> Link:
    return Link(
        contact_id=secret("contact id", 150),
        link_id=secret("link id", 8),
        link_secret=secret("link secret", 32),
        public_key=PHONE_IDENTITY.public_key(),
        name="a phone",
        tunnel_service_id=service_id,
    )


def qr_client(qr: QrInvitation | None = None) -> ClientMachine:
    return ClientMachine(client_side.QrIntroduction(qr or invitation(), CLIENT_IDENTITY), ephemeral=CLIENT_EPHEMERAL)


def qr_phone(
    qr: QrInvitation | None = None,
    *,
    service_id: int = 0,
    get_info: bytes = GET_INFO,
    habits: Habits | None = None,
) -> AuthenticatorMachine:
    introduction = phone_side.QrIntroduction(qr or invitation(), service_id, NONCE)
    return AuthenticatorMachine(introduction, ephemeral=PHONE_EPHEMERAL, get_info=get_info, habits=habits)


def link_client(*, signal: bool = True) -> ClientMachine:
    introduction = client_side.LinkIntroduction(a_link(), CLIENT_NONCE, Hint.GET_ASSERTION, signal)
    return ClientMachine(introduction, ephemeral=CLIENT_EPHEMERAL)


def link_phone(hint: str = "ga") -> AuthenticatorMachine:
    link = a_link()
    payload = ClientPayload(link.link_id, CLIENT_NONCE, hint)
    introduction = phone_side.LinkIntroduction(link, PHONE_IDENTITY, payload, ROUTING_ID, TUNNEL_ID, LINK_RANDOM)
    return AuthenticatorMachine(introduction, ephemeral=PHONE_EPHEMERAL, get_info=GET_INFO)


def link_offer(handshake_hash: bytes, identity: PrivateKey = PHONE_IDENTITY) -> bytes:
    """Linking map of a phone that owns `identity`."""
    return linking_map(a_link(), identity, CLIENT_IDENTITY.public_key(), handshake_hash)


class Wire:
    """One direction of a channel, and what the far end makes of it."""

    def __init__(self, deliver: Callable[[bytes], None], opener: Callable[[], Opener | None]) -> None:
        self.sent: list[bytes] = []
        self._deliver = deliver
        self._opener = opener
        self._reader = StreamReader()

    def send(self, message: bytes, cut: Iterator[int] | None) -> None:
        """Deliver one message; `cut`: None for a bounded wire, else the sizes of the pieces, all above 0."""
        self.sent.append(message)
        if cut is None:
            self._deliver(message)
            return
        stream = message + STREAM_END
        while stream:
            size = next(cut)
            self._reader.feed(stream[:size])
            stream = stream[size:]
            while (whole := self._reader.next_message(self._opener())) is not None:
                self._deliver(whole)


def forever(*sizes: int) -> Iterator[int]:
    while True:
        yield from sizes


@dataclass
class Pair:
    """A client and a phone, and everything between them."""

    client: ClientMachine = field(default_factory=qr_client)
    phone: AuthenticatorMachine = field(default_factory=qr_phone)
    cut: Iterator[int] | None = None
    advert: bytes = b""
    on_air: bool = False
    scanning: bool = False
    contacted: list[client_side.OpenTunnel] = field(default_factory=list)
    created: list[phone_side.OpenTunnel] = field(default_factory=list)
    requests: list[bytes] = field(default_factory=list)
    client_closed: bool = False
    phone_closed: bool = False
    client_news: list[Event] = field(default_factory=list)
    phone_news: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.to_phone = Wire(lambda message: self.phone.message(message), lambda: self.phone.opener)
        self.to_client = Wire(lambda message: self.client.message(message), lambda: self.client.opener)

    def settle(self) -> None:
        """Carry out every wish of both sides until neither has one."""
        busy = True
        while busy:
            ours, theirs = self.client.actions(), self.phone.actions()
            for wish in ours:
                self._serve_client(wish)
            for order in theirs:
                self._serve_phone(order)
            busy = bool(ours or theirs)
        self.client_news += self.client.events()
        self.phone_news += self.phone.events()

    def _serve_client(self, wish: client_side.Action) -> None:
        match wish:
            case client_side.Scan():
                self.scanning = True
            case client_side.StopScan():
                self.scanning = False
            case client_side.OpenTunnel():
                self.contacted.append(wish)
            case client_side.Send(message):
                self.to_phone.send(message, self.cut)
            case client_side.CloseTunnel():
                self.client_closed = True

    def _serve_phone(self, wish: phone_side.Action) -> None:
        match wish:
            case phone_side.OpenTunnel():
                self.created.append(wish)
            case phone_side.Advertise(data, _):
                self.advert, self.on_air = data, True
            case phone_side.StopAdvertising():
                self.on_air = False
            case phone_side.Serve(request):
                self.requests.append(request)
            case phone_side.Send(message):
                self.to_client.send(message, self.cut)
            case phone_side.CloseChannel():
                self.phone_closed = True

    def advertise(self) -> None:
        """Bring the phone on the air."""
        self.phone.start()
        self.settle()
        self.phone.tunnel_opened(ROUTING_ID)
        self.settle()

    def meet(self, *, signals: bool = False, advert_first: bool = False) -> None:
        """Run either ceremony until the client is ready."""
        self.client.start()
        self.settle()
        if self.client.state is client_side.State.SCANNING:  # QR: the advert says where the tunnel is
            self.advertise()
            assert self.client.advert_heard(self.advert)
            self.settle()
            self.client.tunnel_opened(signals=signals)
        elif advert_first:
            self.advertise()
            assert self.client.advert_heard(self.advert)
            self.settle()
            self.client.tunnel_opened(signals=signals)
            if signals:
                self.client.message(SIGNAL_MESSAGE)
        else:
            self.client.tunnel_opened(signals=signals)
            self.advertise()
            if signals:
                self.client.message(SIGNAL_MESSAGE)
            assert self.client.advert_heard(self.advert)
        self.settle()

    def call(self, request: bytes = GET_ASSERTION, answer: bytes = b"\x00\xa0") -> bytes | None:
        """One request of the client, one answer of the phone's backend."""
        self.client.request(request)
        self.settle()
        self.phone.response(answer)
        self.settle()
        return self.client.take_response()


def met(**how: Any) -> Pair:
    """A pair of a QR session after the greeting."""
    pair = Pair(**how)
    pair.meet()
    return pair
