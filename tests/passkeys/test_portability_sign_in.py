"""A passkey signs in at python-fido2's relying party before and after each journey, with the registered key."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fido2.webauthn import AuthenticatorData

from hybrid import cbor
from hybrid.passkeys.bitwarden import read_bitwarden, write_bitwarden
from hybrid.passkeys.cxf import read_cxf, write_cxf
from hybrid.passkeys.keepassxc_file import read_passkey_file, write_passkey_file
from hybrid.passkeys.portability import Exported, Imported, LeftOut, Loss, import_into
from hybrid.passkeys.store import Credential, CredentialState, MemoryStore
from tests.passkeys.portability_rig import DATA, LARGE_BLOB, NOW, full, plain, private_key, public_der, signs_in
from tests.passkeys.rig import PEER, RP_ID, counting_random, create, phone

BE, BS = AuthenticatorData.FLAG.BE, AuthenticatorData.FLAG.BS


def through_cxf(credential: Credential) -> Imported:
    return read_cxf(write_cxf([credential], now=NOW, random=counting_random()).data, now=NOW)


def through_bitwarden(credential: Credential) -> Imported:
    return read_bitwarden(write_bitwarden([credential], random=counting_random()).data, now=NOW)


def through_passkey_file(credential: Credential) -> Imported:
    return read_passkey_file(write_passkey_file(credential).data, now=NOW)


def through_kdbx(credential: Credential, folder: Path) -> Imported:
    pytest.importorskip("pykeepass", reason="needs the extra kdbx")
    from hybrid.passkeys.kdbx import DatabaseKey, open_kdbx, read_kdbx

    path = folder / "keys.kdbx"
    path.write_bytes((DATA / "empty.kdbx").read_bytes())
    open_kdbx(path, DatabaseKey("password")).add(credential)
    return read_kdbx(path.read_bytes(), DatabaseKey("password"))


JOURNEYS: dict[str, Callable[[Credential, Path], Imported]] = {
    "cxf": lambda credential, _: through_cxf(credential),
    "bitwarden": lambda credential, _: through_bitwarden(credential),
    "passkey": lambda credential, _: through_passkey_file(credential),
    "kdbx": through_kdbx,
}


@pytest.mark.parametrize("journey", JOURNEYS)
async def test_a_passkey_that_was_registered_signs_in_after_the_journey(journey: str, tmp_path: Path) -> None:
    before, after = MemoryStore(), MemoryStore()
    answer = await phone(before).call(create(), peer=PEER)
    made = AuthenticatorData(cbor.decode_map(answer[1:])[2]).credential_data
    assert made is not None
    registered = _public_key(made.public_key)
    (credential,) = before.credentials(RP_ID)
    await signs_in(before, credential, registered)

    import_into(after, JOURNEYS[journey](credential, tmp_path))
    (taken,) = after.credentials(RP_ID)
    assert (taken.credential_id, taken.user_id, taken.user_name) == (
        credential.credential_id,
        credential.user_id,
        credential.user_name,
    )
    flags = await signs_in(after, taken, registered)
    # KDBX carries the flags; for the rest an import counts as synced.
    assert bool(flags & BE) is bool(flags & BS) is (journey != "kdbx")
    await signs_in(after, taken, registered, usernameless=True)


def _public_key(cose_key: Any) -> bytes:
    from cryptography.hazmat.primitives.asymmetric import ec

    x, y = (int.from_bytes(cose_key[name], "big") for name in (-2, -3))
    public = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize("journey", JOURNEYS)
async def test_a_wrong_key_does_not_sign_in(journey: str, tmp_path: Path) -> None:
    """The judge can say no: otherwise the tests above would prove nothing."""
    store = MemoryStore()
    import_into(store, JOURNEYS[journey](plain(), tmp_path))
    with pytest.raises(ValueError, match="Invalid signature"):
        await signs_in(store, store.credentials()[0], public_der(private_key(number=2)))


@pytest.mark.parametrize("journey", ["cxf", "kdbx"])
def test_the_secrets_of_prf_give_the_same_values(journey: str, tmp_path: Path) -> None:
    given = full()
    (taken,) = JOURNEYS[journey](given, tmp_path).credentials
    salt = hashlib.sha256(b"WebAuthn PRF\x00page input").digest()
    for before, after in ((given.secret_uv, taken.secret_uv), (given.secret_no_uv, taken.secret_no_uv)):
        assert before is not None
        assert after is not None
        assert hmac.digest(before, salt, "sha256") == hmac.digest(after, salt, "sha256")
    assert (taken.large_blob, taken.cred_blob, taken.payments) == (given.large_blob, given.cred_blob, given.payments)


@pytest.mark.parametrize("first", JOURNEYS)
@pytest.mark.parametrize("second", JOURNEYS)
def test_one_format_after_the_other(first: str, second: str, tmp_path: Path) -> None:
    (once,) = JOURNEYS[first](plain(), tmp_path).credentials
    (twice,) = JOURNEYS[second](replace(once, origin_store=None), tmp_path).credentials
    for name in ("credential_id", "rp_id", "user_id", "user_name", "algorithm", "private_key", "backup_eligible"):
        assert getattr(twice, name) == getattr(plain(), name), name


# Every member of the record but its identity: another value than that of `plain`, and losses that may stand for it.
PARTS: dict[str, tuple[object, set[Loss]]] = {
    "rp_name": ("Other", {Loss.RP_NAME}),
    "user_display_name": ("Other", {Loss.DISPLAY_NAME}),
    "algorithm": (-9, {Loss.ALGORITHM}),
    "created_at": (NOW - 7, {Loss.TIMES}),
    "modified_at": (NOW - 5, {Loss.TIMES}),
    "last_used_at": (NOW, {Loss.USE}),
    "use_count": (3, {Loss.USE}),
    "backup_eligible": (False, {Loss.BACKUP_FLAGS}),
    "backed_up": (False, {Loss.BACKUP_FLAGS}),
    "state": (CredentialState.UNCONFIRMED, {Loss.STATE}),
    "sign_count": (9, {Loss.COUNTER}),
    "discoverable": (False, {Loss.DISCOVERABLE}),
    "cred_protect": (2, {Loss.CRED_PROTECT}),
    "secret_uv": (bytes(range(32)), {Loss.PRF}),
    "secret_no_uv": (bytes(range(32)), {Loss.PRF}),
    "cred_blob": (b"blob", {Loss.CRED_BLOB}),
    "large_blob_key": (bytes(32), {Loss.LARGE_BLOB_KEY}),
    "large_blob": (LARGE_BLOB, {Loss.LARGE_BLOB}),
    "payments": (True, {Loss.PAYMENTS}),
    "aaguid": (bytes(range(16)), {Loss.AAGUID}),
    "note": ("mine", {Loss.NOTE}),
    "user_icon": ("https://example.com/ann.png", {Loss.ICON}),
}
IDENTITY = {"credential_id", "rp_id", "user_id", "user_name", "private_key", "origin_store"}


def test_a_new_member_of_the_record_is_noticed_here() -> None:
    assert set(PARTS) | IDENTITY == {field.name for field in fields(Credential)}


WRITERS: dict[str, Callable[[Credential], Exported]] = {
    "cxf": lambda credential: write_cxf([credential], now=NOW, random=counting_random()),
    "bitwarden": lambda credential: write_bitwarden([credential], random=counting_random()),
    "passkey": write_passkey_file,
    "kdbx": lambda credential: written_kdbx(credential),
}
READERS: dict[str, Callable[[bytes], Imported]] = {
    "cxf": lambda data: read_cxf(data, now=NOW + 99),
    "bitwarden": lambda data: read_bitwarden(data, now=NOW + 99),
    "passkey": lambda data: read_passkey_file(data, now=NOW + 99),
    "kdbx": lambda data: read_back_kdbx(data),
}


def written_kdbx(credential: Credential) -> Exported:
    pytest.importorskip("pykeepass", reason="needs the extra kdbx")
    from hybrid.passkeys.kdbx import DatabaseKey, write_kdbx

    return write_kdbx([credential], DatabaseKey("password"), into=(DATA / "empty.kdbx").read_bytes())


def read_back_kdbx(data: bytes) -> Imported:
    from hybrid.passkeys.kdbx import DatabaseKey, read_kdbx

    return read_kdbx(data, DatabaseKey("password"))


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", WRITERS)
def test_every_part_goes_along_or_is_named(name: str, part: str) -> None:
    value, losses = PARTS[part]
    changes: dict[str, Any] = {part: value} | ({"use_count": 3} if part == "last_used_at" else {})
    if part == "backup_eligible":
        changes["backed_up"] = False
    given = plain(**changes)
    exported = WRITERS[name](given)
    named = {finding.what for finding in exported.report.findings if not finding.kept_for_us}
    if not exported.report.carried:
        assert named == {LeftOut.COUNTER}
        return
    imported = READERS[name](exported.data)
    named |= {finding.what for finding in imported.report.losses}
    (taken,) = imported.credentials
    assert getattr(taken, part) == getattr(given, part) or named & losses, f"{part} is lost without a word"
