"""``tunnel-server domains``: the names that a relay for real phones may have (CTAP 2.3 §11.5.1, "tunnel service").

A phone's advert holds a number of 16 bits, and the number says the domain: two are assigned by FIDO, the others are
hashed, and anybody may register such a name that is free. The derivation itself is in `hybrid.protocol.tunnel`.
"""

from __future__ import annotations

import functools
import socket

import click

from hybrid.protocol.tunnel import ASSIGNED_DOMAINS, tunnel_domain
from tunnel_server.complaints import EXIT_NETWORK, EXIT_USAGE, CommandError

FIRST_HASHED = 256
IDS = 1 << 16


@functools.cache
def _ids() -> dict[str, int]:
    """Every domain with its number; 65,282 of them, a fifth of a second."""
    return {tunnel_domain(number): number for number in (*range(len(ASSIGNED_DOMAINS)), *range(FIRST_HASHED, IDS))}


def service_id(name: str) -> int | None:
    """Number of a tunnel domain; None for any other name. Case and a dot at the end do not count."""
    return _ids().get(name.lower().removesuffix("."))


def addresses(name: str) -> list[str]:
    """What this machine resolves a name to; empty if it does not."""
    try:
        found = socket.getaddrinfo(name, 443, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return sorted({str(address[0]) for *_, address in found})


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--first", type=click.IntRange(1, IDS - FIRST_HASHED), default=10, help="How many names to list.")
@click.option(
    "--from", "start", type=click.IntRange(FIRST_HASHED, IDS - 1), default=FIRST_HASHED, help="From which id."
)
@click.option("--resolve", is_flag=True, help="Look up each name as this machine does.")
def domains(names: tuple[str, ...], first: int, start: int, resolve: bool) -> None:
    """List hashed tunnel domains, or check whether a name is one.

    A line has the id that goes into an advert, the name and, with --resolve, its addresses. The exit code is 2 if a
    given name is no tunnel domain and 7 if one does not resolve.
    """
    strange: list[str] = []
    lost: list[str] = []
    for name in names or map(tunnel_domain, range(start, min(start + first, IDS))):
        number = service_id(name)
        if number is None:
            strange.append(name)
            continue
        kind = ["assigned"] if number < FIRST_HASHED else []
        found = addresses(name) if resolve else []
        if resolve and not found:
            lost.append(name)
        click.echo(" ".join([f"{number:5}", name, *kind, *(found or ["unresolved"] if resolve else [])]))
    if strange:
        raise CommandError(
            f"no tunnel domain: {', '.join(strange)}",
            "tunnel-server domains lists names that phones can be told; register one that is free",
            EXIT_USAGE,
        )
    if lost and names:
        raise CommandError(
            f"no address for {', '.join(lost)}", "add an A or AAAA record, or ask again later", EXIT_NETWORK
        )
