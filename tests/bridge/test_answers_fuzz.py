"""Any bytes from the phone give a checked result or a documented error, through both doors."""

from __future__ import annotations

from typing import Any

import cbor2
import pytest
from fido2.client import DefaultClientDataCollector
from fido2.ctap import CtapError
from fido2.webauthn import PublicKeyCredentialRequestOptions
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hybrid.errors import RemoteProtocolError, ResponseRejected
from hybrid.fido2_bridge import HybridWebAuthnClient
from hybrid.fido2_bridge.ceremony import plan_assertion, plan_registration
from hybrid.fido2_bridge.options import AssertionOptions, RegistrationOptions
from tests.bridge.bridge_phone import AAGUID, FLAGS, FakeSession, Phone, authenticator_data, key_pair, loop_in_thread

pytestmark = pytest.mark.slow  # most of it starts processes, or takes many examples

DOCUMENTED = (CtapError, RemoteProtocolError, ResponseRejected)
RP_ID = "example.com"
ORIGIN = "https://example.com"
INFO = Phone().get_info

ASSERTION = plan_assertion(
    AssertionOptions(challenge=b"c", extensions={"prf": {"eval": {"first": b"x"}}, "largeBlob": {"read": True}}),
    ORIGIN,
).request(INFO)
REGISTRATION = plan_registration(
    RegistrationOptions(
        challenge=b"c",
        user_id=b"u",
        user_name="a",
        user_display_name="a",
        rp_name="e",
        algorithms=(-7, -8, -257),
        extensions={"prf": {"eval": {"first": b"x"}}, "largeBlob": {}, "credProps": True},
    ),
    ORIGIN,
).request(INFO)

_cose = st.one_of(
    st.sampled_from([dict(key_pair(algorithm)[1]) for algorithm in (-7, -8, -257)]),
    st.dictionaries(st.sampled_from([1, 3, -1, -2, -3]), st.integers(-9, 9) | st.binary(max_size=33)),
)
_flags = st.sampled_from([FLAGS, FLAGS | 0x80, FLAGS | 0x40, FLAGS | 0xC0]) | st.integers(0, 255)
_value = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.binary(max_size=40)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "type", "prf", "largeBlob", "results", "first", "blob", "originalSize"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
_attested = st.builds(
    lambda cose, name: AAGUID + len(name).to_bytes(2, "big") + name + cbor2.dumps(cose), _cose, st.binary(max_size=20)
)
_auth_data = st.builds(
    lambda flags, attested, tail: authenticator_data(RP_ID, flags & ~0x40, attested) + tail,
    _flags,
    st.just(b"") | _attested,
    st.just(b"") | _value.map(cbor2.dumps) | st.binary(max_size=5),
)
_members = st.fixed_dictionaries(
    {},
    optional={
        1: st.just({"id": b"\x01", "type": "public-key"}) | st.just("none") | _value,
        2: _auth_data | _value,
        3: st.just({}) | st.binary(max_size=70) | _value,
        4: st.just({"id": b"u"}) | _value,
        6: _value,
        8: _value,
    },
)
_answers = st.one_of(
    st.binary(max_size=80),
    st.binary(max_size=80).map(lambda data: b"\x00" + data),
    _members.map(lambda members: b"\x00" + cbor2.dumps(members)),
)


@settings(max_examples=400)
@given(_answers)
@example(b"")
def test_any_bytes_are_a_result_or_a_documented_error(answer: bytes) -> None:
    for judge in (ASSERTION.result, REGISTRATION.result):
        try:
            document: Any = judge(answer)
        except DOCUMENTED:
            continue
        assert document.to_json()["type"] == "public-key"


def test_any_bytes_are_a_result_or_a_documented_error_for_python_fido2_too() -> None:
    with loop_in_thread() as loop:
        session = FakeSession(loop, Phone())
        client = HybridWebAuthnClient(session, DefaultClientDataCollector(ORIGIN))
        options = PublicKeyCredentialRequestOptions(challenge=b"c", rp_id=RP_ID)
        creation: Any = {
            "rp": {"id": RP_ID, "name": "e"},
            "user": {"id": b"u", "name": "a"},
            "challenge": b"c",
            "pubKeyCredParams": [{"type": "public-key", "alg": alg} for alg in (-7, -8, -257)],
        }

        @settings(max_examples=200, deadline=None)
        @given(_answers)
        def check(answer: bytes) -> None:
            session.answer = answer
            for ask in (lambda: client.get_assertion(options), lambda: client.make_credential(creation)):
                try:
                    ask()
                except DOCUMENTED:
                    pass

        session.phone.answer = lambda request: b""  # type: ignore[method-assign]  # a test double
        check()
