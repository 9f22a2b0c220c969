"""Every sentence that a person reads: for events, for failures, and what to do next. The only file with such prose.

Voice: lower case, present tense, the next step last. A failure is one sentence and one hint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from hybrid.errors import (
    BluetoothProblem,
    BluetoothUnavailable,
    HandshakeFailed,
    HybridError,
    InvalidQR,
    LinkGone,
    PeerClosed,
    PeerTimeout,
    PortabilityError,
    PortabilityProblem,
    QRProblem,
    RefusalReason,
    RemoteProtocolError,
    RequestRefused,
    ResponseRejected,
    Stage,
    TunnelError,
    TunnelProblem,
    VaultError,
    VaultProblem,
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
    PasskeysExported,
    PasskeysImported,
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
from hybrid.protocol.ctap import Command, Status

_DAY = 86400  # seconds

EXIT_BUG = 1
EXIT_USAGE = 2
EXIT_DECLINED = 3
EXIT_NO_CREDENTIAL = 4
EXIT_TIMEOUT = 5
EXIT_BLUETOOTH = 6
EXIT_NETWORK = 7
EXIT_PROTOCOL = 8
EXIT_ALREADY_REGISTERED = 9
EXIT_NO_ANSWER = 10
EXIT_INTERRUPTED = 130


class MissingExtra(HybridError):
    """An optional part is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs a part that is not installed")
        self.extra = extra

    @property
    def identifier(self) -> str:
        return f"missing.{self.extra}"


class CtapFailure(HybridError):
    """The phone answered with a status other than success."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the phone answers with status 0x{status:02x}")
        self.status = status

    @property
    def identifier(self) -> str:
        return f"ctap.0x{self.status:02x}"


class NoPasskeys(HybridError):
    """The phone is there, and does not speak CTAP."""

    def __init__(self) -> None:
        super().__init__("the phone offers no passkeys over this connection")

    @property
    def identifier(self) -> str:
        return "phone.no-ctap"


class UsageProblem(HybridError):
    """The command line cannot be carried out; `hint` says what to write instead."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint

    @property
    def identifier(self) -> str:
        return "usage"


@dataclass(frozen=True, slots=True)
class Explanation:
    """A failure in words: what happened, what to do next, and the exit code."""

    sentence: str
    hint: str
    exit_code: int


def sentence_of(event: Event) -> str | None:
    """What an event is to a person; None for what only programs care about."""
    match event:
        case Scanning():
            return "waiting for your phone (Bluetooth must be on, on both)"
        case AdvertSeen(domain, proximity):
            nearness = "" if proximity is Proximity.BLUETOOTH else " (nearness is simulated)"
            return f"phone found{nearness}, meeting it at {domain}"
        case TunnelOpened():
            return "connected to the relay"
        case PhoneConnected():
            return "the phone has joined"
        case HandshakeDone():
            return "the connection is secure"
        case Ready():
            return "the phone is ready"
        case RequestSent():
            return "confirm on your phone"
        case ResponseReceived(status):
            return "the phone has answered" if status == Status.OK else "the phone has refused"
        case LinkReceived(name):
            return f"the phone can be remembered as {printable(name)}"
        case LinkDropped():
            return "the phone sent linking information that does not check out; it is not kept"
        case LinkForgotten(name):
            return f"the relay says that {printable(name)} is gone for good"
        case Advertising():
            return "on the air, waiting for the computer (keep the two close to each other)"
        case CodeIsOld(age):
            old = f"{age // 60} minutes" if age < _DAY else "more than a day"
            return f"careful: this code is {old} old; is it the one on your own screen?"
        case ClientArrived():
            return "the computer has arrived, the connection is secure"
        case RequestReceived(command):
            return f"the computer asks {_wish(command)}"
        case HintViolated():
            return "that is not what its code announced; it is refused"
        case ResponseSent(status):
            return "the answer is sent" if status == Status.OK else "the refusal is sent"
        case RequestIgnored(command):
            return f"the computer asks {_wish(command)}, and gets no answer from such a phone"
        case LeftUnanswered(status=status):
            return f"such a phone leaves, in place of an answer with status 0x{status:02x}"
        case Closed():
            return None
        case PasskeysExported(count, name, encrypted):
            return f"{_passkeys(count)} leaving the vault as {name}{'' if encrypted else ', in clear text'}"
        case PasskeysImported(count, name):
            return f"{_passkeys(count)} taken from {name}"
        case _:
            assert_never(event)


