"""The client's state machine: facts in, wishes and news out. It never awaits, keeps no clock and rolls no dice.

::

    facts in     start()  advert_heard(data)  tunnel_opened(signals)  message(data)  tunnel_closed()
                 request(payload)  finish()  fail()
    wishes out   actions() -> [Scan | StopScan | OpenTunnel | Send | CloseTunnel]
    news out     events() -> [AdvertSeen | TunnelOpened | ...]        state, response, link (read-only)

The two ceremonies (CTAP 2.3 §11.5.1, "QR-initiated transactions" and "state-assisted transactions") differ in the order
of advert and tunnel; the difference is in `QR_ORDER` and `LINK_ORDER`, and what each `Introduction` knows.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Protocol

from hybrid.errors import (
    LocalProtocolError,
    PeerClosed,
    RemoteProtocolError,
    Stage,
)
from hybrid.events import (
    AdvertSeen,
    Closed,
    Event,
    HandshakeDone,
    LinkDropped,
    LinkReceived,
    PhoneConnected,
    Proximity,
    Ready,
    ResponseReceived,
    TunnelOpened,
)
from hybrid.protocol import handshake, linking
from hybrid.protocol.contact import ClientPayload
from hybrid.protocol.ctap import FEATURE_DIGITAL_CREDENTIALS, PostHandshake
from hybrid.protocol.eid import ADVERT_SIZE, Eid, parse_suffix, suffix_of, trial_open
from hybrid.protocol.frames import Frame, MessageType, Opener, Sealer
from hybrid.protocol.keys import PrivateKey
from hybrid.protocol.linking import Link
from hybrid.protocol.noise import Initiator, TrafficKeys
from hybrid.protocol.qr import Hint, QrInvitation, Transport
from hybrid.protocol.tunnel import (
    SIGNAL_MESSAGE,
    Connect,
    Contact,
    TunnelRequest,
    tunnel_domain,
)

_REMEMBERED_ADVERTS = 4096


# --- wishes -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Scan:
    """Listen for adverts until `StopScan`."""


@dataclass(frozen=True, slots=True)
class StopScan:
    """The advert was heard; stop listening."""


@dataclass(frozen=True, slots=True)
class OpenTunnel:
    """Open this tunnel and report `tunnel_opened`. `psm`: an L2CAP channel that the phone offers besides."""

    request: TunnelRequest
    psm: int | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Send:
    """Send these bytes as one message."""

    message: bytes


@dataclass(frozen=True, slots=True)
class CloseTunnel:
    """Close the channel with code 1000."""


Action = Scan | StopScan | OpenTunnel | Send | CloseTunnel


# --- states and inputs ------------------------------------------------------------------------------------------------


class State(Enum):
    """Where the client stands."""

    NEW = auto()
    SCANNING = auto()  # no advert yet
    OPENING = auto()  # no tunnel yet
    MATCHED = auto()  # linked only: the advert came before the tunnel stood
    HANDSHAKING = auto()  # message 1 sent
    GREETING = auto()  # keys agreed, the post-handshake message is due
    READY = auto()
    REQUESTED = auto()  # a request is unanswered
    LINGERING = auto()  # shutdown sent; late updates are still read
    CLOSED = auto()


class Input(Enum):
    """What can happen to the client."""

    START = auto()
    ADVERT = auto()  # one that opened with our key
    TUNNEL_OPEN = auto()
    MESSAGE_2 = auto()
    GREETING = auto()
    REQUEST = auto()
    RESPONSE = auto()
    UPDATE = auto()
    FINISH = auto()
    PEER_CLOSED = auto()
    FAILURE = auto()


Table = dict[tuple[State, Input], State]

_AFTER_HANDSHAKE: Table = {
    (State.HANDSHAKING, Input.MESSAGE_2): State.GREETING,
    (State.GREETING, Input.GREETING): State.READY,
    (State.READY, Input.REQUEST): State.REQUESTED,
    (State.READY, Input.UPDATE): State.READY,
    (State.READY, Input.FINISH): State.LINGERING,
    (State.REQUESTED, Input.UPDATE): State.REQUESTED,
    (State.REQUESTED, Input.RESPONSE): State.READY,
    (State.REQUESTED, Input.FINISH): State.LINGERING,
    (State.LINGERING, Input.UPDATE): State.LINGERING,
    (State.LINGERING, Input.RESPONSE): State.LINGERING,  # came too late, is dropped
    (State.LINGERING, Input.FINISH): State.LINGERING,
    (State.CLOSED, Input.FINISH): State.CLOSED,
    **{(state, Input.PEER_CLOSED): State.CLOSED for state in State},
    **{(state, Input.FAILURE): State.CLOSED for state in State},
    **{
        (state, Input.FINISH): State.CLOSED
        for state in (
            State.NEW,
            State.SCANNING,
            State.OPENING,
            State.MATCHED,
            State.HANDSHAKING,
            State.GREETING,
        )
    },
}

QR_ORDER: Table = {
    (State.NEW, Input.START): State.SCANNING,
    (State.SCANNING, Input.ADVERT): State.OPENING,
    (State.OPENING, Input.TUNNEL_OPEN): State.HANDSHAKING,
    **_AFTER_HANDSHAKE,
}
LINK_ORDER: Table = {
    (State.NEW, Input.START): State.OPENING,
    (State.OPENING, Input.TUNNEL_OPEN): State.SCANNING,
    (State.OPENING, Input.ADVERT): State.MATCHED,
    (State.MATCHED, Input.TUNNEL_OPEN): State.HANDSHAKING,
    (State.SCANNING, Input.ADVERT): State.HANDSHAKING,
    **_AFTER_HANDSHAKE,
}

STAGE_OF_STATE = {
    State.NEW: Stage.SCAN,
    State.SCANNING: Stage.SCAN,
    State.OPENING: Stage.TUNNEL,
    State.MATCHED: Stage.TUNNEL,
    State.HANDSHAKING: Stage.HANDSHAKE,
    State.GREETING: Stage.GREETING,
    State.READY: Stage.REQUEST,
    State.REQUESTED: Stage.RESPONSE,
    State.LINGERING: Stage.RESPONSE,
    State.CLOSED: Stage.RESPONSE,
}


# --- how the two sides know each other --------------------------------------------------------------------------------


class Introduction(Protocol):
    """What a ceremony knows about the phone before it starts."""

    @property
    def order(self) -> Table: ...

    def open_advert(self, service_data: bytes) -> bytes | None:
        """16-byte plaintext if this is our phone's advert."""
        ...

    def request(self, eid: bytes | None) -> TunnelRequest:
        """Tunnel to open; `eid` is the plaintext of the advert, None if the tunnel comes first."""
        ...

    def initiator(self, eid: bytes, ephemeral: PrivateKey) -> Initiator: ...

    def psm(self, service_data: bytes) -> int | None: ...

    def verify_link(self, fields: Any, eid: bytes, handshake_hash: bytes) -> Link:
        """Raises `RemoteProtocolError` if nothing may be stored."""
        ...


