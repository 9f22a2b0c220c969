"""Who else is on the stage: phones and clients that follow the rules or break one, vaults, relays that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import unittest.mock
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)
from websockets.asyncio.server import ServerConnection
from websockets.frames import CloseCode

from hybrid import cbor
from hybrid.adapters.bleak_scanner import BluetoothScanner
from hybrid.adapters.bluez_advertiser import BluezAdvertiser
from hybrid.authenticator import answer
from hybrid.invitation import Invitation
from hybrid.passkeys.consent import AlwaysApprove, Consent
from hybrid.passkeys.engine import SoftwareAuthenticator
from hybrid.passkeys.store import Credential, MemoryStore
from hybrid.passkeys.vault import open_vault
from hybrid.protocol.ctap import Command
from hybrid.testing.peers import clients, phones
from tests.adapters import relay_doubles
from tests.cli.stage import DOMAIN, Stage
from tests.cli.transcript import Client, Phone, Setting, Values

RP_ID = "example.com"
CREDENTIAL_ID = bytes(range(32))
_KEY = ec.derive_private_key(0x1234567, ec.SECP256R1())


def passkey(number: int = 0, name: str = "ada", display_name: str = "Ada") -> Credential:
    return Credential(
        credential_id=CREDENTIAL_ID[number:] + CREDENTIAL_ID[:number],
        rp_id=RP_ID,
        rp_name="Example",
        user_id=bytes([number]) * 24,
        user_name=name,
        user_display_name=display_name,
        algorithm=-7,
        private_key=_KEY.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
        created_at=1_800_000_000 + number,
        modified_at=1_800_000_000 + number,
    )


# --- phones -----------------------------------------------------------------------------------------------------------


def good_phone(*passkeys: Credential, consent: Consent | None = None, service_id: int = 0) -> Phone:
    """Our own phone, with these passkeys."""

    async def run(stage: Stage, code: str) -> None:
        store = MemoryStore()
        for credential in passkeys:
            store.add(credential)
        authenticator = SoftwareAuthenticator(store, consent or AlwaysApprove())
        advertiser = BluezAdvertiser("hci1")
        await answer(code, authenticator, advertiser=advertiser, tunnels=stage.tunnels(), service_id=service_id)

    return run


def phone(make: Callable[[], phones.Phone]) -> Phone:
    """One of the misbehaving phones."""

    async def run(stage: Stage, code: str) -> None:
        await make().run(code, advertiser=BluezAdvertiser("hci1"), tunnels=stage.tunnels())

    return run


# --- clients ----------------------------------------------------------------------------------------------------------


def client(make: Callable[[], clients.Client], relay_name: str | None = None) -> Client:
    """One of the misbehaving clients, or `clients.Client` itself."""

    async def run(stage: Stage, invitation: Invitation) -> None:
        await make().run(invitation, scanner=BluetoothScanner("hci0"), tunnels=stage.tunnels(relay_name))

    return run


def sign_in(options: dict[str, bool] | None = None) -> bytes:
    members = {1: RP_ID, 2: bytes(32), **({5: options} if options else {})}
    return bytes([Command.GET_ASSERTION]) + cbor.encode(members)


def register(*excluded: bytes, name: str = "ada") -> bytes:
    members = {
        1: bytes(32),
        2: {"id": RP_ID, "name": "Example"},
        3: {"id": b"7" * 24, "name": name, "displayName": "Ada"},
        4: [{"alg": -7, "type": "public-key"}],
        7: {"rk": True},
        **({5: [{"id": excluded_id, "type": "public-key"} for excluded_id in excluded]} if excluded else {}),
    }
    return bytes([Command.MAKE_CREDENTIAL]) + cbor.encode(members)


# --- settings ---------------------------------------------------------------------------------------------------------


def files(**contents: bytes) -> Setting:
    """Files in the folder; ``name_txt`` is called name.txt."""

    @contextlib.asynccontextmanager
    async def setting(stage: Stage, folder: Path) -> AsyncIterator[Values]:
        for name, content in contents.items():
            path = folder / name.replace("_", ".")
            path.write_bytes(content)
            path.chmod(0o600)
        yield {}

    return setting


def vault(*passkeys: Credential, mode: int = 0o600) -> Setting:
    """A vault called v with these passkeys."""

    @contextlib.asynccontextmanager
    async def setting(stage: Stage, folder: Path) -> AsyncIterator[Values]:
        made = open_vault(folder / "v")
        for credential in passkeys:
            made.add(credential)
        (folder / "v").chmod(mode)
        yield {}

    return setting


def public_key(of: Credential | None) -> bytes:
    """PEM of a passkey's public key, or of another key."""
    key = load_der_private_key(of.private_key, None) if of is not None else ec.derive_private_key(77, ec.SECP256R1())
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@contextlib.asynccontextmanager
async def adapters_off(stage: Stage, folder: Path) -> AsyncIterator[Values]:
    assert stage.bluez is not None
    for adapter in stage.bluez.adapters:
        await stage.bluez.power(adapter, False)
    yield {}
    for adapter in stage.bluez.adapters:
        await stage.bluez.power(adapter, True)


