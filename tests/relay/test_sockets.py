"""Which of the sockets that systemd hands in is which."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Iterator

import pytest

from tunnel_server import logs, sockets
from tunnel_server.__main__ import parse
from tunnel_server.complaints import CommandError
from tunnel_server.sockets import Sockets, open_sockets

from .tls import Certificate

Handed = dict[str, list[socket.socket]]


@pytest.fixture
def handed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Handed]:
    """What systemd hands in, by name."""
    given: Handed = {}
    monkeypatch.setattr(sockets, "listening_sockets", lambda: dict(given))
    monkeypatch.setattr(logs, "set_up", lambda *_, **__: None)  # it would take pytest's own handlers away
    with contextlib.ExitStack() as stack:

        def add(name: str) -> socket.socket:
            made = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            given.setdefault(name, []).append(made)
            return made

        for name in ("relay", "admin", "peer", "unknown", "tunnel-server.socket", "other.socket", "metrics"):
            add(name)
        add("tunnel-server.socket")  # one unit that listens on two addresses
        yield given


async def chosen(handed: Handed, names: tuple[str, ...], *options: str) -> Sockets:
    """What becomes of the sockets with these names."""
    for name in handed.keys() - names:
        del handed[name]
    return await open_sockets(parse(["--port", "0", *options]))


@pytest.mark.parametrize(
    ("names", "public"),
    [
        (("relay", "admin"), "relay"),
        (("unknown",), "unknown"),
        (("unknown", "admin"), "unknown"),
        (("tunnel-server.socket",), "tunnel-server.socket"),
        (("relay", "tunnel-server.socket"), "relay"),
        (("admin",), None),
        (("metrics",), None),
    ],
)
async def test_the_public_one(
    handed: Handed, names: tuple[str, ...], public: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    given = {name: list(made) for name, made in handed.items()}
    found = await chosen(handed, names)
    try:
        if public is None:
            assert not {*found.public} & {one for made in given.values() for one in made}
        else:
            assert found.public == given[public]
        assert found.admin is (given["admin"][0] if "admin" in names else None)
        unused = set(names) - {"admin", public}
        said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert len(said) == len(unused)
        for name in unused:
            assert any(f"hands in as {name} is not used" in line for line in said)
            assert all(one.fileno() == -1 for one in given[name]), "closed"
    finally:
        found.close()


async def test_several_units_without_names(handed: Handed) -> None:
    given = [one for name in ("tunnel-server.socket", "other.socket") for one in handed[name]]
    with pytest.raises(CommandError, match="does not say which is the relay's"):
        await chosen(handed, ("tunnel-server.socket", "other.socket"))
    assert all(one.fileno() == -1 for one in given)


@pytest.mark.parametrize("believed", [False, True])
async def test_nodes_need_certificates(
    handed: Handed, certificate: Certificate, believed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A socket for other nodes is served only with TLS for them."""
    files = (("--peer-cert", certificate.cert), ("--peer-key", certificate.key), ("--peer-ca", certificate.ca))
    options = [str(word) for pair in files for word in pair] if believed else []
    given = handed["peer"][0]
    found = await chosen(handed, ("relay", "peer"), *options)
    assert found.peer is (given if believed else None)
    assert ("as peer is not used" in caplog.text) == (not believed)
    found.close()