def _passkeys(count: int) -> str:
    return f"{count} passkey{'' if count == 1 else 's'}"


def _wish(command: int) -> str:
    match command:
        case Command.GET_ASSERTION:
            return "to sign in"
        case Command.MAKE_CREDENTIAL:
            return "for a new passkey"
        case Command.GET_INFO:
            return "what this phone can do"
        case _:
            return f"for command 0x{command:02x}"


def printable(text: str) -> str:
    """Text of a peer without anything that could steer a terminal, at most 64 characters."""
    return "".join(char if char.isprintable() else "?" for char in text[:64])


def explain(error: HybridError) -> Explanation:
    """Put a failure into words. Every type and reason that a person fixes differently has its own hint."""
    match error:
        case UsageProblem():
            return Explanation(str(error), error.hint, EXIT_USAGE)
        case MissingExtra(extra=extra):
            return Explanation(str(error), f'install it with: pip install "fido-hybrid[{extra}]"', EXIT_USAGE)
        case VaultError(reason=reason):
            return Explanation(str(error), _VAULT_HINTS[reason], EXIT_USAGE)
        case PortabilityError(reason=reason):
            return Explanation(str(error), _PORTABILITY_HINTS[reason], EXIT_USAGE)
        case RequestRefused(reason=reason):
            return Explanation(str(error), _REFUSAL_HINTS[reason], EXIT_USAGE)
        case InvalidQR(reason=reason):
            return Explanation(str(error), _QR_HINTS[reason], EXIT_USAGE)
        case BluetoothUnavailable(reason=reason):
            return Explanation(str(error), _BLUETOOTH_HINTS[reason], EXIT_BLUETOOTH)
        case LinkGone():
            return Explanation(str(error), "show a code again to meet this phone", EXIT_NETWORK)
        case TunnelError(reason=TunnelProblem.STATUS):
            return Explanation(str(error), _status_hint(error.status), EXIT_NETWORK)
        case TunnelError(reason=reason):
            return Explanation(str(error), _TUNNEL_HINTS[reason], EXIT_NETWORK)
        case PeerTimeout(stage=stage):
            return _explain_timeout(stage, error.seconds)
        case PeerClosed(stage=stage):
            return _explain_close(stage)
        case CtapFailure(status=status):
            return explain_status(status)
        case NoPasskeys():
            return Explanation(str(error), "use another phone, or another app on it", EXIT_PROTOCOL)
        case ResponseRejected():
            return Explanation(
                f"the phone's answer is refused: {error}", "do not use it; try again with a new code", EXIT_PROTOCOL
            )
        case HandshakeFailed():
            return Explanation(
                "the phone answered, but its keys do not match this code",
                "scan the code on this screen again; codes are good for one try",
                EXIT_PROTOCOL,
            )
        case RemoteProtocolError():
            return Explanation(
                f"the other side broke the protocol: {error}", "try again; update the phone if it stays", EXIT_PROTOCOL
            )
        case _:
            return Explanation(str(error), _OUR_BUG, EXIT_BUG)


def explain_at_phone(error: HybridError) -> Explanation:
    """Put a failure into words for the person at the phone."""
    match error:
        case CtapFailure(status=status):
            return explain_sent_status(status)
        case TunnelError(reason=TunnelProblem.STATUS, status=404):
            return Explanation(
                str(error), "the server is no relay that a phone can wait at; check --relay", EXIT_NETWORK
            )
        case HandshakeFailed():
            return Explanation(
                "the computer came, but its keys do not match this code",
                "let it show a new code; if that fails too, somebody else may be answering for it",
                EXIT_PROTOCOL,
            )
        case RemoteProtocolError():
            return Explanation(
                f"the computer broke the protocol: {error}",
                "try again; update the program that showed the code if it stays",
                EXIT_PROTOCOL,
            )
        case _:
            return explain(error)


