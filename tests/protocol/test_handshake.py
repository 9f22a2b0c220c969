"""Which pattern, prologue and keys each ceremony takes."""

from __future__ import annotations

import pytest

from hybrid.errors import HandshakeFailed
from hybrid.protocol import handshake
from hybrid.protocol.noise import Initiator, Pattern
from tests.protocol.sides import (
    CLIENT_EPHEMERAL,
    CLIENT_IDENTITY,
    PHONE_EPHEMERAL,
    PHONE_IDENTITY,
    a_link,
    invitation,
    secret,
)

EID = b"\x00" + secret("eid", 15)
OTHER_EID = EID[:15] + bytes([EID[15] ^ 1])


def test_the_qr_ceremony() -> None:
    qr = invitation()
    client = handshake.qr_client(qr, EID, identity=CLIENT_IDENTITY, ephemeral=CLIENT_EPHEMERAL)
    message_2, keys = handshake.qr_phone(qr, EID, ephemeral=PHONE_EPHEMERAL).answer(client.write_message_1())
    assert client.read_message_2(message_2) == keys


def test_the_linked_ceremony() -> None:
    link = a_link()
    client = handshake.link_client(link, EID, ephemeral=CLIENT_EPHEMERAL)
    phone = handshake.link_phone(link, EID, identity=PHONE_IDENTITY, ephemeral=PHONE_EPHEMERAL)
    message_2, keys = phone.answer(client.write_message_1())
    assert client.read_message_2(message_2) == keys


@pytest.mark.parametrize(
    ("prologue", "accepted"), [(b"\x01", True), (b"\x00", False), (b"", False), (b"\x01\x00", False)]
)
def test_the_prologue_of_the_qr_ceremony_is_01(prologue: bytes, accepted: bool) -> None:
    psk = invitation().psk(EID)
    client = Initiator(Pattern.KN_PSK0, prologue=prologue, psk=psk, static=CLIENT_IDENTITY, ephemeral=CLIENT_EPHEMERAL)
    phone = handshake.qr_phone(invitation(), EID, ephemeral=PHONE_EPHEMERAL)
    if accepted:
        phone.answer(client.write_message_1())
    else:
        with pytest.raises(HandshakeFailed):
            phone.answer(client.write_message_1())


@pytest.mark.parametrize(("prologue", "accepted"), [(b"\x00", True), (b"\x01", False), (b"", False)])
def test_the_prologue_of_the_linked_ceremony_is_00(prologue: bytes, accepted: bool) -> None:
    static = PHONE_IDENTITY.public_key()
    psk = a_link().psk(EID)
    client = Initiator(Pattern.NK_PSK0, prologue=prologue, psk=psk, static=static, ephemeral=CLIENT_EPHEMERAL)
    phone = handshake.link_phone(a_link(), EID, identity=PHONE_IDENTITY, ephemeral=PHONE_EPHEMERAL)
    if accepted:
        phone.answer(client.write_message_1())
    else:
        with pytest.raises(HandshakeFailed):
            phone.answer(client.write_message_1())


def test_who_did_not_hear_the_advert_is_refused() -> None:
    qr_client = handshake.qr_client(invitation(), OTHER_EID, identity=CLIENT_IDENTITY, ephemeral=CLIENT_EPHEMERAL)
    with pytest.raises(HandshakeFailed):
        handshake.qr_phone(invitation(), EID, ephemeral=PHONE_EPHEMERAL).answer(qr_client.write_message_1())
    link_client = handshake.link_client(a_link(), OTHER_EID, ephemeral=CLIENT_EPHEMERAL)
    phone = handshake.link_phone(a_link(), EID, identity=PHONE_IDENTITY, ephemeral=PHONE_EPHEMERAL)
    with pytest.raises(HandshakeFailed):
        phone.answer(link_client.write_message_1())
