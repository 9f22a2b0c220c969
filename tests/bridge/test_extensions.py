"""prf, largeBlob and credProps on the wire and back."""

from __future__ import annotations

import hashlib
import zlib
from typing import Any

import pytest
from fido2 import cbor

from hybrid.errors import RefusalReason, RemoteProtocolError, RequestRefused, ResponseRejected
from hybrid.fido2_bridge import base64url
from hybrid.fido2_bridge.ceremony import AssertionRequest, RegistrationRequest, plan_assertion, plan_registration
from hybrid.fido2_bridge.extensions import MAX_BLOB
from hybrid.fido2_bridge.options import AssertionOptions, RegistrationOptions, assertion_options
from tests.bridge.bridge_phone import FLAGS, GET_INFO, Phone, authenticator_data

INFO = cbor.encode(GET_INFO)
PLAIN_INFO = cbor.encode({1: ["FIDO_2_0"], 3: bytes(16)})
ORIGIN = "https://example.com"


def salt(text: bytes) -> bytes:
    return hashlib.sha256(b"WebAuthn PRF\x00" + text).digest()


def registration(extensions: Any, info: bytes = INFO) -> RegistrationRequest:
    options = RegistrationOptions(
        challenge=b"c",
        user_id=b"u",
        user_name="a",
        user_display_name="a",
        rp_name="e",
        algorithms=(-7,),
        extensions=extensions,
    )
    return plan_registration(options, ORIGIN).request(info)


def sign_in(extensions: Any, *, allow: tuple[bytes, ...] = (), info: bytes = INFO) -> AssertionRequest:
    options = AssertionOptions(challenge=b"c", allow=allow, extensions=extensions)
    return plan_assertion(options, ORIGIN).request(info)


def sent(request: RegistrationRequest | AssertionRequest) -> Any:
    members: Any = cbor.decode(request.message[1:])
    return members.get(6 if request.message[0] == 1 else 4)


def results(request: AssertionRequest, unsigned: Any) -> Any:
    """Client extension results of an answer with these unsigned outputs."""
    members = {
        1: {"id": b"\x01", "type": "public-key"},
        2: authenticator_data("example.com", FLAGS),
        3: b"s",
        4: {"id": b"u"},
        8: unsigned,
    }
    return request.result(b"\x00" + cbor.encode(members)).extensions


@pytest.fixture
def phone() -> Phone:
    phone = Phone()
    phone.answer(registration({}).message)
    return phone


def test_prf_salts_are_hashed_once_and_sent_under_the_native_name() -> None:
    assert sent(registration({"prf": {}})) == {"prf": {}}
    assert sent(registration({"prf": {"eval": {"first": b"a"}}})) == {"prf": {"eval": {"first": salt(b"a")}}}
    one, two = b"\x01" * 16, b"\x02" * 3
    request = sign_in(
        {
            "prf": {
                "eval": {"first": "YQ", "second": b""},
                "evalByCredential": {
                    base64url.encode(one): {"first": b"b"},
                    base64url.encode(two): {"first": b"c", "second": "ZA"},
                },
            }
        },
        allow=(one, two),
    )
    assert sent(request) == {
        "prf": {
            "eval": {"first": salt(b"a"), "second": salt(b"")},
            "evalByCredential": {
                one: {"first": salt(b"b")},
                two: {"first": salt(b"c"), "second": salt(b"d")},
            },
        }
    }
    assert request.message.index(two + b"\xa2") < request.message.index(one + b"\xa1"), "shorter keys go first"
    assert request.message[1:] == cbor.encode(cbor.decode(request.message[1:]))


def test_prf_gives_the_same_secret_at_registration_and_sign_in(phone: Phone) -> None:
    made = registration({"prf": {"eval": {"first": b"x", "second": b"y"}}})
    first = made.result(phone.answer(made.message))
    assert first.extensions["prf"]["enabled"] is True
    credential_id = first.answer.credential.credential_id
    by_credential = {base64url.encode(credential_id): {"first": b"y"}}
    asked = sign_in({"prf": {"eval": {"first": b"x"}, "evalByCredential": by_credential}}, allow=(credential_id,))
    second = asked.result(phone.answer(asked.message))
    assert second.extensions == {"prf": {"results": {"first": first.extensions["prf"]["results"]["second"]}}}
    shown = second.to_json()["clientExtensionResults"]["prf"]["results"]["first"]
    assert base64url.decode(shown) == second.extensions["prf"]["results"]["first"]


