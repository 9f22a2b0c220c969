"""Threats to the person at the phone and to either end of a session (T8 to T10, T13, T15, T16, T20 to T22).

The threats and the table of their tests are in docs/security.md.
"""

from __future__ import annotations

import asyncio
import base64
import importlib.metadata
import io
import logging
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_private_key
from publicsuffixlist import PublicSuffixList

import hybrid
from hybrid import cbor
from hybrid.errors import RefusalReason, RequestRefused, ResponseRejected
from hybrid.fido2_bridge import rp_id as rp_ids
from hybrid.passkeys.consent import Decision, LimitedConsent, Operation
from hybrid.passkeys.store import MemoryStore
from hybrid.passkeys.vault import open_vault
from hybrid.passkeys.vault_file import KdfCost
from hybrid.passkeys.vault_keys import PassphraseKey
from hybrid.testing.peers import phones
from tests.bridge.test_ceremony import Assertion
from tests.bridge.test_ceremony import sign_in as client_sign_in
from tests.ceremony.rig import REQUEST, RESPONSE, Backend, Place, ask, until
from tests.passkeys.rig import PEER, AbsentPerson, Clock, Person, create, descriptor, phone, sign_in

NO = Decision(approved=False)
UNVERIFIED = Decision(approved=True, verified=False)


@pytest.fixture
def place() -> Place:
    return Place()


async def with_a_passkey() -> MemoryStore:
    store = MemoryStore()
    assert (await phone(store).call(create(), peer=PEER))[0] == 0
    return store


def only_id(store: MemoryStore) -> bytes:
    (credential,) = store.credentials()
    return credential.credential_id


# --- T8: who has an account? ------------------------------------------------------------------------------------------


async def test_t8_no_answer_before_a_person_gave_one() -> None:
    """Neither with a match nor without one, at a sign-in or with a list of those that must not be there."""
    store = await with_a_passkey()
    excluding = create(m5=[descriptor(only_id(store))])
    for asked, there in [
        (sign_in(), store),
        (sign_in(), MemoryStore()),
        (excluding, store),
        (excluding, MemoryStore()),
    ]:
        person = AbsentPerson()
        call = asyncio.create_task(phone(there, person).call(asked, peer=PEER))
        await person.waiting.wait()
        assert not call.done()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call


async def test_t8_a_refusal_looks_the_same_with_and_without_a_match() -> None:
    store = await with_a_passkey()
    seen = []
    for asked in (sign_in(), create(m5=[descriptor(only_id(store))])):
        for there in (store, MemoryStore()):
            person = Person(NO)
            answer = await phone(there, person).call(asked, peer=PEER)
            seen.append((answer, len(person.prompts)))
    assert seen == [(b"\x27", 1)] * 4


async def test_t8_an_ignored_prompt_looks_the_same_with_and_without_a_match() -> None:
    store = await with_a_passkey()
    answers = [
        await phone(there, AbsentPerson(), prompt_timeout=0.01).call(asked, peer=PEER)
        for asked in (sign_in(), sign_in(m3=[descriptor(only_id(store))]), create(m5=[descriptor(only_id(store))]))
        for there in (store, MemoryStore())
    ]
    assert answers == [b"\x2f"] * 6


async def test_t8_what_is_over_the_limit_is_refused_the_same_way_with_and_without_a_match() -> None:
    answers = []
    for store in (await with_a_passkey(), MemoryStore()):
        limited = LimitedConsent(Person(NO), Clock())
        authenticator = phone(store, limited)
        answers.append([await authenticator.call(sign_in(), peer=PEER) for _ in range(7)])
    assert answers[0] == answers[1] == [b"\x27"] * 7


# --- T9: prompts without end ------------------------------------------------------------------------------------------


async def test_t9_five_prompts_a_minute_reach_a_person() -> None:
    person, clock = Person(), Clock()
    authenticator = phone(await with_a_passkey(), LimitedConsent(person, clock))
    statuses = [(await authenticator.call(sign_in(), peer=PEER))[0] for _ in range(7)]
    assert statuses == [0, 0, 0, 0, 0, 0x27, 0x27]
    assert len(person.prompts) == 5
    clock.now += 60
    assert (await authenticator.call(sign_in(), peer=PEER))[0] == 0


async def test_t9_three_refusals_bring_quiet() -> None:
    person = Person(NO)
    clock = Clock()
    authenticator = phone(MemoryStore(), LimitedConsent(person, clock))
    for _ in range(5):
        await authenticator.call(create(), peer=PEER)
    assert len(person.prompts) == 3
    clock.now += 61
    await authenticator.call(create(), peer=PEER)
    assert len(person.prompts) == 4


