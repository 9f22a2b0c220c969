"""One row per rule of the phone's makeCredential and getAssertion; answers are judged by python-fido2."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from dataclasses import replace
from types import MappingProxyType
from typing import Any
from uuid import UUID

import pytest
from cryptography.exceptions import InvalidSignature
from fido2.cose import ES256, CoseKey
from fido2.ctap2.base import AssertionResponse, AttestationResponse, Info
from fido2.webauthn import AuthenticatorData
from hypothesis import given, settings
from hypothesis import strategies as st

from hybrid import cbor
from hybrid.errors import VaultError, VaultProblem
from hybrid.passkeys.aaguids import AAGUID
from hybrid.passkeys.consent import AlwaysApprove, Decision, NeverApprove, Operation
from hybrid.passkeys.engine import SoftwareAuthenticator
from hybrid.passkeys.profiles import PHONE, ROAMING, Profile
from hybrid.passkeys.store import Credential, CredentialState, MemoryStore
from tests.passkeys.rig import (
    ABSENT,
    HASH,
    PEER,
    RP_ID,
    AbsentPerson,
    Clock,
    Person,
    counting_random,
    create,
    create_fields,
    descriptor,
    phone,
    sign_in,
    sign_in_fields,
    user,
)

YES = Decision(True, verified=True)
NO = Decision(False)
SEEN = Decision(True)


async def ok(authenticator: SoftwareAuthenticator, request: bytes) -> dict[int, Any]:
    answer = await authenticator.call(request, peer=PEER)
    assert answer[0] == 0, f"status {answer[0]:#x}"
    body = answer[1:]
    fields: dict[int, Any] = cbor.decode_map(body)
    assert cbor.encode(fields) == body, "the answer is not canonical"
    return fields


async def status(authenticator: SoftwareAuthenticator, request: bytes) -> int:
    answer = await authenticator.call(request, peer=PEER)
    assert answer[0] == 0 or len(answer) == 1, "an error is the status byte alone"
    return answer[0]


async def made(authenticator: SoftwareAuthenticator, **changes: Any) -> AuthenticatorData:
    auth_data = AuthenticatorData((await ok(authenticator, create(**changes)))[2])
    assert auth_data.credential_data is not None
    return auth_data


async def new_id(authenticator: SoftwareAuthenticator, **changes: Any) -> bytes:
    data = (await made(authenticator, **changes)).credential_data
    assert data is not None
    return bytes(data.credential_id)


# --- getInfo ---------------------------------------------------------------------------------------------------------


def test_get_info_literal_bytes() -> None:
    expected = (
        bytes.fromhex("aa 01 82") + b"\x68FIDO_2_0" + b"\x68FIDO_2_1"
        + bytes.fromhex("02 84") + b"\x63prf\x68credBlob\x69largeBlob\x6bcredProtect"
        + bytes.fromhex("03 50 e0292e0397e0421c82f128e6935b08f4")
        + bytes.fromhex("04 a3") + b"\x62rk\xf5" + b"\x62up\xf5" + b"\x62uv\xf5"
        + bytes.fromhex("05 1a00100000  07 1840  08 1903ff")
        + bytes.fromhex("09 82") + b"\x66hybrid" + b"\x68internal"
        + bytes.fromhex("0a 85")
        + b"\xa2\x63alg\x26\x64type\x6apublic-key"  # ES256
        + b"\xa2\x63alg\x27\x64type\x6apublic-key"  # EdDSA
        + b"\xa2\x63alg\x28\x64type\x6apublic-key"  # ESP256
        + b"\xa2\x63alg\x32\x64type\x6apublic-key"  # Ed25519
        + b"\xa2\x63alg\x39\x01\x00\x64type\x6apublic-key"  # RS256
        + bytes.fromhex("0f 18 20")
    )  # fmt: skip
    assert phone(MemoryStore()).get_info == expected


def test_get_info_read_by_fido2() -> None:
    info = Info.from_dict(cbor.decode(phone(MemoryStore()).get_info))
    assert info.versions == ["FIDO_2_0", "FIDO_2_1"]
    assert info.aaguid == AAGUID.bytes
    assert info.options == {"rk": True, "up": True, "uv": True}
    assert info.max_msg_size == 1048576
    assert info.pin_uv_protocols == []
    assert info.extensions == ["prf", "credBlob", "largeBlob", "credProtect"]
    assert [entry["alg"] for entry in info.algorithms] == [-7, -8, -9, -19, -257]
    assert info.max_cred_blob_length == 32


@pytest.mark.parametrize("profile", [PHONE, ROAMING])
def test_a_newer_version_is_announced_if_asked_for(profile: Profile) -> None:
    usual = cbor.decode(phone(MemoryStore(), profile=profile).get_info)
    newer = cbor.decode(phone(MemoryStore(), profile=profile, fido_2_3=True).get_info)
    assert newer == usual | {1: ["FIDO_2_0", "FIDO_2_1", "FIDO_2_3"]}


async def test_get_info_command() -> None:
    authenticator = phone(MemoryStore())
    assert await authenticator.call(b"\x04", peer=PEER) == b"\x00" + authenticator.get_info
    assert await status(authenticator, b"\x04\xa0") == 0x03  # as in a session, tests/protocol/test_authenticator.py


@pytest.mark.parametrize("command", [0x00, 0x03, 0x05, 0x06, 0x07, 0x08, 0x0A, 0x0B, 0x0C, 0x0D, 0x41, 0xFF])
async def test_other_commands_are_unknown(command: int) -> None:
    person = Person()
    assert await status(phone(MemoryStore(), person), bytes([command])) == 0x01
    assert person.prompts == []


async def test_empty_and_oversized_messages() -> None:
    authenticator = phone(MemoryStore())
    assert await status(authenticator, b"") == 0x7F
    assert await status(authenticator, b"\x01" + bytes(1 << 20)) == 0x39


async def test_a_preset_is_data() -> None:
    maker = UUID("ea9b8d66-4d01-1d21-3ce4-b6b48cb575d4")
    preset = replace(
        PHONE,
        extensions=("prf",),
        options=MappingProxyType({"rk": True, "uv": True}),
        algorithms=(-7,),
        left_out=frozenset({5, 7, 8, 10}),
        required_names=frozenset({"rp.name", "user.name", "user.displayName"}),
        passkey_aaguid=maker,
        synced=True,
    )
    person = Person()
    authenticator = phone(MemoryStore(), person, profile=preset, aaguid=UUID(int=0))
    assert cbor.decode(authenticator.get_info) == {
        1: ["FIDO_2_0", "FIDO_2_1"],
        2: ["prf"],
        3: bytes(16),
        4: {"rk": True, "uv": True},
        9: ["hybrid", "internal"],
    }
    auth_data = await made(authenticator)
    assert auth_data.flags == 0x5D
    assert person.prompts[0].accounts[0].synced
    assert auth_data.credential_data is not None
    assert auth_data.credential_data.aaguid == maker.bytes
    assert await status(authenticator, create(m4=[{"alg": -8, "type": "public-key"}])) == 0x26
    for names in ({"m2": {"id": RP_ID}}, {"m3": {"id": b"u", "name": "ann"}}, {"m3": {"id": b"u", "displayName": ""}}):
        assert await status(authenticator, create(**names)) == 0x14
    assert await status(authenticator, create(m3={"id": b"u", "name": "", "displayName": ""})) == 0


# --- rows: request and status ----------------------------------------------------------------------------------------

_LONG_ID = descriptor(bytes(1024))
_CRED = descriptor(b"x" * 16)

CREATE_ROWS = {
    "M1 no hash": (create(m1=ABSENT), 0x14),
    "M1 hash is text": (create(m1="x" * 32), 0x11),
    "M1 hash of 31 bytes": (create(m1=bytes(31)), 0x11),
    "M1 no rp": (create(m2=ABSENT), 0x14),
    "M1 rp is text": (create(m2=RP_ID), 0x11),
    "M1 no rp.id": (create(m2={"name": "Example"}), 0x14),
    "M1 rp.id is bytes": (create(m2={"id": b"example.com"}), 0x11),
    "M1 rp.name is bytes": (create(m2={"id": RP_ID, "name": b"Example"}), 0x11),
    "M1 rp.icon is a number": (create(m2={"id": RP_ID, "icon": 1}), 0x11),
    "M1 no user": (create(m3=ABSENT), 0x14),
    "M1 user is a list": (create(m3=[]), 0x11),
    "M1 no user.id": (create(m3={"name": "ann"}), 0x14),
    "M1 user.id is text": (create(m3={"id": "user-1"}), 0x11),
    "M1 user.id empty": (create(m3={"id": b""}), 0x11),
    "M1 user.id of 65 bytes": (create(m3={"id": bytes(65)}), 0x11),
    "M1 user.id of 64 bytes": (create(m3={"id": bytes(64)}), 0x00),
    "M1 user.name is bytes": (create(m3={"id": b"u", "name": b"ann"}), 0x11),
    "M1 user.displayName is null": (create(m3={"id": b"u", "displayName": None}), 0x11),
    "M1 user.icon is bytes": (create(m3={"id": b"u", "icon": b""}), 0x11),
    "M1 no algorithms": (create(m4=ABSENT), 0x14),
    "M1 algorithms in a map": (create(m4={}), 0x11),
    "M2 no names": (create(m2={"id": RP_ID}, m3={"id": b"u"}), 0x00),
    "M2 empty names": (create(m2={"id": RP_ID, "name": ""}, m3={"id": b"u", "name": "", "displayName": ""}), 0x00),
    "M3 long names": (create(m2={"id": RP_ID, "name": "é" * 5000}, m3=user(b"u", "ü" * 5000)), 0x00),
    "M4 empty list": (create(m4=[]), 0x26),
    "M4 only RS1": (create(m4=[{"alg": -65535, "type": "public-key"}]), 0x26),
    "M4 second matches": (create(m4=[{"alg": -35, "type": "public-key"}, {"alg": -7, "type": "public-key"}]), 0x00),
    "M4 duplicates": (create(m4=[{"alg": -7, "type": "public-key"}] * 2), 0x00),
    "M4 unknown type": (create(m4=[{"alg": -7, "type": "secret"}]), 0x26),
    "M4 no alg after a match": (create(m4=[{"alg": -7, "type": "public-key"}, {"type": "public-key"}]), 0x14),
    "M4 no type after a match": (create(m4=[{"alg": -7, "type": "public-key"}, {"alg": -8}]), 0x14),
    "M4 alg is text": (create(m4=[{"alg": "-7", "type": "public-key"}]), 0x11),
    "M4 alg is true": (create(m4=[{"alg": True, "type": "public-key"}]), 0x11),
    "M4 type is bytes": (create(m4=[{"alg": -7, "type": b"public-key"}]), 0x11),
    "M4 entry is no map": (create(m4=[{"alg": -7, "type": "public-key"}, -7]), 0x11),
    "M5 list is a map": (create(m5={}), 0x11),
    "M5 entry without id": (create(m5=[{"type": "public-key"}]), 0x14),
    "M5 entry without type": (create(m5=[{"id": b"x"}]), 0x14),
    "M5 id is text": (create(m5=[{"id": "x", "type": "public-key"}]), 0x11),
    "M5 entry is bytes": (create(m5=[b"x"]), 0x11),
    "M5 transports is text": (create(m5=[descriptor(b"x", transports="usb")]), 0x11),
    "M5 transports of numbers": (create(m5=[descriptor(b"x", transports=[1])]), 0x11),
    "M5 stranger": (create(m5=[descriptor(b"x", transports=["usb"])]), 0x00),
    "M5 64 strangers": (create(m5=[_CRED] * 64), 0x00),
    "M5 65 entries": (create(m5=[_CRED] * 65), 0x39),
    "M5 id of 1024 bytes": (create(m5=[_LONG_ID]), 0x39),
    "M6 rk true": (create(m7={"rk": True}), 0x00),
    "M6 rk false": (create(m7={"rk": False}), 0x00),
    "M6 up true": (create(m7={"up": True}), 0x00),
    "M6 up false": (create(m7={"up": False}), 0x2C),
    "M6 uv false": (create(m7={"uv": False}), 0x00),
    "M6 unknown option": (create(m7={"plat": False}), 0x00),
    "M6 option is a number": (create(m7={"rk": 1}), 0x11),
    "M6 option name is a number": (create(m7={1: True}), 0x11),
    "M6 options in a list": (create(m7=[]), 0x11),
    "M7 parameter": (create(m8=bytes(16), m9=1), 0x33),
    "M7 parameter is text": (create(m8=""), 0x11),
    "M7 protocol is text": (create(m9="1"), 0x11),
    "extensions in a list": (create(m6=[]), 0x11),
    "unknown extension": (create(m6={"hmac-secret": True}), 0x00),
    "unknown member": (create(m99="x"), 0x00),
    "rp.id empty": (create(m2={"id": ""}), 0x02),
    "rp.id of blanks": (create(m2={"id": " \t"}), 0x02),
    "rp.id of 254 bytes": (create(m2={"id": "a" * 254}), 0x39),
    "no parameters": (b"\x01", 0x14),
}

SIGN_IN_ROWS = {
    "G1 no rpId": (sign_in(m1=ABSENT), 0x14),
    "G1 rpId is bytes": (sign_in(m1=b"example.com"), 0x11),
    "G1 rpId empty": (sign_in(m1=""), 0x02),
    "G1 no hash": (sign_in(m2=ABSENT), 0x14),
    "G1 hash of 33 bytes": (sign_in(m2=bytes(33)), 0x11),
    "G1 allow list is a map": (sign_in(m3={}), 0x11),
    "G1 allow list empty": (sign_in(m3=[]), 0x00),
    "G1 only unknown types": (sign_in(m3=[{"id": b"x", "type": "secret"}]), 0x2E),
    "G2 stranger": (sign_in(m3=[_CRED]), 0x2E),
    "G2 65 entries": (sign_in(m3=[_CRED] * 65), 0x39),
    "G3 other site": (sign_in(m1="example.org"), 0x2E),
    "G7 up false": (sign_in(m5={"up": False}), 0x00),
    "G7 uv false": (sign_in(m5={"uv": False}), 0x00),
    "M7 parameter": (sign_in(m6=bytes(16), m7=1), 0x33),
    "M7 parameter is a list": (sign_in(m6=[]), 0x11),
    "options of numbers": (sign_in(m5={"up": 0}), 0x11),
    "extensions is text": (sign_in(m4="prf"), 0x11),
    "unknown extension": (sign_in(m4={"hmac-secret": {}}), 0x00),
    "no parameters": (b"\x02", 0x14),
}


@pytest.mark.parametrize(("request_bytes", "expected"), CREATE_ROWS.values(), ids=CREATE_ROWS.keys())
async def test_create_row(request_bytes: bytes, expected: int) -> None:
    store = MemoryStore()
    assert await status(phone(store), request_bytes) == expected
    assert len(store.credentials(RP_ID)) == (expected == 0)


@pytest.mark.parametrize(("request_bytes", "expected"), SIGN_IN_ROWS.values(), ids=SIGN_IN_ROWS.keys())
async def test_sign_in_row(request_bytes: bytes, expected: int) -> None:
    authenticator = phone(MemoryStore())
    await made(authenticator)
    assert await status(authenticator, request_bytes) == expected


def _members(*pairs: tuple[bytes, bytes]) -> bytes:
    return b"\x02" + bytes([0xA0 + len(pairs)]) + b"".join(key + value for key, value in pairs)


_RP = (b"\x01", cbor.encode(RP_ID))
_DATA = (b"\x02", cbor.encode(HASH))

CBOR_ROWS = {
    "as it should be": (_members(_RP, _DATA), 0x00),
    "unsorted keys": (_members(_DATA, _RP), 0x12),
    "key twice": (_members(_RP, _RP, _DATA), 0x12),
    "long integer": (_members((b"\x18\x01", _RP[1]), _DATA), 0x12),
    "long length": (_members((b"\x01", b"\x78\x0b" + RP_ID.encode()), _DATA), 0x12),
    "indefinite text": (_members((b"\x01", b"\x7f\x6bexample.com\xff"), _DATA), 0x12),
    "indefinite map": (b"\x02\xbf" + _members(_RP, _DATA)[2:] + b"\xff", 0x12),
    "bytes after": (_members(_RP, _DATA) + b"\x00", 0x12),
    "cut": (_members(_RP, _DATA)[:-1], 0x12),
    "not UTF-8": (_members((b"\x01", b"\x62\xc3\x28"), _DATA), 0x12),
    "tag": (_members(_RP, _DATA, (b"\x18\x63", b"\xc1\x00")), 0x12),
    "half float": (_members(_RP, _DATA, (b"\x18\x63", b"\xf9\x3c\x00")), 0x12),
    "double float": (_members(_RP, _DATA, (b"\x18\x63", b"\xfb\x3f\xf0" + bytes(6))), 0x12),
    "float inside": (_members(_RP, _DATA, (b"\x18\x63", b"\x81\xfb\x3f\xf0" + bytes(6))), 0x12),
    "undefined": (_members(_RP, _DATA, (b"\x18\x63", b"\xf7")), 0x12),
    "simple value": (_members(_RP, _DATA, (b"\x18\x63", b"\xf0")), 0x12),
    "key is true": (_members((b"\xf5", b"\x00"), _DATA), 0x12),
    "5 maps deep": (_members(_RP, _DATA, (b"\x04", b"\xa1\x00" * 4 + b"\xa0")), 0x00),
    "9 maps deep": (_members(_RP, _DATA, (b"\x04", b"\xa1\x00" * 8 + b"\xa0")), 0x12),
    "no map": (b"\x02\x80", 0x11),
    "a number": (b"\x02\x00", 0x11),
}


@pytest.mark.parametrize(("request_bytes", "expected"), CBOR_ROWS.values(), ids=CBOR_ROWS.keys())
async def test_cbor_row(request_bytes: bytes, expected: int) -> None:
    authenticator = phone(MemoryStore())
    await made(authenticator)
    assert await status(authenticator, request_bytes) == expected


# --- makeCredential --------------------------------------------------------------------------------------------------


async def test_m10_attestation_read_by_fido2() -> None:
    fields = await ok(phone(MemoryStore()), create())
    assert set(fields) == {1, 2, 3}
    response = AttestationResponse.from_dict(fields)
    assert response.fmt == "none"
    assert response.att_stmt == {}
    auth_data = response.auth_data
    assert auth_data.rp_id_hash == hashlib.sha256(b"example.com").digest()
    assert auth_data.flags == 0x45  # UP, UV, attested data; neither BE nor BS
    assert auth_data.counter == 0
    data = auth_data.credential_data
    assert data is not None
    assert data.aaguid == AAGUID.bytes
    assert len(data.credential_id) == 32
    assert isinstance(data.public_key, ES256)
    assert set(data.public_key) == {1, 3, -1, -2, -3}


async def test_ids_and_keys_differ() -> None:
    authenticator = SoftwareAuthenticator(MemoryStore(), AlwaysApprove())
    first = (await made(authenticator)).credential_data
    second = (await made(authenticator, m3=user(b"user-2"))).credential_data
    assert first is not None
    assert second is not None
    assert first.credential_id != second.credential_id
    assert first.public_key != second.public_key


async def test_m3_names_are_cut_between_characters() -> None:
    store = MemoryStore()
    await made(phone(store), m2={"id": RP_ID, "name": "a" + "é" * 300}, m3=user(b"u", "x" * 64))
    (credential,) = store.credentials(RP_ID)
    assert credential.rp_name == "a" + "é" * 127
    assert credential.user_name == "x" * 64


async def test_m5_excluded_only_after_consent() -> None:
    store, person = MemoryStore(), Person(YES)
    authenticator = phone(store, person)
    known = await new_id(authenticator)
    assert await status(authenticator, create(m5=[_CRED, descriptor(known)])) == 0x19
    assert person.asked_for == [Operation.CREATE, Operation.CREATE]
    assert len(store.credentials(RP_ID)) == 1
    assert store.credentials(RP_ID)[0].state is CredentialState.ACTIVE


async def test_m5_excluded_and_declined() -> None:
    authenticator = phone(MemoryStore(), Person(YES, NO))
    known = await new_id(authenticator)
    assert await status(authenticator, create(m5=[descriptor(known)])) == 0x27


async def test_m5_other_site_or_type_does_not_exclude() -> None:
    authenticator = phone(MemoryStore())
    known = await new_id(authenticator)
    assert await status(authenticator, create(m2={"id": "example.org"}, m5=[descriptor(known)])) == 0
    assert await status(authenticator, create(m5=[{"id": known, "type": "secret"}])) == 0


async def test_m7_empty_parameter_asks_whether_this_is_the_device() -> None:
    store, person = MemoryStore(), Person(SEEN, NO)
    authenticator = phone(store, person)
    assert await status(authenticator, create(m8=b"")) == 0x35
    assert await status(authenticator, sign_in(m6=b"")) == 0x27
    assert person.asked_for == [Operation.SELECT, Operation.SELECT]
    assert store.credentials(RP_ID) == []


async def test_m8_prompt_shows_who_asks_for_what() -> None:
    person = Person()
    peer = replace(PEER, channel="link", linked_name="my\x1b[31mlaptop\u202e")
    request = create(m2={"id": "ex\u0430mple.com", "name": "Exam\nple"}, m3=user(b"u", "ann\u202e\x07"))
    await phone(MemoryStore(), person).call(request, peer=peer)
    (prompt,) = person.prompts
    assert prompt.operation is Operation.CREATE
    assert prompt.rp_id == "xn--exmple-4nf.com"
    assert prompt.rp_name == "Exam ple"
    assert [account.name for account in prompt.accounts] == ["ann\\x07"]
    assert prompt.saved_in == "the memory of this program"
    assert prompt.synced is False
    assert prompt.replaces == 0
    assert prompt.peer == replace(peer, linked_name="my\\x1b[31mlaptop")


async def test_m9_same_account_archives_the_old_key() -> None:
    store, person = MemoryStore(), Person()
    authenticator = phone(store, person)
    old, other = await new_id(authenticator), await new_id(authenticator, m3=user(b"user-2"))
    key = store.credentials(RP_ID)[0].private_key
    new = await new_id(authenticator)
    assert [prompt.replaces for prompt in person.prompts] == [0, 0, 1]
    states = {credential.credential_id: credential.state for credential in store.credentials(RP_ID)}
    assert states == {
        old: CredentialState.SUPERSEDED,
        other: CredentialState.ACTIVE,
        new: CredentialState.ACTIVE,
    }
    assert store.credentials(RP_ID)[0].private_key == key
    assert await status(authenticator, sign_in(m3=[descriptor(old)])) == 0x2E
    assert await status(authenticator, create(m5=[descriptor(old)], m3=user(b"user-3"))) == 0


async def test_m9_exclude_list_wins_over_replacing() -> None:
    store, person = MemoryStore(), Person()
    authenticator = phone(store, person)
    known = await new_id(authenticator)
    assert await status(authenticator, create(m5=[descriptor(known)])) == 0x19
    assert person.prompts[-1].replaces == 0


class _BrokenStore(MemoryStore):
    def __init__(self, reason: VaultProblem) -> None:
        super().__init__()
        self.reason: VaultProblem | None = reason

    def add(self, credential: Credential, *, superseding: Any = ()) -> None:
        if self.reason is not None:
            raise VaultError("no", self.reason)
        super().add(credential, superseding=superseding)

    def note_use(self, credential_id: bytes, at: int) -> None:
        raise VaultError("no", VaultProblem.FULL)


@pytest.mark.parametrize(("reason", "expected"), [(VaultProblem.FULL, 0x28), (VaultProblem.ACCESS, 0x7F)])
async def test_m11_not_stored_is_not_answered(reason: VaultProblem, expected: int) -> None:
    authenticator = phone(_BrokenStore(reason))
    assert await status(authenticator, create()) == expected
    assert authenticator.failure is not None
    assert authenticator.failure.reason is reason


async def test_a_full_disk_locks_nobody_out() -> None:
    store = _BrokenStore(VaultProblem.FULL)
    store.reason = None
    authenticator = phone(store)
    await made(authenticator)
    assert await status(authenticator, sign_in()) == 0


async def test_m11_undelivered_passkey_is_flagged_and_the_old_one_offered() -> None:
    store, person = MemoryStore(), Person()
    authenticator = phone(store, person)
    await made(authenticator)
    await made(authenticator)
    authenticator.undelivered()
    states = [credential.state for credential in store.credentials(RP_ID)]
    assert states == [CredentialState.ACTIVE, CredentialState.UNCONFIRMED]
    await ok(authenticator, sign_in())
    assert len(person.prompts[-1].accounts) == 2
    assert store.credentials(RP_ID)[1].state is CredentialState.ACTIVE
    authenticator.undelivered()  # a sign-in made nothing
    assert store.credentials(RP_ID)[1].state is CredentialState.ACTIVE


# --- getAssertion ----------------------------------------------------------------------------------------------------


async def test_g5_g6_assertion_verified_by_fido2() -> None:
    authenticator = phone(MemoryStore())
    data = (await made(authenticator)).credential_data
    assert data is not None
    fields = await ok(authenticator, sign_in())
    assert set(fields) == {1, 2, 3, 4, 6}
    response = AssertionResponse.from_dict(fields)
    key = CoseKey.parse(dict(data.public_key))
    response.verify(HASH, key)
    with pytest.raises(InvalidSignature):
        response.verify(bytes(32), key)
    assert response.credential == {"id": data.credential_id, "type": "public-key"}
    assert response.auth_data == hashlib.sha256(b"example.com").digest() + b"\x05" + bytes(4)
    assert response.user == {"id": b"user-1", "name": "ann", "displayName": "Ann"}
    assert response.number_of_credentials is None
    assert response.user_selected is True


async def test_g6_credential_is_named_even_for_one_allowed() -> None:
    authenticator = phone(MemoryStore())
    known = await new_id(authenticator)
    fields = await ok(authenticator, sign_in(m3=[_CRED, descriptor(known)]))
    assert set(fields) == {1, 2, 3}
    assert fields[1]["id"] == known


async def test_a_passkey_that_cannot_be_backed_up_never_says_that_it_is() -> None:
    store = MemoryStore()
    authenticator = phone(store)
    await made(authenticator)
    store.update(replace(store.credentials()[0], backed_up=True))
    assert (await ok(authenticator, sign_in()))[2][32] == 0x05


async def test_g2_allow_list_of_another_site() -> None:
    authenticator = phone(MemoryStore())
    known = await new_id(authenticator)
    assert await status(authenticator, sign_in(m1="example.org", m3=[descriptor(known)])) == 0x2E


@pytest.mark.parametrize("listed", [False, True], ids=["G4 no list", "G4 listed"])
async def test_g4_the_person_chooses(listed: bool) -> None:
    clock = Clock()
    person = Person(YES, YES, YES, Decision(True, verified=True, account=2))
    authenticator = phone(MemoryStore(), person, clock=clock)
    ids = []
    for name in ("ann", "bob", "cid"):
        ids.append(await new_id(authenticator, m3=user(name.encode(), name)))
        clock.now += 60
    fields = await ok(authenticator, sign_in(m3=[descriptor(i) for i in ids] if listed else ABSENT))
    assert [account.name for account in person.prompts[-1].accounts] == ["cid", "bob", "ann"]
    assert fields[1]["id"] == ids[0]
    assert 5 not in fields
    assert fields.get(6) == (None if listed else True)


async def test_g4_policy_always_takes_the_newest_even_within_a_second() -> None:
    authenticator = phone(MemoryStore(), AlwaysApprove())
    await made(authenticator)
    newest = await new_id(authenticator, m3=user(b"user-2"))
    assert (await ok(authenticator, sign_in()))[1]["id"] == newest


@pytest.mark.parametrize("account", [-1, 1])
async def test_g4_choice_outside_the_list_is_none(account: int) -> None:
    authenticator = phone(MemoryStore(), Person(YES, Decision(True, verified=True, account=account)))
    await made(authenticator)
    assert await status(authenticator, sign_in()) == 0x27


async def test_g3_nothing_found_waits_for_the_person() -> None:
    person = AbsentPerson()
    authenticator = phone(MemoryStore(), person)
    call = asyncio.create_task(authenticator.call(sign_in(), peer=PEER))
    await person.waiting.wait()
    assert not call.done()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert person.dismissed


G3_ROWS = {
    "G3 seen": (SEEN, 0x2E),
    "G3 refused looks as a match refused": (NO, 0x27),
}


@pytest.mark.parametrize(("decision", "expected"), G3_ROWS.values(), ids=G3_ROWS.keys())
async def test_g3_row(decision: Decision, expected: int) -> None:
    person = Person(decision)
    assert await status(phone(MemoryStore(), person), sign_in()) == expected
    assert person.asked_for == [Operation.NOTHING_FOUND]


async def test_g3_policies_do_not_wait() -> None:
    assert await status(phone(MemoryStore(), AlwaysApprove()), sign_in()) == 0x2E
    assert await status(phone(MemoryStore(), NeverApprove()), sign_in()) == 0x27


async def test_use_is_noted() -> None:
    store, clock = MemoryStore(), Clock()
    authenticator = phone(store, clock=clock)
    await made(authenticator)
    clock.now += 10
    await ok(authenticator, sign_in())
    (credential,) = store.credentials(RP_ID)
    assert (credential.use_count, credential.last_used_at) == (1, int(clock.now))


# --- consent ---------------------------------------------------------------------------------------------------------

REFUSALS = {
    "declined": NO,
    "declined though verified": Decision(False, verified=True),
    "M6 G7 agreed but nobody verified": Decision(True, verified=False),
}


@pytest.mark.parametrize("decision", REFUSALS.values(), ids=REFUSALS.keys())
async def test_without_agreement_and_verification_nothing_happens(decision: Decision) -> None:
    store = MemoryStore()
    await made(phone(store))
    before = store.credentials(RP_ID)
    for request in (create(), create(m7={"uv": False}), sign_in(), sign_in(m5={"uv": False, "up": False})):
        assert await status(phone(store, Person(decision)), request) == 0x27
    assert store.credentials(RP_ID) == before


async def test_h10_time_out() -> None:
    store = MemoryStore()
    await made(phone(store))
    before = store.credentials(RP_ID)
    for request, expected in ((create(), 0x2F), (sign_in(), 0x2F), (sign_in(m1="example.org"), 0x2F)):
        person = AbsentPerson()
        assert await status(phone(store, person, prompt_timeout=0.001), request) == expected
        assert person.dismissed
    assert store.credentials(RP_ID) == before


async def test_h6_cancelled_while_the_prompt_is_open_stores_nothing() -> None:
    store, person = MemoryStore(), AbsentPerson()
    call = asyncio.create_task(phone(store, person).call(create(), peer=PEER))
    await person.waiting.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert person.dismissed
    assert store.credentials(RP_ID) == []


# --- anything goes in ------------------------------------------------------------------------------------------------

_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**64 - 1) | st.text(max_size=8) | st.binary(max_size=40),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.integers(0, 12) | st.sampled_from(["id", "type", "alg", "name"]), inner, max_size=3)
    ),
    max_leaves=12,
)
_requests = (
    st.binary(max_size=200)
    | st.builds(lambda command, body: bytes([command]) + body, st.sampled_from([1, 2, 4]), st.binary(max_size=200))
    | st.builds(
        lambda changes: b"\x01" + cbor.encode({**create_fields(), **changes}),
        st.dictionaries(st.integers(1, 12), _values, max_size=2),
    )
    | st.builds(
        lambda changes: b"\x02" + cbor.encode({**sign_in_fields(), **changes}),
        st.dictionaries(st.integers(1, 8), _values, max_size=2),
    )
)
_STATUSES = {0x00, 0x01, 0x02, 0x03, 0x11, 0x12, 0x14, 0x26, 0x2C, 0x2E, 0x33, 0x35, 0x39, 0x7F}


@settings(deadline=None)
@given(request=_requests)
def test_any_bytes_give_a_documented_status(request: bytes) -> None:
    assert asyncio.run(status(phone(MemoryStore()), request)) in _STATUSES


# --- silence ---------------------------------------------------------------------------------------------------------


async def test_no_secret_in_repr_or_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    store, person = _BrokenStore(VaultProblem.FULL), Person()
    store.reason = None
    authenticator = phone(store, person, random=counting_random())
    await made(authenticator, m3={"id": b"secret-user-handle"})
    await ok(authenticator, sign_in())
    (credential,) = store.credentials(RP_ID)
    assert repr(credential) == "<Credential for 'example.com', active>"
    shown = " ".join([caplog.text, repr(authenticator), repr(store), repr(credential), repr(person.prompts)])
    assert "not recorded" in shown  # the log was really looked at
    for secret in (credential.private_key, credential.user_id):
        assert secret.hex() not in shown
        assert repr(secret)[2:-1] not in shown