def test_no_secret_is_in_a_repr(phone: Phone) -> None:
    request = sign_in({"prf": {"eval": {"first": b"secret input"}}})
    result = request.result(phone.answer(request.message))
    secret = result.extensions["prf"]["results"]["first"]
    for shown in (repr(request), repr(result), repr(request.plan.extensions), repr(request.plan.options)):
        for value in (secret, salt(b"secret input"), b"secret input", result.signature):
            assert repr(value)[2:-1] not in shown


def test_extensions_that_the_phone_does_not_list_are_not_sent() -> None:
    made = registration({"prf": {"eval": {"first": b"x"}}, "largeBlob": {"support": "preferred"}}, PLAIN_INFO)
    assert sent(made) is None
    phone = Phone(get_info=PLAIN_INFO)
    assert made.result(phone.answer(made.message)).extensions == {
        "prf": {"enabled": False},
        "largeBlob": {"supported": False},
    }
    asked = sign_in({"prf": {"eval": {"first": b"x"}}, "largeBlob": {"read": True}}, info=PLAIN_INFO)
    assert sent(asked) is None
    assert results(asked, {"prf": {"results": {"first": bytes(32)}}}) == {"prf": {}, "largeBlob": {}}
    with pytest.raises(RequestRefused):
        registration({"largeBlob": {"support": "required"}}, PLAIN_INFO)


def test_unknown_extensions_are_ignored_and_credprops_stays_here(phone: Phone) -> None:
    made = registration({"credProps": True, "unheardOf": {"a": 1}})
    assert sent(made) is None
    assert made.result(phone.answer(made.message)).extensions == {"credProps": {"rk": True}}
    assert sent(sign_in({"unheardOf": 1, "appid": "x", "prf": {}})) is None
    asked = sign_in({})
    assert results(asked, {"prf": 5, "unheardOf": 1}) == {}


def test_a_large_blob_is_written_deflated_and_read_back(phone: Phone) -> None:
    blob = b"certificate " * 100
    credential_id = phone.passkeys[0].credential_id
    write = sign_in({"largeBlob": {"write": blob}}, allow=(credential_id,))
    wire = sent(write)["largeBlob"]
    assert set(wire) == {"write", "originalSize"}
    assert (zlib.decompress(wire["write"], wbits=-15), wire["originalSize"]) == (blob, len(blob))
    assert write.result(phone.answer(write.message)).extensions == {"largeBlob": {"written": True}}
    read = sign_in({"largeBlob": {"read": True}})
    assert sent(read) == {"largeBlob": {"read": True}}
    assert read.result(phone.answer(read.message)).extensions == {"largeBlob": {"blob": blob}}


def packed(data: bytes) -> bytes:
    deflate = zlib.compressobj(wbits=-15)
    return deflate.compress(data) + deflate.flush()


@pytest.mark.parametrize(
    "output",
    [
        {},
        {"blob": b"", "originalSize": 0},
        {"blob": b"not deflate", "originalSize": 3},
        {"blob": packed(b"abc"), "originalSize": 4},
        {"blob": packed(b"abc")[:-1], "originalSize": 3},
        {"blob": packed(bytes(MAX_BLOB + 1)), "originalSize": MAX_BLOB + 1},
    ],
)
def test_a_blob_that_cannot_be_inflated_is_no_blob(output: Any) -> None:
    assert results(sign_in({"largeBlob": {"read": True}}), {"largeBlob": output}) == {"largeBlob": {}}


