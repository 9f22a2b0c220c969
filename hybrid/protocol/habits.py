"""How a phone keeps a session, as data, where phones of different makers differ.

The defaults are this project's own phone, as CTAP 2.3 §11.5.1 would have it. The habits of phones that others have seen
are in `hybrid.passkeys.presets`. Decides nothing by itself: `hybrid.protocol.authenticator` asks.
"""

from __future__ import annotations

from dataclasses import dataclass

from hybrid import cbor
from hybrid.errors import InvalidQR, QRProblem, RemoteProtocolError
from hybrid.protocol.ctap import FEATURE_CTAP, Command, Status
from hybrid.protocol.eid import FIDO_UUID
from hybrid.protocol.qr import QrInvitation

_ALLOW_LIST = 3  # member of a getAssertion request (CTAP 2.3 §6.2)


@dataclass(frozen=True, slots=True)
class Habits:
    """Habits of one kind of phone.

    `service_id`: tunnel service at which it meets clients; `service_uuid`: under which it advertises; `features` of its
    greeting, in its order, None for a greeting without that member; `one_command`: ends the session after one answer,
    whatever it is asked to do; `sends_update`: an update after every greeting, without linking information;
    `answers_get_info`: also to a client that asks for it, though the greeting had it; `takes_channel_list`: serves a
    code whose key 6 is a list; `unanswered`: status bytes in whose place it ends the session; `leaves_empty_handed`:
    ends it also when a sign-in that names no passkey finds none; `once_revision_0`: speaks the protocol's revision 0,
    which has no message types, to a client whose code does not say whether it links.
    """

    service_id: int = 0
    service_uuid: str = FIDO_UUID
    features: tuple[str, ...] | None = (FEATURE_CTAP,)
    one_command: bool = False
    sends_update: bool = False
    answers_get_info: bool = True
    takes_channel_list: bool = True
    unanswered: frozenset[int] = frozenset()
    leaves_empty_handed: bool = False
    once_revision_0: bool = False

    def check(self, qr: QrInvitation) -> None:
        """Raise `InvalidQR` for a code that such a phone does not serve."""
        if qr.transports_stated and not self.takes_channel_list:
            raise InvalidQR("this phone stops at a code that lists channels", QRProblem.CHANNEL_LIST)

    def leaves(self, request: bytes, status: int) -> bool:
        """Whether it ends the session in place of answering `request` with `status`."""
        if status in self.unanswered:
            return True
        nothing_found = request[0] == Command.GET_ASSERTION and status == Status.NO_CREDENTIALS
        return self.leaves_empty_handed and nothing_found and not _names_passkeys(request)


def _names_passkeys(request: bytes) -> bool:
    try:
        return bool(cbor.decode_map(request[1:]).get(_ALLOW_LIST))
    except RemoteProtocolError:  # the backend found its way through it all the same
        return False
