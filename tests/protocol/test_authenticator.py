"""The phone's machine: what it wants, what it refuses, and in which state either leaves it."""

from __future__ import annotations

import pytest

from hybrid.errors import (
    HandshakeFailed,
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
    HintViolated,
    LeftUnanswered,
    RequestIgnored,
    RequestReceived,
    ResponseSent,
    TunnelOpened,
)
from hybrid.protocol import authenticator as module
from hybrid.protocol import handshake
from hybrid.protocol.authenticator import (
    ORDER,
    Advertise,
    AuthenticatorMachine,
    CloseChannel,
    Input,
    LinkIntroduction,
    OpenTunnel,
    QrIntroduction,
    Send,
    Serve,
    State,
    StopAdvertising,
)
from hybrid.protocol.contact import ClientPayload
from hybrid.protocol.ctap import PostHandshake
from hybrid.protocol.eid import FIDO_UUID, Eid, trial_open
from hybrid.protocol.frames import Frame, MessageType, Opener, Sealer
from hybrid.protocol.habits import Habits
from hybrid.protocol.qr import QrInvitation, Transport
from hybrid.protocol.tunnel import Connect, New
from tests.protocol.sides import (
    CLIENT_EPHEMERAL,
    CLIENT_IDENTITY,
    CLIENT_NONCE,
    GET_ASSERTION,
    GET_INFO,
    LINK_RANDOM,
    MAKE_CREDENTIAL,
    NONCE,
    PHONE_IDENTITY,
    ROUTING_ID,
    TUNNEL_ID,
    a_link,
    invitation,
    link_offer,
    link_phone,
    qr_phone,
    secret,
)

PLACE = Eid(NONCE, ROUTING_ID, 0)
BOTH = (Transport.WEBSOCKET, Transport.L2CAP)


def expect(machine: AuthenticatorMachine, state: State) -> None:
    assert machine.state is state


def on_air(machine: AuthenticatorMachine | None = None) -> AuthenticatorMachine:
    machine = machine or qr_phone()
    machine.start()
    machine.tunnel_opened(ROUTING_ID)
    machine.actions()
    machine.events()
    return machine


class Client:
    """The other side of a phone's QR session, made of primitives: it can send what no honest client sends."""

    def __init__(self, machine: AuthenticatorMachine | None = None, transport: Transport = Transport.WEBSOCKET) -> None:
        self.machine = on_air(machine)
        self.transport = transport
        introduction = self.machine._introduction
        assert isinstance(introduction, QrIntroduction)
        self.initiator = handshake.qr_client(
            introduction.qr, PLACE.pack(), identity=CLIENT_IDENTITY, ephemeral=CLIENT_EPHEMERAL
        )
        self.message_1 = self.initiator.write_message_1()

    def arrive(self) -> Client:
        self.machine.message(self.message_1, self.transport)
        message_2, self.greeting = self.sent()
        self.keys = self.initiator.read_message_2(message_2)
        self.sealer, self.opener = Sealer(self.keys.client_to_phone), Opener(self.keys.phone_to_client)
        self.greeting = self.opener.open(self.greeting)
        return self

    def sent(self) -> list[bytes]:
        return [action.message for action in self.machine.actions() if isinstance(action, Send)]

    def received(self) -> list[Frame]:
        return [Frame.decode(self.opener.open(message)) for message in self.sent()]

    def say(self, kind: int, payload: bytes = b"") -> None:
        self.machine.message(self.sealer.seal(bytes([kind]) + payload), self.transport)

    def refused(self, kind: int, payload: bytes = b"") -> None:
        with pytest.raises(RemoteProtocolError):
            self.say(kind, payload)
        expect(self.machine, State.CLOSED)
        assert CloseChannel(self.transport) in self.machine.actions()