@pytest.mark.parametrize(
    ("asked", "unsigned"),
    [
        ({"prf": {"eval": {"first": b"x"}}}, {"prf": b""}),
        ({"prf": {"eval": {"first": b"x"}}}, {"prf": {"results": 1}}),
        ({"prf": {"eval": {"first": b"x"}}}, {"prf": {"results": {"first": bytes(31)}}}),
        ({"prf": {"eval": {"first": b"x"}}}, {"prf": {"results": {"first": "x" * 32}}}),
        ({"prf": {"eval": {"first": b"x"}}}, {"prf": {"results": {"second": bytes(32)}}}),
        ({"prf": {"eval": {"first": b"x"}}}, {"prf": {"results": {"first": bytes(32), "second": bytes(32)}}}),
        ({"prf": {"eval": {"first": b"x", "second": b"y"}}}, {"prf": {"results": {"first": bytes(32)}}}),
        ({"largeBlob": {"read": True}}, {"largeBlob": 1}),
        ({"largeBlob": {"read": True}}, {"largeBlob": {"blob": "text", "originalSize": 1}}),
        ({"largeBlob": {"read": True}}, {"largeBlob": {"blob": b""}}),
        ({"largeBlob": {"read": True}}, {"largeBlob": {"blob": b"", "originalSize": -1}}),
        ({"largeBlob": {"write": b"x"}}, {"largeBlob": {"written": 1}}),
    ],
)
def test_outputs_of_the_wrong_shape_are_a_protocol_error(asked: Any, unsigned: Any) -> None:
    with pytest.raises(RemoteProtocolError):
        results(sign_in(asked, allow=(b"\x01",)), unsigned)


def test_a_passkey_without_the_required_storage_is_rejected() -> None:
    made = registration({"largeBlob": {"support": "required"}})
    phone = Phone()
    answer: Any = cbor.decode(phone.answer(made.message)[1:])
    assert made.result(b"\x00" + cbor.encode(answer)).extensions == {"largeBlob": {"supported": True}}
    for output in ({}, {"largeBlob": {"supported": False}}):
        with pytest.raises(ResponseRejected) as caught:
            made.result(b"\x00" + cbor.encode(answer | {6: output}))
        assert caught.value.reason == "large-blob"
    with pytest.raises(RemoteProtocolError):
        made.result(b"\x00" + cbor.encode(answer | {6: {"largeBlob": {"supported": 1}}}))


@pytest.mark.parametrize(
    "extensions",
    [
        {"prf": 1},
        {"prf": {"eval": 1}},
        {"prf": {"eval": {}}},
        {"prf": {"eval": {"second": b"x"}}},
        {"prf": {"eval": {"first": 1}}},
        {"prf": {"eval": {"first": "???"}}},
        {"prf": {"evalByCredential": {"AQ": {"first": b"x"}}}},
        {"largeBlob": True},
        {"largeBlob": {"support": "sometimes"}},
        {"largeBlob": {"support": 1}},
        {"largeBlob": {"read": True}},
        {"largeBlob": {"write": b"x"}},
    ],
)
def test_refuses_registration_inputs(extensions: Any) -> None:
    with pytest.raises(RequestRefused) as caught:
        registration(extensions)
    assert caught.value.reason is RefusalReason.OPTIONS


@pytest.mark.parametrize(
    ("extensions", "allow"),
    [
        ({"prf": []}, ()),
        ({"prf": {"evalByCredential": []}}, (b"\x01",)),
        ({"prf": {"evalByCredential": {"AQ": {"first": b"x"}}}}, ()),
        ({"prf": {"evalByCredential": {"Ag": {"first": b"x"}}}}, (b"\x01",)),
        ({"prf": {"evalByCredential": {"": {"first": b"x"}}}}, (b"\x01",)),
        ({"prf": {"evalByCredential": {"!": {"first": b"x"}}}}, (b"\x01",)),
        ({"prf": {"evalByCredential": {"AQ": None}}}, (b"\x01",)),
        ({"prf": {"evalByCredential": {"AQ": {}}}}, (b"\x01",)),
        ({"largeBlob": {"support": "preferred"}}, ()),
        ({"largeBlob": {"read": "yes"}}, ()),
        ({"largeBlob": {"write": b"x"}}, ()),
        ({"largeBlob": {"write": b"x"}}, (b"\x01", b"\x02")),
        ({"largeBlob": {"write": 1}}, (b"\x01",)),
        ({"largeBlob": {"read": True, "write": b"x"}}, (b"\x01",)),
    ],
)
def test_refuses_sign_in_inputs(extensions: Any, allow: tuple[bytes, ...]) -> None:
    with pytest.raises(RequestRefused) as caught:
        sign_in(extensions, allow=allow)
    assert caught.value.reason is RefusalReason.OPTIONS


def test_extension_inputs_come_through_json() -> None:
    options = assertion_options("example.com", '{"extensions": {"prf": {"eval": {"first": "YQ"}}}}', challenge=b"c")
    request = plan_assertion(options, ORIGIN).request(INFO)
    assert sent(request) == {"prf": {"eval": {"first": salt(b"a")}}}
