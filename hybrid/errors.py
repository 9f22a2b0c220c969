"""Every exception this project raises on purpose, on one page.

::

    HybridError
      InvalidQR (ValueError)          not a FIDO:/ code, or one we cannot read; .reason
      ProtocolError                   someone broke the rules
        LocalProtocolError              us: a call in the wrong state, a value that does not fit
        RemoteProtocolError             them: illegal bytes; fatal
          HandshakeFailed                 wrong phone, stale code, or tampering; nobody can tell which
      TransportError                  the world
        BluetoothUnavailable            .reason
        TunnelError                     .host, .status, .reason
          LinkGone                        HTTP 410: forget this link
      PeerTimeout (TimeoutError)      .stage
      PeerClosed                      .stage; a clean close in mid-ceremony
      RequestRefused                  our own side says no before anything is sent; .reason
      ResponseRejected                the phone's answer fails the client's own checks; .reason
      VaultError                      the phone's passkey file cannot be used; .reason
      PortabilityError                passkeys cannot be taken from a file or given to one; .reason

Every class has a stable `identifier` such as ``bluetooth.off``, for programs. `str()` is one plain line for people;
advice on what to do next lives in `hybrid.cli.messages`.
"""

from __future__ import annotations

from enum import StrEnum


class HybridError(Exception):
    """Base of every documented failure."""

    @property
    def identifier(self) -> str:
        """Stable dotted name of this failure, for programs."""
        return "hybrid"


class QRProblem(StrEnum):
    """Why a code cannot be used."""

    NOT_FIDO = "not-fido"
    DIGITS = "digits"
    CBOR = "cbor"
    FIELD = "field"
    KEY = "key"
    NO_CHANNEL = "no-channel"
    CHANNEL_LIST = "channel-list"
    UNKNOWN_RELAY = "unknown-relay"
    USED = "used"
    NOT_FOUND = "not-found"
    NOT_A_PICTURE = "not-a-picture"
    SEVERAL = "several"


class InvalidQR(HybridError, ValueError):
    """Not a ``FIDO:/`` code, or one that cannot be used here."""

    def __init__(self, message: str, reason: QRProblem) -> None:
        super().__init__(message)
        self.reason = reason

    @property
    def identifier(self) -> str:
        return f"qr.{self.reason}"


class ProtocolError(HybridError):
    """Someone broke the rules of the protocol."""

    @property
    def identifier(self) -> str:
        return "protocol"


class LocalProtocolError(ProtocolError):
    """We did: a call that the current state does not allow, or a value that does not fit its field."""

    @property
    def identifier(self) -> str:
        return "protocol.local"


class RemoteProtocolError(ProtocolError):
    """They did: illegal bytes. Fatal for the session."""

    @property
    def identifier(self) -> str:
        return "protocol.remote"


class HandshakeFailed(RemoteProtocolError):
    """Wrong phone, stale code or tampering; the mathematics cannot tell which."""

    @property
    def identifier(self) -> str:
        return "protocol.handshake"


class TransportError(HybridError):
    """The world outside: radio or network."""

    @property
    def identifier(self) -> str:
        return "transport"


class BluetoothProblem(StrEnum):
    """Why this machine's Bluetooth does not serve. Each is fixed differently."""

    OFF = "off"
    DENIED = "denied"
    NO_SERVICE = "no-service"
    NO_ADAPTER = "no-adapter"
    NO_ADVERTISING = "no-advertising"
    NOT_SUPPORTED = "not-supported"
    UNKNOWN = "unknown"


class BluetoothUnavailable(TransportError):
    """Bluetooth cannot be used now."""

    def __init__(self, message: str, reason: BluetoothProblem) -> None:
        super().__init__(message)
        self.reason = reason

    @property
    def identifier(self) -> str:
        return f"bluetooth.{self.reason}"


class TunnelProblem(StrEnum):
    """Why a relay could not be used."""

    UNREACHABLE = "unreachable"
    CERTIFICATE = "certificate"
    PROXY = "proxy"
    STATUS = "status"
    REDIRECT = "redirect"
    SUBPROTOCOL = "subprotocol"
    ROUTING_ID = "routing-id"
    TEXT = "text"
    OVERSIZE = "oversize"
    LOST = "lost"
    GONE = "gone"


