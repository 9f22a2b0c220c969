"""Files that a command line names, and the relay it describes, checked before anything is shown or sent."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hybrid.adapters.relay_address import check_name, parse_address
from hybrid.cli.messages import UsageProblem
from hybrid.errors import LocalProtocolError

_PEM = b"-----BEGIN CERTIFICATE-----"


def read_file(path: str, what: str) -> bytes:
    """Bytes of a file, or of standard input for ``-``. Raises `UsageProblem`."""
    try:
        return sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise UsageProblem(f"the {what} cannot be read: {reason(error)}", f"check the path {path}") from None


def reason(error: OSError) -> str:
    """What the system says, in our voice."""
    return os.strerror(error.errno).lower() if error.errno else "it does not say why"


def check_relay(relay: str | None, relay_name: str | None, relay_ca: Path | None) -> None:
    """See that the relay's options can be used. Raises `UsageProblem`."""
    try:
        if relay is not None:
            parse_address(relay)
    except LocalProtocolError as error:
        raise UsageProblem(str(error), "write --relay as in relay.example:443 or [::1]:8443") from None
    try:
        if relay_name is not None:
            check_name(relay_name)
    except LocalProtocolError as error:
        raise UsageProblem(str(error), "write --relay-name as in relay.example") from None
    if relay_ca is not None and _PEM not in read_file(str(relay_ca), "CA file"):
        raise UsageProblem(f"{relay_ca} holds no certificate", "give a PEM file of certificates with --relay-ca")