@dataclass(frozen=True, slots=True, repr=False)
class QrIntroduction:
    """A code that we show: `qr` and the private half of its key."""

    qr: QrInvitation
    identity: PrivateKey

    @property
    def order(self) -> Table:
        return QR_ORDER

    def open_advert(self, service_data: bytes) -> bytes | None:
        plaintext = trial_open(service_data, self.qr.eid_key())
        if plaintext is None:
            return None
        try:
            Eid.unpack(plaintext)
        except RemoteProtocolError:
            return None  # "receiving": an unknown tunnel service id is dropped in silence
        return plaintext

    def request(self, eid: bytes | None) -> TunnelRequest:
        if eid is None:
            raise LocalProtocolError("a QR session cannot open its tunnel before it hears the advert")
        place = Eid.unpack(eid)
        target = Connect(place.routing_id, self.qr.tunnel_id())
        return TunnelRequest(tunnel_domain(place.tunnel_service_id), target)

    def initiator(self, eid: bytes, ephemeral: PrivateKey) -> Initiator:
        return handshake.qr_client(self.qr, eid, identity=self.identity, ephemeral=ephemeral)

    def psm(self, service_data: bytes) -> int | None:
        if Transport.L2CAP not in self.qr.transports:
            return None
        try:
            return parse_suffix(suffix_of(service_data))
        except RemoteProtocolError:
            return None  # "advertisement suffix": a malformed one never invalidates the advert

    def verify_link(self, fields: Any, eid: bytes, handshake_hash: bytes) -> Link:
        service_id = Eid.unpack(eid).tunnel_service_id
        return linking.verify_linking_map(fields, self.identity, handshake_hash, service_id)


