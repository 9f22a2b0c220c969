"""Passkeys to carry from place to place, made here, and a relying party that judges them after the journey."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_public_key,
)
from fido2.cose import ES256, CoseKey
from fido2.server import Fido2Server
from fido2.webauthn import (
    Aaguid,
    AttestedCredentialData,
    AuthenticationResponse,
    AuthenticatorAssertionResponse,
    AuthenticatorData,
    CollectedClientData,
    PublicKeyCredentialRpEntity,
    UserVerificationRequirement,
)

from hybrid import cbor
from hybrid.passkeys.store import Credential, CredentialStore
from tests.passkeys.rig import PEER, phone, sign_in

NOW = 1_800_000_000
DATA = Path(__file__).parent / "data"


def private_key(kind: str = "p256", number: int = 1) -> Any:
    return _private_key(kind, number)


@cache
def _private_key(kind: str, number: int) -> Any:
    match kind:
        case "p256":
            return ec.derive_private_key(number, ec.SECP256R1())
        case "p384":
            return ec.derive_private_key(number, ec.SECP384R1())
        case "ed25519":
            return ed25519.Ed25519PrivateKey.from_private_bytes(number.to_bytes(32, "big"))
        case "rsa":
            return rsa.generate_private_key(65537, 2048)
        case _:
            raise AssertionError(kind)


def der(key: Any) -> bytes:
    encoded: bytes = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return encoded


def public_der(key: Any) -> bytes:
    encoded: bytes = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return encoded


ALGORITHMS = {"p256": -7, "p384": -35, "ed25519": -8, "rsa": -257}


def plain(kind: str = "p256", number: int = 1, **changes: Any) -> Credential:
    """A synced passkey with names and nothing special, as an import gives it."""
    credential = Credential(
        credential_id=number.to_bytes(32, "big"),
        rp_id="example.com",
        rp_name="Example",
        user_id=f"user-{number}".encode(),
        user_name="ann",
        user_display_name="Ann Ä. 안",
        algorithm=ALGORITHMS[kind],
        private_key=der(private_key(kind, number)),
        created_at=NOW - 1000,
        modified_at=NOW - 500,
        backup_eligible=True,
        backed_up=True,
    )
    return replace(credential, **changes)


# "x" in raw DEFLATE (RFC 1951): one last block with fixed codes.
LARGE_BLOB = (bytes.fromhex("ab0000"), 1)


def full(**changes: Any) -> Credential:
    """A passkey with everything that a record can hold."""
    everything: dict[str, Any] = {
        "secret_uv": bytes(range(32)),
        "secret_no_uv": bytes(range(32, 64)),
        "cred_blob": b"blob",
        "large_blob": LARGE_BLOB,
        "large_blob_key": bytes(range(64, 96)),
        "payments": True,
        "aaguid": bytes(range(16)),
        "cred_protect": 3,
        "note": "of mine",
        "user_icon": "https://example.com/ann.png",
        "use_count": 7,
        "last_used_at": NOW - 10,
        "origin_store": None,
    }
    return plain(**(everything | changes))


async def signs_in(
    store: CredentialStore, credential: Credential, public_key: bytes, *, usernameless: bool = False
) -> int:
    """See python-fido2's relying party accept a sign-in with what is in `store`. Gives the flags.

    `public_key`: SubjectPublicKeyInfo DER of ES256, as registered before the journey.
    """
    read = load_der_public_key(public_key)
    key: CoseKey = ES256.from_cryptography_key(read)  # type: ignore[no-untyped-call]  # python-fido2 leaves it so
    registered = AttestedCredentialData.create(Aaguid(bytes(16)), credential.credential_id, key)
    server = Fido2Server(PublicKeyCredentialRpEntity(name="Example", id=credential.rp_id))
    options, state = server.authenticate_begin(
        None if usernameless else [registered], UserVerificationRequirement.REQUIRED
    )
    client_data = CollectedClientData.create(
        CollectedClientData.TYPE.GET, options.public_key.challenge, f"https://{credential.rp_id}"
    )
    changes: dict[str, Any] = {"m1": credential.rp_id, "m2": client_data.hash}
    if not usernameless:
        changes["m3"] = [{"id": credential.credential_id, "type": "public-key"}]
    answer = await phone(store).call(sign_in(**changes), peer=PEER)
    assert answer[0] == 0, f"status {answer[0]:#x}"
    members = cbor.decode_map(answer[1:])
    auth_data = AuthenticatorData(members[2])
    response = AuthenticationResponse(
        raw_id=members[1]["id"],
        response=AuthenticatorAssertionResponse(
            client_data=client_data,
            authenticator_data=auth_data,
            signature=members[3],
            user_handle=members[4]["id"] if 4 in members else None,
        ),
    )
    assert server.authenticate_complete(state, [registered], response).credential_id == credential.credential_id
    if usernameless:
        assert members[4]["id"] == credential.user_id
    return int(auth_data.flags)
