"""Password protected exports of Bitwarden: another program's, ours, damaged ones, and how much work they ask for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hybrid.errors import PortabilityError, PortabilityProblem
from hybrid.passkeys import bitwarden_sealed
from hybrid.passkeys.bitwarden import is_protected, read_bitwarden, write_bitwarden
from hybrid.passkeys.bitwarden_sealed import seal, unseal
from tests.passkeys.portability_rig import NOW, plain
from tests.passkeys.rig import counting_random

# Settings, and a text encrypted with them, of the tests of elliotwutingfeng/bitwarden_backup_decryptor, which reads
# what Bitwarden's own clients write. The password is "passphrase".
SALT = "rNYWSe/wFO1k+Qxia0A96A=="
THEIR_TEXT = b"df5d795f-ba0e-545a-625b-17e6cd33e0bd"
THEIRS = {
    "pbkdf2": (
        {"kdfType": 0, "kdfIterations": 600_000},
        "2.BCUsoLRgNgqJeJxut3xweg==|un2qvs/69JzyKytAsJeixvUAt2UJ5fesAyTZk9X5kIApYwoTPAWxlNpXQvr+PQti"
        "|yScEwAMqNKZUpRAFxs1x2ULT+NwtE5QontXJ+G52fZY=",
    ),
    "argon2id": (
        {"kdfType": 1, "kdfIterations": 3, "kdfMemory": 64, "kdfParallelism": 4},
        "2.BCUsoLRgNgqJeJxut3xweg==|oEEkWdOX9yhyg0rloZtnLSJhqrrKxXswp6oHcfnMlF2xKVLgpnL7q36zq4YolQH1"
        "|j7ffuM4uu0bs1biwc6H4XfDjJ1+YxxDdO+pZfq6bhSY=",
    ),
}
CHEAP = {"kdfType": 0, "kdfIterations": 2}


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bitwarden_sealed, "_OURS", CHEAP)


def sealed(**changes: Any) -> dict[str, Any]:
    data = write_bitwarden([plain()], random=counting_random()).data
    document: dict[str, Any] = json.loads(seal(data, "word", counting_random()))
    return {name: value for name, value in (document | changes).items() if value is not None}


def read(document: dict[str, Any], password: str = "word") -> Any:
    return read_bitwarden(json.dumps(document).encode(), now=NOW, password=lambda: password)


@pytest.mark.parametrize("kind", THEIRS)
def test_what_other_programs_encrypt_is_read(kind: str) -> None:
    settings, text = THEIRS[kind]
    document = {"salt": SALT, "encKeyValidation_DO_NOT_EDIT": text, "data": text, **settings}
    assert unseal(document, "passphrase") == THEIR_TEXT


def test_ours_go_there_and_back_and_show_nothing() -> None:
    exported = write_bitwarden([plain()], random=counting_random(), password="word")
    assert plain().rp_id.encode() not in exported.data
    assert is_protected(exported.data)
    document = json.loads(exported.data)
    assert (document["encrypted"], document["passwordProtected"]) == (True, True)
    (taken,) = read(document).credentials
    assert taken == plain(origin_store="bitwarden", modified_at=taken.modified_at)
    again = write_bitwarden([plain(number=2)], random=counting_random(), into=exported.data, password="word")
    assert [one.user_id for one in read(json.loads(again.data)).credentials] == [b"user-1", b"user-2"]


def test_what_we_write_has_the_cost_of_bitwarden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    document = json.loads(seal(b"{}", "word", counting_random()))
    assert {name: document[name] for name in document if name.startswith("kdf")} == THEIRS["argon2id"][0]
    assert unseal(document, "word") == b"{}"


def problem_of(document: dict[str, Any], password: str = "word") -> PortabilityProblem:
    with pytest.raises(PortabilityError) as caught:
        read(document, password)
    return caught.value.reason


def flipped(text: str, place: int) -> str:
    """`text` with another base64 digit at this place."""
    return text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]


def test_a_wrong_password_is_told_from_damage() -> None:
    assert problem_of(sealed(), "wrong") is PortabilityProblem.KEY
    data = sealed()["data"]
    for place in (2, *range(3, len(data) - 3, 97)):  # the first is of the IV, which no padding notices
        if data[place] != "|":
            with pytest.raises(PortabilityError) as caught:
                unseal(sealed(data=flipped(data, place)), "word")
            assert caught.value.reason is PortabilityProblem.MALFORMED, place


@pytest.mark.parametrize(
    "changes",
    [
        {"data": None},
        {"data": 5},
        {"data": ""},
        {"data": "2.a|b|c"},
        {"data": "2.AA==|AA==|AA=="},
        {"data": "0.AAAA"},
        {"salt": None},
        {"salt": 5},
        {"kdfType": None},
        {"kdfType": 2},
        {"kdfType": "0"},
        {"kdfIterations": None},
        {"kdfIterations": 0},
        {"kdfIterations": "600000"},
        {"kdfType": 1, "kdfMemory": None, "kdfParallelism": 1},
        {"kdfType": 1, "kdfMemory": 1, "kdfParallelism": None},
    ],
    ids=str,
)
def test_members_that_are_wrong(changes: dict[str, Any]) -> None:
    assert problem_of(sealed(**changes)) is PortabilityProblem.MALFORMED


@pytest.mark.parametrize(
    "changes",
    [
        {"kdfIterations": 1 << 30},
        {"kdfType": 1, "kdfMemory": 1 << 20, "kdfParallelism": 1},
        {"kdfType": 1, "kdfMemory": 1000, "kdfParallelism": 1, "kdfIterations": 100},
        {"kdfType": 1, "kdfMemory": 1, "kdfParallelism": 1 << 20},
    ],
    ids=str,
)
def test_absurd_work_is_refused_before_it_is_done(changes: dict[str, Any]) -> None:
    assert problem_of(sealed(**changes)) is PortabilityProblem.TOO_LARGE


def test_what_is_inside_is_bounded_as_well() -> None:
    nested = seal(b"[" * 100, "word", counting_random())
    assert problem_of(json.loads(nested)) is PortabilityProblem.TOO_DEEP
    again = seal(json.dumps(sealed()).encode(), "word", counting_random())
    assert problem_of(json.loads(again)) is PortabilityProblem.ENCRYPTED


def test_without_a_password_and_for_an_account_it_is_one_clear_error() -> None:
    with pytest.raises(PortabilityError, match="is encrypted") as caught:
        read_bitwarden(json.dumps(sealed()).encode(), now=NOW)
    assert caught.value.reason is PortabilityProblem.ENCRYPTED
    with pytest.raises(PortabilityError, match="the account that it came from") as caught:
        read({"encrypted": True, "encKeyValidation_DO_NOT_EDIT": "2.x", "folders": [], "items": []})
    assert caught.value.reason is PortabilityProblem.ENCRYPTED
