"""The phone's state machine: facts in, wishes and news out. It never awaits, keeps no clock and rolls no dice.

::

    facts in     start()  tunnel_opened(routing_id)  message(data, transport)  channel_closed(transport)  response(data)
    wishes out   actions() -> [OpenTunnel | Advertise | StopAdvertising | Serve | Send | CloseChannel]
    news out     events() -> [TunnelOpened | ClientArrived | RequestReceived | ...]        state (read-only)

CTAP 2.3 §11.5.1, "QR-initiated transactions" and "state-assisted transactions". The phone may hold two candidate
channels (relay and L2CAP); the first good handshake wins and the other one closes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from hybrid import cbor
from hybrid.errors import (
    InvalidQR,
    LocalProtocolError,
    PeerClosed,
    QRProblem,
    RemoteProtocolError,
    Stage,
)
from hybrid.events import (
    ClientArrived,
    Closed,
    Event,
    HintViolated,
    LeftUnanswered,
    RequestIgnored,
    RequestReceived,
    ResponseSent,
    TunnelOpened,
)
from hybrid.protocol import eid as advert
from hybrid.protocol import handshake, linking
from hybrid.protocol.contact import ClientPayload
from hybrid.protocol.ctap import FEATURE_CTAP, Command, PostHandshake, Status
from hybrid.protocol.eid import Eid
from hybrid.protocol.frames import Frame, MessageType, Opener, Sealer
from hybrid.protocol.habits import Habits
from hybrid.protocol.keys import PrivateKey
from hybrid.protocol.linking import Link
from hybrid.protocol.noise import Responder, TrafficKeys
from hybrid.protocol.qr import Hint, QrInvitation, Transport
from hybrid.protocol.tunnel import Connect, New, TunnelRequest, tunnel_domain

# --- wishes -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OpenTunnel:
    """Open this tunnel and report `tunnel_opened`."""

    request: TunnelRequest


@dataclass(frozen=True, slots=True, repr=False)
class Advertise:
    """Put this service data on the air under this UUID until `StopAdvertising`."""

    service_data: bytes
    service_uuid: str


@dataclass(frozen=True, slots=True)
class StopAdvertising:
    """The client has arrived, or the session is over."""


@dataclass(frozen=True, slots=True, repr=False)
class Serve:
    """Have the backend answer this CTAP request; report `response`."""

    request: bytes


@dataclass(frozen=True, slots=True, repr=False)
class Send:
    """Send these bytes as one message on the winning channel."""

    message: bytes


@dataclass(frozen=True, slots=True)
class CloseChannel:
    """Close this channel with code 1000."""

    transport: Transport


Action = OpenTunnel | Advertise | StopAdvertising | Serve | Send | CloseChannel


# --- states and inputs ------------------------------------------------------------------------------------------------


class State(Enum):
    """Where the phone stands."""

    NEW = auto()
    OPENING = auto()  # no tunnel yet
    ADVERTISING = auto()  # on the air, no client yet
    SERVING = auto()  # keys agreed; a request may come
    BUSY = auto()  # the backend works on a request
    FINISHING = auto()  # the client said that it is done
    CLOSED = auto()


class Input(Enum):
    """What can happen to the phone."""

    START = auto()
    TUNNEL_OPEN = auto()
    MESSAGE_1 = auto()
    REQUEST = auto()
    RESPONSE = auto()
    UPDATE = auto()
    SHUTDOWN = auto()
    PEER_CLOSED = auto()
    FAILURE = auto()


Table = dict[tuple[State, Input], State]

# One order for both ceremonies: the phone always opens its tunnel first and advertises then. Which tunnel and which
# advert is up to the `Introduction`.
ORDER: Table = {
    (State.NEW, Input.START): State.OPENING,
    (State.OPENING, Input.TUNNEL_OPEN): State.ADVERTISING,
    (State.ADVERTISING, Input.MESSAGE_1): State.SERVING,
    (State.SERVING, Input.REQUEST): State.BUSY,
    (State.SERVING, Input.UPDATE): State.SERVING,
    (State.SERVING, Input.SHUTDOWN): State.FINISHING,
    (State.BUSY, Input.RESPONSE): State.SERVING,
    (State.BUSY, Input.UPDATE): State.BUSY,
    (State.BUSY, Input.SHUTDOWN): State.FINISHING,
    (State.FINISHING, Input.RESPONSE): State.FINISHING,  # nobody waits for it any more
    (State.FINISHING, Input.UPDATE): State.FINISHING,
    (State.FINISHING, Input.SHUTDOWN): State.FINISHING,
    **{(state, Input.PEER_CLOSED): State.CLOSED for state in State},
    **{(state, Input.FAILURE): State.CLOSED for state in State},
}

STAGE_OF_STATE = {
    State.NEW: Stage.TUNNEL,
    State.OPENING: Stage.TUNNEL,
    State.ADVERTISING: Stage.ADVERTISE,
    State.SERVING: Stage.REQUEST,
    State.BUSY: Stage.RESPONSE,
    State.FINISHING: Stage.RESPONSE,
    State.CLOSED: Stage.RESPONSE,
}

_COMMAND_OF_HINT = {
    Hint.GET_ASSERTION: Command.GET_ASSERTION,
    Hint.MAKE_CREDENTIAL: Command.MAKE_CREDENTIAL,
}


# --- how the two sides know each other --------------------------------------------------------------------------------


class Introduction(Protocol):
    """What a ceremony knows about the client before it starts."""

    @property
    def hint(self) -> Hint | None:
        """The hint to enforce, None if any command goes."""
        ...

    @property
    def tells_of_links(self) -> bool:
        """Whether the client has said if it links."""
        ...

    def request(self) -> TunnelRequest: ...

    def advert(self, routing_id: bytes | None) -> tuple[bytes, bytes]:
        """Give the 16-byte plaintext and the service data for a tunnel that stands at this routing ID."""
        ...

    def responder(self, eid: bytes, ephemeral: PrivateKey) -> Responder: ...


@dataclass(frozen=True, slots=True, repr=False)
class QrIntroduction:
    """A code that we scanned, the tunnel service that we use, and 10 random bytes for this advert.

    Raises:
        InvalidQR: the client does not know our relay, or shares no channel with us. Checked before any traffic.
        LocalProtocolError: nobody has been assigned this service id.
    """

    qr: QrInvitation
    service_id: int
    nonce: bytes

    def __post_init__(self) -> None:
        if not self.qr.transports:
            raise InvalidQR("the code offers no channel that this phone knows", QRProblem.NO_CHANNEL)
        if not self.qr.knows_service(self.service_id):
            raise InvalidQR("the computer that shows this code does not know our relay", QRProblem.UNKNOWN_RELAY)
        try:
            tunnel_domain(self.service_id)
        except RemoteProtocolError as error:
            raise LocalProtocolError(str(error)) from None

    @property
    def hint(self) -> Hint | None:
        hint = self.qr.stated_hint
        return hint if hint in _COMMAND_OF_HINT else None

    @property
    def tells_of_links(self) -> bool:
        return self.qr.state_assisted is not None

    def request(self) -> TunnelRequest:
        return TunnelRequest(tunnel_domain(self.service_id), New(self.qr.tunnel_id()))

    def advert(self, routing_id: bytes | None) -> tuple[bytes, bytes]:
        if routing_id is None:
            raise LocalProtocolError("a tunnel without a routing ID cannot be advertised")
        eid = Eid(self.nonce, routing_id, self.service_id).pack()
        return eid, advert.seal(eid, self.qr.eid_key())

    def responder(self, eid: bytes, ephemeral: PrivateKey) -> Responder:
        return handshake.qr_phone(self.qr, eid, ephemeral=ephemeral)


@dataclass(frozen=True, slots=True, repr=False)
class LinkIntroduction:
    """A linked client that asks for contact.

    `link`: as we made it; `identity`: our long-lived key; `payload`: from the relay; `routing_id` and `tunnel_id`:
    where it waits; `random`: 15 fresh bytes of which the last is not zero.
    """

    link: Link
    identity: PrivateKey
    payload: ClientPayload
    routing_id: bytes
    tunnel_id: bytes
    random: bytes

    def __post_init__(self) -> None:
        if self.payload.link_id != self.link.link_id:
            raise RemoteProtocolError("a contact request names another link")
        if self.payload.hint not in _COMMAND_OF_HINT:
            raise RemoteProtocolError("a contact request has a hint that we do not serve")

    @property
    def hint(self) -> Hint | None:
        return Hint(self.payload.hint)

    @property
    def tells_of_links(self) -> bool:
        return True  # it comes by one

    def request(self) -> TunnelRequest:
        return TunnelRequest(tunnel_domain(self.link.tunnel_service_id), Connect(self.routing_id, self.tunnel_id))

    def advert(self, routing_id: bytes | None) -> tuple[bytes, bytes]:
        eid = linking.random_eid(self.random)
        return eid, advert.seal(eid, self.link.eid_key(self.payload.client_nonce))

    def responder(self, eid: bytes, ephemeral: PrivateKey) -> Responder:
        return handshake.link_phone(self.link, eid, identity=self.identity, ephemeral=ephemeral)


# --- the machine ------------------------------------------------------------------------------------------------------


class AuthenticatorMachine:
    """Runs one session.

    `ephemeral`: a fresh P-256 key; `get_info`: CBOR of the getInfo response map; `habits`: those of the phone that it
    is, ours if left out.
    """

    def __init__(
        self, introduction: Introduction, *, ephemeral: PrivateKey, get_info: bytes, habits: Habits | None = None
    ) -> None:
        self.state = State.NEW
        self.transport: Transport | None = None
        self._introduction = introduction
        self._ephemeral = ephemeral
        self._get_info = get_info
        self._habits = habits or Habits()
        # Revision 0 has no type bytes: every message after the greeting is CTAP ("hybrid transports", revisions).
        self._revision = 0 if self._habits.once_revision_0 and not introduction.tells_of_links else 1
        self._request = b""
        self._actions: list[Action] = []
        self._events: list[Event] = []
        self._candidates = {Transport.WEBSOCKET}
        self._eid: bytes | None = None
        self._sealer: Sealer | None = None
        self._opener: Opener | None = None
        self._keys: TrafficKeys | None = None

    def __repr__(self) -> str:
        return f"<AuthenticatorMachine {self.state.name}>"

    @property
    def opener(self) -> Opener | None:
        """The receive cipher: what finds the ends of messages in an unbounded channel. None before message 1."""
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

    # facts

    def start(self) -> None:
        """Begin the ceremony."""
        self._go(Input.START)
        self._actions.append(OpenTunnel(self._introduction.request()))

    def tunnel_opened(self, routing_id: bytes | None) -> None:
        """The tunnel stands; `routing_id`: 3 bytes as the relay gave them, None where it gave none."""
        self._after(Input.TUNNEL_OPEN)
        self._eid, service_data = self._introduction.advert(routing_id)
        self._go(Input.TUNNEL_OPEN)
        self._events.append(TunnelOpened(self._introduction.request().domain))
        self._actions.append(Advertise(service_data, self._habits.service_uuid))

    def channel_offered(self, transport: Transport) -> None:
        """A client may come through this channel as well. Legal until one has come."""
        if self.state not in (State.NEW, State.OPENING, State.ADVERTISING):
            raise LocalProtocolError(f"no channel is possible in state {self.state.name.lower()}")
        self._candidates.add(transport)

    def message(self, data: bytes, transport: Transport = Transport.WEBSOCKET) -> None:
        """One message from a channel.

        Raises:
            RemoteProtocolError: illegal here; the machine is closed then. A bad message 1 on one of two candidate
                channels closes that channel only.
        """
        if self.state is State.CLOSED or transport not in self._candidates:
            return
        try:
            if self.state is State.ADVERTISING:
                self._take_message_1(data, transport)
            elif self._opener is None:
                raise RemoteProtocolError("the client spoke before we were on the air")
            else:
                plaintext = self._opener.open(data)
                self._take_frame(Frame.decode(plaintext) if self._revision else Frame(MessageType.CTAP, plaintext))
        except RemoteProtocolError:
            if self.state is State.ADVERTISING and len(self._candidates) > 1:
                self._drop_candidate(transport)
                return
            self.fail()
            raise

    def channel_closed(self, transport: Transport = Transport.WEBSOCKET) -> None:
        """A channel ended cleanly. Raises `PeerClosed` if no client ever came or a request was unanswered."""
        if self.state is State.CLOSED or transport not in self._candidates:
            return
        if self.transport is None and len(self._candidates) > 1:
            self._drop_candidate(transport)
            return
        expected = self.state in (State.SERVING, State.FINISHING)
        stage = self.stage
        self._close(Input.PEER_CLOSED)
        if not expected:
            raise PeerClosed(stage)

    def response(self, data: bytes) -> None:
        """Take the backend's answer: status byte and CBOR. Dropped if the client has said that it is done.

        A phone whose habit that is leaves in place of sending it.

        Raises:
            LocalProtocolError: no request is open, or the answer is empty or too large.
        """
        if not data:
            raise LocalProtocolError("an answer has at least a status byte")
        self._after(Input.RESPONSE)
        if self.state is State.BUSY:
            if self._habits.leaves(self._request, data[0]):
                self._leave(self._request[0], data[0])
                return
            self._send(Frame(MessageType.CTAP, data))
            self._events.append(ResponseSent(data[0]))
        self._go(Input.RESPONSE)

    def send_update(self, linking_map: bytes | None) -> None:
        """Send an update, padded so that its size does not tell whether it links. Legal while a client is there."""
        if self.state not in (State.SERVING, State.BUSY, State.FINISHING):
            raise LocalProtocolError("there is no client to send an update to")
        if self._revision == 0:
            raise LocalProtocolError("revision 0 knows no updates")
        self._send(Frame(MessageType.UPDATE, linking.encode_update(linking_map)))

    def handshake_hash(self) -> bytes:
        """32 bytes that a linking proof signs. Raises `LocalProtocolError` before a client came."""
        if self._keys is None:
            raise LocalProtocolError("no handshake was made yet")
        return self._keys.handshake_hash

    def fail(self) -> None:
        """Give up: whatever was open closes. Legal in every state."""
        self._close(Input.FAILURE)

    # how

    def _go(self, happening: Input) -> None:
        self.state = self._after(happening)

    def _after(self, happening: Input) -> State:
        try:
            return ORDER[self.state, happening]
        except KeyError:
            raise LocalProtocolError(
                f"{happening.name.lower()} is not possible in state {self.state.name.lower()}"
            ) from None

    def _close(self, happening: Input) -> None:
        if self.state is State.CLOSED:
            return
        self._go(happening)
        self._actions.append(StopAdvertising())
        self._actions.extend(CloseChannel(transport) for transport in sorted(self._candidates))
        self._events.append(Closed())

    def _leave(self, command: int, status: int) -> None:
        self._events.append(LeftUnanswered(command, status))
        self._close(Input.FAILURE)

    def _drop_candidate(self, transport: Transport) -> None:
        self._candidates.discard(transport)
        self._actions.append(CloseChannel(transport))

    def _take_message_1(self, data: bytes, transport: Transport) -> None:
        assert self._eid is not None
        message_2, keys = self._introduction.responder(self._eid, self._ephemeral).answer(data)
        self._go(Input.MESSAGE_1)
        self.transport = transport
        for loser in sorted(self._candidates - {transport}):
            self._drop_candidate(loser)
        self._keys = keys
        self._opener = Opener(keys.client_to_phone)
        self._sealer = Sealer(keys.phone_to_client)
        features = self._habits.features
        greeting = PostHandshake(self._get_info, features or (FEATURE_CTAP,), revision=self._revision)
        sealed = self._sealer.seal(greeting.encode(list_features=features is not None))
        self._actions.extend((StopAdvertising(), Send(message_2), Send(sealed)))
        if self._habits.sends_update and self._revision:
            self.send_update(None)
        self._events.append(ClientArrived())

    def _take_frame(self, frame: Frame) -> None:
        match frame.type:
            case MessageType.SHUTDOWN:
                self._go(Input.SHUTDOWN)
            case MessageType.UPDATE:
                # Nothing is defined in this direction: it must be CBOR and is ignored.
                cbor.decode(frame.payload)
                self._go(Input.UPDATE)
            case MessageType.JSON:
                raise RemoteProtocolError("the client sent a digital-credential request, which we do not serve")
            case MessageType.CTAP:
                self._take_request(frame.payload)

    def _take_request(self, request: bytes) -> None:
        if not request:
            raise RemoteProtocolError("a CTAP request is empty")
        if self.state is State.FINISHING:
            raise RemoteProtocolError("the client sent a request after it said that it is done")
        if self.state is State.BUSY:
            raise RemoteProtocolError("the client sent a second request before the answer to the first")
        if request[0] == Command.GET_INFO:
            self._answer_get_info(request)
            return
        self._go(Input.REQUEST)
        self._request = request
        self._events.append(RequestReceived(request[0]))
        if self._violates_hint(request[0]):
            self._events.append(HintViolated(request[0]))
            self.response(bytes([Status.NOT_ALLOWED]))
            return
        self._actions.append(Serve(request))

    def _violates_hint(self, command: int) -> bool:
        hint = self._introduction.hint
        return hint is not None and command != _COMMAND_OF_HINT[hint]

    def _answer_get_info(self, request: bytes) -> None:
        # The client has it from the greeting; one that asks all the same gets the same bytes, not counted as a command.
        if not self._habits.answers_get_info:
            self._events.append(RequestIgnored(Command.GET_INFO))
            return
        status = Status.OK if len(request) == 1 else Status.INVALID_LENGTH
        if self._habits.leaves(request, status):
            self._leave(Command.GET_INFO, status)
            return
        body = self._get_info if status is Status.OK else b""
        self._send(Frame(MessageType.CTAP, bytes([status]) + body))

    def _send(self, frame: Frame) -> None:
        assert self._sealer is not None
        self._actions.append(Send(self._sealer.seal(frame.encode() if self._revision else frame.payload)))