class TunnelError(TransportError):
    """The relay `host` could not be used; `status` is its HTTP status, if it gave one."""

    def __init__(self, message: str, *, host: str, reason: TunnelProblem, status: int | None = None) -> None:
        super().__init__(message)
        self.host = host
        self.reason = reason
        self.status = status

    @property
    def identifier(self) -> str:
        return f"tunnel.{self.reason}"


class LinkGone(TunnelError):
    """HTTP 410 on the contact path: this link will never work again, forget it."""

    def __init__(self, host: str) -> None:
        super().__init__(f"{host} says that this link is gone", host=host, reason=TunnelProblem.GONE, status=410)


class Stage(StrEnum):
    """Where in the ceremony something happened."""

    SCAN = "scan"
    TUNNEL = "tunnel"
    ADVERTISE = "advertise"
    HANDSHAKE = "handshake"
    GREETING = "greeting"
    REQUEST = "request"
    RESPONSE = "response"


class PeerTimeout(HybridError, TimeoutError):
    """Nothing came within the time of `stage`, `seconds` long."""

    def __init__(self, stage: Stage, seconds: float) -> None:
        super().__init__(f"no progress within {seconds:g} s while in stage {stage}")
        self.stage = stage
        self.seconds = seconds

    @property
    def identifier(self) -> str:
        return f"timeout.{self.stage}"


class PeerClosed(HybridError):
    """The other side closed cleanly in the middle of `stage`."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(f"the other side left in stage {stage}")
        self.stage = stage

    @property
    def identifier(self) -> str:
        return f"closed.{self.stage}"


class RefusalReason(StrEnum):
    """Which rule of the client a request breaks."""

    RP_ID = "rp-id"
    OPTIONS = "options"


class RequestRefused(HybridError, ValueError):
    """Our client does not send this request, e.g. because the RP id does not fit the origin."""

    def __init__(self, message: str, reason: RefusalReason) -> None:
        super().__init__(message)
        self.reason = reason

    @property
    def identifier(self) -> str:
        return f"request.{self.reason}"


class ResponseRejected(HybridError):
    """The phone's answer fails a check that the client owes its caller; `reason` names the check."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason

    @property
    def identifier(self) -> str:
        return f"response.{self.reason}"


class VaultProblem(StrEnum):
    """Why a vault cannot be used. Each is fixed differently."""

    PERMISSIONS = "permissions"
    FOLDER = "folder"
    MISSING = "missing"
    NOT_A_VAULT = "not-a-vault"
    VERSION = "version"
    KEY_KIND = "key-kind"
    KEY = "key"
    KEY_FILE = "key-file"
    KEYRING = "keyring"
    KDF = "kdf"
    LOST = "lost"
    PASSKEYS = "passkeys"
    CORRUPT = "corrupt"
    BUSY = "busy"
    FULL = "full"
    ACCESS = "access"


class VaultError(HybridError):
    """The file that holds the passkeys cannot be used. The file itself is left as it is."""

    def __init__(self, message: str, reason: VaultProblem) -> None:
        super().__init__(message)
        self.reason = reason

    @property
    def identifier(self) -> str:
        return f"vault.{self.reason}"


class PortabilityProblem(StrEnum):
    """Why passkeys cannot be imported or exported. Each is fixed differently."""

    FORMAT = "format"
    VERSION = "version"
    ENCRYPTED = "encrypted"
    MALFORMED = "malformed"
    TOO_LARGE = "too-large"
    TOO_DEEP = "too-deep"
    KEY = "key"
    CLEAR_TEXT = "clear-text"
    EXISTS = "exists"
    ACCESS = "access"
    NOTHING = "nothing"


class PortabilityError(HybridError):
    """A file of passkeys cannot be read or written. Nothing was imported, and no file was changed."""

    def __init__(self, message: str, reason: PortabilityProblem) -> None:
        super().__init__(message)
        self.reason = reason

    @property
    def identifier(self) -> str:
        return f"portability.{self.reason}"
