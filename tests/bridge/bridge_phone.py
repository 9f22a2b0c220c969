"""A scripted phone for the bridge's tests, made of `cryptography` and python-fido2's types, not of our own code."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from fido2 import cbor
from fido2.cose import CoseKey
from fido2.webauthn import AttestedCredentialData, AuthenticatorData

AAGUID = bytes.fromhex("f24a8e70d0d3f82c293732523cc4de5a")
FLAGS = AuthenticatorData.FLAG.UP | AuthenticatorData.FLAG.UV
GET_INFO: dict[int, Any] = {
    1: ["FIDO_2_0", "FIDO_2_1"],
    2: ["largeBlob", "prf"],
    3: AAGUID,
    4: {"rk": True, "uv": True},
    9: ["internal", "cable"],
}


def key_pair(algorithm: int) -> tuple[Any, CoseKey]:
    """Give a private key and its COSE public key."""
    key: Any
    match algorithm:
        case -7:
            key = ec.generate_private_key(ec.SECP256R1())
        case -8:
            key = ed25519.Ed25519PrivateKey.generate()
        case -257:
            key = rsa.generate_private_key(65537, 2048)
    cose: Any = CoseKey.for_alg(algorithm)
    return key, cose.from_cryptography_key(key.public_key())


def sign(key: Any, message: bytes) -> bytes:
    match key:
        case ec.EllipticCurvePrivateKey():
            return key.sign(message, ec.ECDSA(hashes.SHA256()))
        case rsa.RSAPrivateKey():
            return key.sign(message, padding.PKCS1v15(), hashes.SHA256())
        case _:
            return bytes(key.sign(message))


def authenticator_data(rp_id: str, flags: int = FLAGS, credential: bytes = b"") -> bytes:
    """Lay out authenticator data; the flag for the credential is set if there is one."""
    flags |= AuthenticatorData.FLAG.AT if credential else 0
    return hashlib.sha256(rp_id.encode()).digest() + bytes([flags]) + bytes(4) + credential


@dataclass
class Passkey:
    credential_id: bytes
    rp_id: str
    user_id: bytes
    key: Any
    cose: CoseKey
    secret: bytes
    blob: tuple[bytes, int] | None = None


@dataclass
class Phone:
    """Answers makeCredential and getAssertion like a phone; `requests` are the messages as they came."""

    get_info: bytes = field(default_factory=lambda: cbor.encode(GET_INFO))
    flags: int = FLAGS
    passkeys: list[Passkey] = field(default_factory=list)
    requests: list[bytes] = field(default_factory=list)

    def answer(self, request: bytes) -> bytes:
        self.requests.append(request)
        members = cbor.decode(request[1:])
        assert isinstance(members, Mapping)
        assert cbor.encode(members) == request[1:], "the request is not canonical"
        make = {1: self._make_credential, 2: self._get_assertion}[request[0]]
        return make(members)

    def _make_credential(self, members: Mapping[int, Any]) -> bytes:
        algorithm = members[4][0]["alg"]
        excluded = {entry["id"] for entry in members.get(5, [])}
        if any(passkey.credential_id in excluded for passkey in self.passkeys):
            return b"\x19"
        key, cose = key_pair(algorithm)
        number = len(self.passkeys)
        passkey = Passkey(bytes([number]) * 16, members[2]["id"], members[3]["id"], key, cose, bytes([number]) * 32)
        self.passkeys.append(passkey)
        attested = AttestedCredentialData.create(AAGUID, passkey.credential_id, cose)
        outputs: dict[str, Any] = {}
        extensions = members.get(6, {})
        if "prf" in extensions:
            outputs["prf"] = {"enabled": True}
            if "eval" in extensions["prf"]:
                outputs["prf"]["results"] = prf(passkey.secret, extensions["prf"]["eval"])
        if "largeBlob" in extensions:
            outputs["largeBlob"] = {"supported": True}
        response = {
            1: "none",
            2: authenticator_data(passkey.rp_id, self.flags, attested),
            3: {},
        }
        return b"\x00" + cbor.encode(response | ({6: outputs} if outputs else {}))

    def _get_assertion(self, members: Mapping[int, Any]) -> bytes:
        allowed = {entry["id"] for entry in members.get(3, [])}
        for passkey in self.passkeys:
            if passkey.rp_id == members[1] and (not allowed or passkey.credential_id in allowed):
                return b"\x00" + cbor.encode(self._assertion(passkey, members))
        return b"\x2e"

    def _assertion(self, passkey: Passkey, members: Mapping[int, Any]) -> dict[int, Any]:
        auth_data = authenticator_data(passkey.rp_id, self.flags)
        outputs: dict[str, Any] = {}
        extensions = members.get(4, {})
        if "prf" in extensions:
            by_credential = extensions["prf"].get("evalByCredential", {})
            salts = by_credential.get(passkey.credential_id, extensions["prf"].get("eval"))
            outputs["prf"] = {"results": prf(passkey.secret, salts)} if salts else {}
        blob = extensions.get("largeBlob", {})
        if "write" in blob:
            passkey.blob = blob["write"], blob["originalSize"]
            outputs["largeBlob"] = {"written": True}
        elif "read" in blob and passkey.blob:
            outputs["largeBlob"] = {"blob": passkey.blob[0], "originalSize": passkey.blob[1]}
        response = {
            1: {"id": passkey.credential_id, "type": "public-key"},
            2: auth_data,
            3: sign(passkey.key, auth_data + members[2]),
            4: {"id": passkey.user_id},
        }
        return response | ({8: outputs} if outputs else {})


def prf(secret: bytes, salts: Mapping[str, bytes]) -> dict[str, bytes]:
    assert all(len(salt) == 32 for salt in salts.values())
    return {name: hmac.digest(secret, salt, "sha256") for name, salt in salts.items()}


class FakeSession:
    """The part of a session that the bridge uses, in front of a `Phone` or of a fixed answer."""

    def __init__(self, loop: asyncio.AbstractEventLoop, phone: Phone, answer: bytes | None = None) -> None:
        self.loop = loop
        self.phone = phone
        self.answer = answer
        self.timeouts: list[float | None] = []

    @property
    def get_info(self) -> bytes:
        return self.phone.get_info

    async def call(self, request: bytes, *, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 as a session has it
        self.timeouts.append(timeout)
        answer = self.phone.answer(request)
        return answer if self.answer is None else self.answer


class StuckSession(FakeSession):
    """Never answers; `entered` and `left` tell when a call is inside."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop, Phone())
        self.entered = threading.Event()
        self.left = threading.Event()

    async def call(self, request: bytes, *, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 as a session has it
        self.entered.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.left.set()
        raise AssertionError("unreachable")


@contextmanager
def loop_in_thread() -> Iterator[asyncio.AbstractEventLoop]:
    """Run an event loop in another thread, so that a test can stand where a worker thread stands."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    while not loop.is_running():
        pass
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
