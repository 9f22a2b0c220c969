"""Presets of the phone: getInfo by its literal bytes, and every difference in how the engine answers.

How they keep a session is in `tests/ceremony/test_presets.py`.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from fido2.cose import CoseKey
from fido2.ctap2.base import AssertionResponse, AttestationResponse, Info

from hybrid import cbor
from hybrid.cli.main import PRESETS as OFFERED
from hybrid.errors import LocalProtocolError
from hybrid.passkeys.aaguids import provider_name
from hybrid.passkeys.engine import SoftwareAuthenticator
from hybrid.passkeys.presets import PRESETS, phone_for, preset
from hybrid.passkeys.store import MemoryStore
from hybrid.protocol.habits import Habits
from tests.passkeys.rig import HASH, PEER, RP_ID, create, create_fields, phone, sign_in

F20, F21 = "68 4649444f5f325f30", "68 4649444f5f325f31"  # "FIDO_2_0", "FIDO_2_1"
PRF = "63 707266"
RK, UP, UV = "62 726b", "62 7570", "62 7576"
PLAT = "64 706c6174"
INTERNAL, HYBRID, CABLE = "68 696e7465726e616c", "66 687962726964", "65 6361626c65"
YES, NO = "f5", "f4"
ZERO = "50" + "00" * 16
IPHONE = "50 f24a8e70d0d3f82c293732523cc4de5a"

NEW_IPHONE = (
    f"a5 01 82{F20}{F21} 02 82 69 6c61726765426c6f62 {PRF} 03 {IPHONE}"
    f" 04 a3 {RK}{YES} {UV}{YES} 6c 6a736f6e4d65737361676573 {YES} 09 82 {INTERNAL}{HYBRID}"
)
GET_INFO = {
    "iphone": NEW_IPHONE,
    "iphone-ios18.0": NEW_IPHONE,
    "iphone-ios16": f"a4 01 81{F20} 03 {IPHONE} 04 a2 {RK}{YES} {UV}{YES} 09 82 {INTERNAL}{HYBRID}",
    "android": f"a5 01 82{F20}{F21} 02 81 {PRF} 03 {ZERO} 04 a4 {RK}{YES} {UP}{YES} {UV}{YES} {PLAT}{NO}"
    f" 09 82 {INTERNAL}{HYBRID}",
    "android-chrome2022": f"a5 01 82{F20}{F21} 02 82 6c 6465766963655075624b6579 {PRF} 03 {ZERO}"
    f" 04 a2 {RK}{YES} {UV}{YES} 09 83 {CABLE}{HYBRID}{INTERNAL}",
    "microg": f"a5 01 82{F20}{F21} 02 81 {PRF} 03 {ZERO} 04 a4 {RK}{YES} {UP}{YES} {UV}{YES} {PLAT}{NO}"
    f" 09 82 {INTERNAL}{CABLE}",
}


IPHONES = ("iphone", "iphone-ios18.0", "iphone-ios16")
SALT = bytes(range(32))
PRF_CREATE = {"prf": {"eval": {"first": SALT}}}
NAMES = ("rp.name", "user.name", "user.displayName")


def test_there_is_a_row_for_every_preset() -> None:
    assert set(GET_INFO) == set(PRESETS)
    assert tuple(PRESETS) == OFFERED  # by the command line
    assert all(name == profile.name and profile.seen for name, profile in PRESETS.items())


@pytest.mark.parametrize("name", GET_INFO)
def test_get_info_of_a_preset_byte_for_byte(name: str) -> None:
    get_info = phone_for(name).get_info
    assert get_info == bytes.fromhex(GET_INFO[name])
    assert Info.from_dict(cbor.decode(get_info)).aaguid == PRESETS[name].aaguid.bytes


def test_an_unknown_name_is_told_what_there_is() -> None:
    with pytest.raises(LocalProtocolError, match=r"iphone, iphone-ios18\.0"):
        preset("nokia")


async def answer(authenticator: SoftwareAuthenticator, request: bytes) -> tuple[int, dict[int, Any]]:
    response = await authenticator.call(request, peer=PEER)
    return response[0], cbor.decode(response[1:]) if len(response) > 1 else {}


async def made(authenticator: SoftwareAuthenticator, **changes: Any) -> dict[int, Any]:
    status, body = await answer(authenticator, create(**changes))
    assert status == 0
    return body


SYNCED, DEVICE_BOUND = 0x5D, 0x45  # UP, UV, AT, and BE and BS or not
PASSKEYS = {
    **dict.fromkeys(IPHONES, ("iCloud Keychain", SYNCED)),
    "android": ("Google Password Manager", SYNCED),
    "android-chrome2022": ("Google Password Manager", SYNCED),
    "microg": (None, DEVICE_BOUND),
}


@pytest.mark.parametrize("name", PRESETS)
async def test_passkeys_of_a_preset(name: str) -> None:
    """Flags, provider, attestation and the signature of a sign-in, judged by python-fido2."""
    authenticator = phone_for(name)
    auth_data = AttestationResponse.from_dict(await made(authenticator)).auth_data
    assert auth_data.credential_data is not None
    assert (provider_name(UUID(bytes=bytes(auth_data.credential_data.aaguid))), auth_data.flags) == PASSKEYS[name]
    status, body = await answer(authenticator, sign_in())
    assertion = AssertionResponse.from_dict(body)
    assert (status, assertion.auth_data.flags) == (0, PASSKEYS[name][1] & ~0x40)
    assert assertion.auth_data.counter == 0
    CoseKey.parse(dict(auth_data.credential_data.public_key)).verify(bytes(assertion.auth_data) + HASH, body[3])


@pytest.mark.parametrize("name", PRESETS)
async def test_a_preset_makes_es256_only(name: str) -> None:
    assert (await answer(phone_for(name), create(m4=[{"alg": -8, "type": "public-key"}])))[0] == 0x26
    await made(phone(MemoryStore()), m4=[{"alg": -8, "type": "public-key"}])


REQUIRED = {
    **{name: {"user.displayName"} for name in IPHONES},
    "android": set(),
    "android-chrome2022": set(NAMES),
    "microg": set(),
}


@pytest.mark.parametrize("missing", NAMES)
@pytest.mark.parametrize("name", PRESETS)
async def test_names_that_a_preset_insists_on(name: str, missing: str) -> None:
    fields = create_fields(m2={"id": RP_ID, "name": ""}, m3={"id": b"u", "name": "", "displayName": ""})
    owner, member = missing.split(".")
    del fields[{"rp": 2, "user": 3}[owner]][member]
    status, _ = await answer(phone_for(name), b"\x01" + cbor.encode(fields))
    assert status == (0x14 if missing in REQUIRED[name] else 0)


# {1: RP_ID, 2: HASH, 3: [{"type": ..., "id": ...}]}: the longer key of the descriptor comes first
UNSORTED = (
    b"\x02\xa3\x01"
    + cbor.encode(RP_ID)
    + b"\x02"
    + cbor.encode(HASH)
    + b"\x03\x81\xa2"
    + b"".join(cbor.encode(part) for part in ("type", "public-key", "id", b"unknown"))
)


@pytest.mark.parametrize("name", PRESETS)
async def test_who_takes_requests_that_are_not_canonical(name: str) -> None:
    status, _ = await answer(phone_for(name), UNSORTED)
    assert status == (0x2E if name in (*IPHONES, "microg") else 0x12)


async def prf(name: str, store: MemoryStore) -> bytes:
    status, body = await answer(phone_for(name, store), sign_in(m4=PRF_CREATE))
    assert status == 0
    first = body[8]["prf"]["results"]["first"]
    assert isinstance(first, bytes)
    return first


async def test_prf_of_ios18_0_differs_from_what_it_should_be() -> None:
    store = MemoryStore()
    created = await made(phone_for("iphone-ios18.0", store), m6=PRF_CREATE)
    right, wrong = await prf("iphone", store), await prf("iphone-ios18.0", store)
    assert len(right) == len(wrong) == 32
    assert right != wrong
    assert await prf("android", store) == right
    assert created[6]["prf"]["results"]["first"] == wrong


@pytest.mark.parametrize("name", sorted(set(PRESETS) - {"iphone-ios16"}))
async def test_prf_for_a_new_passkey(name: str) -> None:
    outputs = (await made(phone_for(name), m6=PRF_CREATE))[6]["prf"]
    assert outputs["enabled"] is True
    assert ("results" in outputs) == (name != "android-chrome2022")


async def test_ios16_knows_no_prf() -> None:
    assert 6 not in await made(phone_for("iphone-ios16"), m6=PRF_CREATE)


@pytest.mark.parametrize("name", PRESETS)
async def test_what_a_sign_in_tells_about_the_passkey(name: str) -> None:
    authenticator = phone_for(name)
    await made(authenticator)
    _, body = await answer(authenticator, sign_in())
    old = name == "android-chrome2022"
    assert body[1].get("transports") == (["internal", "cable"] if old else None)
    assert body[4] == {"id": b"user-1", "name": "" if old else "ann", "displayName": "" if old else "Ann"}


async def test_large_blobs_are_for_newer_iphones() -> None:
    asked = {"largeBlob": {"support": "preferred"}}
    assert (await made(phone_for("iphone"), m6=asked))[6] == {"largeBlob": {"supported": True}}
    assert 6 not in await made(phone_for("android"), m6=asked)


GOOGLE, APPLE = 0, 1
FFF9, FDE2 = "0000fff9-0000-1000-8000-00805f9b34fb", "0000fde2-0000-1000-8000-00805f9b34fb"
MEETING = {
    "iphone": (APPLE, FFF9, ("ctap", "dc")),
    "iphone-ios18.0": (APPLE, FFF9, ("ctap", "dc")),
    "iphone-ios16": (APPLE, FDE2, None),
    "android": (GOOGLE, FFF9, ("ctap", "dc")),
    "android-chrome2022": (GOOGLE, FFF9, None),
    "microg": (GOOGLE, FFF9, ("dc", "ctap")),
}


@pytest.mark.parametrize("name", PRESETS)
def test_where_and_how_a_preset_is_met(name: str) -> None:
    habits = PRESETS[name].habits
    assert (habits.service_id, habits.service_uuid, habits.features) == MEETING[name]
    assert habits.one_command


def test_our_own_phone_has_none_of_it() -> None:
    assert phone(MemoryStore()).profile.habits == Habits(0, FFF9, ("ctap",))