def explain_bug(error: Exception) -> Explanation:
    """Put an exception that nobody foresaw into words. Its text stays out: it may hold anything."""
    return Explanation(f"something went wrong that should not ({type(error).__name__})", _OUR_BUG, EXIT_BUG)


def _status_hint(status: int | None) -> str:
    match status:
        case 403:
            return "this relay does not serve everybody; check --relay-name"
        case 404 | 410:
            return "the phone may have given up, or this is no relay: start again with a new code, or check --relay"
        case 409:
            return "another phone answers this code already; let the computer show a new one"
        case 429 | 503:
            return "the relay is busy: wait a minute, then start again with a new code"
        case _:
            return "start again with a new code, or check --relay"


def _explain_close(stage: Stage) -> Explanation:
    match stage:
        case Stage.RESPONSE:
            return Explanation(
                "the phone left without an answer",
                "some phones do so when they hold no passkey for this site; check that it has one, or try again",
                EXIT_NO_ANSWER,
            )
        case Stage.ADVERTISE:
            return Explanation(
                "the relay closed the tunnel before a computer came",
                "let the computer show a new code, and keep the two close to each other",
                EXIT_PROTOCOL,
            )
        case Stage.HANDSHAKE | Stage.GREETING:
            return Explanation(
                f"the phone left {_BEFORE[stage]}",
                "keep it awake and online, and start again with a new code",
                EXIT_PROTOCOL,
            )
        case Stage.REQUEST:
            return Explanation(
                "the phone left before it was asked anything", "start again with a new code", EXIT_PROTOCOL
            )
        case Stage.SCAN | Stage.TUNNEL:
            return Explanation(f"the other side left during the {stage} stage", _OUR_BUG, EXIT_BUG)
        case _:
            assert_never(stage)


def _explain_timeout(stage: Stage, seconds: float) -> Explanation:
    within = f"within {seconds:g} s"
    match stage:
        case Stage.SCAN:
            return Explanation(
                f"no phone was heard {within}",
                "check that Bluetooth is on, on both, and that the phone is online; then scan a new code",
                EXIT_TIMEOUT,
            )
        case Stage.TUNNEL:
            return Explanation(
                f"the relay did not answer {within}", "check the network, or a proxy that is in the way", EXIT_TIMEOUT
            )
        case Stage.ADVERTISE:
            return Explanation(
                f"no computer came {within}",
                "check that Bluetooth is on, on the computer that shows the code, and scan a new one",
                EXIT_TIMEOUT,
            )
        case Stage.HANDSHAKE | Stage.GREETING:
            return Explanation(
                f"the phone fell silent {_BEFORE[stage]} ({within})",
                "keep it awake and online, and start again with a new code",
                EXIT_TIMEOUT,
            )
        case Stage.REQUEST:
            return Explanation(f"the computer asked for nothing {within}", "start again with a new code", EXIT_TIMEOUT)
        case Stage.RESPONSE:
            return Explanation(
                f"nobody confirmed on the phone {within}",
                "try again, and answer the question on the phone's screen",
                EXIT_TIMEOUT,
            )
        case _:
            assert_never(stage)