@dataclass(frozen=True, slots=True, repr=False)
class LinkIntroduction:
    """A phone that we are linked to, the 16 random bytes of this contact, and what we are about to ask."""

    link: Link
    client_nonce: bytes
    hint: Hint
    signal: bool = True

    @property
    def order(self) -> Table:
        return LINK_ORDER

    def open_advert(self, service_data: bytes) -> bytes | None:
        # Only the flags are checked here: the last two bytes are random in a linked advert.
        return trial_open(service_data, self.link.eid_key(self.client_nonce))

    def request(self, eid: bytes | None) -> TunnelRequest:
        payload = ClientPayload(self.link.link_id, self.client_nonce, self.hint.value)
        return TunnelRequest(
            tunnel_domain(self.link.tunnel_service_id),
            Contact(self.link.contact_id),
            client_payload=payload.to_header(),
            signal=self.signal,
        )

    def initiator(self, eid: bytes, ephemeral: PrivateKey) -> Initiator:
        return handshake.link_client(self.link, eid, ephemeral=ephemeral)

    def psm(self, service_data: bytes) -> int | None:
        return None  # linked sessions always take the tunnel

    def verify_link(self, fields: Any, eid: bytes, handshake_hash: bytes) -> Link:
        raise RemoteProtocolError("a linked session has no key to verify another link with")


# --- the machine ------------------------------------------------------------------------------------------------------


