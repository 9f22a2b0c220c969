"""What is fuzzed: functions of bytes whose only legal outcomes are a value or a documented `HybridError`.

Anything else that a target raises is a bug of ours. Seeds come from the known answers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hybrid import cbor
from hybrid.errors import HybridError, LocalProtocolError
from hybrid.protocol.authenticator import Advertise
from hybrid.protocol.client import ClientMachine
from hybrid.protocol.contact import ClientPayload
from hybrid.protocol.ctap import PostHandshake, unpad_revision_0
from hybrid.protocol.eid import Eid, parse_suffix, seal, suffix_of, trial_open
from hybrid.protocol.frames import Frame, MessageType, Opener, Sealer, StreamReader, nonce, split_stream, unpad
from hybrid.protocol.linking import decode_update, verify_linking_map
from hybrid.protocol.qr import SCHEME, QrInvitation, Transport, decode_digits, encode_digits
from hybrid.protocol.tunnel import parse_hex, parse_path, parse_routing_id, path_of, tunnel_domain
from tests.fuzz import passkey_targets, relay_targets
from tests.protocol.sides import (
    CLIENT_IDENTITY,
    ROUTING_ID,
    Pair,
    link_client,
    link_offer,
    link_phone,
    qr_client,
    qr_phone,
    secret,
)

Target = Callable[[bytes], None]
_VECTORS = Path(__file__).parents[1] / "vectors" / "hybrid-v1.json"
_KEY = secret("traffic key", 32)
_EID_KEY = secret("eid key", 64)
_HASH = secret("handshake hash", 32)


def cbor_values(data: bytes) -> None:
    """One value, whatever follows; what was read can be written and read again."""
    with suppress(HybridError):
        value, size = cbor.decode_prefix(data)
        assert 0 < size <= len(data)
        cbor.decode(data[:size])
        cbor.encode(value)


def qr(data: bytes) -> None:
    """A scanned text, bare digits, and the CBOR behind the digits."""
    text = data.decode("utf-8", "replace")
    for url in (text, SCHEME + text, SCHEME + encode_digits(data)):
        with suppress(HybridError):
            invitation = QrInvitation.parse(url)
            assert QrInvitation.parse(invitation.url) == invitation
    with suppress(HybridError):
        assert encode_digits(decode_digits(text)) == text


def adverts(data: bytes) -> None:
    """Service data as it is heard, plaintexts sealed by somebody who has the key, suffixes."""
    trial_open(data, _EID_KEY)
    with suppress(HybridError):
        parse_suffix(suffix_of(data))
    with suppress(HybridError):
        parse_suffix(data)
    with suppress(HybridError):
        Eid.unpack(data)
    if len(data) >= 16:
        plaintext = b"\x00" + data[1:16]
        assert trial_open(seal(plaintext, _EID_KEY) + data[16:], _EID_KEY) == plaintext


def frames(data: bytes) -> None:
    """Padding, message types, ciphertexts, and the same bytes under a good seal."""
    parsers: tuple[Callable[[bytes], object], ...] = (unpad, Frame.decode, Opener(_KEY).open, unpad_revision_0)
    for parse in parsers:
        with suppress(HybridError):
            parse(data)
    with suppress(HybridError):
        Frame.decode(Opener(_KEY).open(AESGCM(_KEY).encrypt(nonce(0), data, b"")))
    assert Opener(_KEY).open(Sealer(_KEY).seal(data)) == data


def stream(data: bytes) -> None:
    """A run of bytes cut by its own content, with genuine messages between."""
    split_stream(data)
    handshake, sealed = StreamReader(), StreamReader()
    sealer, opener = Sealer(_KEY), Opener(_KEY)
    with suppress(HybridError):
        for at in range(0, len(data), 97):
            handshake.feed(data[at : at + 97])
            while handshake.next_message(None) is not None:
                pass
    with suppress(HybridError):
        while data:
            size, data = data[0] + 1, data[1:]
            sealed.feed(sealer.seal(data[:size]) + b"\r\n" if size % 3 else data[:size])
            data = data[size:]
            while (message := sealed.next_message(opener)) is not None:
                opener.open(message)


def post_handshake(data: bytes) -> None:
    """The greeting, of either revision."""
    with suppress(HybridError):
        message = PostHandshake.decode(data)
        assert ("ctap" in message.features) == (message.get_info is not None)


def linking(data: bytes) -> None:
    """Updates, linking maps, and a genuine map of which members are exchanged."""
    with suppress(HybridError):
        decode_update(data)
    with suppress(HybridError):
        fields = cbor.decode_map(data)
        genuine = cbor.decode_map(link_offer(_HASH))
        for given in (fields, {**genuine, **fields}):
            with suppress(HybridError):
                verify_linking_map(given, CLIENT_IDENTITY, _HASH, 0)


def tunnel(data: bytes) -> None:
    """Paths and headers as a relay or a client receives them."""
    text = data.decode("utf-8", "replace")
    with suppress(HybridError):
        target = parse_path(text)
        assert parse_path(path_of(target)) == target
    parsers: tuple[Callable[[str], object], ...] = (parse_hex, ClientPayload.parse_header)
    for parse in parsers:
        with suppress(HybridError):
            parse(text)
    with suppress(HybridError):
        parse_routing_id(text.split("\n"))
    with suppress(HybridError):
        ClientPayload.parse_header(data.hex())
    with suppress(HybridError):
        tunnel_domain(int.from_bytes(data[:3], "little"))


class _Script:
    """A byte string as a script: one byte says what happens, the next how long its argument is."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __bool__(self) -> bool:
        return bool(self._data)

    def step(self) -> tuple[int, bytes]:
        operation, size = self._data[0], self._data[1] if len(self._data) > 1 else 0
        argument, self._data = self._data[2 : 2 + size], self._data[2 + size :]
        return operation, argument


