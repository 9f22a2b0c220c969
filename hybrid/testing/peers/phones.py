"""Phones that misbehave, each in one way. `Phone` follows the rules; the others change one step of it.

Every phone serves one code (or one contact request) and takes part until the client leaves.
"""

from __future__ import annotations

import secrets
from contextlib import suppress

from cryptography.hazmat.primitives.asymmetric import ec

from hybrid import cbor
from hybrid.driving import MessageChannel
from hybrid.errors import LocalProtocolError, Stage, TunnelError
from hybrid.ports import Advertiser, TunnelService
from hybrid.protocol import frames, handshake, linking
from hybrid.protocol.authenticator import Introduction, QrIntroduction
from hybrid.protocol.ctap import FEATURE_CTAP, FEATURE_DIGITAL_CREDENTIALS, PostHandshake, pad_revision_0
from hybrid.protocol.eid import NONCE_SIZE
from hybrid.protocol.frames import Frame, MessageType
from hybrid.protocol.keys import (
    LINK_ID_SIZE,
    MAX_MESSAGE_SIZE,
    PSK_SIZE,
    UNCOMPRESSED_SIZE,
    diffie_hellman,
    parse_point,
    uncompressed,
)
from hybrid.protocol.linking import Link
from hybrid.protocol.noise import Pattern, SymmetricState, TrafficKeys
from hybrid.protocol.qr import QrInvitation
from hybrid.testing.peers.wire import PeerLeft, Wire

GET_INFO = cbor.encode({1: ["FIDO_2_0", "FIDO_2_1"], 3: bytes(16), 4: {"rk": True, "uv": True}})
DENIED = b"\x27"


class Phone:
    """Follows the rules: answers every request with `response`.

    `service_id`: tunnel service to meet at; `response`: status byte and CBOR.
    """

    def __init__(self, *, service_id: int = 0, response: bytes = DENIED) -> None:
        self.service_id = service_id
        self.response = response
        self.requests: list[bytes] = []
        self.was_told_goodbye = False
        self._wire: Wire | None = None

    @property
    def wire(self) -> Wire:
        if self._wire is None:
            raise LocalProtocolError("this phone is not connected")
        return self._wire

    async def run(self, to: str | Introduction, *, advertiser: Advertiser, tunnels: TunnelService) -> None:
        """Take part until the client leaves. `to`: a code, or what a linked phone knows about the client."""
        if isinstance(to, str):
            to = QrIntroduction(QrInvitation.parse(to), self.service_id, secrets.token_bytes(NONCE_SIZE))
        bearer = await tunnels.open(to.request())
        channel = MessageChannel(bearer)
        self._wire = Wire(channel)
        try:
            with suppress(PeerLeft, TunnelError):
                await self._meet(to, advertiser, bearer.routing_id)
                await self.talk()
        finally:
            await channel.aclose()

    async def _meet(self, to: Introduction, advertiser: Advertiser, routing_id: bytes | None) -> None:
        await self.reach(Stage.SCAN)
        eid, service_data = to.advert(routing_id)
        async with advertiser.advertise(self.advert(service_data)):
            message_1 = await self.wire.receive()
        await self.reach(Stage.HANDSHAKE)
        message_2, keys = self.shake_hands(to, eid, message_1)
        await self.wire.send(self.message_2(message_2))
        self.wire.agree(sends=keys.phone_to_client, receives=keys.client_to_phone)
        self.agreed(to, keys)
        await self.reach(Stage.GREETING)
        await self.wire.send_plaintext(self.greeting())

    # steps to override, in their order

    async def reach(self, stage: Stage) -> None:
        """Called when the client is about to wait for us in this stage."""

    def advert(self, service_data: bytes) -> bytes:
        return service_data

    def shake_hands(self, to: Introduction, eid: bytes, message_1: bytes) -> tuple[bytes, TrafficKeys]:
        return to.responder(eid, ec.generate_private_key(ec.SECP256R1())).answer(message_1)

    def message_2(self, message: bytes) -> bytes:
        return message

    def agreed(self, to: Introduction, keys: TrafficKeys) -> None:
        """Called with the session's keys, for a phone that wants to prove something with them."""

    def greeting(self) -> bytes:
        return PostHandshake(GET_INFO, (FEATURE_CTAP,)).encode()

    async def talk(self) -> None:
        """From the greeting to the end."""
        await self.reach(Stage.REQUEST)
        while (frame := await self.wire.receive_frame()).type is not MessageType.SHUTDOWN:
            self.requests.append(frame.payload)
            await self.reach(Stage.RESPONSE)
            await self.answer(frame)
        self.was_told_goodbye = True
        await self.after_goodbye()

    async def answer(self, request: Frame) -> None:
        await self.wire.send_frame(MessageType.CTAP, self.response)

    async def after_goodbye(self) -> None:
        """The client sends no more requests; return to close."""