class ClientMachine:
    """Runs one session. `ephemeral`: a fresh P-256 key; `proximity`: who vouches for the adverts it is fed."""

    def __init__(
        self,
        introduction: Introduction,
        *,
        ephemeral: PrivateKey,
        proximity: Proximity = Proximity.BLUETOOTH,
    ) -> None:
        self.state = State.NEW
        self.greeting: PostHandshake | None = None
        self.link: Link | None = None
        self.eid: bytes | None = None
        self._introduction = introduction
        self._ephemeral = ephemeral
        self._proximity = proximity
        self._actions: list[Action] = []
        self._events: list[Event] = []
        self._seen: OrderedDict[bytes, None] = OrderedDict()
        self._signal_due = False
        self._initiator: Initiator | None = None
        self._keys: TrafficKeys | None = None
        self._sealer: Sealer | None = None
        self._opener: Opener | None = None
        self._request_type: MessageType | None = None
        self._response: bytes | None = None

    def __repr__(self) -> str:
        return f"<ClientMachine {self.state.name}>"

    @property
    def opener(self) -> Opener | None:
        """The receive cipher: what finds the ends of messages in an unbounded channel. None before message 2."""
        return self._opener

    @property
    def stage(self) -> Stage:
        return STAGE_OF_STATE[self.state]

    def actions(self) -> list[Action]:
        """Take what is to be done, in order."""
        actions, self._actions = self._actions, []
        return actions

    def events(self) -> list[Event]:
        """Take what happened, in order."""
        events, self._events = self._events, []
        return events

    def take_response(self) -> bytes | None:
        """Take the answer to the last request (status byte and CBOR), once it is there."""
        response, self._response = self._response, None
        return response

    # facts

    def start(self) -> None:
        """Begin the ceremony."""
        actions: list[Action] = [Scan()]
        if self._after(Input.START) is State.OPENING:  # the linked order: tunnel and scan begin together
            actions.append(OpenTunnel(self._introduction.request(None)))
        self._go(Input.START)
        self._actions.extend(actions)

    def advert_heard(self, service_data: bytes, rssi: int | None = None) -> bool:
        """Try one advert; True if it is our phone's. Strangers' adverts and repetitions cost little and say nothing.

        The first match commits the session: later adverts are ignored ("receiving").
        """
        if (self.state, Input.ADVERT) not in self._introduction.order:
            return False
        if not self._is_new(service_data[:ADVERT_SIZE]):
            return False
        eid = self._introduction.open_advert(service_data)
        if eid is None:
            return False
        self.eid = eid
        self._go(Input.ADVERT)
        self._actions.append(StopScan())
        request = self._introduction.request(eid)
        self._events.append(AdvertSeen(request.domain, self._proximity, rssi))
        if self.state is State.OPENING:
            self._actions.append(OpenTunnel(request, self._introduction.psm(service_data)))
        elif self.state is State.HANDSHAKING:
            self._shake_hands()
        return True

    def tunnel_opened(self, *, signals: bool = False) -> None:
        """The channel stands. `signals`: the relay promised one unencrypted message when the phone joins."""
        self._go(Input.TUNNEL_OPEN)
        request = self._introduction.request(self.eid)
        self._signal_due = signals and request.signal  # a promise that nobody asked for means nothing
        self._events.append(TunnelOpened(request.domain))
        if self.state is State.HANDSHAKING:
            self._shake_hands()

    def message(self, data: bytes) -> None:
        """One message from the channel.

        Raises:
            RemoteProtocolError: illegal here; the machine is closed then. `HandshakeFailed` for message 2.
            PeerClosed: the phone says that it is done while a request is open.
        """
        try:
            self._message(data)
        except RemoteProtocolError:
            self.fail()
            raise

    def tunnel_closed(self) -> None:
        """Take note that the channel ended cleanly. Raises `PeerClosed` unless the session was over anyway."""
        expected = self.state in (State.READY, State.LINGERING, State.CLOSED)
        stage = self.stage
        self._close(Input.PEER_CLOSED)
        if not expected:
            raise PeerClosed(stage)

    def request(self, payload: bytes, kind: MessageType = MessageType.CTAP) -> None:
        """Send a CTAP request: command byte and CBOR.

        Raises:
            LocalProtocolError: not ready, a request is open, it is too large, or the phone does not speak this.
        """
        if not payload:
            raise LocalProtocolError("a request has at least a command byte")
        if kind not in (MessageType.CTAP, MessageType.JSON):
            raise LocalProtocolError("only CTAP and JSON messages are requests")
        self._after(Input.REQUEST)
        if kind is MessageType.CTAP and self.greeting is not None and self.greeting.get_info is None:
            raise LocalProtocolError("this phone does not speak CTAP")
        if kind is MessageType.JSON and not self._speaks_json():
            raise LocalProtocolError("this phone does not speak digital credentials")
        self._send(Frame(kind, payload))
        self._go(Input.REQUEST)
        self._request_type = kind
        self._response = None

    def finish(self) -> None:
        """Send no more requests: tell the phone, keep reading updates. Before the greeting it just closes."""
        was_open = self.state in (State.READY, State.REQUESTED)
        before = self.state
        self._go(Input.FINISH)
        if was_open and self._is_revision_0():
            self.fail()  # revision 0 has no shutdown message: closing says it
        elif was_open:
            self._send(Frame(MessageType.SHUTDOWN, b""))
        elif self.state is State.CLOSED and before is not State.CLOSED:
            self._actions.extend((StopScan(), CloseTunnel()))
            self._events.append(Closed())

    def fail(self) -> None:
        """Give up: whatever was open closes. Legal in every state."""
        self._close(Input.FAILURE)

    # how

    def _go(self, happening: Input) -> None:
        self.state = self._after(happening)

    def _after(self, happening: Input) -> State:
        try:
            return self._introduction.order[self.state, happening]
        except KeyError:
            raise LocalProtocolError(
                f"{happening.name.lower()} is not possible in state {self.state.name.lower()}"
            ) from None

    def _close(self, happening: Input) -> None:
        if self.state is State.CLOSED:
            return
        self._go(happening)
        self._actions.extend((StopScan(), CloseTunnel()))
        self._events.append(Closed())

    def _is_new(self, service_data: bytes) -> bool:
        if service_data in self._seen:
            return False
        self._seen[service_data] = None
        if len(self._seen) > _REMEMBERED_ADVERTS:
            self._seen.popitem(last=False)
        return True

    def _shake_hands(self) -> None:
        assert self.eid is not None
        self._initiator = self._introduction.initiator(self.eid, self._ephemeral)
        self._actions.append(Send(self._initiator.write_message_1()))

    def _send(self, frame: Frame) -> None:
        assert self._sealer is not None
        plaintext = frame.payload if self._is_revision_0() else frame.encode()
        self._actions.append(Send(self._sealer.seal(plaintext)))

    def _is_revision_0(self) -> bool:
        # Old phones: no type byte, and every later message is CTAP ("hybrid transports", revisions).
        return self.greeting is not None and self.greeting.revision == 0

    def _speaks_json(self) -> bool:
        return self.greeting is not None and FEATURE_DIGITAL_CREDENTIALS in self.greeting.features

    def _message(self, data: bytes) -> None:
        match self.state:
            case State.SCANNING | State.HANDSHAKING if self._signal_due:
                self._take_signal(data)
            case State.HANDSHAKING:
                self._take_message_2(data)
            case State.GREETING:
                self._take_greeting(self._open(data))
            case State.READY | State.REQUESTED | State.LINGERING:
                plaintext = self._open(data)
                is_old = self._is_revision_0()
                self._take_frame(Frame(MessageType.CTAP, plaintext) if is_old else Frame.decode(plaintext))
            case State.CLOSED:
                pass
            case _:
                raise RemoteProtocolError("the other side spoke before the handshake")

    def _take_signal(self, data: bytes) -> None:
        # One such message, before any handshake data, if and only if the relay echoed the signal header.
        if data != SIGNAL_MESSAGE:
            raise RemoteProtocolError("the relay's signal is not a single zero byte")
        self._signal_due = False
        self._events.append(PhoneConnected())

    def _take_message_2(self, data: bytes) -> None:
        assert self._initiator is not None
        keys = self._initiator.read_message_2(data)
        self._keys = keys
        self._sealer = Sealer(keys.client_to_phone)
        self._opener = Opener(keys.phone_to_client)
        self._go(Input.MESSAGE_2)
        self._events.append(HandshakeDone())

    def _take_greeting(self, plaintext: bytes) -> None:
        greeting = PostHandshake.decode(plaintext)
        self.greeting = greeting
        self._go(Input.GREETING)
        self._events.append(Ready(greeting.features))
        if greeting.linking is not None:
            self._take_link(greeting.linking)

    def _take_frame(self, frame: Frame) -> None:
        match frame.type:
            case MessageType.SHUTDOWN:
                # Only clients send it; some phones do all the same, and mean the end ("data transfer").
                self.tunnel_closed()
            case MessageType.UPDATE:
                self._go(Input.UPDATE)
                self._take_update(frame.payload)
            case MessageType.CTAP | MessageType.JSON:
                self._take_response(frame)

    def _take_response(self, frame: Frame) -> None:
        if frame.type is MessageType.JSON and not self._speaks_json():
            raise RemoteProtocolError("the phone speaks digital credentials, which it did not announce")
        if self.state is State.LINGERING:
            self._go(Input.RESPONSE)  # "data transfer": after our shutdown an answer is dropped
            return
        if self.state is State.READY or frame.type is not self._request_type:
            raise RemoteProtocolError("the phone answered what nobody asked")
        if not frame.payload:
            raise RemoteProtocolError("the phone's answer is empty")
        self._go(Input.RESPONSE)
        self._response = frame.payload
        self._events.append(ResponseReceived(frame.payload[0]))

    def _take_update(self, payload: bytes) -> None:
        try:
            fields = linking.decode_update(payload)
        except RemoteProtocolError:
            self._events.append(LinkDropped())
            return
        if fields is not None:
            self._take_link(fields)

    def _take_link(self, fields: Any) -> None:
        # A bad proof drops the update, keeps any older link, and keeps the session.
        assert self.eid is not None
        assert self._keys is not None
        try:
            self.link = self._introduction.verify_link(fields, self.eid, self._keys.handshake_hash)
        except RemoteProtocolError:
            self._events.append(LinkDropped())
            return
        self._events.append(LinkReceived(self.link.name))

    def _open(self, data: bytes) -> bytes:
        assert self._opener is not None
        return self._opener.open(data)
