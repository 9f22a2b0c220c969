"""How a person writes a relay's address and name on a command line: ``HOST:PORT``, and the name in its certificate.

Grammar only: nothing is resolved, and no socket library is loaded, so that a command can refuse a wrong one before it
shows a code. Not an adapter itself; `hybrid.adapters.websocket_tunnel` connects.
"""

from __future__ import annotations

import ipaddress
import re

from hybrid.errors import LocalProtocolError

_HOST_NAME = re.compile(r"(?!.{254})[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*", re.ASCII | re.IGNORECASE)
_ADDRESS = re.compile(r"(?:\[(?P<ipv6>[^\[\]]+)\]|(?P<host>[^\[\]:]+)):(?P<port>[0-9]{1,5})", re.ASCII)


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT``; an IPv6 address is in brackets.

    Raises:
        LocalProtocolError: anything else.
    """
    match = _ADDRESS.fullmatch(text)
    if match and 0 < int(match["port"]) <= 0xFFFF:
        if match["ipv6"] is not None and ":" in match["ipv6"] and is_ip_address(match["ipv6"]):
            return match["ipv6"], int(match["port"])
        if match["host"] is not None and _HOST_NAME.fullmatch(match["host"]):
            return match["host"], int(match["port"])
    raise LocalProtocolError("a relay address is HOST:PORT, with an IPv6 address in brackets")


def check_name(text: str) -> None:
    """Accept the name of a host or an IP address. Raises `LocalProtocolError` for anything else."""
    if not is_host(text):
        raise LocalProtocolError("a relay name is a host name or an IP address")


def is_host(text: str) -> bool:
    return _HOST_NAME.fullmatch(text) is not None or is_ip_address(text)


def is_ip_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