# --- advert and handshake ---------------------------------------------------------------------------------------------


class WrongTag(Phone):
    """Sends an advert whose tag does not authenticate."""

    def advert(self, service_data: bytes) -> bytes:
        return service_data[:-1] + bytes([service_data[-1] ^ 1])


class ShortAdvert(Phone):
    """Sends an advert that lacks its last byte."""

    def advert(self, service_data: bytes) -> bytes:
        return service_data[:-1]


class AdvertWithSuffix(Phone):
    """Adds a suffix to its advert that is no CBOR; clients accept it."""

    def advert(self, service_data: bytes) -> bytes:
        return service_data + b"\xff\xff"


class WrongPsk(Phone):
    """Has heard of the code, but not its secret: does not check message 1 and makes message 2 with another PSK."""

    def shake_hands(self, to: Introduction, eid: bytes, message_1: bytes) -> tuple[bytes, TrafficKeys]:
        if not isinstance(to, QrIntroduction):
            raise LocalProtocolError("this phone serves codes only")
        client, tag = message_1[:UNCOMPRESSED_SIZE], message_1[UNCOMPRESSED_SIZE:]
        ephemeral = ec.generate_private_key(ec.SECP256R1())
        own = uncompressed(ephemeral.public_key())
        state = SymmetricState(Pattern.KN_PSK0.value)
        state.mix_hash(handshake.PROLOGUE_QR, "prologue")
        state.mix_hash(uncompressed(to.qr.public_key), "static public")
        state.mix_key_and_hash(secrets.token_bytes(PSK_SIZE), "psk")
        for point in (client, own):
            state.mix_hash(point, "point")
            state.mix_key(point, "point")
            if point is client:
                state.mix_hash(tag, "tag, not checked")
        state.mix_key(diffie_hellman(ephemeral, parse_point(client)), "ee")
        state.mix_key(diffie_hellman(ephemeral, to.qr.public_key), "se")
        return own + state.encrypt_and_hash("message 2"), state.split()


class ShortMessage2(Phone):
    """Sends message 2 without its last byte."""

    def message_2(self, message: bytes) -> bytes:
        return message[:-1]


class LongMessage2(Phone):
    """Sends message 2 with one byte more."""

    def message_2(self, message: bytes) -> bytes:
        return message + b"\x00"


class BadPoint(Phone):
    """Sends message 2 with a point that is not on the curve."""

    def message_2(self, message: bytes) -> bytes:
        return b"\x04" + b"\xff" * (UNCOMPRESSED_SIZE - 1) + message[UNCOMPRESSED_SIZE:]


class TamperedMessage2(Phone):
    """Sends message 2 with one bit of its tag flipped."""

    def message_2(self, message: bytes) -> bytes:
        return message[:-1] + bytes([message[-1] ^ 0x80])


class ReflectsMessage1(Phone):
    """Sends message 1 back as message 2."""

    def shake_hands(self, to: Introduction, eid: bytes, message_1: bytes) -> tuple[bytes, TrafficKeys]:
        _, keys = super().shake_hands(to, eid, message_1)
        return message_1, keys


# --- greeting ---------------------------------------------------------------------------------------------------------


class NoGetInfo(Phone):
    """Announces CTAP and sends no getInfo."""

    def greeting(self) -> bytes:
        return PostHandshake(None, (FEATURE_CTAP,)).encode()


class GetInfoWithoutFeature(Phone):
    """Sends a getInfo and does not announce CTAP."""

    def greeting(self) -> bytes:
        return PostHandshake(GET_INFO, (FEATURE_DIGITAL_CREDENTIALS,)).encode()


