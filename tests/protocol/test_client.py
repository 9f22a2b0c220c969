"""The client's machine: what it wants, what it refuses, and in which state either leaves it."""

from __future__ import annotations

import pytest

from hybrid import cbor
from hybrid.errors import HandshakeFailed, LocalProtocolError, PeerClosed, RemoteProtocolError, Stage
from hybrid.events import AdvertSeen, Closed, HandshakeDone, LinkDropped, PhoneConnected, Proximity, Ready, TunnelOpened
from hybrid.protocol import client as module
from hybrid.protocol import handshake
from hybrid.protocol.client import (
    LINK_ORDER,
    QR_ORDER,
    ClientMachine,
    CloseTunnel,
    Input,
    LinkIntroduction,
    OpenTunnel,
    QrIntroduction,
    Scan,
    Send,
    State,
    StopScan,
)
from hybrid.protocol.contact import ClientPayload
from hybrid.protocol.ctap import PostHandshake, pad_revision_0
from hybrid.protocol.eid import Eid, seal
from hybrid.protocol.frames import Frame, MessageType, Opener, Sealer
from hybrid.protocol.linking import encode_update
from hybrid.protocol.noise import TrafficKeys
from hybrid.protocol.qr import Hint, QrInvitation, Transport
from hybrid.protocol.tunnel import Connect, Contact
from tests.protocol.sides import (
    CLIENT_EPHEMERAL,
    CLIENT_IDENTITY,
    CLIENT_NONCE,
    GET_ASSERTION,
    GET_INFO,
    NONCE,
    PHONE_EPHEMERAL,
    ROUTING_ID,
    a_link,
    invitation,
    link_client,
    link_offer,
    link_phone,
    qr_client,
    secret,
)

PLACE = Eid(NONCE, ROUTING_ID, 0)
ADVERT = seal(PLACE.pack(), invitation().eid_key())
GREETING = PostHandshake(GET_INFO, ("ctap",)).encode()


def expect(machine: ClientMachine, state: State) -> None:
    assert machine.state is state


class Phone:
    """The other side of a client's QR session, made of primitives: it can send what no honest phone sends."""

    def __init__(self, machine: ClientMachine | None = None) -> None:
        self.machine = machine or qr_client()
        self.machine.start()
        self.machine.advert_heard(ADVERT)
        self.machine.tunnel_opened()
        message_1 = self.sent()[-1]
        introduction = self.machine._introduction
        assert isinstance(introduction, QrIntroduction)
        responder = handshake.qr_phone(introduction.qr, PLACE.pack(), ephemeral=PHONE_EPHEMERAL)
        self.message_2, self.keys = responder.answer(message_1)
        self.sealer = Sealer(self.keys.phone_to_client)
        self.opener = Opener(self.keys.client_to_phone)

    def sent(self) -> list[bytes]:
        return [action.message for action in self.machine.actions() if isinstance(action, Send)]

    def received(self) -> list[Frame]:
        return [Frame.decode(self.opener.open(message)) for message in self.sent()]

    def greet(self, greeting: bytes = GREETING) -> Phone:
        self.machine.message(self.message_2)
        self.machine.message(self.sealer.seal(greeting))
        return self

    def say(self, kind: int, payload: bytes = b"") -> None:
        self.machine.message(self.sealer.seal(bytes([kind]) + payload))

    def refused(self, kind: int, payload: bytes = b"") -> None:
        with pytest.raises(RemoteProtocolError):
            self.say(kind, payload)
        expect(self.machine, State.CLOSED)
        assert CloseTunnel() in self.machine.actions()


