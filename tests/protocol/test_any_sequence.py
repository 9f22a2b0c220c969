"""Any inputs in any order: a legal move, a local error that changes nothing, or a remote error and `CLOSED`."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hybrid.errors import LocalProtocolError, PeerClosed, RemoteProtocolError
from hybrid.protocol import authenticator as phone_side
from hybrid.protocol import client as client_side
from hybrid.protocol.authenticator import AuthenticatorMachine
from hybrid.protocol.client import ClientMachine
from hybrid.protocol.frames import MessageType
from hybrid.protocol.habits import Habits
from hybrid.protocol.qr import Transport
from tests.protocol.sides import (
    GET_ASSERTION,
    MAKE_CREDENTIAL,
    ROUTING_ID,
    Pair,
    link_client,
    link_offer,
    link_phone,
    qr_client,
    qr_phone,
    secret,
)

PAYLOADS = st.binary(max_size=40) | st.sampled_from([GET_ASSERTION, MAKE_CREDENTIAL, b"\x04", b"\x00\xa0", b"\xa0"])
PLAINTEXTS = st.builds(lambda kind, payload: bytes([kind]) + payload, st.integers(0, 4), PAYLOADS) | st.just(b"")

HABITS = st.builds(
    Habits,
    features=st.sampled_from([("ctap",), ("dc", "ctap"), None]),
    sends_update=st.booleans(),
    answers_get_info=st.booleans(),
    unanswered=st.sampled_from([frozenset(), frozenset({0x00, 0x03, 0x2E})]),
    leaves_empty_handed=st.booleans(),
    once_revision_0=st.booleans(),
)


class BothMachines(RuleBasedStateMachine):
    """A client and a phone; their messages are delivered, lost, repeated, exchanged or forged in any order."""

    @initialize(linked=st.booleans(), ready=st.booleans(), habits=HABITS)
    def begin(self, linked: bool, ready: bool, habits: Habits) -> None:
        self.pair = Pair(link_client(), link_phone()) if linked else Pair(qr_client(), qr_phone(habits=habits))
        self.client, self.phone = self.pair.client, self.pair.phone
        self.to_client: list[bytes] = []
        self.to_phone: list[bytes] = []
        if ready:
            self.pair.meet()

    def attempt(self, machine: ClientMachine | AuthenticatorMachine, step: Callable[[], object]) -> None:
        before = machine.state
        try:
            step()
        except LocalProtocolError:
            assert machine.state is before
        except (RemoteProtocolError, PeerClosed):
            assert machine.state.name == "CLOSED"
        if before.name == "CLOSED":
            assert machine.state.name == "CLOSED"
        for wish in self.client.actions():
            if isinstance(wish, client_side.Send):
                self.to_phone.append(wish.message)
        for order in self.phone.actions():
            if isinstance(order, phone_side.Send):
                self.to_client.append(order.message)
            if isinstance(order, phone_side.Advertise):
                self.pair.advert = order.service_data

    # what happens to the client

    @rule()
    def client_starts(self) -> None:
        self.attempt(self.client, self.client.start)

    @rule(signals=st.booleans())
    def client_has_its_tunnel(self, signals: bool) -> None:
        self.attempt(self.client, lambda: self.client.tunnel_opened(signals=signals))

    @rule(stranger=st.booleans())
    def client_hears(self, stranger: bool) -> None:
        advert = secret("stranger", 20) if stranger else self.pair.advert
        self.attempt(self.client, lambda: self.client.advert_heard(advert))

    @rule(payload=PAYLOADS, kind=st.sampled_from(MessageType))
    def client_asks(self, payload: bytes, kind: MessageType) -> None:
        self.attempt(self.client, lambda: self.client.request(payload, kind))

    @rule()
    def client_finishes(self) -> None:
        self.attempt(self.client, self.client.finish)

    @rule()
    def client_loses_its_tunnel(self) -> None:
        self.attempt(self.client, self.client.tunnel_closed)

    @precondition(lambda self: self.to_client)
    @rule(keep=st.booleans())
    def client_gets_the_next_message(self, keep: bool) -> None:
        message = self.to_client[0] if keep else self.to_client.pop(0)
        self.attempt(self.client, lambda: self.client.message(message))

    @rule(message=st.sampled_from([b"\x00", b""]) | st.binary(max_size=100))
    def client_gets_anything(self, message: bytes) -> None:
        self.attempt(self.client, lambda: self.client.message(message))

    @precondition(lambda self: self.phone._sealer is not None)
    @rule(plaintext=PLAINTEXTS)
    def client_gets_anything_sealed(self, plaintext: bytes) -> None:
        assert self.phone._sealer is not None
        message = self.phone._sealer.seal(plaintext)
        self.attempt(self.client, lambda: self.client.message(message))

    # what happens to the phone

    @rule()
    def phone_starts(self) -> None:
        self.attempt(self.phone, self.phone.start)

    @rule(routing_id=st.sampled_from([ROUTING_ID, ROUTING_ID, None, b""]))
    def phone_has_its_tunnel(self, routing_id: bytes | None) -> None:
        self.attempt(self.phone, lambda: self.phone.tunnel_opened(routing_id))

    @rule()
    def phone_is_offered_another_channel(self) -> None:
        self.attempt(self.phone, lambda: self.phone.channel_offered(Transport.L2CAP))

    @rule(data=PAYLOADS)
    def phone_answers(self, data: bytes) -> None:
        self.attempt(self.phone, lambda: self.phone.response(data))

    @rule(links=st.booleans())
    def phone_sends_an_update(self, links: bool) -> None:
        self.attempt(
            self.phone,
            lambda: self.phone.send_update(link_offer(self.phone.handshake_hash()) if links else None),
        )

    @rule(transport=st.sampled_from(Transport))
    def phone_loses_a_channel(self, transport: Transport) -> None:
        self.attempt(self.phone, lambda: self.phone.channel_closed(transport))

    @precondition(lambda self: self.to_phone)
    @rule(keep=st.booleans(), transport=st.sampled_from(Transport))
    def phone_gets_the_next_message(self, keep: bool, transport: Transport) -> None:
        message = self.to_phone[0] if keep else self.to_phone.pop(0)
        self.attempt(self.phone, lambda: self.phone.message(message, transport))

    @rule(message=st.binary(max_size=100), transport=st.sampled_from(Transport))
    def phone_gets_anything(self, message: bytes, transport: Transport) -> None:
        self.attempt(self.phone, lambda: self.phone.message(message, transport))

    @precondition(lambda self: self.client._sealer is not None)
    @rule(plaintext=PLAINTEXTS)
    def phone_gets_anything_sealed(self, plaintext: bytes) -> None:
        assert self.client._sealer is not None
        message = self.client._sealer.seal(plaintext)
        self.attempt(self.phone, lambda: self.phone.message(message))

    @rule(client=st.booleans())
    def somebody_gives_up(self, client: bool) -> None:
        machine = self.client if client else self.phone
        self.attempt(machine, machine.fail)
        assert machine.state.name == "CLOSED"

    @invariant()
    def keys_are_there_exactly_after_the_handshake(self) -> None:
        if not hasattr(self, "client"):
            return
        keyed = ("GREETING", "READY", "REQUESTED", "LINGERING")
        if self.client.state.name != "CLOSED":
            assert (self.client.opener is not None) == (self.client.state.name in keyed)
            assert (self.client.greeting is not None) == (self.client.state.name in keyed[1:])
        if self.phone.state.name != "CLOSED":
            assert (self.phone.opener is not None) == (self.phone.state.name in ("SERVING", "BUSY", "FINISHING"))
        assert self.client.link is None or self.client.opener is not None


BothMachines.TestCase.settings = settings(max_examples=120, stateful_step_count=30, deadline=None, database=None)
TestBothMachines = pytest.mark.timeout(600)(BothMachines.TestCase)  # a soak tries it 6,000 times