class FeaturesWithoutCtap(Phone):
    """Speaks digital credentials only; clients accept it and have nothing to ask."""

    def greeting(self) -> bytes:
        return PostHandshake(None, (FEATURE_DIGITAL_CREDENTIALS,)).encode()


class FeaturesAreText(Phone):
    """Announces its features as one text instead of a list."""

    def greeting(self) -> bytes:
        return cbor.encode({1: GET_INFO, 3: FEATURE_CTAP})


class UnreadableGreeting(Phone):
    """Sends a greeting that is no CBOR."""

    def greeting(self) -> bytes:
        return b"\xffhello"


class EmptyGreeting(Phone):
    """Sends a greeting of nothing but padding."""

    def greeting(self) -> bytes:
        return b""


# --- messages ---------------------------------------------------------------------------------------------------------


class BadPadding(Phone):
    """Answers with a padding count beyond the length of the message."""

    async def answer(self, request: Frame) -> None:
        await self.wire.send_padded(b"\xff" * frames.PADDING_GRANULARITY)


class NoPadding(Phone):
    """Answers with a message of no bytes, not even a padding count."""

    async def answer(self, request: Frame) -> None:
        await self.wire.send_padded(b"")


class SkippedCounter(Phone):
    """Answers under the counter after the next."""

    async def answer(self, request: Frame) -> None:
        padded = frames.pad(Frame(MessageType.CTAP, self.response).encode())
        await self.wire.send_padded(padded, self.wire.counter + 1)


class ReusedCounter(Phone):
    """Answers under the counter of its greeting."""

    async def answer(self, request: Frame) -> None:
        await self.wire.send_padded(frames.pad(Frame(MessageType.CTAP, self.response).encode()), 0)


class Oversize(Phone):
    """Answers with more than 1 MiB."""

    async def answer(self, request: Frame) -> None:
        await self.wire.send(bytes(MAX_MESSAGE_SIZE + 1))


class PlainAnswer(Phone):
    """Answers without encryption."""

    async def answer(self, request: Frame) -> None:
        await self.wire.send(frames.pad(Frame(MessageType.CTAP, self.response).encode()))


class TypeNine(Phone):
    """Answers with a message of the unknown type 9."""

    async def answer(self, request: Frame) -> None:
        await self.wire.send_plaintext(b"\x09" + self.response)


class EmptyFrame(Phone):
    """Answers with a message that has no type byte."""

    async def answer(self, request: Frame) -> None:
        await self.wire.send_plaintext(b"")


class EmptyAnswer(Phone):
    """Answers with a CTAP message that has no status byte."""

    async def answer(self, request: Frame) -> None:
        await self.wire.send_frame(MessageType.CTAP)


class AnswerOfOtherType(Phone):
    """Speaks digital credentials as well, and answers a CTAP request with JSON."""

    def greeting(self) -> bytes:
        return PostHandshake(GET_INFO, (FEATURE_CTAP, FEATURE_DIGITAL_CREDENTIALS)).encode()

    async def answer(self, request: Frame) -> None:
        await self.wire.send_frame(MessageType.JSON, b"{}")


class UnannouncedJson(Phone):
    """Answers with JSON, which it did not announce."""

    async def answer(self, request: Frame) -> None:
        await self.wire.send_frame(MessageType.JSON, b"{}")


class UnaskedAnswer(Phone):
    """Answers before anybody asked. A client that asks before this arrives takes it for the answer."""

    async def talk(self) -> None:
        await self.wire.send_frame(MessageType.CTAP, self.response)
        await super().talk()


class AnswersTwice(Phone):
    """Sends two answers to one request."""

    async def answer(self, request: Frame) -> None:
        await super().answer(request)
        await super().answer(request)


class ManyFalseEnds(Phone):
    """Fills a stream with ends of messages, none of which authenticates; for unbounded channels."""

    async def answer(self, request: Frame) -> None:
        await self.wire.send(frames.STREAM_END * (frames.MAX_CHANCE_ENDS + 1))


class SendsShutdown(Phone):
    """Sends a shutdown message after its answer, as some phones do; clients take it as a clean close."""

    async def answer(self, request: Frame) -> None:
        await super().answer(request)
        await self.wire.send_frame(MessageType.SHUTDOWN)


