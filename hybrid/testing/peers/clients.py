"""Clients that misbehave, each in one way. `Client` follows the rules; the others change one step of it."""

from __future__ import annotations

from contextlib import suppress

from cryptography.hazmat.primitives.asymmetric import ec

from hybrid import cbor
from hybrid.driving import MessageChannel
from hybrid.errors import LocalProtocolError, TunnelError
from hybrid.invitation import Invitation
from hybrid.ports import Scanner, TunnelService
from hybrid.protocol import frames
from hybrid.protocol.client import QrIntroduction
from hybrid.protocol.ctap import Command
from hybrid.protocol.frames import Frame, MessageType
from hybrid.protocol.keys import MAX_MESSAGE_SIZE, UNCOMPRESSED_SIZE
from hybrid.testing.peers.wire import PeerLeft, Wire

REQUEST = bytes([Command.GET_ASSERTION]) + cbor.encode({1: "example.com", 2: bytes(32)})


class Client:
    """Follows the rules: sends `request`, keeps the answers, says goodbye.

    `request`: command byte and CBOR. `greeting`: as it came; `answers`: CTAP payloads that came back; `updates`:
    payloads of updates that came between.
    """

    def __init__(self, request: bytes = REQUEST) -> None:
        self.request = request
        self.greeting = b""
        self.answers: list[bytes] = []
        self.updates: list[bytes] = []
        self._wire: Wire | None = None

    @property
    def wire(self) -> Wire:
        if self._wire is None:
            raise LocalProtocolError("this client is not connected")
        return self._wire

    async def run(self, invitation: Invitation, *, scanner: Scanner, tunnels: TunnelService) -> None:
        """Take part until the phone leaves."""
        introduction = QrIntroduction(invitation.qr, invitation.identity)
        eid = await _hear(introduction, scanner)
        channel = MessageChannel(await tunnels.open(introduction.request(eid)))
        self._wire = Wire(channel)
        try:
            with suppress(PeerLeft, TunnelError):
                await self.shake_hands(introduction, eid)
                await self.greeted()
                await self.talk()
                await self.wire.wait_until_left()
        finally:
            await channel.aclose()

    # steps to override, in their order

    async def shake_hands(self, introduction: QrIntroduction, eid: bytes) -> None:
        initiator = introduction.initiator(eid, ec.generate_private_key(ec.SECP256R1()))
        await self.wire.send(self.message_1(initiator.write_message_1()))
        keys = initiator.read_message_2(await self.wire.receive())
        self.wire.agree(sends=keys.client_to_phone, receives=keys.phone_to_client)

    def message_1(self, message: bytes) -> bytes:
        return message

    async def greeted(self) -> None:
        """Read the greeting."""
        self.greeting = await self.wire.receive_plaintext()

    async def talk(self) -> None:
        """From the greeting to the goodbye."""
        await self.ask()
        await self.read_answer()
        await self.say_goodbye()

    async def ask(self) -> None:
        await self.wire.send_frame(MessageType.CTAP, self.request)

    async def read_answer(self) -> None:
        while (frame := await self.wire.receive_frame()).type is MessageType.UPDATE:
            self.updates.append(frame.payload)
        self.answers.append(frame.payload)

    async def say_goodbye(self) -> None:
        await self.wire.send_frame(MessageType.SHUTDOWN)


async def _hear(introduction: QrIntroduction, scanner: Scanner) -> bytes:
    async with scanner.scan() as adverts:
        async for advert in adverts:
            eid = introduction.open_advert(advert.data)
            if eid is not None:
                return eid
    raise PeerLeft("the scan ended by itself")


# --- handshake --------------------------------------------------------------------------------------------------------


class WrongMessage1(Client):
    """Sends message 1 with one bit of its tag flipped: it does not know the secret."""

    def message_1(self, message: bytes) -> bytes:
        return message[:-1] + bytes([message[-1] ^ 1])


class BadPoint(Client):
    """Sends message 1 with a point that is not on the curve."""

    def message_1(self, message: bytes) -> bytes:
        return b"\x04" + b"\xff" * (UNCOMPRESSED_SIZE - 1) + message[UNCOMPRESSED_SIZE:]


class ShortMessage1(Client):
    """Sends message 1 without its last byte."""

    def message_1(self, message: bytes) -> bytes:
        return message[:-1]


class LongMessage1(Client):
    """Sends message 1 with one byte more."""

    def message_1(self, message: bytes) -> bytes:
        return message + b"\x00"


class NeverShakesHands(Client):
    """Joins the tunnel and says nothing."""

    async def shake_hands(self, introduction: QrIntroduction, eid: bytes) -> None:
        await self.wire.wait_until_left()


class LeavesBeforeHandshake(Client):
    """Joins the tunnel and leaves."""

    async def shake_hands(self, introduction: QrIntroduction, eid: bytes) -> None:
        raise PeerLeft


# --- coming and going -------------------------------------------------------------------------------------------------


class EarlyRequest(Client):
    """Sends its request before it reads the greeting, as one client does; must be served."""

    async def greeted(self) -> None:
        await self.ask()
        await super().greeted()

    async def talk(self) -> None:
        await self.read_answer()
        await self.say_goodbye()


