"""The FIDO hybrid transport for asyncio: use a phone's passkey, be the phone, or run both against each other.

Importing this package loads no radio, socket, cryptography or user-interface library and no event loop: the names that
need one are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hybrid.errors import (
    BluetoothProblem,
    BluetoothUnavailable,
    HandshakeFailed,
    HybridError,
    InvalidQR,
    LinkGone,
    LocalProtocolError,
    PeerClosed,
    PeerTimeout,
    ProtocolError,
    QRProblem,
    RemoteProtocolError,
    RequestRefused,
    ResponseRejected,
    Stage,
    TransportError,
    TunnelError,
    TunnelProblem,
)
from hybrid.events import (
    Advertising,
    AdvertSeen,
    ClientArrived,
    Closed,
    CodeIsOld,
    Event,
    HandshakeDone,
    HintViolated,
    LeftUnanswered,
    LinkDropped,
    LinkForgotten,
    LinkReceived,
    PhoneConnected,
    Proximity,
    Ready,
    RequestIgnored,
    RequestReceived,
    RequestSent,
    ResponseReceived,
    ResponseSent,
    Scanning,
    TunnelOpened,
)

if TYPE_CHECKING:
    from hybrid.authenticator import PhoneTimeouts, Served, answer
    from hybrid.client import ClientTimeouts, Session, connect
    from hybrid.driving import EventStream
    from hybrid.fido2_bridge import (
        HybridClientDataCollector,
        HybridCtapDevice,
        HybridWebAuthnClient,
        get_assertion,
        make_credential,
    )
    from hybrid.invitation import Invitation, invite
    from hybrid.protocol.habits import Habits
    from hybrid.protocol.linking import Link
    from hybrid.protocol.qr import Hint, QrInvitation

__version__ = "0.1.0"

_HOME = {
    "Habits": "hybrid.protocol.habits",
    "Hint": "hybrid.protocol.qr",
    "Invitation": "hybrid.invitation",
    "Link": "hybrid.protocol.linking",
    "QrInvitation": "hybrid.protocol.qr",
    "invite": "hybrid.invitation",
    "ClientTimeouts": "hybrid.client",
    "Session": "hybrid.client",
    "connect": "hybrid.client",
    "PhoneTimeouts": "hybrid.authenticator",
    "Served": "hybrid.authenticator",
    "answer": "hybrid.authenticator",
    "EventStream": "hybrid.driving",
    "HybridClientDataCollector": "hybrid.fido2_bridge",
    "HybridCtapDevice": "hybrid.fido2_bridge",
    "HybridWebAuthnClient": "hybrid.fido2_bridge",
    "get_assertion": "hybrid.fido2_bridge",
    "make_credential": "hybrid.fido2_bridge",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "AdvertSeen",
    "Advertising",
    "BluetoothProblem",
    "BluetoothUnavailable",
    "ClientArrived",
    "ClientTimeouts",
    "Closed",
    "CodeIsOld",
    "Event",
    "EventStream",
    "Habits",
    "HandshakeDone",
    "HandshakeFailed",
    "Hint",
    "HintViolated",
    "HybridClientDataCollector",
    "HybridCtapDevice",
    "HybridError",
    "HybridWebAuthnClient",
    "InvalidQR",
    "Invitation",
    "LeftUnanswered",
    "Link",
    "LinkDropped",
    "LinkForgotten",
    "LinkGone",
    "LinkReceived",
    "LocalProtocolError",
    "PeerClosed",
    "PeerTimeout",
    "PhoneConnected",
    "PhoneTimeouts",
    "ProtocolError",
    "Proximity",
    "QRProblem",
    "QrInvitation",
    "Ready",
    "RemoteProtocolError",
    "RequestIgnored",
    "RequestReceived",
    "RequestRefused",
    "RequestSent",
    "ResponseReceived",
    "ResponseRejected",
    "ResponseSent",
    "Scanning",
    "Served",
    "Session",
    "Stage",
    "TransportError",
    "TunnelError",
    "TunnelOpened",
    "TunnelProblem",
    "answer",
    "connect",
    "get_assertion",
    "invite",
    "make_credential",
]