class ShutdownInsteadOfAnswer(Phone):
    """Sends a shutdown message while a request waits."""

    async def answer(self, request: Frame) -> None:
        await self.wire.send_frame(MessageType.SHUTDOWN)


class ClosesWithoutAnswer(Phone):
    """Closes while a request waits."""

    async def answer(self, request: Frame) -> None:
        raise PeerLeft


class NeverAnswers(Phone):
    """Reads every request and answers none."""

    async def answer(self, request: Frame) -> None:
        pass


class NeverCloses(Phone):
    """Stays when the client has said goodbye."""

    async def after_goodbye(self) -> None:
        await self.wire.wait_until_left()


class PadsOddly(Phone):
    """Pads before it adds the type byte, as one client does; accepted."""

    async def answer(self, request: Frame) -> None:
        padded = bytes([MessageType.CTAP]) + frames.pad(self.response)
        await self.wire.send_padded(padded)


class HangsUp(Phone):
    """Closes when the client begins to wait for it in `stage`."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.stage = stage

    async def reach(self, stage: Stage) -> None:
        if stage is self.stage:
            raise PeerLeft


class SilentAt(Phone):
    """Says nothing more when the client begins to wait for it in `stage`."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.stage = stage

    async def reach(self, stage: Stage) -> None:
        if stage is self.stage:
            await self.wire.wait_until_left()


# --- history and linking ----------------------------------------------------------------------------------------------


class Linking(Phone):
    """Knows how to make linking information; sends none. The base of the phones that do."""

    def __init__(self, *, name: str = "a phone", response: bytes = DENIED) -> None:
        super().__init__(response=response)
        self.identity = ec.generate_private_key(ec.SECP256R1())
        self.link = Link(
            contact_id=secrets.token_bytes(32),
            link_id=secrets.token_bytes(LINK_ID_SIZE),
            link_secret=secrets.token_bytes(linking.LINK_SECRET_SIZE),
            public_key=self.identity.public_key(),
            name=name,
        )
        self.linking_map = b""

    def agreed(self, to: Introduction, keys: TrafficKeys) -> None:
        if not isinstance(to, QrIntroduction):
            raise LocalProtocolError("this phone links through codes only")
        self.linking_map = linking.linking_map(self.link, self.identity, to.qr.public_key, keys.handshake_hash)

    async def send_link(self) -> None:
        await self.wire.send_frame(MessageType.UPDATE, linking.encode_update(self.linking_map))


class LinksBefore(Linking):
    """Links before it is asked anything."""

    async def talk(self) -> None:
        await self.send_link()
        await super().talk()


class LinksBetween(Linking):
    """Links between a request and its answer."""

    async def answer(self, request: Frame) -> None:
        await self.send_link()
        await super().answer(request)


class LinksAfter(Linking):
    """Links right after its answer."""

    async def answer(self, request: Frame) -> None:
        await super().answer(request)
        await self.send_link()


class LateLinking(Linking):
    """Links only after the client has said that it is done."""

    async def after_goodbye(self) -> None:
        await self.send_link()


class BadLinkingProof(LinksBetween):
    """Links with a proof that does not verify; the session goes on."""

    def agreed(self, to: Introduction, keys: TrafficKeys) -> None:
        wrong = TrafficKeys(keys.client_to_phone, keys.phone_to_client, bytes(len(keys.handshake_hash)))
        super().agreed(to, wrong)


class UnreadableUpdate(LinksBetween):
    """Sends an update that is no CBOR; the session goes on."""

    async def send_link(self) -> None:
        await self.wire.send_frame(MessageType.UPDATE, b"\xff")


class EmptyUpdate(LinksBetween):
    """Sends an update that carries no link, as phones do that hide whether they link."""

    async def send_link(self) -> None:
        await self.wire.send_frame(MessageType.UPDATE, linking.encode_update(None))


class Revision0(Linking):
    """A phone of the time before message types: pads its greeting, links inside it, and closes to say goodbye."""

    def greeting(self) -> bytes:
        return pad_revision_0(cbor.encode({1: GET_INFO, 2: cbor.decode_map(self.linking_map)}))

    async def talk(self) -> None:
        while True:
            self.requests.append(await self.wire.receive_plaintext())
            await self.wire.send_plaintext(self.response)
