"""A person with a browser and a device, without either: real attestations and assertions, and whatever lies one needs.

The browser's part of WebAuthn is played here by hand, so that a test can tell the website anything in its client data.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any

import httpx
from fido2 import cbor
from fido2.ctap2.base import Ctap2
from fido2.utils import websafe_decode, websafe_encode

from examples.relying_party.website.app import Website
from examples.relying_party.website.settings import Settings
from hybrid.fido2_bridge.software_device import SoftwareCtapDevice
from hybrid.passkeys import PHONE, MemoryStore

ORIGIN = "https://harbour.example"
RELATED = "https://harbour.example.net"
RP_ID = "harbour.example"


class Clock:
    """Seconds since 1970, by hand."""

    def __init__(self) -> None:
        self.now = 1_800_000_000

    def __call__(self) -> int:
        return self.now


@dataclass
class Phone:
    """A software phone behind python-fido2's CtapDevice, and the store in which a test may change things."""

    synced: bool = False
    store: MemoryStore = field(default_factory=MemoryStore)

    def __post_init__(self) -> None:
        self.device = SoftwareCtapDevice(self.store, profile=replace(PHONE, synced=self.synced))

    def tamper(self, **changes: Any) -> None:
        """Change every passkey in the phone, e.g. ``backup_eligible=True``; its signatures stay good."""
        for credential in self.store.credentials():
            self.store.update(replace(credential, **changes))


def client_data(kind: str, challenge: str, origin: str, extra: Mapping[str, Any]) -> bytes:
    return json.dumps({"type": kind, "challenge": challenge, "origin": origin, "crossOrigin": False, **extra}).encode()


def create(
    options: Mapping[str, Any],
    phone: Phone,
    *,
    origin: str = ORIGIN,
    kind: str = "webauthn.create",
    transports: tuple[str, ...] = ("hybrid", "internal"),
    attachment: str | None = "cross-platform",
    **extra: Any,
) -> dict[str, Any]:
    """RegistrationResponseJSON. `extra`: more members of the client data."""
    data = client_data(kind, options["challenge"], origin, extra)
    user = dict(options["user"])
    made = Ctap2(phone.device).make_credential(
        sha256(data).digest(),
        options["rp"],
        {**user, "id": websafe_decode(user["id"])},
        options["pubKeyCredParams"],
        exclude_list=[{**item, "id": websafe_decode(item["id"])} for item in options.get("excludeCredentials", ())]
        or None,
        options={"rk": True, "uv": True},
    )
    attestation = cbor.encode({"fmt": made.fmt, "authData": bytes(made.auth_data), "attStmt": dict(made.att_stmt)})
    assert made.auth_data.credential_data is not None
    return registration(made.auth_data.credential_data.credential_id, data, attestation, transports, attachment)


def registration(
    credential_id: bytes, data: bytes, attestation: bytes, transports: tuple[str, ...], attachment: str | None
) -> dict[str, Any]:
    return {
        "id": websafe_encode(credential_id),
        "rawId": websafe_encode(credential_id),
        "type": "public-key",
        "authenticatorAttachment": attachment,
        "clientExtensionResults": {},
        "response": {
            "clientDataJSON": websafe_encode(data),
            "attestationObject": websafe_encode(attestation),
            "transports": list(transports),
        },
    }


def get(
    options: Mapping[str, Any],
    phone: Phone,
    *,
    origin: str = ORIGIN,
    kind: str = "webauthn.get",
    user_handle: bytes | None = b"as the phone says",
    attachment: str | None = "cross-platform",
    rp_id: str = RP_ID,
    **extra: Any,
) -> dict[str, Any]:
    """AuthenticationResponseJSON. `user_handle`: another one than the phone's, None to leave it out."""
    data = client_data(kind, options["challenge"], origin, extra)
    allowed: list[Mapping[str, Any]] = [
        {**item, "id": websafe_decode(item["id"])} for item in options.get("allowCredentials") or ()
    ]
    used = Ctap2(phone.device).get_assertion(rp_id, sha256(data).digest(), allowed or None, options={"uv": True})
    if user_handle == b"as the phone says":
        user_handle = used.user["id"] if used.user else None
    assert used.credential is not None
    return {
        "id": websafe_encode(used.credential["id"]),
        "rawId": websafe_encode(used.credential["id"]),
        "type": "public-key",
        "authenticatorAttachment": attachment,
        "clientExtensionResults": {},
        "response": {
            "clientDataJSON": websafe_encode(data),
            "authenticatorData": websafe_encode(bytes(used.auth_data)),
            "signature": websafe_encode(used.signature),
            **({} if user_handle is None else {"userHandle": websafe_encode(user_handle)}),
        },
    }


@dataclass
class Visitor:
    """One browser: its cookies, and what it did."""

    client: httpx.AsyncClient

    async def post(self, path: str, body: object = None, **headers: str) -> httpx.Response:
        content = json.dumps({} if body is None else body)  # in ASCII, so that a text may be any
        own = {"origin": ORIGIN, "content-type": "application/json"}
        return await self.client.post(f"/api/{path}", content=content, headers={**own, **headers})

    async def options(self, path: str, **body: Any) -> dict[str, Any]:
        response = await self.post(path, body)
        assert response.status_code == 200, response.text
        options: dict[str, Any] = response.json()["publicKey"]
        return options

    async def join(self, name: str, phone: Phone, *, policy: str = "any", **lies: Any) -> httpx.Response:
        options = await self.options("join/begin", name=name, policy=policy)
        return await self.post("join/finish", create(options, phone, **lies))

    async def sign_in(self, phone: Phone, **lies: Any) -> httpx.Response:
        return await self.post("sign-in/finish", get(await self.options("sign-in/begin"), phone, **lies))

    async def confirm(self, phone: Phone, **lies: Any) -> httpx.Response:
        return await self.post("confirm/finish", get(await self.options("confirm/begin"), phone, **lies))

    async def add(self, phone: Phone, **lies: Any) -> httpx.Response:
        return await self.post("passkeys/finish", create(await self.options("passkeys/begin"), phone, **lies))

    async def page(self, path: str) -> httpx.Response:
        return await self.client.get(path)


def reason(response: httpx.Response) -> str:
    """Why the website refused, "" if it did not."""
    return "" if response.status_code < 300 else str(response.json()["reason"])


@dataclass
class Site:
    """The website of a test, its clock, and as many browsers as it takes."""

    website: Website
    clock: Clock
    transport: httpx.ASGITransport

    @asynccontextmanager
    async def browser(self) -> AsyncIterator[Visitor]:
        async with httpx.AsyncClient(transport=self.transport, base_url=ORIGIN) as client:
            yield Visitor(client)

    def events(self) -> list[str]:
        """The log's events, oldest first."""
        return [entry.event.value for entry in reversed(self.website.audit.entries())]

    def last_detail(self) -> dict[str, Any]:
        return self.website.audit.entries()[0].detail


def settings(**changes: Any) -> Settings:
    return replace(Settings(rp_id=RP_ID, origins=(ORIGIN,), related=(RELATED,), open_classes=True), **changes)


def site(given: Settings | None = None) -> Site:
    clock = Clock()
    website = Website(given or settings(), clock=clock)
    return Site(website, clock, httpx.ASGITransport(app=website.app()))
