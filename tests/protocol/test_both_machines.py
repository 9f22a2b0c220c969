"""Both machines back to back, in both ceremonies, over channels that keep messages whole and ones that do not."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybrid import cbor
from hybrid.errors import LocalProtocolError, PeerClosed, RemoteProtocolError, Stage
from hybrid.events import Closed, LinkDropped, LinkReceived, PhoneConnected, Ready, ResponseReceived
from hybrid.protocol import authenticator as phone_side
from hybrid.protocol import client as client_side
from hybrid.protocol.frames import STREAM_END, Frame, MessageType
from hybrid.protocol.linking import encode_update
from tests.protocol.sides import (
    GET_ASSERTION,
    GET_INFO,
    MAKE_CREDENTIAL,
    Pair,
    a_link,
    forever,
    invitation,
    key,
    link_client,
    link_offer,
    link_phone,
    met,
    qr_client,
    qr_phone,
    secret,
)

CEREMONIES = {
    "qr": lambda cut=None: Pair(cut=cut),
    "linked": lambda cut=None: Pair(link_client(), link_phone(), cut=cut),
}
EITHER = pytest.mark.parametrize("ceremony", CEREMONIES)
CHANNELS = pytest.mark.parametrize("sizes", [None, (1,), (7,), (83,), (100_000,)])


def pair_of(ceremony: str, sizes: tuple[int, ...] | None = None) -> Pair:
    make: Callable[[Iterator[int] | None], Pair] = CEREMONIES[ceremony]
    return make(forever(*sizes) if sizes else None)


def offer(pair: Pair) -> bytes:
    return link_offer(pair.phone.handshake_hash())


@CHANNELS
@EITHER
def test_one_command_and_the_end(ceremony: str, sizes: tuple[int, ...] | None) -> None:
    pair = pair_of(ceremony, sizes)
    pair.meet()
    assert (pair.scanning, pair.on_air) == (False, False)
    assert pair.client.state is client_side.State.READY
    assert pair.client.greeting is not None
    assert pair.client.greeting.get_info == GET_INFO
    assert pair.call(GET_ASSERTION, b"\x00" + secret("answer", 3000)) == b"\x00" + secret("answer", 3000)
    assert pair.requests == [GET_ASSERTION]
    pair.client.finish()
    pair.settle()
    assert pair.phone.state is phone_side.State.FINISHING
    pair.phone.channel_closed()
    pair.client.tunnel_closed()
    pair.settle()
    assert pair.client_closed
    assert pair.phone_closed
    assert pair.client_news[-1] == pair.phone_news[-1] == Closed()
    assert ResponseReceived(0) in pair.client_news


@EITHER
@given(sizes=st.lists(st.integers(1, 200), min_size=1, max_size=8), answer=st.binary(min_size=1, max_size=400))
def test_a_stream_may_be_cut_anywhere(ceremony: str, sizes: list[int], answer: bytes) -> None:
    pair = pair_of(ceremony, tuple(sizes))
    pair.meet()
    assert pair.call(GET_ASSERTION, answer) == answer


@pytest.mark.parametrize("sizes", [(91,), (5000,), (1_000_000,)])
def test_an_end_inside_a_ciphertext_is_no_end(sizes: tuple[int, ...]) -> None:
    pair = pair_of("qr", sizes)
    pair.meet()
    for number in range(3):
        answer = b"\x00" + secret(f"answer {number}", 200_000)
        assert pair.call(GET_ASSERTION, answer) == answer
        assert STREAM_END in pair.to_client.sent[-1]


def test_several_commands() -> None:
    pair = met()
    for number in range(5):
        assert pair.call(GET_ASSERTION, bytes([number])) == bytes([number])
    assert pair.requests == [GET_ASSERTION] * 5


def test_get_info_is_not_a_command() -> None:
    pair = met()
    pair.client.request(b"\x04")
    pair.settle()
    assert pair.client.take_response() == b"\x00" + GET_INFO
    assert pair.requests == []


@pytest.mark.parametrize(("hint", "refused"), [("ga", True), ("mc", False), ("dcp", False), (None, False)])
def test_a_command_that_the_hint_did_not_announce(hint: str | None, refused: bool) -> None:
    qr = invitation(hint=hint)
    pair = met(client=qr_client(qr), phone=qr_phone(qr))
    pair.client.request(MAKE_CREDENTIAL)
    pair.settle()
    assert pair.requests == ([] if refused else [MAKE_CREDENTIAL])
    assert pair.client.take_response() == (b"\x30" if refused else None)


@pytest.mark.parametrize("hint", ["ga", "mc"])
def test_the_hint_of_a_linked_session_is_enforced(hint: str) -> None:
    pair = Pair(link_client(), link_phone(hint))
    pair.meet()
    pair.client.request(GET_ASSERTION)
    pair.settle()
    assert pair.requests == ([GET_ASSERTION] if hint == "ga" else [])


# --- the linked order


@pytest.mark.parametrize("advert_first", [False, True])
@pytest.mark.parametrize("signals", [False, True])
def test_advert_and_tunnel_come_in_either_order(signals: bool, advert_first: bool) -> None:
    pair = pair_of("linked")
    pair.meet(signals=signals, advert_first=advert_first)
    assert pair.client.state is client_side.State.READY
    assert pair.client_news.count(PhoneConnected()) == int(signals)
    assert pair.call() == b"\x00\xa0"


@pytest.mark.parametrize("advert_first", [False, True])
def test_a_signal_that_was_not_promised_is_the_end(advert_first: bool) -> None:
    pair = pair_of("linked")
    pair.client.start()
    pair.advertise()
    if advert_first:
        assert pair.client.advert_heard(pair.advert)
    pair.client.tunnel_opened(signals=False)
    with pytest.raises(RemoteProtocolError):
        pair.client.message(b"\x00")
    assert pair.client.state is client_side.State.CLOSED


# --- updates


@pytest.mark.parametrize("when", ["before", "between", "after", "after shutdown"])
@pytest.mark.parametrize("sizes", [None, (50,)])
def test_a_link_may_come_at_any_time(when: str, sizes: tuple[int, ...] | None) -> None:
    pair = pair_of("qr", sizes)
    pair.meet()
    if when == "before":
        pair.phone.send_update(offer(pair))
    pair.client.request(GET_ASSERTION)
    pair.settle()
    if when == "between":
        pair.phone.send_update(offer(pair))
        pair.settle()
    pair.phone.response(b"\x00")
    pair.settle()
    assert pair.client.take_response() == b"\x00"
    if when == "after shutdown":
        pair.client.finish()
        pair.settle()
    if when.startswith("after"):
        pair.phone.send_update(offer(pair))
        pair.settle()
    assert pair.client.link == a_link()
    assert pair.client_news.count(LinkReceived("a phone")) == 1


def test_a_link_that_somebody_else_signed_is_dropped_and_nothing_else() -> None:
    pair = met()
    pair.phone.send_update(offer(pair))
    forged = cbor.decode(link_offer(pair.phone.handshake_hash(), key("thief")))
    forged[4] = cbor.decode(offer(pair))[4]
    pair.phone.send_update(cbor.encode(forged))
    pair.settle()
    assert pair.client_news[-1] == LinkDropped()
    assert pair.client.link == a_link()
    assert pair.call() == b"\x00\xa0"


def test_a_linked_session_ignores_a_link() -> None:
    pair = pair_of("linked")
    pair.meet()
    pair.phone.send_update(offer(pair))
    pair.settle()
    assert pair.client_news[-1] == LinkDropped()
    assert pair.client.link is None
    assert pair.call() == b"\x00\xa0"


def test_the_size_of_an_update_does_not_tell_whether_it_links() -> None:
    pair = met()
    pair.phone.send_update(offer(pair))
    pair.phone.send_update(None)
    pair.settle()
    assert [len(message) for message in pair.to_client.sent[-2:]] == [528, 528]


# --- ends


@EITHER
def test_what_was_sent_before_cannot_be_sent_again(ceremony: str) -> None:
    pair = pair_of(ceremony)
    pair.meet()
    pair.call()
    for machine, wire in ((pair.client, pair.to_client), (pair.phone, pair.to_phone)):
        with pytest.raises(RemoteProtocolError):
            machine.message(wire.sent[-1])
        assert machine.state.name == "CLOSED"


@EITHER
@given(data=st.data())
def test_any_flipped_bit_on_the_way_is_the_end(ceremony: str, data: st.DataObject) -> None:
    pair = pair_of(ceremony)
    pair.meet()
    pair.client.request(GET_ASSERTION)
    pair.phone.send_update(None)
    to_phone = [wish.message for wish in pair.client.actions() if isinstance(wish, client_side.Send)]
    to_client = [wish.message for wish in pair.phone.actions() if isinstance(wish, phone_side.Send)]
    for machine, (message,) in ((pair.client, to_client), (pair.phone, to_phone)):
        bit = data.draw(st.integers(0, 8 * len(message) - 1))
        tampered = bytearray(message)
        tampered[bit // 8] ^= 1 << bit % 8
        with pytest.raises(RemoteProtocolError):
            machine.message(bytes(tampered))
        assert machine.state.name == "CLOSED"


def test_a_phone_that_closes_instead_of_answering() -> None:
    pair = met()
    pair.client.request(GET_ASSERTION)
    pair.settle()
    with pytest.raises(PeerClosed) as info:
        pair.client.tunnel_closed()
    assert info.value.stage is Stage.RESPONSE


def test_a_phone_of_the_old_kind_says_shutdown() -> None:
    pair = met()
    pair.call()
    pair.phone._send(Frame(MessageType.SHUTDOWN, b""))
    pair.settle()
    assert pair.client.state is client_side.State.CLOSED


def test_a_code_of_another_session_opens_nothing() -> None:
    pair = Pair(qr_client(invitation()), qr_phone(invitation(key("another code").public_key())))
    pair.client.start()
    pair.advertise()
    assert pair.client.advert_heard(pair.advert)
    pair.client.tunnel_opened()
    with pytest.raises(RemoteProtocolError):
        pair.settle()
    assert pair.phone.state is phone_side.State.CLOSED


def test_both_know_when_they_are_ready() -> None:
    pair = met()
    assert Ready(("ctap",)) in pair.client_news
    with pytest.raises(LocalProtocolError):
        pair.client.start()
    with pytest.raises(LocalProtocolError):
        pair.phone.start()
    update = encode_update(None)
    assert len(update) == 510