def closed_by(machine: ClientMachine, message: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        machine.message(message)
    expect(machine, State.CLOSED)
    actions = machine.actions()
    assert actions[-2:] == [StopScan(), CloseTunnel()]
    assert machine.events()[-1] == Closed()
    machine.message(b"more")  # nothing is read any more
    machine.tunnel_closed()
    assert machine.actions() == []


# --- before the handshake


def test_the_qr_order() -> None:
    machine = qr_client()
    assert machine.opener is None
    machine.start()
    assert machine.actions() == [Scan()]
    assert machine.advert_heard(ADVERT, rssi=-40)
    stop, tunnel = machine.actions()
    assert stop == StopScan()
    assert isinstance(tunnel, OpenTunnel)
    assert tunnel.request.domain == "cable.ua5v.com"
    assert tunnel.request.target == Connect(ROUTING_ID, invitation().tunnel_id())
    assert (tunnel.request.headers(), tunnel.psm) == ({}, None)
    machine.tunnel_opened()
    (message_1,) = machine.actions()
    assert isinstance(message_1, Send)
    assert len(message_1.message) == 81
    assert machine.events() == [AdvertSeen("cable.ua5v.com", Proximity.BLUETOOTH, -40), TunnelOpened("cable.ua5v.com")]
    expect(machine, State.HANDSHAKING)


def test_the_linked_order() -> None:
    machine = link_client()
    machine.start()
    scan, tunnel = machine.actions()
    assert scan == Scan()
    assert isinstance(tunnel, OpenTunnel)
    assert tunnel.request.target == Contact(a_link().contact_id)
    assert tunnel.request.signal
    payload = ClientPayload.parse_header(tunnel.request.headers()["X-caBLE-Client-Payload"])
    assert payload == ClientPayload(a_link().link_id, CLIENT_NONCE, "ga")


def test_strangers_adverts_and_repetitions_are_no_error() -> None:
    machine = qr_client()
    assert not machine.advert_heard(ADVERT)  # not scanning yet, so not remembered either
    machine.start()
    machine.actions()
    for data in (b"", bytes(20), bytes(20), ADVERT[:19], ADVERT[:19] + bytes([ADVERT[19] ^ 1])):
        assert not machine.advert_heard(data)
    expect(machine, State.SCANNING)
    assert machine.actions() == []
    assert machine.events() == []
    assert machine.advert_heard(ADVERT)


def test_the_same_advert_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[bytes] = []
    monkeypatch.setattr(module, "trial_open", lambda data, key: tried.append(data))
    machine = qr_client()
    machine.start()
    for data in (ADVERT, ADVERT, ADVERT + b"\xa0", bytes(20)):
        machine.advert_heard(data)
    assert tried == [ADVERT, bytes(20)]


def test_what_is_remembered_of_strangers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[bytes] = []
    monkeypatch.setattr(module, "trial_open", lambda data, key: tried.append(data))
    monkeypatch.setattr(module, "_REMEMBERED_ADVERTS", 2)
    machine = qr_client()
    machine.start()
    one, two, three = (bytes([number]) * 20 for number in range(3))
    for data in (one, two, three, two, one):  # the third pushes the first out
        machine.advert_heard(data)
    assert tried == [one, two, three, one]


def test_the_first_match_commits_the_session() -> None:
    machine = qr_client()
    machine.start()
    assert machine.advert_heard(ADVERT)
    machine.actions()
    assert not machine.advert_heard(seal(Eid(bytes(10), ROUTING_ID, 0).pack(), invitation().eid_key()))
    assert machine.actions() == []
    assert machine.eid == PLACE.pack()


@pytest.mark.parametrize("service_id", [2, 255])
def test_an_unknown_service_is_dropped_in_silence(service_id: int) -> None:
    machine = qr_client()
    machine.start()
    assert not machine.advert_heard(seal(Eid(NONCE, ROUTING_ID, service_id).pack(), invitation().eid_key()))
    expect(machine, State.SCANNING)


@pytest.mark.parametrize("last", [b"\x00\x00", b"\x02\x00", b"\xff\x00", b"\x00\x01"])
def test_the_last_bytes_of_a_linked_advert_are_not_checked(last: bytes) -> None:
    machine = link_client()
    machine.start()
    machine.tunnel_opened()
    assert machine.advert_heard(seal(b"\x00" + bytes(13) + last, a_link().eid_key(CLIENT_NONCE)))


@pytest.mark.parametrize(
    ("transports", "suffix", "psm"),
    [
        ((0, 1), b"\xa1\x01\x18\x81", 0x81),
        ((0,), b"\xa1\x01\x18\x81", None),
        ((0, 1), b"", None),
        ((0, 1), b"\xff\x00", None),
    ],
)
def test_a_suffix_offers_a_channel_only_if_asked_and_never_spoils_the_advert(
    transports: tuple[int, ...], suffix: bytes, psm: int | None
) -> None:
    fields = QrInvitation(
        CLIENT_IDENTITY.public_key(), secret("qr secret", 16), transports=tuple(map(Transport, transports))
    )
    machine = qr_client(fields)
    machine.start()
    assert machine.advert_heard(ADVERT + suffix)
    assert [action.psm for action in machine.actions() if isinstance(action, OpenTunnel)] == [psm]


@pytest.mark.parametrize("message", [b"", b"\x00", bytes(81)])
def test_nobody_may_speak_before_message_1(message: bytes) -> None:
    closed_by(qr_client(), message)
    scanning = qr_client()
    scanning.start()
    closed_by(scanning, message)
    opening = qr_client()
    opening.start()
    opening.advert_heard(ADVERT)
    closed_by(opening, message)
    linked = link_client()
    linked.start()
    linked.tunnel_opened()
    closed_by(linked, message)


# --- the signal of a relay


@pytest.mark.parametrize("signal", [b"", b"\x01", b"\x00\x00", bytes(81)])
def test_another_signal_is_refused(signal: bytes) -> None:
    machine = link_client()
    machine.start()
    machine.tunnel_opened(signals=True)
    closed_by(machine, signal)


def test_the_signal_comes_once() -> None:
    machine = link_client()
    machine.start()
    machine.tunnel_opened(signals=True)
    machine.message(b"\x00")
    assert machine.events()[-1] == PhoneConnected()
    expect(machine, State.SCANNING)
    closed_by(machine, b"\x00")


def test_a_promised_signal_comes_before_message_2() -> None:
    machine, phone = link_client(), link_phone()
    phone.start()
    phone.tunnel_opened(None)
    phone.actions()
    machine.start()
    machine.tunnel_opened(signals=True)
    eid, advert = phone._introduction.advert(None)
    assert machine.advert_heard(advert)
    message_1 = machine.actions()[-1]
    assert isinstance(message_1, Send)
    message_2, _ = phone._introduction.responder(eid, PHONE_EPHEMERAL).answer(message_1.message)
    closed_by(machine, message_2)


@pytest.mark.parametrize("machine", [qr_client(), link_client(signal=False)])
def test_a_signal_that_nobody_asked_for_is_not_waited_for(machine: ClientMachine) -> None:
    machine.start()
    machine.advert_heard(ADVERT)
    machine.tunnel_opened(signals=True)
    closed_by(machine, b"\x00")


# --- handshake and greeting


def test_the_greeting_makes_ready() -> None:
    phone = Phone()
    phone.machine.message(phone.message_2)
    expect(phone.machine, State.GREETING)
    assert phone.machine.opener is not None
    phone.machine.message(phone.sealer.seal(PostHandshake(GET_INFO, ("x", "ctap")).encode()))
    expect(phone.machine, State.READY)
    assert phone.machine.greeting == PostHandshake(GET_INFO, ("x", "ctap"))
    assert phone.machine.events()[-2:] == [HandshakeDone(), Ready(("x", "ctap"))]


@pytest.mark.parametrize("change", [slice(80), slice(0), slice(81)])
def test_a_bad_message_2_is_the_end(change: slice) -> None:
    phone = Phone()
    message = phone.message_2[change] if change.stop != 81 else phone.message_2[:80] + b"x"
    with pytest.raises(HandshakeFailed):
        phone.machine.message(message)
    expect(phone.machine, State.CLOSED)
    phone.machine.message(phone.message_2)
    expect(phone.machine, State.CLOSED)


@pytest.mark.parametrize(
    "greeting",
    [b"", b"\x80", b"\xa0", b"\x01" + GREETING, cbor.encode({3: ["ctap"]}), cbor.encode({1: GET_INFO, 3: ["dc"]})],
)
def test_a_bad_greeting_is_the_end(greeting: bytes) -> None:
    phone = Phone()
    phone.machine.message(phone.message_2)
    closed_by(phone.machine, phone.sealer.seal(greeting))


def test_a_greeting_under_another_key_or_counter_is_the_end() -> None:
    for key_of, counter in (("client_to_phone", 0), ("phone_to_client", 1)):
        phone = Phone()
        phone.machine.message(phone.message_2)
        closed_by(phone.machine, Sealer(getattr(phone.keys, key_of), counter).seal(GREETING))


# --- requests


def test_request_and_answer() -> None:
    phone = Phone().greet()
    phone.machine.request(GET_ASSERTION)
    assert phone.received() == [Frame(MessageType.CTAP, GET_ASSERTION)]
    expect(phone.machine, State.REQUESTED)
    assert phone.machine.take_response() is None
    phone.say(1, b"\x00\xa0")
    expect(phone.machine, State.READY)
    assert phone.machine.take_response() == b"\x00\xa0"
    assert phone.machine.take_response() is None


@pytest.mark.parametrize("kind", [1, 3])
def test_an_answer_to_nothing_is_the_end(kind: int) -> None:
    Phone().greet().refused(kind, b"\x00\xa0")
    phone = Phone().greet()
    phone.machine.request(GET_ASSERTION)
    phone.say(1, b"\x2e")
    phone.refused(kind, b"\x2e")


@pytest.mark.parametrize(
    ("features", "asked", "answered"), [(("ctap",), 1, 3), (("ctap", "dc"), 1, 3), (("ctap", "dc"), 3, 1)]
)
def test_an_answer_of_another_type_is_the_end(features: tuple[str, ...], asked: int, answered: int) -> None:
    phone = Phone().greet(PostHandshake(GET_INFO, features).encode())
    phone.machine.request(b"\x02\xa0", MessageType(asked))
    phone.refused(answered, b"\x00\xa0")


def test_an_empty_answer_is_the_end() -> None:
    phone = Phone().greet()
    phone.machine.request(GET_ASSERTION)
    phone.refused(1)


@pytest.mark.parametrize("kind", [4, 9, 255])
def test_an_unknown_type_is_the_end_in_every_state(kind: int) -> None:
    Phone().greet().refused(kind, b"\xa0")
    requested = Phone().greet()
    requested.machine.request(GET_ASSERTION)
    requested.refused(kind)
    lingering = Phone().greet()
    lingering.machine.finish()
    lingering.refused(kind)


def test_an_empty_message_is_the_end() -> None:
    phone = Phone().greet()
    closed_by(phone.machine, phone.sealer.seal(b""))


@pytest.mark.parametrize("counter", [0, 2, 3])
def test_a_counter_used_again_or_skipped_is_the_end(counter: int) -> None:
    phone = Phone().greet()
    phone.machine.request(GET_ASSERTION)
    closed_by(phone.machine, Sealer(phone.keys.phone_to_client, counter).seal(b"\x01\x00\xa0"))


def test_one_request_at_a_time() -> None:
    phone = Phone().greet()
    phone.machine.request(GET_ASSERTION)
    with pytest.raises(LocalProtocolError):
        phone.machine.request(GET_ASSERTION)
    expect(phone.machine, State.REQUESTED)
    assert len(phone.received()) == 1


def test_requests_have_their_time() -> None:
    for machine in (qr_client(), link_client()):
        with pytest.raises(LocalProtocolError):
            machine.request(GET_ASSERTION)
    finished = Phone().greet().machine
    finished.finish()
    with pytest.raises(LocalProtocolError):
        finished.request(GET_ASSERTION)


@pytest.mark.parametrize(("payload", "kind"), [(b"", 1), (b"{}", 3), (b"\xa0", 2), (b"x", 0), (bytes(1 << 20), 1)])
def test_a_request_that_cannot_be_sent_changes_nothing(payload: bytes, kind: int) -> None:
    phone = Phone().greet()
    with pytest.raises(LocalProtocolError):
        phone.machine.request(payload, MessageType(kind))
    expect(phone.machine, State.READY)
    phone.machine.request(GET_ASSERTION)
    assert phone.received() == [Frame(MessageType.CTAP, GET_ASSERTION)]


def test_a_phone_without_ctap_gets_no_ctap() -> None:
    phone = Phone().greet(PostHandshake(None, ("dc",)).encode())
    with pytest.raises(LocalProtocolError):
        phone.machine.request(GET_ASSERTION)
    phone.machine.request(b"{}", MessageType.JSON)
    assert phone.received() == [Frame(MessageType.JSON, b"{}")]
    phone.say(3, b"{}")
    assert phone.machine.take_response() == b"{}"


# --- the end


def test_finish_says_so_and_lingers() -> None:
    phone = Phone().greet()
    phone.machine.finish()
    assert phone.received() == [Frame(MessageType.SHUTDOWN, b"")]
    phone.machine.finish()
    assert phone.received() == []
    expect(phone.machine, State.LINGERING)
    phone.say(1, b"\x00\xa0")  # came too late, is dropped
    assert phone.machine.take_response() is None
    phone.machine.tunnel_closed()
    expect(phone.machine, State.CLOSED)


def test_digital_credentials_that_were_not_announced_end_even_a_lingering_session() -> None:
    phone = Phone().greet()
    phone.machine.finish()
    phone.refused(3, b"{}")


def test_before_the_greeting_finish_just_closes() -> None:
    for machine in (qr_client(), Phone().machine):
        machine.actions()
        machine.finish()
        expect(machine, State.CLOSED)
        assert machine.actions() == [StopScan(), CloseTunnel()]
        machine.finish()
        machine.fail()
        assert machine.actions() == []


def test_shutdown_by_the_phone_is_a_clean_close() -> None:
    ready, lingering = Phone().greet(), Phone().greet()
    lingering.machine.finish()
    for phone in (ready, lingering):
        phone.say(0)
        expect(phone.machine, State.CLOSED)
        assert CloseTunnel() in phone.machine.actions()


def test_shutdown_instead_of_an_answer_is_no_answer() -> None:
    phone = Phone().greet()
    phone.machine.request(GET_ASSERTION)
    with pytest.raises(PeerClosed) as info:
        phone.say(0)
    assert info.value.stage is Stage.RESPONSE
    expect(phone.machine, State.CLOSED)


def test_leaving_in_the_middle_names_the_stage() -> None:
    new, scanning, opening, handshaking = qr_client(), qr_client(), qr_client(), Phone().machine
    scanning.start()
    opening.start()
    opening.advert_heard(ADVERT)
    greeting = Phone()
    greeting.machine.message(greeting.message_2)
    requested = Phone().greet().machine
    requested.request(GET_ASSERTION)
    for machine, stage in (
        (new, Stage.SCAN),
        (scanning, Stage.SCAN),
        (opening, Stage.TUNNEL),
        (handshaking, Stage.HANDSHAKE),
        (greeting.machine, Stage.GREETING),
        (requested, Stage.RESPONSE),
    ):
        with pytest.raises(PeerClosed) as info:
            machine.tunnel_closed()
        assert info.value.stage is stage
        expect(machine, State.CLOSED)


# --- linking


def linked_update(keys: TrafficKeys) -> bytes:
    return encode_update(link_offer(keys.handshake_hash))


def test_a_link_is_taken_in_every_state_after_the_greeting() -> None:
    for prepare in ("ready", "requested", "answered", "lingering"):
        phone = Phone().greet()
        if prepare in ("requested", "answered"):
            phone.machine.request(GET_ASSERTION)
        if prepare == "answered":
            phone.say(1, b"\x00")
        if prepare == "lingering":
            phone.machine.finish()
        before = phone.machine.state
        phone.say(2, linked_update(phone.keys))
        assert phone.machine.link == a_link()
        assert phone.machine.state is before


@pytest.mark.parametrize(
    "payload",
    [b"", b"\x80", b"\xa1\x01\x80", cbor.encode({1: {1: b"x"}}), encode_update(link_offer(secret("other", 32)))],
)
def test_a_link_that_cannot_be_used_is_dropped_and_the_session_goes_on(payload: bytes) -> None:
    phone = Phone().greet()
    phone.machine.request(GET_ASSERTION)
    phone.say(2, linked_update(phone.keys))
    phone.machine.events()
    phone.say(2, payload)
    assert phone.machine.events() == [LinkDropped()]
    assert phone.machine.link == a_link()  # the good one stays
    phone.say(1, b"\x00")
    assert phone.machine.take_response() == b"\x00"


def test_an_update_without_a_link_is_silent() -> None:
    phone = Phone().greet()
    phone.machine.events()
    phone.say(2, encode_update(None))
    assert phone.machine.events() == []


def test_the_service_id_of_a_link_comes_from_the_advert() -> None:
    place = Eid(NONCE, ROUTING_ID, 0x1234)
    introduction = QrIntroduction(invitation(), CLIENT_IDENTITY)
    hash_ = secret("hash", 32)
    link = introduction.verify_link(cbor.decode(link_offer(hash_)), place.pack(), hash_)
    assert link.tunnel_service_id == 0x1234


def test_a_linked_session_takes_no_link() -> None:
    introduction = LinkIntroduction(a_link(), CLIENT_NONCE, Hint.GET_ASSERTION)
    hash_ = secret("hash", 32)
    with pytest.raises(RemoteProtocolError):
        introduction.verify_link(cbor.decode(link_offer(hash_)), bytes(16), hash_)


# --- revision 0


def test_an_old_phone_gets_messages_without_types() -> None:
    phone = Phone().greet(pad_revision_0(cbor.encode({1: GET_INFO})))
    expect(phone.machine, State.READY)
    phone.machine.request(GET_ASSERTION)
    assert [phone.opener.open(message) for message in phone.sent()] == [GET_ASSERTION]
    phone.machine.message(phone.sealer.seal(b"\x00\xa0"))
    assert phone.machine.take_response() == b"\x00\xa0"
    phone.machine.finish()
    assert phone.machine.actions() == [StopScan(), CloseTunnel()]
    expect(phone.machine, State.CLOSED)


def test_an_old_phone_may_link_in_its_greeting() -> None:
    phone = Phone()
    offer = cbor.decode(link_offer(phone.keys.handshake_hash))
    phone.greet(pad_revision_0(cbor.encode({1: GET_INFO, 2: offer})))
    assert phone.machine.link == a_link()


# --- the tables


@pytest.mark.parametrize("table", [QR_ORDER, LINK_ORDER])
def test_every_state_is_reachable_and_can_fail(table: dict[tuple[State, Input], State]) -> None:
    reached = {State.NEW}
    while more := {after for (before, _), after in table.items() if before in reached} - reached:
        reached |= more
    assert reached == set(State) - ({State.MATCHED} if table is QR_ORDER else set())
    for state in State:
        assert table[state, Input.FAILURE] is State.CLOSED
        assert table[state, Input.PEER_CLOSED] is State.CLOSED
        assert module.STAGE_OF_STATE[state] in Stage
    assert {after for (before, _), after in table.items() if before is State.CLOSED} == {State.CLOSED}


def test_the_two_orders_differ_only_before_the_handshake() -> None:
    differing = {before for (before, _) in dict(QR_ORDER.items() ^ LINK_ORDER.items())}
    assert differing <= {State.NEW, State.SCANNING, State.OPENING, State.MATCHED}


def test_no_secret_shows() -> None:
    machine = ClientMachine(QrIntroduction(invitation(), CLIENT_IDENTITY), ephemeral=CLIENT_EPHEMERAL)
    assert repr(machine) == "<ClientMachine NEW>"
    for value in (machine._introduction, LinkIntroduction(a_link(), CLIENT_NONCE, Hint.GET_ASSERTION), Send(b"secret")):
        assert secret("qr secret", 16).hex() not in repr(value)
        assert "secret" not in repr(value)