def explain_status(status: int) -> Explanation:
    """Put a CTAP status of a phone into words; it must not be success."""
    match status:
        case Status.OPERATION_DENIED | Status.KEEPALIVE_CANCEL:
            return Explanation(
                "the request was declined on the phone", "try again if that was by mistake", EXIT_DECLINED
            )
        case Status.NO_CREDENTIALS:
            return Explanation(
                "the phone has no passkey for this site", "use another phone, or register this one", EXIT_NO_CREDENTIAL
            )
        case Status.CREDENTIAL_EXCLUDED:
            return Explanation(
                "the phone holds a passkey for this account already", "sign in with it instead", EXIT_ALREADY_REGISTERED
            )
        case Status.USER_ACTION_TIMEOUT | Status.ACTION_TIMEOUT:
            return Explanation(
                "nobody confirmed on the phone in time", "try again, and answer on the phone's screen", EXIT_TIMEOUT
            )
        case Status.NOT_ALLOWED:
            return Explanation(
                "the phone refuses this operation in this session", "start again with a new code", EXIT_DECLINED
            )
        case Status.UNSUPPORTED_ALGORITHM:
            return Explanation(
                "the phone makes no passkeys of the algorithms that are asked for",
                "ask for ES256 as well: phones over hybrid know it",
                EXIT_PROTOCOL,
            )
        case Status.KEY_STORE_FULL:
            return Explanation(
                "the phone has no room for another passkey", "remove one there, or use another phone", EXIT_PROTOCOL
            )
        case _:
            return Explanation(
                f"the phone answers with status 0x{status:02x}",
                "try again; if it stays, this phone cannot do what was asked",
                EXIT_PROTOCOL,
            )


def explain_sent_status(status: int) -> Explanation:
    """The same statuses, told at the phone that sent them."""
    match status:
        case Status.OPERATION_DENIED | Status.KEEPALIVE_CANCEL:
            return Explanation("you declined", "show a new code to try again", EXIT_DECLINED)
        case Status.NO_CREDENTIALS:
            return Explanation(
                "there is no passkey for this site in the vault",
                "choose another --vault, or register first",
                EXIT_NO_CREDENTIAL,
            )
        case Status.CREDENTIAL_EXCLUDED:
            return Explanation(
                "the vault holds a passkey for this account already", "sign in with it instead", EXIT_ALREADY_REGISTERED
            )
        case Status.USER_ACTION_TIMEOUT:
            return Explanation("nobody answered the question in time", "show a new code to try again", EXIT_TIMEOUT)
        case Status.NOT_ALLOWED:
            return Explanation(
                "the computer asked for something else than its code announced",
                "do not scan codes that you did not ask for",
                EXIT_PROTOCOL,
            )
        case _:
            return Explanation(
                f"the request was refused with status 0x{status:02x}",
                "the computer asked for what this phone cannot do",
                EXIT_PROTOCOL,
            )


_OUR_BUG = "this is a bug of ours: report it, with what HYBRID_DEBUG=1 adds to the output"

_BEFORE = {
    Stage.HANDSHAKE: "before the connection was secure",
    Stage.GREETING: "before it introduced itself",
}

_REFUSAL_HINTS = {
    RefusalReason.RP_ID: "check the RP id and --origin; a site may only use its own domain",
    RefusalReason.OPTIONS: "give the options as the site sends them: JSON of WebAuthn, bare or in publicKey",
}

_QR_HINTS = {
    QRProblem.NOT_FIDO: "scan the code that a sign-in page or hybrid get shows; it starts with FIDO:/",
    QRProblem.DIGITS: "copy the whole code again: FIDO:/ and nothing but digits",
    QRProblem.CBOR: "copy the whole code again: one digit is enough to break it",
    QRProblem.FIELD: "the program that shows this code makes it wrongly; update it",
    QRProblem.KEY: "the program that shows this code makes its key wrongly; update it",
    QRProblem.NO_CHANNEL: "the computer asks for a channel that this phone does not have; use another phone",
    QRProblem.CHANNEL_LIST: "leave --preset out, or let the computer leave key 6 out of its codes",
    QRProblem.UNKNOWN_RELAY: "use --service-id with a relay that the computer knows, 0 or 1",
    QRProblem.USED: "codes are good for one try; let the computer show a new one",
    QRProblem.NOT_A_PICTURE: "give a whole PNG or JPEG file with --qr-image",
    QRProblem.SEVERAL: "cut the picture down to the code that you mean",
    QRProblem.NOT_FOUND: "take a sharper picture in which the whole code is visible",
}