@contextlib.asynccontextmanager
async def no_adapters(stage: Stage, folder: Path) -> AsyncIterator[Values]:
    assert stage.bluez is not None
    names = stage.bluez.adapters
    for adapter in names:
        await stage.bluez.remove_adapter(adapter)
    yield {}
    for adapter in names:
        await stage.bluez.add_adapter(adapter)


@contextlib.asynccontextmanager
async def no_service(stage: Stage, folder: Path) -> AsyncIterator[Values]:
    assert stage.bluez is not None
    await stage.bluez.service(False)
    yield {}
    await stage.bluez.service(True)


@contextlib.asynccontextmanager
async def denied(stage: Stage, folder: Path) -> AsyncIterator[Values]:
    assert stage.bluez is not None
    await stage.bluez.deny()
    yield {}
    await stage.bluez.allow()


def failing(member: str, error: str, text: str) -> Setting:
    """The next call of a method of BlueZ fails."""

    @contextlib.asynccontextmanager
    async def setting(stage: Stage, folder: Path) -> AsyncIterator[Values]:
        assert stage.bluez is not None
        await stage.bluez.fail_next(member, error, text)
        yield {}

    return setting


def relay_answering(status: int, *headers: str) -> Setting:
    """A relay that answers every request with a status."""

    @contextlib.asynccontextmanager
    async def setting(stage: Stage, folder: Path) -> AsyncIterator[Values]:
        context = stage.ca.server_context(DOMAIN)
        async with relay_doubles.answering_relay(context, relay_doubles.http(status, *headers)) as relay:
            yield {"bad": relay.address}

    return setting


def relay_sending(
    *messages: str | bytes,
    subprotocols: tuple[str, ...] = ("fido.cable",),
    routing: bool = True,
    close: CloseCode | None = None,
) -> Setting:
    """A relay that accepts, sends `messages` and waits, or closes with a code."""

    async def handler(connection: ServerConnection) -> None:
        for message in messages:
            await connection.send(message)
        if close is not None:
            await connection.close(close)
        await connection.wait_closed()

    @contextlib.asynccontextmanager
    async def setting(stage: Stage, folder: Path) -> AsyncIterator[Values]:
        async with relay_doubles.websocket_relay(
            stage.ca.server_context(DOMAIN), handler, subprotocols=subprotocols, headers=None if routing else []
        ) as relay:
            yield {"bad": relay.address}

    return setting


@contextlib.asynccontextmanager
async def without_zxing(stage: Stage, folder: Path) -> AsyncIterator[Values]:
    """The extra that reads pictures is not installed."""
    reader = sys.modules.pop("hybrid.adapters.qr_image", None)
    with unittest.mock.patch.dict(sys.modules, {"zxingcpp": None}):
        yield {}
    if reader is not None:
        sys.modules["hybrid.adapters.qr_image"] = reader


@contextlib.asynccontextmanager
async def silent_relay(stage: Stage, folder: Path) -> AsyncIterator[Values]:
    async def script(reader: asyncio.StreamReader, writer: object) -> None:
        await reader.read()

    async with relay_doubles.raw_relay(None, script) as relay:
        yield {"bad": relay.address}


@contextlib.asynccontextmanager
async def no_relay(stage: Stage, folder: Path) -> AsyncIterator[Values]:
    """A port at which nobody listens, because its socket was only bound."""
    import socket

    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield {"bad": f"127.0.0.1:{bound.getsockname()[1]}"}