class LeavesAfterGreeting(Client):
    """Says goodbye instead of asking."""

    async def talk(self) -> None:
        await self.say_goodbye()


class HangsUpAfterGreeting(Client):
    """Closes instead of asking, without a goodbye."""

    async def talk(self) -> None:
        raise PeerLeft


class SilentAfterGreeting(Client):
    """Never asks."""

    async def talk(self) -> None:
        await self.wire.wait_until_left()


class LeavesWhileAsking(Client):
    """Says goodbye before the answer came."""

    async def talk(self) -> None:
        await self.ask()
        await self.say_goodbye()


class HangsUpWhileAsking(Client):
    """Closes before the answer came, without a goodbye."""

    async def talk(self) -> None:
        await self.ask()
        raise PeerLeft


class ClosesAfterAnswer(Client):
    """Closes right after the first answer, without a goodbye, as one client does."""

    async def talk(self) -> None:
        await self.ask()
        await self.read_answer()
        raise PeerLeft


class StaysAfterAnswer(Client):
    """Says nothing after the answer and waits for the phone to close."""

    async def talk(self) -> None:
        await self.ask()
        await self.read_answer()


class AsksGetInfo(Client):
    """Asks for getInfo, although the greeting had it, and then for the rest."""

    async def talk(self) -> None:
        await self.wire.send_frame(MessageType.CTAP, bytes([Command.GET_INFO]))
        await self.read_answer()
        await super().talk()


class AsksOnlyGetInfo(Client):
    """Asks for getInfo, although the greeting had it, says goodbye, and takes what comes until the phone leaves."""

    async def talk(self) -> None:
        await self.wire.send_frame(MessageType.CTAP, bytes([Command.GET_INFO]))
        await self.say_goodbye()
        while True:
            await self.read_answer()


class AsksGetInfoBadly(Client):
    """Asks for getInfo with a parameter, and then for the rest."""

    async def talk(self) -> None:
        await self.wire.send_frame(MessageType.CTAP, bytes([Command.GET_INFO]) + b"\xa0")
        await self.read_answer()
        await super().talk()


# --- messages ---------------------------------------------------------------------------------------------------------


class SendsUpdate(Client):
    """Sends an update before its request; phones check and ignore it."""

    async def ask(self) -> None:
        await self.wire.send_frame(MessageType.UPDATE, cbor.encode({0: bytes(8)}))
        await super().ask()


class UnreadableUpdate(Client):
    """Sends an update that is no CBOR."""

    async def ask(self) -> None:
        await self.wire.send_frame(MessageType.UPDATE, b"\xff")


class TwoRequests(Client):
    """Sends a second request before the answer to the first."""

    async def ask(self) -> None:
        await super().ask()
        await super().ask()


class RequestAfterShutdown(Client):
    """Sends a request after it said goodbye."""

    async def talk(self) -> None:
        await self.say_goodbye()
        await self.ask()


class AsksAgainAfterAnswer(Client):
    """Sends a second request after the answer to the first; a phone that serves one command closes."""

    async def talk(self) -> None:
        await self.ask()
        await self.read_answer()
        await self.ask()
        await self.read_answer()
        await self.say_goodbye()


class JsonRequest(Client):
    """Sends a digital-credential request, which the phone did not announce."""

    async def ask(self) -> None:
        await self.wire.send_frame(MessageType.JSON, b"{}")


class TypeNine(Client):
    """Sends a message of the unknown type 9."""

    async def ask(self) -> None:
        await self.wire.send_plaintext(b"\x09" + self.request)


class EmptyFrame(Client):
    """Sends a message that has no type byte."""

    async def ask(self) -> None:
        await self.wire.send_plaintext(b"")


class EmptyRequest(Client):
    """Sends a CTAP message that has no command byte."""

    async def ask(self) -> None:
        await self.wire.send_frame(MessageType.CTAP)


class BadPadding(Client):
    """Sends a padding count beyond the length of the message."""

    async def ask(self) -> None:
        await self.wire.send_padded(b"\xff" * frames.PADDING_GRANULARITY)


class PadsOddly(Client):
    """Pads before it adds the type byte, as one client does; must be served."""

    async def ask(self) -> None:
        await self.wire.send_padded(bytes([MessageType.CTAP]) + frames.pad(self.request))


class SkippedCounter(Client):
    """Sends its request under the counter after the next."""

    async def ask(self) -> None:
        await self.wire.send_padded(frames.pad(Frame(MessageType.CTAP, self.request).encode()), self.wire.counter + 1)


class ReusedCounter(Client):
    """Sends an update, then its request under the same counter."""

    async def ask(self) -> None:
        await self.wire.send_frame(MessageType.UPDATE, cbor.encode({}))
        await self.wire.send_padded(frames.pad(Frame(MessageType.CTAP, self.request).encode()), 0)


class Oversize(Client):
    """Sends more than 1 MiB."""

    async def ask(self) -> None:
        await self.wire.send(bytes(MAX_MESSAGE_SIZE + 1))
