"""Which pattern, prologue and keys a session's handshake takes (CTAP 2.3 §11.5.1, "handshake").

======================  ==============================  =======================================
                        QR-initiated                    state-assisted (linked)
======================  ==============================  =======================================
pattern                 KNpsk0                          NKpsk0
prologue                01                              00
known static key        the client's, from the code     the phone's, from linking
======================  ==============================  =======================================

The bytes of the messages are made in `noise`.
"""

from __future__ import annotations

from hybrid.protocol.keys import PrivateKey
from hybrid.protocol.linking import Link
from hybrid.protocol.noise import Initiator, Observer, Pattern, Responder
from hybrid.protocol.qr import QrInvitation

PROLOGUE_QR = b"\x01"
PROLOGUE_LINK = b"\x00"


def qr_client(
    qr: QrInvitation,
    eid: bytes,
    *,
    identity: PrivateKey,
    ephemeral: PrivateKey,
    observer: Observer | None = None,
) -> Initiator:
    """Client of a QR session, after it opened the advert to `eid` (16 bytes)."""
    return Initiator(
        Pattern.KN_PSK0,
        prologue=PROLOGUE_QR,
        psk=qr.psk(eid),
        static=identity,
        ephemeral=ephemeral,
        observer=observer,
    )


def qr_phone(qr: QrInvitation, eid: bytes, *, ephemeral: PrivateKey, observer: Observer | None = None) -> Responder:
    """Phone of a QR session that advertises `eid`."""
    return Responder(
        Pattern.KN_PSK0,
        prologue=PROLOGUE_QR,
        psk=qr.psk(eid),
        static=qr.public_key,
        ephemeral=ephemeral,
        observer=observer,
    )


def link_client(link: Link, eid: bytes, *, ephemeral: PrivateKey, observer: Observer | None = None) -> Initiator:
    """Client of a linked session, after it opened the advert to `eid`."""
    return Initiator(
        Pattern.NK_PSK0,
        prologue=PROLOGUE_LINK,
        psk=link.psk(eid),
        static=link.public_key,
        ephemeral=ephemeral,
        observer=observer,
    )


def link_phone(
    link: Link, eid: bytes, *, identity: PrivateKey, ephemeral: PrivateKey, observer: Observer | None = None
) -> Responder:
    """Phone of a linked session that advertises `eid`; `identity` belongs to `link.public_key`."""
    return Responder(
        Pattern.NK_PSK0,
        prologue=PROLOGUE_LINK,
        psk=link.psk(eid),
        static=identity,
        ephemeral=ephemeral,
        observer=observer,
    )
