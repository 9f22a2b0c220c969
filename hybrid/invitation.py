"""The code that a client shows: fresh keys for one session. Rolls the dice, does no I/O."""

from __future__ import annotations

import secrets
import time

from cryptography.hazmat.primitives.asymmetric import ec

from hybrid.errors import LocalProtocolError
from hybrid.protocol.keys import SECRET_SIZE, PrivateKey
from hybrid.protocol.qr import Hint, QrInvitation


class Invitation:
    """A QR invitation with the private half of its key. Good for one session.

    `qr`: what the code carries; `identity`: the private key behind it. `repr` shows neither.
    """

    def __init__(self, qr: QrInvitation, identity: PrivateKey) -> None:
        self.qr = qr
        self.identity = identity
        self._used = False

    def __repr__(self) -> str:
        return f"<Invitation {self.qr.hint.value}>"

    @property
    def url(self) -> str:
        """``FIDO:/`` and digits, to be drawn as a QR code. A secret until the session is over."""
        return self.qr.url

    @property
    def hint(self) -> Hint:
        return self.qr.hint

    def use(self) -> None:
        """Mark as used. Raises `LocalProtocolError` the second time: keys and secret are never reused."""
        if self._used:
            raise LocalProtocolError("this code was used already; make a new one")
        self._used = True


def invite(hint: Hint = Hint.GET_ASSERTION, *, accept_link: bool = False) -> Invitation:
    """Make the code for one session.

    `hint`: what the phone shows first; `accept_link`: ask the phone for linking information (QR key 4), which is only
    honest if the caller stores it.
    """
    identity = ec.generate_private_key(ec.SECP256R1())
    qr = QrInvitation(
        public_key=identity.public_key(),
        secret=secrets.token_bytes(SECRET_SIZE),
        timestamp=int(time.time()),
        state_assisted=True if accept_link else None,
        hint_text=hint.value,
    )
    return Invitation(qr, identity)
