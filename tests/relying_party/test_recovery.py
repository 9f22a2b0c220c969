"""Recovery codes, the last passkey, and what a recovered account may do."""

from __future__ import annotations

import itertools

import pytest
from fido2.utils import websafe_encode

from tests.relying_party.visitor import Phone, Site, Visitor, reason


def passkey_id(phone: Phone) -> str:
    return websafe_encode(phone.store.credentials()[-1].credential_id)


@pytest.fixture
async def codes(ann: Visitor, phone: Phone) -> list[str]:
    made: list[str] = (await ann.join("ann", phone)).json()["codes"]
    return made


async def test_codes_are_long_and_kept_hashed(site: Site, codes: list[str]) -> None:
    assert all(len(code.replace("-", "")) * 5 >= 80 for code in codes)
    kept = b"".join(bytes(row["hash"]) for row in site.website.database.rows("SELECT hash FROM recovery_code"))
    assert len(kept) == 320
    assert not any(code.encode() in kept for code in codes)


async def test_a_code_opens_the_way_to_a_new_passkey_and_to_nothing_else(
    site: Site, ann: Visitor, bob: Visitor, codes: list[str], other_phone: Phone, phone: Phone
) -> None:
    used = await bob.post("codes/use", {"name": "Ann", "code": codes[0].lower().replace("-", " ")})
    assert reason(used) == ""
    assert site.events()[-1] == "recovered"
    assert site.last_detail() == {"left": 9, "count": 1}
    assert (await ann.page("/account")).status_code == 303  # whoever was signed in before is not any more
    for path in ("passkeys/remove", "passkeys/rename", "passkeys/copied", "codes/new", "account/name", "confirm/begin"):
        assert reason(await bob.post(path, {"id": passkey_id(phone)})) == "add-passkey-first"
    assert (await bob.page("/log")).status_code == 303
    assert reason(await bob.add(other_phone)) == ""
    assert reason(await bob.post("passkeys/remove", {"id": passkey_id(phone)})) == ""
    assert reason(await ann.sign_in(phone)) == "unknown-passkey"
    assert reason(await ann.sign_in(other_phone)) == ""


async def test_letters_that_look_like_digits_are_taken_for_them(
    site: Site, ann: Visitor, bob: Visitor, codes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    alphabet = itertools.cycle("0123456789ABCDEFGHJKMNPQRSTVWXY")  # 31, so that no two codes are the same
    monkeypatch.setattr("examples.relying_party.website.recovery.secrets.choice", lambda _: next(alphabet))
    code = (await ann.post("codes/new")).json()["codes"][0]
    assert code == "01234-56789-ABCDE-FGHJK"
    misread = code.replace("0", "o").replace("1", "l")
    assert reason(await bob.post("codes/use", {"name": "ann", "code": misread})) == ""


async def test_a_name_may_be_typed_as_keyboards_do(site: Site, ann: Visitor, bob: Visitor, phone: Phone) -> None:
    """Composed or not, with another space, in the other case: it is the same name."""
    codes = (await ann.join("Zoe\u200b\u0308 van Dam", phone)).json()["codes"]
    for name, code in zip(("Zo\u00eb van Dam ", "Zoe\u0308  van dam"), codes, strict=False):
        assert reason(await bob.post("codes/use", {"name": name, "code": code})) == ""


@pytest.mark.parametrize("name", [None, 5, "", " ", "\ud800", "\u202e", "a" * 65], ids=repr)
async def test_what_is_no_name(site: Site, bob: Visitor, codes: list[str], name: object) -> None:
    assert reason(await bob.post("codes/use", {"name": name, "code": codes[0]})) == "bad-request"
    assert reason(await bob.post("join/begin", {"name": name})) == "bad-request"


async def test_a_code_is_good_once(site: Site, bob: Visitor, codes: list[str]) -> None:
    assert reason(await bob.post("codes/use", {"name": "ann", "code": codes[0]})) == ""
    assert reason(await bob.post("codes/use", {"name": "ann", "code": codes[0]})) == "recovery-code"
    assert site.events()[-1] == "recovery-failed"


async def test_a_code_opens_one_account(
    site: Site, ann: Visitor, bob: Visitor, codes: list[str], other_phone: Phone
) -> None:
    await bob.join("bob", other_phone)
    assert reason(await bob.post("codes/use", {"name": "bob", "code": codes[0]})) == "recovery-code"
    assert reason(await bob.post("codes/use", {"name": "nobody", "code": codes[0]})) == "recovery-code"


async def test_new_codes_void_the_old_ones(site: Site, ann: Visitor, bob: Visitor, codes: list[str]) -> None:
    new = (await ann.post("codes/new")).json()["codes"]
    assert reason(await bob.post("codes/use", {"name": "ann", "code": codes[0]})) == "recovery-code"
    assert reason(await bob.post("codes/use", {"name": "ann", "code": new[0]})) == ""


async def test_guessing_is_slowed_down_by_address_not_by_account(
    site: Site, ann: Visitor, bob: Visitor, codes: list[str]
) -> None:
    for _ in range(5):
        assert reason(await bob.post("codes/use", {"name": "ann", "code": "GUESS"})) == "recovery-code"
    assert reason(await bob.post("codes/use", {"name": "ann", "code": codes[0]})) == "slow-down"
    account = site.website.recovery.use("ann", codes[0], source="another address")
    assert account.name == "ann"
    site.clock.now += 900
    assert reason(await bob.post("codes/use", {"name": "ann", "code": codes[1]})) == ""


async def test_the_last_passkey_stays_unless_there_are_codes(
    site: Site, ann: Visitor, codes: list[str], phone: Phone
) -> None:
    site.website.database.run("UPDATE recovery_code SET used = 1")
    assert reason(await ann.post("passkeys/remove", {"id": passkey_id(phone)})) == "last-passkey"
    assert site.last_detail()["reason"] == "last-passkey"
    await ann.post("codes/new")
    removed = await ann.post("passkeys/remove", {"id": passkey_id(phone)})
    assert reason(removed) == ""
    assert removed.json()["signal"]["allAcceptedCredentialIds"] == []
    assert (await ann.page("/account")).status_code == 303  # the session that it began is over
    assert reason(await ann.sign_in(phone)) == "unknown-passkey"


async def test_of_two_passkeys_one_may_go_without_codes(
    site: Site, ann: Visitor, codes: list[str], phone: Phone, other_phone: Phone
) -> None:
    site.website.database.run("UPDATE recovery_code SET used = 1")
    await ann.add(other_phone)
    assert reason(await ann.post("passkeys/remove", {"id": passkey_id(other_phone)})) == ""
    assert reason(await ann.post("passkeys/remove", {"id": passkey_id(phone)})) == "last-passkey"


async def test_a_session_for_enrolment_is_short(site: Site, bob: Visitor, codes: list[str]) -> None:
    await bob.post("codes/use", {"name": "ann", "code": codes[0]})
    site.clock.now += 1800
    assert reason(await bob.post("passkeys/begin")) == "signed-out"
