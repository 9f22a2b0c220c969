"""One row per rule of makeCredential, getAssertion and the other commands of the roaming profile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fido2.ctap2.base import AssertionResponse, AttestationResponse, Info
from fido2.webauthn import AuthenticatorData
from hypothesis import given, settings
from hypothesis import strategies as st

from hybrid import cbor
from hybrid.passkeys.aaguids import AAGUID
from hybrid.passkeys.consent import Decision, NeverApprove, Operation
from hybrid.passkeys.engine import SoftwareAuthenticator
from hybrid.passkeys.profiles import PHONE, PROFILES, ROAMING
from hybrid.passkeys.store import CredentialState, MemoryStore
from tests.passkeys.rig import (
    ABSENT,
    HASH,
    PEER,
    RP_ID,
    AbsentPerson,
    Clock,
    Person,
    create,
    create_fields,
    descriptor,
    phone,
    sign_in,
    sign_in_fields,
    user,
)
from tests.passkeys.roaming_rig import PIN, Key, roaming

PRESENT = Decision(True)  # agreed; who it is, nobody checked
NO = Decision(False)
RK = {"rk": True}
_CRED = descriptor(b"x" * 16)


async def ok(authenticator: SoftwareAuthenticator, request: bytes, channel: str = "first") -> dict[int, Any]:
    answer = await authenticator.call(request, peer=PEER, channel=channel)
    assert answer[0] == 0, f"status {answer[0]:#x}"
    fields: dict[int, Any] = cbor.decode_map(answer[1:])
    assert cbor.encode(fields) == answer[1:], "the answer is not canonical"
    return fields


async def status(authenticator: SoftwareAuthenticator, request: bytes, channel: str = "first") -> int:
    answer = await authenticator.call(request, peer=PEER, channel=channel)
    assert answer[0] == 0 or len(answer) == 1, "H3: an error is the status byte alone"
    return answer[0]


async def made(authenticator: SoftwareAuthenticator, **changes: Any) -> AuthenticatorData:
    return AttestationResponse.from_dict(await ok(authenticator, create(**changes))).auth_data


async def new_id(authenticator: SoftwareAuthenticator, **changes: Any) -> bytes:
    data = (await made(authenticator, **changes)).credential_data
    assert data is not None
    return bytes(data.credential_id)


# --- getInfo ---------------------------------------------------------------------------------------------------------

_TYPE = b"\x64type\x6apublic-key"


def test_get_info_literal_bytes() -> None:
    expected = (
        bytes.fromhex("b3 01 82") + b"\x68FIDO_2_0\x68FIDO_2_1"
        + bytes.fromhex("02 87") + b"\x68credBlob\x6bcredProtect\x6bhmac-secret\x6clargeBlobKey\x6cminPinLength"
        + b"\x6ehmac-secret-mc\x71thirdPartyPayment"
        + bytes.fromhex("03 50 e0292e0397e0421c82f128e6935b08f4")
        + bytes.fromhex("04 aa") + b"\x62rk\xf5\x68alwaysUv\xf4\x68credMgmt\xf5\x69authnrCfg\xf5\x69clientPin\xf4"
        + b"\x6alargeBlobs\xf5\x6dperCredMgmtRO\xf5\x6epinUvAuthToken\xf5\x6fsetMinPINLength\xf5"
        + b"\x70makeCredUvNotRqd\xf5"
        + bytes.fromhex("05 191db9  06 82 02 01  07 08  08 1880")
        + bytes.fromhex("09 81") + b"\x63usb"
        + bytes.fromhex("0a 85") + b"\xa2\x63alg\x26" + _TYPE + b"\xa2\x63alg\x27" + _TYPE + b"\xa2\x63alg\x28" + _TYPE
        + b"\xa2\x63alg\x32" + _TYPE + b"\xa2\x63alg\x39\x01\x00" + _TYPE
        + bytes.fromhex("0b 191000  0c f4  0d 04  0f 1820  10 08  14 1903e8")
        + bytes.fromhex("16 82") + b"\x64none\x66packed"
        + bytes.fromhex("18 1d 18 3f  18 1f 82 02 03")
    )  # fmt: skip
    assert roaming().get_info == expected


def test_get_info_with_a_pin() -> None:
    before, after = Key(pin=None).ctap.info, Key().ctap.info
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {4}
    assert after.options["clientPin"] is True
    assert Info.from_dict(cbor.decode(roaming().get_info)).aaguid == AAGUID.bytes


def test_more_algorithms_are_announced() -> None:
    info = Info.from_dict(cbor.decode(roaming(more_algorithms=True).get_info))
    assert [entry["alg"] for entry in info.algorithms][:7] == [-7, -8, -9, -19, -257, -35, -36]


def test_profiles_by_name() -> None:
    assert dict(PROFILES) == {"phone": PHONE, "roaming": ROAMING}


# --- rows: request and status ----------------------------------------------------------------------------------------

CREATE_ROWS = {
    "M1 no hash": (create(m1=ABSENT), 0x14),
    "M1 no rp": (create(m2=ABSENT), 0x14),
    "M1 no user": (create(m3=ABSENT), 0x14),
    "M1 no algorithms": (create(m4=ABSENT), 0x14),
    "M1 icons": (create(m2={"id": RP_ID, "icon": "x"}, m3={"id": b"u", "icon": "x"}), 0x00),
    "M1 rp.icon is a number": (create(m2={"id": RP_ID, "icon": 8}), 0x11),
    "M1 user.icon is a number": (create(m3={"id": b"u", "icon": 8}), 0x11),
    "M2 no names": (create(m2={"id": RP_ID}, m3={"id": b"u"}), 0x00),
    "M4 only RS1": (create(m4=[{"alg": -65535, "type": "public-key"}]), 0x26),
    "M4 RS256": (create(m4=[{"alg": -257, "type": "public-key"}]), 0x00),
    "M4 behind the switch": (create(m4=[{"alg": -35, "type": "public-key"}]), 0x26),
    "M5 stranger": (create(m5=[_CRED]), 0x00),
    "M5 8 entries": (create(m5=[_CRED] * 8), 0x00),
    "M5 9 entries": (create(m5=[_CRED] * 9), 0x39),
    "M5 id of 128 bytes": (create(m5=[descriptor(bytes(128))]), 0x00),
    "M5 id of 129 bytes": (create(m5=[descriptor(bytes(129))]), 0x39),
    "M6 rk": (create(m7=RK), 0x00),
    "M6 up true": (create(m7={"up": True}), 0x00),
    "M6 up false": (create(m7={"up": False}), 0x2C),
    "M6 uv false": (create(m7={"uv": False}), 0x00),
    "M6 uv true": (create(m7={"uv": True}), 0x2C),
    "M6 unknown option": (create(m7={"unknown": True}), 0x00),
    "M7 no PIN": (create(m8=b""), 0x35),
    "M7 no protocol": (create(m8=bytes(32)), 0x14),
    "M7 unknown protocol": (create(m8=bytes(32), m9=3), 0x02),
    "M7 no token": (create(m8=bytes(32), m9=2), 0x33),
    "M10 enterprise attestation": (create(m10=1), 0x02),
    "M10 enterprise attestation is true": (create(m10=True), 0x11),
    "M10 formats in text": (create(m11="none"), 0x11),
    "M10 formats of numbers": (create(m11=[1]), 0x11),
}
SIGN_IN_ROWS = {
    "G1 no rpId": (sign_in(m1=ABSENT), 0x14),
    "G1 no hash": (sign_in(m2=ABSENT), 0x14),
    "G1 empty list is none": (sign_in(m3=[]), 0x00),
    "G1 unknown types": (sign_in(m3=[{"id": b"x", "type": "secret"}]), 0x2E),
    "G2 stranger": (sign_in(m3=[_CRED]), 0x2E),
    "G3 other site": (sign_in(m1="example.org"), 0x2E),
    "G7 silent": (sign_in(m5={"up": False}), 0x00),
    "G7 silent and nothing": (sign_in(m1="example.org", m5={"up": False}), 0x2E),
    "options: rk": (sign_in(m5={"rk": False}), 0x2B),
    "options: uv true": (sign_in(m5={"uv": True}), 0x2C),
    "options: uv false": (sign_in(m5={"uv": False}), 0x00),
    "M7 no PIN": (sign_in(m6=b""), 0x35),
    "M7 no protocol": (sign_in(m6=bytes(32)), 0x14),
    "M7 no token": (sign_in(m6=bytes(32), m7=1), 0x33),
}
OTHER_ROWS = {
    "H3 empty": (b"", 0x7F),
    "H13 too large": (b"\x01" + bytes(7609), 0x39),
    "H13 getInfo too large": (b"\x04" + bytes(7609), 0x39),
    "H1 getInfo": (b"\x04", 0x00),
    "H1 getInfo with payload": (b"\x04\xa0", 0x03),
    "G8 next without a first": (b"\x08", 0x30),
    "H12 selection": (b"\x0b", 0x00),
    "reset": (b"\x07", 0x00),
    "fingerprints": (b"\x09", 0x01),
    "previews": (b"\x41", 0x01),
    "vendor": (b"\x50", 0x01),
    "no map": (b"\x06\x80", 0x11),
    "no CBOR": (b"\x06\xff", 0x12),
}


@pytest.mark.parametrize(("request_bytes", "expected"), CREATE_ROWS.values(), ids=CREATE_ROWS.keys())
async def test_create_row(request_bytes: bytes, expected: int) -> None:
    store = MemoryStore()
    assert await status(roaming(store, Person(PRESENT)), request_bytes) == expected
    assert len(store.credentials(RP_ID)) == (expected == 0)


@pytest.mark.parametrize(("request_bytes", "expected"), SIGN_IN_ROWS.values(), ids=SIGN_IN_ROWS.keys())
async def test_sign_in_row(request_bytes: bytes, expected: int) -> None:
    authenticator = roaming(consent=Person(PRESENT))
    await made(authenticator, m7=RK)
    assert await status(authenticator, request_bytes) == expected


@pytest.mark.parametrize(("request_bytes", "expected"), OTHER_ROWS.values(), ids=OTHER_ROWS.keys())
async def test_other_row(request_bytes: bytes, expected: int) -> None:
    assert await status(roaming(), request_bytes) == expected


@pytest.mark.parametrize("command", [0x06, 0x07, 0x08, 0x0A, 0x0B, 0x0C, 0x0D])
async def test_a_phone_knows_none_of_these(command: int) -> None:
    assert await status(phone(MemoryStore()), bytes([command])) == 0x01


# --- makeCredential --------------------------------------------------------------------------------------------------


async def test_m6_consent_gives_presence_but_never_verification() -> None:
    authenticator = roaming(consent=Person(Decision(True, verified=True)))
    assert (await made(authenticator)).flags == 0x41
    fields = await ok(authenticator, sign_in(m3=[descriptor(await new_id(authenticator))]))
    assert fields[2][32] == 0x01


async def test_m6_only_rk_can_be_found_without_its_id() -> None:
    authenticator = roaming()
    hidden = await new_id(authenticator)
    assert await status(authenticator, sign_in()) == 0x2E
    fields = await ok(authenticator, sign_in(m3=[descriptor(hidden)]))
    assert set(fields) == {1, 2, 3}
    found = await new_id(authenticator, m7=RK)
    fields = await ok(authenticator, sign_in())
    assert fields[1]["id"] == found
    assert fields[4] == {"id": b"user-1"}


async def test_m10_self_attestation_signs_with_the_new_key() -> None:
    for request, fmt in (
        (create(), "packed"),
        (create(m11=["none", "packed"]), "none"),
        (create(m11=["tpm"]), "packed"),
    ):
        response = AttestationResponse.from_dict(await ok(roaming(), request))
        assert response.fmt == fmt
        if fmt == "none":
            assert response.att_stmt == {}
            continue
        assert set(response.att_stmt) == {"alg", "sig"}
        data = response.auth_data.credential_data
        assert data is not None
        data.public_key.verify(response.auth_data + HASH, response.att_stmt["sig"])
    assert (await ok(roaming(attestation="none"), create()))[1] == "none"
    assert (await ok(phone(MemoryStore(), attestation="packed"), create()))[1] == "packed"


async def test_m5_excluded_only_after_consent() -> None:
    person = Person(PRESENT)
    authenticator = roaming(consent=person)
    known = await new_id(authenticator)
    assert await status(authenticator, create(m5=[descriptor(known)])) == 0x19
    assert person.asked_for == [Operation.CREATE] * 2
    assert await status(roaming(consent=NeverApprove()), create(m5=[descriptor(known)])) == 0x27


async def test_m9_same_account_is_archived_only_by_a_discoverable_passkey() -> None:
    store = MemoryStore()
    authenticator = roaming(store)
    first = await new_id(authenticator, m7=RK)
    await made(authenticator)
    assert [credential.state for credential in store.credentials()] == [CredentialState.ACTIVE] * 2
    await made(authenticator, m7=RK)
    assert [credential.state for credential in store.credentials()] == [
        CredentialState.SUPERSEDED, CredentialState.ACTIVE, CredentialState.ACTIVE,
    ]  # fmt: skip
    assert store.credentials()[0].credential_id == first


def test_m7_probe_with_a_pin_set() -> None:
    key = Key()
    assert asyncio.run(status(key.authenticator, create(m8=b""))) == 0x31
    assert asyncio.run(status(key.authenticator, sign_in(m6=b""))) == 0x31
    assert asyncio.run(status(key.authenticator, create(m8=b"", m9=1))) == 0x33
    assert asyncio.run(status(key.authenticator, sign_in(m6=b"", m7=1))) == 0x33


async def test_m7_probe_needs_a_person() -> None:
    person = Person(NO)
    assert await status(roaming(consent=person), create(m8=b"")) == 0x27
    assert person.asked_for == [Operation.SELECT]


async def test_the_store_is_full() -> None:
    store = MemoryStore()
    authenticator = roaming(store)
    await made(authenticator, m7=RK)
    with pytest.MonkeyPatch.context() as patch:
        for module in ("hybrid.passkeys.engine", "hybrid.passkeys.management"):
            patch.setattr(f"{module}.CAPACITY", 1)
        assert await status(authenticator, create(m3=user(b"another"), m7=RK)) == 0x28
        assert await status(authenticator, create(m3=user(b"another"))) == 0
        assert await status(authenticator, create(m7=RK)) == 0, "it replaces one"


# --- getAssertion ----------------------------------------------------------------------------------------------------


async def test_counters_count_per_passkey() -> None:
    authenticator = roaming()
    one, two = await new_id(authenticator), await new_id(authenticator, m3=user(b"two"))
    seen = []
    for credential_id in (one, one, two, one):
        fields = await ok(authenticator, sign_in(m3=[descriptor(credential_id)]))
        seen.append(AssertionResponse.from_dict(fields).auth_data.counter)
    assert seen == [1, 2, 1, 3]


async def test_synced_passkeys_count_nothing() -> None:
    store = MemoryStore()
    store.synced = True
    authenticator = roaming(store)
    assert (await made(authenticator, m7=RK)).flags == 0x59
    for _ in range(2):
        fields = await ok(authenticator, sign_in())
        assert fields[2][32:] == b"\x19" + bytes(4)


async def test_g7_silent_probes_ask_nobody() -> None:
    person = Person(PRESENT)
    authenticator = roaming(consent=person)
    known = await new_id(authenticator, m7=RK)
    prompts = len(person.prompts)
    fields = await ok(authenticator, sign_in(m3=[descriptor(known)], m5={"up": False}))
    assert fields[2][32] == 0
    assert fields[4] == {"id": b"user-1"}
    assert await status(authenticator, sign_in(m3=[_CRED], m5={"up": False})) == 0x2E
    assert len(person.prompts) == prompts


async def test_g3_a_miss_looks_as_a_hit() -> None:
    person = Person(NO)
    assert await status(roaming(consent=person), sign_in()) == 0x27
    assert person.asked_for == [Operation.NOTHING_FOUND]


def _sign_in_verified(key: Key, **changes: Any) -> bytes:
    signature = key.protocol.authenticate(key.token(2, RP_ID), HASH)
    return sign_in(m6=signature, m7=key.protocol.VERSION, **changes)


def _create_verified(key: Key, name: str) -> bytes:
    signature = key.protocol.authenticate(key.token(1, RP_ID), HASH)
    return create(m3=user(name.encode(), name), m7=RK, m8=signature, m9=key.protocol.VERSION)


def test_g8_next_assertions_newest_first() -> None:
    key = Key()
    for name in ("ann", "bob", "cid"):
        asyncio.run(ok(key.authenticator, _create_verified(key, name)))
    for names in (False, True):
        answers = [asyncio.run(ok(key.authenticator, _sign_in_verified(key) if names else sign_in()))]
        answers += [asyncio.run(ok(key.authenticator, b"\x08")) for _ in range(2)]
        assert [answer.get(5) for answer in answers] == [3, None, None]
        wanted = [user(name.encode(), name) if names else {"id": name.encode()} for name in ("cid", "bob", "ann")]
        assert [answer[4] for answer in answers] == wanted, "G5: names only when verified"
        assert {answer[2][32] for answer in answers} == {0x05 if names else 0x01}
        assert asyncio.run(status(key.authenticator, b"\x08")) == 0x30


def test_g5_one_passkey_is_answered_without_names() -> None:
    key = Key()
    asyncio.run(ok(key.authenticator, _create_verified(key, "ann")))
    assert asyncio.run(ok(key.authenticator, _sign_in_verified(key)))[4] == {"id": b"ann"}


def test_g5_a_passkey_that_was_listed_is_answered_with_names_after_verification() -> None:
    key = Key()
    asyncio.run(ok(key.authenticator, _create_verified(key, "ann")))
    listed = [descriptor(key.store.credentials()[0].credential_id)]
    assert asyncio.run(ok(key.authenticator, sign_in(m3=listed)))[4] == {"id": b"ann"}
    fields = asyncio.run(ok(key.authenticator, _sign_in_verified(key, m3=listed)))
    assert fields[4] == {"id": b"ann", "name": "ann", "displayName": "Ann"}


def test_a_sign_in_spends_its_token() -> None:
    key = Key()
    asyncio.run(ok(key.authenticator, _create_verified(key, "ann")))
    request = _sign_in_verified(key)
    assert [asyncio.run(status(key.authenticator, request)) for _ in range(2)] == [0, 0x33]


async def _several(authenticator: SoftwareAuthenticator) -> None:
    for name in ("ann", "bob", "cid"):
        await made(authenticator, m3=user(name.encode(), name), m7=RK)


async def test_g8_one_channel_does_not_go_on_with_anothers() -> None:
    authenticator = roaming()
    await _several(authenticator)
    assert (await ok(authenticator, sign_in(), "first"))[5] == 3
    assert await status(authenticator, b"\x08", "second") == 0x30
    assert (await ok(authenticator, sign_in(), "second"))[4] == {"id": b"cid"}
    assert (await ok(authenticator, b"\x08", "first"))[4] == {"id": b"bob"}
    assert (await ok(authenticator, b"\x08", "second"))[4] == {"id": b"bob"}


@pytest.mark.parametrize("between", [b"\x04", b"\x0b", b"\x99", sign_in(m1="example.org"), b"\x08\x00"])
async def test_g8_any_other_command_ends_it(between: bytes) -> None:
    authenticator = roaming()
    await _several(authenticator)
    await ok(authenticator, sign_in())
    await authenticator.call(between, peer=PEER, channel="first")
    expected = 0 if between == b"\x08\x00" else 0x30
    assert await status(authenticator, b"\x08") == expected


async def test_g8_30_seconds_from_the_last() -> None:
    clock = Clock()
    authenticator = roaming(clock=clock)
    await _several(authenticator)
    await ok(authenticator, sign_in())
    clock.now += 30
    await ok(authenticator, b"\x08")
    clock.now += 31
    assert await status(authenticator, b"\x08") == 0x30


async def test_g8_a_power_cycle_ends_it() -> None:
    authenticator = roaming()
    await _several(authenticator)
    await ok(authenticator, sign_in())
    authenticator.power_cycle()
    assert await status(authenticator, b"\x08") == 0x30


async def test_g8_a_removed_passkey_ends_it() -> None:
    store = MemoryStore()
    authenticator = roaming(store)
    await _several(authenticator)
    await ok(authenticator, sign_in())
    store.set_state([store.credentials()[1].credential_id], CredentialState.DELETED, 0)
    assert await status(authenticator, b"\x08") == 0x30


async def test_g4_an_allow_list_gives_one() -> None:
    authenticator = roaming()
    ids = [await new_id(authenticator, m3=user(name.encode()), m7=RK) for name in ("ann", "bob")]
    fields = await ok(authenticator, sign_in(m3=[descriptor(credential_id) for credential_id in ids]))
    assert 5 not in fields
    assert await status(authenticator, b"\x08") == 0x30


# --- reset, selection, power, cancel ---------------------------------------------------------------------------------


def test_reset_leaves_nothing_of_use() -> None:
    key = Key()
    asyncio.run(made(key.authenticator))
    token = key.token(1, RP_ID)
    key.ctap.reset()
    assert [credential.state for credential in key.store.credentials()] == [CredentialState.DELETED]
    assert key.ctap.info.options["clientPin"] is False
    signature = key.protocol.authenticate(token, HASH)
    assert asyncio.run(status(key.authenticator, create(m8=signature, m9=2))) == 0x33
    assert key.authenticator.get_info == roaming().get_info
    key.client_pin.set_pin(PIN)


async def test_reset_needs_consent_of_its_own() -> None:
    store, person = MemoryStore(), Person(PRESENT, NO)
    authenticator = roaming(store, person)
    await made(authenticator)
    assert await status(authenticator, b"\x07") == 0x27
    assert person.asked_for[-1] is Operation.RESET
    assert store.credentials()[0].usable
    assert await status(roaming(consent=AbsentPerson(), prompt_timeout=0.001), b"\x07") == 0x2F


async def test_reset_only_within_its_window() -> None:
    clock = Clock()
    authenticator = roaming(clock=clock, reset_window=10)
    clock.now += 10
    assert await status(authenticator, b"\x07") == 0
    clock.now += 11
    assert await status(authenticator, b"\x07") == 0x30
    authenticator.power_cycle()
    assert await status(authenticator, b"\x07") == 0


async def test_h12_selection() -> None:
    person = Person(PRESENT, NO)
    authenticator = roaming(consent=person)
    assert await authenticator.call(b"\x0b", peer=PEER) == b"\x00"
    assert await status(authenticator, b"\x0b") == 0x27
    assert await status(roaming(consent=AbsentPerson(), prompt_timeout=0.001), b"\x0b") == 0x2F
    assert person.asked_for == [Operation.SELECT] * 2


@pytest.mark.parametrize("how", ["cancel", "power_cycle"])
async def test_an_open_prompt_is_cancelled(how: str) -> None:
    store, person = MemoryStore(), AbsentPerson()
    authenticator = roaming(store, person)
    call = asyncio.create_task(status(authenticator, create()))
    await person.waiting.wait()
    for _ in range(2):
        getattr(authenticator, how)()
    assert await call == 0x2D
    assert person.dismissed
    assert store.credentials() == []


async def test_cancelling_nothing_does_nothing() -> None:
    authenticator = roaming()
    authenticator.cancel()
    assert await status(authenticator, create()) == 0


async def test_a_cancelled_task_stays_cancelled() -> None:
    person = AbsentPerson()
    authenticator = roaming(consent=person)
    call = asyncio.create_task(status(authenticator, create()))
    await person.waiting.wait()
    authenticator.cancel()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_h4_one_request_at_a_time_but_get_info_always() -> None:
    person = AbsentPerson()
    authenticator = roaming(consent=person)
    first = asyncio.create_task(status(authenticator, create()))
    await person.waiting.wait()
    second = asyncio.create_task(status(authenticator, b"\x08", "second"))
    for _ in range(5):
        await asyncio.sleep(0)  # lets it run as far as it can
    assert (await authenticator.call(b"\x04", peer=PEER))[0] == 0
    assert not second.done()
    authenticator.cancel()
    assert [await first, await second] == [0x2D, 0x30]


async def test_lenient_takes_unsorted_maps() -> None:
    request = b"\x02\xa2" + b"\x02" + cbor.encode(HASH) + b"\x01" + cbor.encode(RP_ID)
    assert await status(roaming(), request) == 0x12
    assert await status(roaming(lenient=True), request) == 0x2E


# --- anything goes in ------------------------------------------------------------------------------------------------

_values = st.recursive(
    st.none() | st.booleans() | st.integers(-300, 300) | st.text(max_size=8) | st.binary(max_size=80),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.integers(-3, 12) | st.sampled_from(["id", "type", "alg", "hmac-secret"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)
_commands = st.sampled_from([0x01, 0x02, 0x04, 0x06, 0x07, 0x08, 0x0A, 0x0B, 0x0C, 0x0D])
_changes = st.dictionaries(st.integers(1, 12), _values, max_size=2)
_fields = (
    st.dictionaries(st.integers(1, 12), _values, max_size=6)
    | st.builds(lambda changes: {**create_fields(), **changes}, _changes)
    | st.builds(lambda changes: {**sign_in_fields(), **changes}, _changes)
    | st.builds(lambda number, changes: {1: 2, 2: number, **changes}, st.integers(0, 10), _changes)
)
_requests = st.binary(max_size=100) | st.builds(
    lambda command, fields: bytes([command]) + cbor.encode(fields), _commands, _fields
)
_STATUSES = {
    0x00, 0x01, 0x02, 0x03, 0x04, 0x11, 0x12, 0x14, 0x18, 0x26, 0x28, 0x2B, 0x2C, 0x2E, 0x30, 0x31, 0x33, 0x34,
    0x35, 0x36, 0x37, 0x39, 0x3D, 0x3E, 0x40, 0x7F, 0xE0,
}  # fmt: skip
_with_pin = Key().store.setting("roaming")


@settings(deadline=None)
@given(requests=st.lists(_requests, min_size=1, max_size=4), pin=st.booleans())
def test_any_bytes_give_a_documented_status(requests: list[bytes], pin: bool) -> None:
    store = MemoryStore()
    store.keep_setting("roaming", _with_pin if pin else None)
    authenticator = roaming(store)
    for request in requests:
        assert asyncio.run(status(authenticator, request)) in _STATUSES
    assert authenticator.failure is None
