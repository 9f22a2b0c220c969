"""Options as websites and command lines give them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybrid.errors import RefusalReason, RequestRefused
from hybrid.fido2_bridge.options import (
    AssertionOptions,
    RegistrationOptions,
    assertion_options,
    registration_options,
)

ARGUMENTS: dict[str, Any] = {"challenge": b"c" * 32, "user_id": b"u"}
CREDENTIAL = {"type": "public-key", "id": "AQI"}


def register(options: Any = None, **arguments: Any) -> RegistrationOptions:
    text = None if options is None else json.dumps(options)
    return registration_options("example.com", text, **(ARGUMENTS | {"user_name": "alice"} | arguments))


def sign_in(options: Any = None) -> AssertionOptions:
    text = None if options is None else json.dumps(options)
    return assertion_options("example.com", text, challenge=b"c" * 32)


def test_defaults_without_json() -> None:
    assert sign_in() == AssertionOptions(challenge=b"c" * 32, rp_id="example.com")
    assert register() == RegistrationOptions(
        challenge=b"c" * 32,
        user_id=b"u",
        user_name="alice",
        user_display_name="alice",
        rp_id="example.com",
        rp_name="example.com",
        algorithms=(-7, -8, -257),
        resident_key=True,
    )


@pytest.mark.parametrize("wrapped", [False, True])
def test_json_wins_over_defaults(wrapped: bool) -> None:
    def wrap(members: Any) -> Any:
        return {"publicKey": members} if wrapped else members

    asked = {
        "challenge": "AAAA",
        "rpId": "Example.com",
        "allowCredentials": [CREDENTIAL, {"type": "other", "id": "AA"}],
        "timeout": 30000,
        "userVerification": "preferred",
        "hints": ["hybrid"],
    }
    read = sign_in(wrap(asked))
    assert (read.challenge, read.rp_id, read.allow, read.timeout) == (bytes(3), "Example.com", (b"\x01\x02",), 30.0)
    made = {
        "challenge": "AAAA",
        "rp": {"id": "example.com", "name": "Example"},
        "user": {"id": "AQ==", "name": "bob", "displayName": ""},
        "pubKeyCredParams": [
            {"type": "public-key", "alg": -8},
            {"type": "other", "alg": -7},
            {"type": "public-key", "alg": -7},
        ],
        "excludeCredentials": [CREDENTIAL],
        "authenticatorSelection": {"residentKey": "discouraged", "requireResidentKey": True},
    }
    assert register(wrap(made)) == RegistrationOptions(
        challenge=bytes(3),
        user_id=b"\x01",
        user_name="bob",
        user_display_name="",
        rp_id="example.com",
        rp_name="Example",
        algorithms=(-8, -7),
        exclude=(b"\x01\x02",),
        resident_key=False,
    )


def test_what_json_leaves_out_or_null_is_filled_in() -> None:
    members = {"challenge": None, "rp": {"name": None}, "user": {"id": None, "displayName": "Bob"}, "timeout": None}
    read = register(members)
    assert (read.challenge, read.rp_name, read.user_id) == (b"c" * 32, "example.com", b"u")
    assert (read.user_name, read.user_display_name, read.timeout) == ("alice", "Bob", None)
    assert register({"pubKeyCredParams": []}).algorithms == (-7, -8, -257)
    assert sign_in({}) == sign_in()


@pytest.mark.parametrize(
    ("selection", "resident"),
    [
        ({"residentKey": "required"}, True),
        ({"residentKey": "preferred"}, True),
        ({"residentKey": "discouraged"}, False),
        ({"residentKey": "unheard-of", "requireResidentKey": True}, True),
        ({"requireResidentKey": False}, False),
        ({}, False),
    ],
)
def test_resident_key(selection: Any, resident: bool) -> None:
    assert register({"authenticatorSelection": selection}).resident_key is resident


@pytest.mark.parametrize(
    "options",
    [
        {"rpId": "example.org"},
        {"rpId": 1},
        {"challenge": 1},
        {"challenge": "not base64url!"},
        {"challenge": "A"},
        {"challenge": "+/+/"},
        {"allowCredentials": {}},
        {"allowCredentials": ["AQ"]},
        {"allowCredentials": [{"type": "public-key"}]},
        {"allowCredentials": [{"type": "public-key", "id": 1}]},
        # dropping the unknown type would ask for any passkey instead of none
        {"allowCredentials": [{"type": "other", "id": "AQ"}]},
        {"extensions": []},
        {"timeout": "soon"},
        [],
        5,
        None,
        {"publicKey": []},
    ],
)
def test_refuses_a_sign_in_it_cannot_read(options: Any) -> None:
    with pytest.raises(RequestRefused) as caught:
        assertion_options("example.com", json.dumps(options), challenge=b"c" * 32)
    assert caught.value.reason is RefusalReason.OPTIONS


@pytest.mark.parametrize(
    "options",
    [
        {"rp": {"id": "example.org"}},
        {"rp": "example.com"},
        {"rp": {"name": 1}},
        {"rp": {"name": "\ud800"}},
        {"user": "alice"},
        {"user": {"id": ""}},
        {"user": {"id": "A" * 88}},
        {"user": {"name": 1}},
        {"user": {"name": "\udc00"}},
        {"user": {"displayName": []}},
        {"pubKeyCredParams": [{"type": "public-key"}]},
        {"pubKeyCredParams": [{"type": "public-key", "alg": "ES256"}]},
        {"pubKeyCredParams": [{"type": "public-key", "alg": True}]},
        {"pubKeyCredParams": [{"type": "public-key", "alg": 1 << 80}]},
        {"pubKeyCredParams": [{"type": "other", "alg": -7}]},
        {"excludeCredentials": [{"type": "other", "id": "AQ"}]},
        {"authenticatorSelection": []},
        {"authenticatorSelection": {"requireResidentKey": "yes"}},
    ],
)
def test_refuses_a_registration_it_cannot_read(options: Any) -> None:
    with pytest.raises(RequestRefused) as caught:
        register(options)
    assert caught.value.reason is RefusalReason.OPTIONS


def test_refuses_a_registration_for_nobody() -> None:
    with pytest.raises(RequestRefused):
        register(user_name=None)
    assert register({"user": {"name": "bob"}}, user_name=None).user_name == "bob"


@pytest.mark.parametrize("text", ["", "{", "\x00", b"\xff\xfe\xff", "[" * 100_000])
def test_refuses_what_is_not_json(text: str | bytes) -> None:
    with pytest.raises(RequestRefused):
        assertion_options("example.com", text, challenge=b"c")


_names = st.sampled_from(
    (
        "challenge rp user id rpId name displayName type alg allowCredentials timeout pubKeyCredParams "
        "excludeCredentials authenticatorSelection residentKey extensions publicKey"
    ).split()
)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("public-key"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(_names, _json, max_size=6))
def test_any_json_is_read_or_refused(options: Any) -> None:
    for read in (sign_in, register):
        try:
            read(options)
        except RequestRefused:
            pass