# --- T10: requests that are bombs -------------------------------------------------------------------------------------

BOMBS = {
    "arrays in arrays": b"\x81" * 500_000,
    "maps in maps": b"\xa1\x01" * 250_000,
    "an array of 2^64 - 1": b"\x9b" + b"\xff" * 8,
    "a map of 2^32 - 1": b"\xba" + b"\xff" * 4,
    "bytes of 2^63": b"\x5b\x7f" + b"\xff" * 7,
    "many small values": b"\x9a\x00\x0f\x00\x00" + b"\x80" * 0xF0000,
    "an indefinite array": b"\x9f" + b"\x01" * 1000 + b"\xff",
    "a tag": b"\xc0\x60",
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS.keys())
async def test_t10_bombs_are_refused_before_anything_is_built(bomb: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[bytes] = []
    monkeypatch.setattr("hybrid.passkeys.members.cbor.decode", built.append)
    person = Person()
    for command in (b"\x01", b"\x02"):
        assert await phone(MemoryStore(), person).call(command + bomb, peer=PEER) == b"\x12"
    assert built == []
    assert person.prompts == []


async def test_t10_lists_and_messages_have_a_largest_size() -> None:
    person = Person()
    authenticator = phone(MemoryStore(), person)
    long_list = [descriptor(number.to_bytes(16, "big")) for number in range(65)]
    assert (await authenticator.call(sign_in(m3=long_list), peer=PEER))[0] != 0
    assert await authenticator.call(b"\x02" + bytes(1 << 20), peer=PEER) == b"\x39"
    assert person.prompts == []


# --- T13: secrets in logs ---------------------------------------------------------------------------------------------


def forms(secret: bytes) -> list[str]:
    """How the first bytes of a secret would look in a text."""
    start = secret[:8]
    encoded = base64.b64encode(secret)[:8].decode()
    return [start.hex(), start.hex().upper(), repr(start)[2:-1], str(list(start))[1:-1], encoded]


async def test_t13_no_secret_in_the_log_or_repr_of_a_whole_ceremony(
    place: Place, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    passphrase = "correct horse battery"
    vault = open_vault(tmp_path / "vault", PassphraseKey(passphrase), cost=KdfCost(8, 1, 1))
    authenticator = phone(vault)
    salt = bytes(range(200, 232))
    invitations = hybrid.invite(hybrid.Hint.MAKE_CREDENTIAL), hybrid.invite(hybrid.Hint.GET_ASSERTION)
    written = io.StringIO()
    requests = create(m6={"prf": {}}), sign_in(m4={"prf": {"eval": {"first": salt}}})
    for invitation, request in zip(invitations, requests, strict=True):
        serving = asyncio.create_task(
            hybrid.answer(invitation.url, authenticator, advertiser=place.air, tunnels=place.tunnels)
        )
        async with place.connect(invitation) as session:
            assert (await session.call(request))[0] == 0
            print(session, invitation, invitation.qr, file=written)
        await serving
    (credential,) = vault.credentials()
    print(vault, authenticator, credential, vault._data_key, *place.client_events, file=written)
    assert vault._data_key is not None
    assert credential.secret_uv is not None
    key = load_der_private_key(credential.private_key, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    scalar = key.private_numbers().private_value
    secrets = {
        "private key": scalar.to_bytes(32, "big"),
        "private key in its wrapping": credential.private_key,
        "prf secret": credential.secret_uv,
        "prf salt": salt,
        "data key": bytes(vault._data_key.value),
        "QR secrets": invitations[0].qr.secret,
        "and of the second": invitations[1].qr.secret,
    }
    text = caplog.text + written.getvalue()
    assert caplog.records
    assert [name for name, secret in secrets.items() if any(form in text for form in forms(secret))] == []
    assert passphrase not in text
    assert all(invitation.url[7:40] not in text for invitation in invitations)


# --- T15: answers for another site ------------------------------------------------------------------------------------


@pytest.mark.parametrize("rp_id", ["evil.example", "www.example.com"])
def test_t15_an_answer_for_another_site_is_refused(rp_id: str) -> None:
    with pytest.raises(ResponseRejected) as caught:
        Assertion(client_sign_in()).auth_data(rp_id=rp_id).judge()
    assert caught.value.reason == "rp-id-hash"


async def test_t15_the_phone_signs_for_the_site_of_the_passkey_only() -> None:
    store = await with_a_passkey()
    asked = sign_in(m1="other.example", m3=[descriptor(only_id(store))])
    person = Person()
    assert await phone(store, person).call(asked, peer=PEER) == b"\x2e"
    assert person.asked_for == [Operation.NOTHING_FOUND]


# --- T16: links -------------------------------------------------------------------------------------------------------


async def test_t16_a_code_asks_for_no_link_and_our_phone_gives_none(place: Place) -> None:
    assert not hybrid.invite().qr.wants_link
    asking = hybrid.invite(accept_link=True)
    serving = asyncio.create_task(place.answer(asking.url))
    async with place.connect(asking) as session:
        assert await session.call(REQUEST) == RESPONSE
        assert await session.wait_for_link() is None
    await serving


# --- T20: weaker than asked for ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithms", [[-65535], [-65535, -39, 0], [-260]])
async def test_t20_weak_and_unknown_algorithms_make_no_passkey(algorithms: list[int]) -> None:
    store = MemoryStore()
    asked = create(m4=[{"alg": algorithm, "type": "public-key"} for algorithm in algorithms])
    assert await phone(store).call(asked, peer=PEER) == b"\x26"
    assert store.credentials() == []


@pytest.mark.parametrize("options", [{}, {"uv": False}, {"uv": True}])
async def test_t20_the_phone_never_answers_without_verification(options: dict[str, bool]) -> None:
    store = await with_a_passkey()
    asked = [create(m7=options), sign_in(m5=options)]
    for request in asked:
        assert await phone(store, Person(UNVERIFIED)).call(request, peer=PEER) == b"\x27"
        answer = await phone(store).call(request, peer=PEER)
        assert cbor.decode_map(answer[1:])[2][32] & 0x05 == 0x05  # UP and UV


def test_t20_the_client_refuses_an_answer_without_verification() -> None:
    with pytest.raises(ResponseRejected) as caught:
        Assertion(client_sign_in()).auth_data(flags=0x01).judge()
    assert caught.value.reason == "user-verification"


# --- T21: the answer to another question ------------------------------------------------------------------------------


async def test_t21_one_request_at_a_time(place: Place) -> None:
    invitation, backend = hybrid.invite(), Backend(prompts=True)
    serving = asyncio.create_task(place.answer(invitation.url, backend))
    async with place.connect(invitation) as session:
        first = asyncio.create_task(session.call(REQUEST))
        await until(lambda: backend.is_open)
        with pytest.raises(hybrid.LocalProtocolError):
            await session.call(REQUEST)
        backend.approve()
        assert await first == RESPONSE
    await serving
    assert len(backend.requests) == 1


@pytest.mark.parametrize("made", [phones.AnswerOfOtherType, phones.UnannouncedJson], ids=lambda made: made.__name__)
async def test_t21_an_answer_of_another_type_is_refused(place: Place, made: type[phones.Phone]) -> None:
    invitation = hybrid.invite()
    serving = asyncio.create_task(made().run(invitation.url, advertiser=place.air, tunnels=place.tunnels))
    with pytest.raises(hybrid.RemoteProtocolError):
        await ask(place.connect(invitation))
    await serving


def test_t21_the_signature_is_over_this_request() -> None:
    answer = Assertion(client_sign_in())
    answer.members[3] = Assertion(client_sign_in()).members[3]
    with pytest.raises(ResponseRejected):
        answer.judge(answer.known)


# --- T22: an old list of public suffixes ------------------------------------------------------------------------------


def test_t22_an_old_list_refuses_more_not_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a list that knows nothing, a last label is a suffix all the same."""
    empty = PublicSuffixList(source=io.StringIO(""))
    monkeypatch.setattr(rp_ids, "_suffix_list", lambda: empty)
    for rp_id, origin in (
        ("brandnew", "https://shop.brandnew"),
        ("com", "https://example.com"),
        ("lan", "https://nas.lan"),
    ):
        with pytest.raises(RequestRefused) as caught:
            rp_ids.check_rp_id(rp_id, origin)
        assert caught.value.reason is RefusalReason.RP_ID
    assert rp_ids.check_rp_id("shop.brandnew", "https://www.shop.brandnew") == "shop.brandnew"


def test_t22_the_version_of_the_list_is_its_date() -> None:
    date = importlib.metadata.version("publicsuffixlist").rpartition(".")[2]
    assert len(date) == 8
    assert date >= "20250101"
