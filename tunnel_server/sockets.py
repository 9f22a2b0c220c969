"""Listening sockets of a relay: bound here, or handed in by systemd."""

from __future__ import annotations

import itertools
import logging
import os
import socket
from dataclasses import dataclass

from tunnel_server.app import bind
from tunnel_server.complaints import EXIT_NETWORK, EXIT_USAGE, CommandError
from tunnel_server.settings import Settings, check_plain
from tunnel_server.systemd import listening_sockets

logger = logging.getLogger(__name__)

_NAMES = ("relay", "admin", "peer")  # that a socket unit may give


@dataclass(slots=True)
class Sockets:
    """`public` has one at least; the names are those that a socket unit gives them: relay, admin, peer."""

    public: list[socket.socket]
    admin: socket.socket | None = None
    peer: socket.socket | None = None

    @property
    def all(self) -> list[socket.socket]:
        """Every one of them."""
        return [*self.public, *(made for made in (self.admin, self.peer) if made is not None)]

    def close(self) -> None:
        """Close what is still open."""
        for made in self.all:
            made.close()


async def open_sockets(settings: Settings) -> Sockets:
    """Bind what the settings say, but for what systemd hands in.

    Raises:
        CommandError: an address cannot be bound, or one that others can reach was handed in for plain connections.
    """
    given = _handed_in(settings)
    for one in given.get("relay", ()):
        if one.family != socket.AF_UNIX:
            check_plain(settings, one.getsockname()[0])
    made: list[socket.socket] = []
    option, host, port = "--host or --port", settings.host, settings.port
    try:
        public = given.get("relay") or await bind(settings.host, settings.port)
        made += public
        if settings.admin is not None:
            option, (host, port) = "--admin", settings.admin
        admin = given.get("admin") or (await bind(*settings.admin) if settings.admin else [])
        made += admin
        if settings.peer_listen is not None:
            option, (host, port) = "--peer-listen", settings.peer_listen
        peer = given.get("peer") or (await bind(*settings.peer_listen) if settings.peer_listen else [])
        made += peer
    except (OSError, UnicodeError) as exc:  # UnicodeError: a host name that cannot be one
        for one in made:
            one.close()
        number = exc.errno if isinstance(exc, OSError) else None  # getaddrinfo has its own, negative ones
        reason = os.strerror(number).lower() if number is not None and number > 0 else "no such host"
        raise CommandError(
            f"cannot listen on {_pair(host, port)}: {reason}",
            f"choose another {option}, or end what uses it",
            EXIT_NETWORK,
        ) from exc
    for one in (*admin[1:], *peer[1:]):
        one.close()
    return Sockets(public, admin[0] if admin else None, peer[0] if peer else None)


def _handed_in(settings: Settings) -> dict[str, list[socket.socket]]:
    """Sockets of systemd by their name. Those of one unit that names nothing are the public ones, if no other is.

    Raises:
        CommandError: nobody can know which of several is the public one.
    """
    given = listening_sockets()
    unnamed = [name for name in given if name == "unknown" or name.endswith(".socket")]
    if "relay" not in given and len(unnamed) > 1:
        for one in itertools.chain(*given.values()):
            one.close()
        raise CommandError(
            "systemd hands in sockets of several units and does not say which is the relay's",
            f"FileDescriptorName= of a socket unit is one of {', '.join(_NAMES)}",
            EXIT_USAGE,
        )
    if "relay" not in given and unnamed:
        given["relay"] = given.pop(unnamed[0])
    used = [name for name in _NAMES if name != "peer" or settings.peer_files is not None]
    for name in given.keys() - used:
        logger.warning(
            "a socket that systemd hands in as %s is not used; FileDescriptorName= is one of %s", name, ", ".join(used)
        )
        for one in given.pop(name):
            one.close()
    return given


def shown(listening: socket.socket) -> str:
    """HOST:PORT of a socket, with brackets where the host has colons."""
    if listening.family == socket.AF_UNIX:
        return str(listening.getsockname())
    return _pair(*listening.getsockname()[:2])


def _pair(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