def closed_by(machine: AuthenticatorMachine, message: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        machine.message(message)
    expect(machine, State.CLOSED)
    assert machine.actions()[-2:] == [StopAdvertising(), CloseChannel(Transport.WEBSOCKET)]
    assert machine.events()[-1] == Closed()
    machine.message(b"more")
    machine.channel_closed()
    assert machine.actions() == []


# --- before the client


def test_the_qr_order() -> None:
    machine = qr_phone()
    machine.start()
    (tunnel,) = machine.actions()
    assert isinstance(tunnel, OpenTunnel)
    assert (tunnel.request.domain, tunnel.request.target) == ("cable.ua5v.com", New(invitation().tunnel_id()))
    machine.tunnel_opened(ROUTING_ID)
    (advertise,) = machine.actions()
    assert isinstance(advertise, Advertise)
    assert trial_open(advertise.service_data, invitation().eid_key()) == PLACE.pack()
    assert len(advertise.service_data) == 20  # no suffix unless the code lists a channel for it
    assert machine.events() == [TunnelOpened("cable.ua5v.com")]
    assert machine.opener is None


def test_the_linked_order() -> None:
    machine = link_phone()
    machine.start()
    (tunnel,) = machine.actions()
    assert isinstance(tunnel, OpenTunnel)
    assert tunnel.request.target == Connect(ROUTING_ID, TUNNEL_ID)
    machine.tunnel_opened(None)
    (advertise,) = machine.actions()
    assert isinstance(advertise, Advertise)
    plaintext = trial_open(advertise.service_data, a_link().eid_key(CLIENT_NONCE))
    assert plaintext == b"\x00" + LINK_RANDOM
    assert plaintext[15] != 0


@pytest.mark.parametrize("routing_id", [None, b"", bytes(2), bytes(4)])
def test_a_tunnel_that_cannot_be_advertised_changes_nothing(routing_id: bytes | None) -> None:
    machine = qr_phone()
    machine.start()
    with pytest.raises(LocalProtocolError):
        machine.tunnel_opened(routing_id)
    expect(machine, State.OPENING)
    closed_by(machine, bytes(81))


@pytest.mark.parametrize(
    ("known", "service_id", "reason"),
    [
        (2, 0, None),
        (2, 1, None),
        (None, 1, None),
        (0, 256, None),
        (1, 1, QRProblem.UNKNOWN_RELAY),
        (0, 0, QRProblem.UNKNOWN_RELAY),
        (None, 2, QRProblem.UNKNOWN_RELAY),
    ],
)
def test_a_client_that_does_not_know_our_relay_is_told_before_any_traffic(
    known: int | None, service_id: int, reason: QRProblem | None
) -> None:
    qr = QrInvitation(CLIENT_IDENTITY.public_key(), bytes(16), known_domains=known)
    if reason is None:
        QrIntroduction(qr, service_id, NONCE)
        return
    with pytest.raises(InvalidQR) as info:
        QrIntroduction(qr, service_id, NONCE)
    assert info.value.reason is reason


def test_a_code_without_a_common_channel_is_refused() -> None:
    qr = QrInvitation(CLIENT_IDENTITY.public_key(), bytes(16), transports=(), transports_stated=True)
    with pytest.raises(InvalidQR) as info:
        QrIntroduction(qr, 0, NONCE)
    assert info.value.reason is QRProblem.NO_CHANNEL


@pytest.mark.parametrize(
    "payload",
    [
        ClientPayload(bytes(8), CLIENT_NONCE, "ga"),
        ClientPayload(a_link().link_id, CLIENT_NONCE, "dcp"),
        ClientPayload(a_link().link_id, CLIENT_NONCE, ""),
    ],
)
def test_a_contact_for_another_link_or_with_another_hint_is_refused(payload: ClientPayload) -> None:
    with pytest.raises(RemoteProtocolError):
        LinkIntroduction(a_link(), PHONE_IDENTITY, payload, ROUTING_ID, TUNNEL_ID, LINK_RANDOM)


def test_nobody_may_speak_before_we_are_on_the_air() -> None:
    closed_by(qr_phone(), bytes(81))
    opening = qr_phone()
    opening.start()
    closed_by(opening, bytes(81))


# --- the handshake


def test_the_client_arrives() -> None:
    client = Client().arrive()
    assert PostHandshake.decode(client.greeting) == PostHandshake(GET_INFO, ("ctap",))
    expect(client.machine, State.SERVING)
    assert client.machine.events() == [ClientArrived()]
    assert client.machine.transport is Transport.WEBSOCKET
    assert client.machine.handshake_hash() == client.keys.handshake_hash


def test_advertising_stops_with_message_1() -> None:
    client = Client()
    client.machine.message(client.message_1)
    assert client.machine.actions()[0] == StopAdvertising()


@pytest.mark.parametrize("bit", [0, 9, 300, 519, 520, 647])
def test_a_bad_message_1_is_the_end(bit: int) -> None:
    client = Client()
    message = bytearray(client.message_1)
    message[bit // 8] ^= 1 << bit % 8
    with pytest.raises(HandshakeFailed):
        client.machine.message(bytes(message))
    closed = client.machine
    expect(closed, State.CLOSED)
    closed.message(client.message_1)
    assert client.sent() == []


@pytest.mark.parametrize("size", [0, 80, 82, 97])
def test_message_1_has_81_bytes(size: int) -> None:
    client = Client()
    closed_by(client.machine, (client.message_1 + bytes(16))[:size])


@pytest.mark.parametrize("winner", BOTH)
def test_of_two_channels_the_first_good_handshake_wins(winner: Transport) -> None:
    machine = qr_phone()
    machine.channel_offered(Transport.L2CAP)
    client = Client(machine, winner)
    (loser,) = set(BOTH) - {winner}
    client.machine.message(client.message_1, winner)
    assert CloseChannel(loser) in (actions := client.machine.actions())
    assert CloseChannel(winner) not in actions
    expect(client.machine, State.SERVING)
    client.machine.message(b"late", loser)
    client.machine.channel_closed(loser)
    expect(client.machine, State.SERVING)


def test_a_bad_handshake_on_one_of_two_channels_closes_that_one() -> None:
    machine = qr_phone()
    machine.channel_offered(Transport.L2CAP)
    client = Client(machine)
    client.machine.message(bytes(81), Transport.L2CAP)
    assert client.machine.actions() == [CloseChannel(Transport.L2CAP)]
    expect(client.machine, State.ADVERTISING)
    client.arrive()
    with pytest.raises(LocalProtocolError):
        client.machine.channel_offered(Transport.L2CAP)


# --- requests


@pytest.mark.parametrize("request_", [GET_ASSERTION, MAKE_CREDENTIAL])
def test_request_and_answer(request_: bytes) -> None:
    client = Client(qr_phone(invitation(hint=None))).arrive()
    client.machine.events()
    client.say(1, request_)
    assert client.machine.actions() == [Serve(request_)]
    expect(client.machine, State.BUSY)
    client.machine.response(b"\x00\xa0")
    assert client.received() == [Frame(MessageType.CTAP, b"\x00\xa0")]
    assert client.machine.events() == [RequestReceived(request_[0]), ResponseSent(0)]
    expect(client.machine, State.SERVING)


@pytest.mark.parametrize("hint", ["ga", "mc", "dcp", "dci", "", "new", None])
@pytest.mark.parametrize("command", [0x01, 0x02, 0x06, 0x0A])
def test_the_hint_is_enforced_only_if_it_was_stated_and_is_ga_or_mc(hint: str | None, command: int) -> None:
    client = Client(qr_phone(invitation(hint=hint))).arrive()
    client.machine.events()
    client.say(1, bytes([command]) + b"\xa0")
    if hint in ("ga", "mc") and command != {"ga": 2, "mc": 1}[hint]:
        assert client.received() == [Frame(MessageType.CTAP, b"\x30")]
        assert client.machine.events() == [RequestReceived(command), HintViolated(command), ResponseSent(0x30)]
        expect(client.machine, State.SERVING)
    else:
        assert client.machine.actions() == [Serve(bytes([command]) + b"\xa0")]


@pytest.mark.parametrize("hint", ["ga", "mc", None])
def test_get_info_comes_from_the_greeting_and_is_no_command(hint: str | None) -> None:
    client = Client(qr_phone(invitation(hint=hint))).arrive()
    client.machine.events()
    client.say(1, b"\x04")
    assert client.received() == [Frame(MessageType.CTAP, b"\x00" + GET_INFO)]
    assert PostHandshake.decode(client.greeting).get_info == GET_INFO
    client.say(1, b"\x04\xa0")
    assert client.received() == [Frame(MessageType.CTAP, b"\x03")]
    assert client.machine.events() == []
    expect(client.machine, State.SERVING)


@pytest.mark.parametrize(
    ("kind", "payload"), [(1, b""), (3, b"{}"), (4, b"x"), (9, b"x"), (2, b""), (2, b"\x18"), (2, b"\xa0\x00")]
)
def test_what_is_no_request_is_the_end(kind: int, payload: bytes) -> None:
    Client().arrive().refused(kind, payload)


@pytest.mark.parametrize("payload", [b"\xa0", b"\x80", b"\x00", b"\xa1\x01\x40"])
def test_an_update_of_the_client_is_ignored_if_it_is_cbor(payload: bytes) -> None:
    client = Client().arrive()
    client.say(2, payload)
    client.say(1, GET_ASSERTION)
    client.say(2, payload)
    expect(client.machine, State.BUSY)
    client.say(0)
    client.say(2, payload)
    expect(client.machine, State.FINISHING)


@pytest.mark.parametrize("second", [GET_ASSERTION, b"\x04"])
def test_a_second_request_before_the_answer_is_the_end(second: bytes) -> None:
    client = Client().arrive()
    client.say(1, GET_ASSERTION)
    client.refused(1, second)


@pytest.mark.parametrize("request_", [GET_ASSERTION, b"\x04"])
def test_a_request_after_shutdown_is_the_end(request_: bytes) -> None:
    client = Client().arrive()
    client.say(0)
    client.refused(1, request_)


@pytest.mark.parametrize("counter", [1, 2])
def test_a_counter_that_is_skipped_is_the_end(counter: int) -> None:
    client = Client().arrive()
    closed_by(client.machine, Sealer(client.keys.client_to_phone, counter).seal(b"\x01" + GET_ASSERTION))


def test_a_counter_used_again_is_the_end() -> None:
    client = Client().arrive()
    message = client.sealer.seal(b"\x01\x04")
    client.machine.message(message)
    closed_by(client.machine, message)


def test_our_own_message_sent_back_is_the_end() -> None:
    client = Client().arrive()
    closed_by(client.machine, Sealer(client.keys.phone_to_client).seal(b"\x01" + GET_ASSERTION))


def test_padding_that_cannot_be_is_the_end() -> None:
    client = Client().arrive()
    closed_by(client.machine, client.sealer._aead.encrypt(bytes(12), b"\x01\x02\x20", b""))


@pytest.mark.parametrize("answer", [b"", bytes(1 << 20)])
def test_an_answer_that_cannot_be_sent_changes_nothing(answer: bytes) -> None:
    client = Client().arrive()
    client.say(1, GET_ASSERTION)
    client.machine.actions()
    with pytest.raises(LocalProtocolError):
        client.machine.response(answer)
    expect(client.machine, State.BUSY)
    client.machine.response(b"\x7f")
    assert client.received() == [Frame(MessageType.CTAP, b"\x7f")]


def test_answers_have_their_time() -> None:
    for machine in (qr_phone(), on_air(), Client().arrive().machine):
        before = machine.state
        with pytest.raises(LocalProtocolError):
            machine.response(b"\x00")
        assert machine.state is before
    with pytest.raises(LocalProtocolError):
        qr_phone().handshake_hash()


# --- habits


def test_a_phone_that_leaves_closes_and_hears_nothing_more() -> None:
    client = Client(qr_phone(habits=Habits(unanswered=frozenset({0x12})))).arrive()
    client.say(1, GET_ASSERTION)
    client.machine.events()
    client.machine.response(b"\x12")
    assert client.machine.actions()[-1] == CloseChannel(Transport.WEBSOCKET)
    assert client.machine.events() == [LeftUnanswered(0x02, 0x12), Closed()]
    client.say(1, GET_ASSERTION)
    assert (client.sent(), client.machine.events()) == ([], [])
    expect(client.machine, State.CLOSED)


def test_a_get_info_that_stays_without_an_answer_is_no_command() -> None:
    client = Client(qr_phone(habits=Habits(answers_get_info=False))).arrive()
    client.machine.events()
    client.say(1, b"\x04")
    assert (client.sent(), client.machine.events()) == ([], [RequestIgnored(0x04)])
    expect(client.machine, State.SERVING)


def test_revision_0_is_for_codes_that_say_nothing_of_links() -> None:
    habits = Habits(once_revision_0=True, sends_update=True)
    for said, revision in ((None, 0), (False, 1), (True, 1)):
        client = Client(qr_phone(invitation(state_assisted=said), habits=habits))
        client.machine.message(client.message_1)
        _, greeting, *updates = client.sent()
        assert (len(greeting) == 512 + 32 + 16, len(updates)) == (revision == 0, revision)
        if revision == 0:
            with pytest.raises(LocalProtocolError):
                client.machine.send_update(None)


# --- updates


def test_an_update_is_sent_while_a_client_is_there() -> None:
    client = Client().arrive()
    for step in ("serving", "busy", "finishing"):
        if step == "busy":
            client.say(1, GET_ASSERTION)
        if step == "finishing":
            client.say(0)
        client.machine.actions()
        client.machine.send_update(link_offer(client.keys.handshake_hash))
        client.machine.send_update(None)
        messages = client.sent()
        assert [len(message) for message in messages] == [528, 528]
        assert [Frame.decode(client.opener.open(message)).type for message in messages] == [MessageType.UPDATE] * 2
    for machine in (qr_phone(), on_air()):
        with pytest.raises(LocalProtocolError):
            machine.send_update(None)


# --- the end


def test_after_shutdown_nobody_waits_for_the_answer() -> None:
    client = Client().arrive()
    client.say(1, GET_ASSERTION)
    client.say(0)
    client.machine.actions()
    client.machine.events()
    client.machine.response(b"\x00\xa0")
    assert client.machine.actions() == []
    assert client.machine.events() == []
    client.say(0)
    client.machine.channel_closed()
    expect(client.machine, State.CLOSED)


def test_a_client_may_leave_after_the_greeting() -> None:
    client = Client().arrive()
    client.machine.channel_closed()
    expect(client.machine, State.CLOSED)


def test_leaving_in_the_middle_names_the_stage() -> None:
    opening = qr_phone()
    opening.start()
    busy = Client().arrive()
    busy.say(1, GET_ASSERTION)
    for machine, stage in ((opening, Stage.TUNNEL), (on_air(), Stage.ADVERTISE), (busy.machine, Stage.RESPONSE)):
        with pytest.raises(PeerClosed) as info:
            machine.channel_closed()
        assert info.value.stage is stage
        expect(machine, State.CLOSED)


def test_one_of_two_channels_may_go() -> None:
    machine = qr_phone()
    machine.channel_offered(Transport.L2CAP)
    on_air(machine)
    machine.channel_closed(Transport.WEBSOCKET)
    expect(machine, State.ADVERTISING)
    with pytest.raises(PeerClosed):
        machine.channel_closed(Transport.L2CAP)


def test_failing_is_legal_everywhere() -> None:
    for machine in (qr_phone(), on_air(), Client().arrive().machine):
        machine.fail()
        expect(machine, State.CLOSED)
        assert StopAdvertising() in machine.actions()
        machine.fail()
        assert machine.actions() == []


def test_every_state_is_reachable_and_can_fail() -> None:
    reached = {State.NEW}
    while more := {after for (before, _), after in ORDER.items() if before in reached} - reached:
        reached |= more
    assert reached == set(State)
    for state in State:
        assert ORDER[state, Input.FAILURE] is State.CLOSED
        assert ORDER[state, Input.PEER_CLOSED] is State.CLOSED
        assert module.STAGE_OF_STATE[state] in Stage
    assert {after for (before, _), after in ORDER.items() if before is State.CLOSED} == {State.CLOSED}


def test_no_secret_shows() -> None:
    assert repr(qr_phone()) == "<AuthenticatorMachine NEW>"
    marker = secret("qr secret", 16)
    for value in (Serve(marker), Send(marker), Advertise(marker, FIDO_UUID), QrIntroduction(invitation(), 0, NONCE)):
        assert repr(marker)[2:-1] not in repr(value)


def test_a_service_id_that_nobody_has_is_our_own_mistake() -> None:
    qr = QrInvitation(CLIENT_IDENTITY.public_key(), bytes(16), known_domains=200)
    with pytest.raises(LocalProtocolError, match="5 is not assigned"):
        QrIntroduction(qr, 5, NONCE)