def _pair(data: bytes) -> tuple[Pair, _Script]:
    kind = data[0] if data else 0
    pair = Pair(link_client(), link_phone()) if kind & 1 else Pair(qr_client(), qr_phone())
    if kind & 2:
        pair.meet()
    else:
        pair.phone.start()
        pair.phone.tunnel_opened(ROUTING_ID)
        pair.advert = next(wish.service_data for wish in pair.phone.actions() if isinstance(wish, Advertise))
        if kind & 4:
            pair.phone = qr_phone()
    return pair, _Script(data[1:])


def _attempt(machine: Any, step: Callable[[], object]) -> None:
    before = machine.state
    try:
        step()
    except LocalProtocolError:
        assert machine.state is before
    except HybridError:
        assert machine.state.name == "CLOSED"
    machine.actions()
    machine.events()


def _say(receive: Callable[[bytes], None], sealer: Sealer | None, plaintext: bytes) -> None:
    receive(sealer.seal(plaintext) if sealer is not None else plaintext)


def client_machine(data: bytes) -> None:
    """Any inputs in any order, also such as only a phone with the right keys can send."""
    pair, script = _pair(data)
    client: ClientMachine = pair.client
    sealer = pair.phone._sealer
    while script:
        operation, argument = script.step()
        steps: tuple[Callable[[], object], ...] = (
            client.start,
            partial(client.advert_heard, pair.advert),
            partial(client.advert_heard, argument),
            partial(client.tunnel_opened, signals=operation >= 128),
            partial(client.message, argument),
            partial(_say, client.message, sealer, argument),
            partial(client.request, argument[1:], MessageType(argument[0] % 4 if argument else 1)),
            client.finish,
            client.tunnel_closed,
            client.take_response,
        )
        _attempt(client, steps[operation % len(steps)])


def phone_machine(data: bytes) -> None:
    """Any inputs in any order, also such as only a client with the right keys can send."""
    pair, script = _pair(data)
    phone = pair.phone
    sealer = pair.client._sealer
    while script:
        operation, argument = script.step()
        transport = Transport(operation >> 7)
        steps: tuple[Callable[[], object], ...] = (
            phone.start,
            partial(phone.tunnel_opened, argument or None),
            partial(phone.tunnel_opened, ROUTING_ID),
            partial(phone.channel_offered, transport),
            partial(phone.message, argument, transport),
            partial(_say, phone.message, sealer, argument),
            partial(phone.response, argument),
            partial(phone.send_update, None),
            partial(phone.channel_closed, transport),
        )
        _attempt(phone, steps[operation % len(steps)])


TARGETS: dict[str, Target] = (
    passkey_targets.TARGETS
    | relay_targets.TARGETS
    | {
        "adverts": adverts,
        "cbor": cbor_values,
        "client-machine": client_machine,
        "frames": frames,
        "linking": linking,
        "phone-machine": phone_machine,
        "post-handshake": post_handshake,
        "qr": qr,
        "stream": stream,
        "tunnel": tunnel,
    }
)

_SEEDS_OF = {
    "adverts": (("advert.decrypt", "service_data"), ("advert.suffix", "suffix")),
    "cbor": (("post_handshake.decode", "cbor"), ("linking.verify", "linking")),
    "frames": (("unpad", "padded"), ("frame.decode", "frame"), ("transport.open", "ciphertext")),
    "linking": (("linking.verify", "linking"),),
    "post-handshake": (("post_handshake.decode", "cbor"), ("rev0.unpad", "padded")),
    "qr": (("qr.decode", "url"), ("digits.decode", "digits")),
    "stream": (("l2cap.split", "stream"),),
    "tunnel": (("tunnel.path", "path"), ("client_payload.decode", "header")),
}
_TEXTS = ("url", "digits", "path", "header")
_SCRIPTS = [
    bytes([kind, *steps])
    for kind in range(8)
    for steps in (
        (0, 0, 1, 0, 3, 0, 4, 1, 0),
        (6, 3, 1, 2, 160, 5, 3, 1, 0, 160, 7, 0, 8, 0),
        (5, 3, 1, 2, 160, 6, 1, 0, 7, 0, 5, 2, 2, 160, 5, 1, 0, 8, 0),
    )
]


def seeds(name: str) -> list[bytes]:
    """Where fuzzing of a target starts: valid and invalid inputs of the known answers, or short scripts."""
    if name in passkey_targets.TARGETS:
        return passkey_targets.seeds(name)
    if name in relay_targets.TARGETS:
        return relay_targets.seeds(name)
    if name not in _SEEDS_OF:
        return _SCRIPTS
    found: list[bytes] = []
    for case in json.loads(_VECTORS.read_bytes())["cases"]:
        for op, field in _SEEDS_OF[name]:
            if case["op"] == op:
                text = case["in"][field]
                found.append(text.encode() if field in _TEXTS else bytes.fromhex(text))
    return found
