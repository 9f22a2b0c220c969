"""For whom a proxy speaks: PROXY protocol version 2 and ``X-Forwarded-For``. Pure.

Only what a configured proxy says counts; everybody else could name any address to escape a limit.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Sequence

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_PROXY_HEADER = 4096  # fixed part, addresses and a few extensions (a TLS name, an id)

PROXY_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"  # the PROXY protocol, section 2.2
_FIXED = len(PROXY_SIGNATURE) + 4
_LOCAL, _PROXY = 0x20, 0x21  # version 2, and the command
_WITH_PORT = re.compile(r"(?:\[([^]]+)]|([0-9.]+))(?::[0-9]{1,5})?")  # as some gateways forward an address
_FAMILIES = {0x11: (4, 12), 0x21: (16, 36)}  # TCP over IPv4, IPv6: size of one address, of both with their ports


class BadProxyHeader(ValueError):
    """A configured proxy sent something else than a PROXY header, or one that cannot be."""


class BadForwardedFor(ValueError):
    """A configured proxy passed on something that is no address."""


def is_in(host: str, networks: Collection[Network]) -> bool:
    """Whether the address `host` is in one of `networks`; an IPv4 address that came over IPv6 counts as IPv4."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in networks)


def read_proxy_header(data: bytes | bytearray) -> tuple[int, str | None] | None:
    """Length of the PROXY header at the beginning of `data`, and the client's address in it; None: more is needed.

    The address is None if the proxy speaks for itself (a health check), or for something without an address.

    Raises:
        BadProxyHeader
    """
    if data[: len(PROXY_SIGNATURE)] != PROXY_SIGNATURE[: len(data)]:
        raise BadProxyHeader("no PROXY header")
    if len(data) < _FIXED:
        return None
    command, family = data[12], data[13]
    end = _FIXED + int.from_bytes(data[14:16], "big")
    if command not in (_LOCAL, _PROXY) or end > MAX_PROXY_HEADER:
        raise BadProxyHeader("an unknown command or version, or too long")
    if len(data) < end:
        return None
    if command == _LOCAL or family not in _FAMILIES:
        return end, None
    size, both = _FAMILIES[family]
    if end < _FIXED + both:
        raise BadProxyHeader("too short for its addresses")
    return end, str(ipaddress.ip_address(bytes(data[_FIXED : _FIXED + size])))


def read_forwarded_for(members: Sequence[bytes], proxies: Collection[Network]) -> str | None:
    """The client's address: the last one of ``X-Forwarded-For`` that is no proxy of ours. None if there is none.

    What stands before it was written by somebody whom nobody trusts.

    Raises:
        BadForwardedFor
    """
    for member in reversed(members):
        host = member.decode("latin-1")
        if with_port := _WITH_PORT.fullmatch(host):
            host = with_port[1] or with_port[2]
        try:
            if not is_in(host, proxies):
                return host
        except ValueError:
            raise BadForwardedFor("X-Forwarded-For with something that is no address") from None
    return None