_BLUETOOTH_HINTS = {
    BluetoothProblem.OFF: "switch Bluetooth on and try again",
    BluetoothProblem.DENIED: "let this program use Bluetooth, by the group bluetooth or its sandbox's settings",
    BluetoothProblem.NO_SERVICE: "start it: systemctl start bluetooth; a container needs the system bus as well",
    BluetoothProblem.NO_ADAPTER: "plug in a Bluetooth adapter, or name one with --adapter",
    BluetoothProblem.NO_ADVERTISING: "use an adapter that can advertise, or end other programs that do",
    BluetoothProblem.NOT_SUPPORTED: "use another adapter; to advertise, use Linux",
    BluetoothProblem.UNKNOWN: "switch Bluetooth off and on, then try again",
}

_TUNNEL_HINTS = {
    TunnelProblem.UNREACHABLE: "check the network connection, or --relay",
    TunnelProblem.CERTIFICATE: "somebody may be listening in; for a relay of your own give --relay-ca and --relay-name",
    TunnelProblem.PROXY: "check the proxy settings of this machine",
    TunnelProblem.STATUS: _status_hint(None),
    TunnelProblem.REDIRECT: "check the network: something sends the connection elsewhere",
    TunnelProblem.SUBPROTOCOL: "the server is no relay for passkeys; check --relay",
    TunnelProblem.ROUTING_ID: "the server is no relay that a phone can wait at; check --relay",
    TunnelProblem.TEXT: "the server is no proper relay, or something on the way changes messages; check --relay",
    TunnelProblem.OVERSIZE: "do not trust this phone or relay; start again with a new code",
    TunnelProblem.LOST: "check the network on both devices, and start again with a new code",
    TunnelProblem.GONE: "show a code again to meet this phone",
}

_VAULT_HINTS = {
    VaultProblem.PERMISSIONS: "make it yours alone: chmod 600 on the file",
    VaultProblem.FOLDER: "make the folder yours alone with chmod go-w, or choose another with --vault",
    VaultProblem.MISSING: "try again; a new vault is made if there is none",
    VaultProblem.NOT_A_VAULT: "choose another file with --vault; this one is left as it is",
    VaultProblem.VERSION: "open it with the newer version of this program that made it",
    VaultProblem.KEY_KIND: "name that kind with --vault-key, or choose another vault with --vault",
    VaultProblem.KEY: "try again; if the key is the right one, put NAME.previous in the place of the vault NAME",
    VaultProblem.KEY_FILE: "check the path in --vault-key file:PATH, and chmod 600 on the file",
    VaultProblem.KEYRING: "unlock the key ring or set one up, or choose another --vault-key",
    VaultProblem.KDF: "open it where OpenSSL is 3.2 or newer, or install a newer cryptography from PyPI",
    VaultProblem.LOST: "give NAME.previous the name of the vault NAME, or choose another place with --vault",
    VaultProblem.CORRUPT: "put NAME.previous in the place of the vault NAME, or begin a new one with --vault",
    VaultProblem.PASSKEYS: "hybrid passkeys remove takes them out of use; NAME.previous may have good ones",
    VaultProblem.BUSY: "wait until the other program is done, then try again",
    VaultProblem.FULL: "free some space, or choose another place with --vault",
    VaultProblem.ACCESS: "check the path and who owns it, or choose another with --vault",
}

_PORTABILITY_HINTS = {
    PortabilityProblem.FORMAT: "name the format with --format; this file is another one",
    PortabilityProblem.VERSION: "let the program that made it save it in the version that is asked for",
    PortabilityProblem.ENCRYPTED: "export it again, protected by a password of its own, or without encryption",
    PortabilityProblem.MALFORMED: "export it again with the program that made it",
    PortabilityProblem.TOO_LARGE: "export fewer items at a time",
    PortabilityProblem.TOO_DEEP: "do not trust this file: no password manager makes such ones",
    PortabilityProblem.KEY: "check the passphrase and the key file",
    PortabilityProblem.CLEAR_TEXT: "choose --format kdbx or bitwarden, or add --clear-text if you mean it",
    PortabilityProblem.EXISTS: "choose another name, or add --overwrite",
    PortabilityProblem.ACCESS: "check the path and who owns it",
    PortabilityProblem.NOTHING: "see hybrid passkeys list for what is there",
}
