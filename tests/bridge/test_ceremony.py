"""The command line's path: options, request, checked answer, JSON; python-fido2's server is the judge."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_der_public_key
from fido2 import cbor
from fido2.ctap import CtapError
from fido2.server import Fido2Server
from fido2.webauthn import AttestedCredentialData, AuthenticatorData, PublicKeyCredentialRpEntity

from hybrid.errors import RemoteProtocolError, ResponseRejected
from hybrid.fido2_bridge import base64url
from hybrid.fido2_bridge.ceremony import AssertionRequest, RegistrationRequest, plan_assertion, plan_registration
from hybrid.fido2_bridge.credential_key import CredentialKey, load_public_key
from hybrid.fido2_bridge.options import assertion_options, registration_options
from tests.bridge.bridge_phone import AAGUID, FLAGS, GET_INFO, Phone, authenticator_data, key_pair, sign

RP_ID = "example.com"
ORIGIN = "https://example.com"
CHALLENGE = bytes(range(32))
USER_ID = b"user-1"
FLAG = AuthenticatorData.FLAG
INFO = cbor.encode(GET_INFO)


def registration(
    options: dict[str, Any] | None = None, get_info: bytes = INFO, algorithm: int = -7
) -> RegistrationRequest:
    given = {"pubKeyCredParams": [{"type": "public-key", "alg": algorithm}]} | (options or {})
    read = registration_options(RP_ID, json.dumps(given), user_name="alice", challenge=CHALLENGE, user_id=USER_ID)
    return plan_registration(read, ORIGIN).request(get_info)


def sign_in(options: dict[str, Any] | None = None, get_info: bytes = INFO) -> AssertionRequest:
    read = assertion_options(RP_ID, json.dumps(options or {}), challenge=CHALLENGE)
    return plan_assertion(read, ORIGIN).request(get_info)


def state(rp: Fido2Server) -> Any:
    return rp.authenticate_begin(challenge=CHALLENGE, user_verification=None)[1]


@pytest.mark.parametrize("algorithm", [-7, -8, -257])
def test_the_json_of_both_ceremonies_convinces_a_server(algorithm: int) -> None:
    phone = Phone()
    rp = Fido2Server(PublicKeyCredentialRpEntity(id=RP_ID, name="Example"))
    request = registration(algorithm=algorithm)
    document = request.result(phone.answer(request.message)).to_json()
    auth_data = rp.register_complete(state(rp), json.loads(json.dumps(document)))
    credential = auth_data.credential_data
    assert credential is not None

    key = load_public_key(base64url.decode(document["response"]["publicKey"]))
    asked = sign_in()
    answer = asked.result(phone.answer(asked.message), public_key=key).to_json()
    rp.authenticate_complete(state(rp), [credential], json.loads(json.dumps(answer)))
    assert len(phone.requests) == 2


AROUND_A_RESPONSE = {
    "id": base64url.encode(bytes(16)),
    "rawId": base64url.encode(bytes(16)),
    "type": "public-key",
    "authenticatorAttachment": "cross-platform",
    "clientExtensionResults": {},
}


def test_registration_json_has_the_members_of_webauthn() -> None:
    phone = Phone()
    request = registration()
    document = request.result(phone.answer(request.message)).to_json()
    response = document.pop("response")
    assert document == AROUND_A_RESPONSE
    assert response["transports"] == ["hybrid", "internal"]
    assert response["publicKeyAlgorithm"] == -7
    public: Any = load_der_public_key(base64url.decode(response["publicKey"]))
    assert public == phone.passkeys[0].key.public_key()
    attestation: Any = cbor.decode(base64url.decode(response["attestationObject"]))
    assert attestation["authData"] == base64url.decode(response["authenticatorData"])
    assert (attestation["fmt"], attestation["attStmt"]) == ("none", {})
    assert json.loads(base64url.decode(response["clientDataJSON"])) == {
        "type": "webauthn.create",
        "challenge": base64url.encode(CHALLENGE),
        "origin": ORIGIN,
        "crossOrigin": False,
    }
    assert "=" not in json.dumps(document | response)


def test_assertion_json_has_the_members_of_webauthn() -> None:
    phone = Phone()
    phone.answer(registration().message)
    request = sign_in()
    document = request.result(phone.answer(request.message)).to_json()
    response = document.pop("response")
    assert document == AROUND_A_RESPONSE
    assert set(response) == {"clientDataJSON", "authenticatorData", "signature", "userHandle"}
    assert base64url.decode(response["userHandle"]) == USER_ID
    assert json.loads(base64url.decode(response["clientDataJSON"]))["type"] == "webauthn.get"


def test_requests_are_canonical_and_complete() -> None:
    ids = [{"type": "public-key", "id": "AQ", "transports": ["usb"]}, {"type": "public-key", "id": "Ag"}]
    made: Any = cbor.decode(registration({"excludeCredentials": ids, "attestation": "direct"}).message[1:])
    request = plan_registration(
        registration_options(RP_ID, user_name="alice", challenge=CHALLENGE, user_id=USER_ID), ORIGIN
    ).request(INFO)
    default: Any = cbor.decode(request.message[1:])
    client_data = request.plan.client_data
    assert default == {
        1: hashlib.sha256(client_data).digest(),
        2: {"id": RP_ID, "name": RP_ID},
        3: {"id": USER_ID, "name": "alice", "displayName": "alice"},
        4: [{"alg": alg, "type": "public-key"} for alg in (-7, -8, -257)],
        7: {"rk": True, "uv": True},
    }
    assert cbor.encode(default) == request.message[1:]
    assert request.message[1:].index(b"alg") < request.message[1:].index(b"type")
    assert made[5] == [{"id": b"\x01", "type": "public-key"}, {"id": b"\x02", "type": "public-key"}]
    got: Any = cbor.decode(sign_in({"allowCredentials": ids}).message[1:])
    assert got[1] == RP_ID
    assert got[3] == made[5]
    assert got[5] == {"uv": True}
    got = cbor.decode(sign_in().message[1:])
    assert set(got) == {1, 2, 5}


# -- answers that do not fit ---------------------------------------------------------------------------------------


class Assertion:
    """A good answer to `request`, to be spoiled."""

    def __init__(self, request: AssertionRequest) -> None:
        self.request = request
        self.key, self.cose = key_pair(-7)
        self.known = load_public_key(cbor.encode(self.cose))
        self.members: dict[int, Any] = {1: {"id": b"\x01", "type": "public-key"}, 4: {"id": USER_ID}}
        self.auth_data()

    def auth_data(self, rp_id: str = RP_ID, flags: int = FLAGS, tail: bytes = b"") -> Assertion:
        self.members[2] = authenticator_data(rp_id, flags) + tail
        digest = hashlib.sha256(self.request.plan.client_data).digest()
        self.members[3] = sign(self.key, self.members[2] + digest)
        return self

    def without(self, *keys: int) -> Assertion:
        for key in keys:
            del self.members[key]
        return self

    def judge(self, public_key: CredentialKey | None = None) -> Any:
        return self.request.result(b"\x00" + cbor.encode(self.members), public_key=public_key)


ALLOW = {"allowCredentials": [{"type": "public-key", "id": "AQ"}]}
ALLOW_OTHERS = {"allowCredentials": [{"type": "public-key", "id": "Ag"}, {"type": "public-key", "id": "Aw"}]}


def test_a_good_answer_is_accepted() -> None:
    for options in ({}, ALLOW):
        good = Assertion(sign_in(options))
        assert good.judge(good.known).credential_id == b"\x01"
    for flags in (FLAGS | FLAG.BE, FLAGS | FLAG.BE | FLAG.BS):
        assert Assertion(sign_in()).auth_data(flags=flags).judge().auth_data.flags == flags
    extended = Assertion(sign_in()).auth_data(flags=FLAGS | FLAG.ED, tail=cbor.encode({"unknown": 1}))
    assert extended.judge(extended.known)


def test_one_allowed_credential_may_be_left_out_of_the_answer() -> None:
    result = Assertion(sign_in(ALLOW)).without(1, 4).judge()
    assert result.credential_id == b"\x01"
    assert "userHandle" not in result.to_json()["response"]


@pytest.mark.parametrize(
    ("reason", "options", "changes"),
    [
        ("rp-id-hash", {}, {"rp_id": "evil.org"}),
        ("rp-id-hash", {}, {"rp_id": "www.example.com"}),
        ("user-presence", {}, {"flags": FLAG.UV}),
        ("user-verification", {}, {"flags": FLAG.UP}),
        ("user-verification", {"userVerification": "discouraged"}, {"flags": FLAG.UP}),
        ("backup-state", {}, {"flags": FLAGS | FLAG.BS}),
        ("credential", ALLOW_OTHERS, {}),
    ],
)
def test_an_assertion_that_does_not_fit_is_rejected(reason: str, options: Any, changes: Any) -> None:
    with pytest.raises(ResponseRejected) as caught:
        Assertion(sign_in(options)).auth_data(**changes).judge()
    assert caught.value.reason == reason
    assert caught.value.identifier == f"response.{reason}"


@pytest.mark.parametrize(("options", "missing"), [({}, 1), ({}, 4), (ALLOW_OTHERS, 1)])
def test_an_assertion_that_leaves_open_who_signed_in_is_rejected(options: Any, missing: int) -> None:
    with pytest.raises(ResponseRejected):
        Assertion(sign_in(options)).without(missing).judge()


@pytest.mark.parametrize("algorithm", [-7, -8, -257])
def test_a_signature_of_another_key_or_over_other_bytes_is_rejected(algorithm: int) -> None:
    other = load_public_key(cbor.encode(key_pair(algorithm)[1]))
    good = Assertion(sign_in())
    with pytest.raises(ResponseRejected) as caught:
        good.judge(other)
    assert caught.value.reason == "signature"
    good.members[2] = good.members[2][:-1] + b"\x01"
    with pytest.raises(ResponseRejected):
        good.judge(good.known)


@pytest.mark.parametrize(
    ("reason", "flags", "rp_id", "asked"),
    [
        ("rp-id-hash", FLAGS, "evil.org", -7),
        ("user-presence", FLAG.UV, RP_ID, -7),
        ("user-verification", FLAG.UP, RP_ID, -7),
        ("backup-state", FLAGS | FLAG.BS, RP_ID, -7),
        ("algorithm", FLAGS, RP_ID, -8),
    ],
)
def test_a_registration_that_does_not_fit_is_rejected(reason: str, flags: int, rp_id: str, asked: int) -> None:
    attested = AttestedCredentialData.create(AAGUID, b"\x01", key_pair(-7)[1])
    members = {1: "none", 2: authenticator_data(rp_id, flags, attested), 3: {}}
    with pytest.raises(ResponseRejected) as caught:
        registration(algorithm=asked).result(b"\x00" + cbor.encode(members))
    assert caught.value.reason == reason


def test_the_phones_bytes_are_handed_on_untouched() -> None:
    attested = AttestedCredentialData.create(AAGUID, b"\x01", key_pair(-7)[1])
    # Extension data and statement in an order and with integers that our own encoder would not write.
    extensions = bytes.fromhex("a2 6362626200 61611801".replace(" ", ""))
    auth_data = authenticator_data(RP_ID, FLAGS | FLAG.ED, attested) + extensions
    statement = bytes.fromhex("a2 63736967 4101 63616c67 3806".replace(" ", ""))
    answer = b"\x00\xa3" + b"\x02" + cbor.encode(auth_data) + b"\x03" + statement + b"\x01" + cbor.encode("packed")
    document = registration().result(answer).to_json()
    attestation = base64url.decode(document["response"]["attestationObject"])
    assert attestation == (b"\xa3\x63fmt\x66packed\x67attStmt" + statement + b"\x68authData" + cbor.encode(auth_data))


def test_an_unknown_algorithm_that_was_asked_for_is_handed_on_without_a_public_key() -> None:
    attested = AAGUID + b"\x00\x01\x01" + cbor.encode({1: 7, 3: -48, -1: bytes(1312)})
    members = {1: "none", 2: authenticator_data(RP_ID, FLAGS, attested), 3: {}}
    response = registration(algorithm=-48).result(b"\x00" + cbor.encode(members)).to_json()["response"]
    assert response["publicKeyAlgorithm"] == -48
    assert "publicKey" not in response


# -- malformed answers ---------------------------------------------------------------------------------------------

POINT = dict(key_pair(-7)[1])
HEAD = authenticator_data(RP_ID)
ATTESTED = AAGUID + b"\x00\x01\x01"


@pytest.mark.parametrize(
    "members",
    [
        {},
        {2: HEAD},
        {3: b"s"},
        {2: "text", 3: b"s"},
        {2: HEAD, 3: "text"},
        {2: HEAD[:-1], 3: b"s"},
        {2: HEAD + b"\x00", 3: b"s"},
        {2: authenticator_data(RP_ID, FLAGS | FLAG.ED), 3: b"s"},
        {2: authenticator_data(RP_ID, FLAGS | FLAG.ED) + b"\x01", 3: b"s"},
        {2: authenticator_data(RP_ID, FLAGS | FLAG.AT), 3: b"s"},
        {1: b"\x01", 2: HEAD, 3: b"s"},
        {1: {}, 2: HEAD, 3: b"s"},
        {1: {"id": b"\x01"}, 2: HEAD, 3: b"s"},
        {1: {"id": b"", "type": "public-key"}, 2: HEAD, 3: b"s"},
        {1: {"id": bytes(1024), "type": "public-key"}, 2: HEAD, 3: b"s"},
        {1: {"id": "x", "type": "public-key"}, 2: HEAD, 3: b"s"},
        {2: HEAD, 3: b"s", 4: b""},
        {2: HEAD, 3: b"s", 4: {}},
        {2: HEAD, 3: b"s", 4: {"id": b""}},
        {2: HEAD, 3: b"s", 4: {"id": bytes(65)}},
        {2: HEAD, 3: b"s", 8: []},
        {2: HEAD, 3: b"s", 1: {"id": b"\x01", "type": "public-key"}, 4: {"id": b"u"}}
        | {number: 0 for number in range(100, 200)},
    ],
)
def test_a_malformed_assertion_is_a_protocol_error(members: Any) -> None:
    with pytest.raises(RemoteProtocolError):
        sign_in().result(b"\x00" + cbor.encode(members))


@pytest.mark.parametrize(
    "attested",
    [
        b"",
        AAGUID,
        AAGUID + b"\x00\x00" + cbor.encode(POINT),
        AAGUID + b"\x00\x05\x01",
        AAGUID + b"\x04\x00" + bytes(1024) + cbor.encode(POINT),
        ATTESTED,
        ATTESTED + b"\x01",
        ATTESTED + cbor.encode({}),
        ATTESTED + cbor.encode({1: 2, 3: "ES256"}),
        ATTESTED + cbor.encode({1: 2, 3: -7}),
        ATTESTED + cbor.encode({**POINT, 1: 1}),
        ATTESTED + cbor.encode({**POINT, -1: 2}),
        ATTESTED + cbor.encode({**POINT, -2: bytes(32)}),
        ATTESTED + cbor.encode({**POINT, -2: POINT[-2][1:]}),
        ATTESTED + cbor.encode({**POINT, -3: "y"}),
        ATTESTED + cbor.encode({1: 1, 3: -8, -1: 6, -2: bytes(31)}),
        ATTESTED + cbor.encode({1: 3, 3: -257, -1: b"\x01" * 16, -2: b"\x01\x00\x01"}),
        ATTESTED + cbor.encode({1: 3, 3: -257, -1: b"\xff" * 4096, -2: b"\x01\x00\x01"}),
        ATTESTED + cbor.encode(POINT) + b"\x00",
    ],
    ids=lambda attested: f"{len(attested)} bytes",
)
def test_a_malformed_credential_is_a_protocol_error(attested: bytes) -> None:
    members = {1: "none", 2: authenticator_data(RP_ID, FLAGS | FLAG.AT) + attested, 3: {}}
    with pytest.raises(RemoteProtocolError):
        registration().result(b"\x00" + cbor.encode(members))


@pytest.mark.parametrize("change", [{1: 5}, {1: None}, {3: b""}, {3: None}, {2: HEAD}, {6: 1}])
def test_a_malformed_registration_is_a_protocol_error(change: dict[int, Any]) -> None:
    attested = AttestedCredentialData.create(AAGUID, b"\x01", key_pair(-7)[1])
    members = {1: "none", 2: authenticator_data(RP_ID, FLAGS, attested), 3: {}} | change
    kept = {key: value for key, value in members.items() if value is not None}
    with pytest.raises(RemoteProtocolError):
        registration().result(b"\x00" + cbor.encode(kept))


@pytest.mark.parametrize(
    "answer", [b"", b"\x00", b"\x00\x01", b"\x00\xbf\xff", b"\x00\xa2\x01\x00\x01\x00", b"\x00\xa0\x00", b"\x00\xff"]
)
def test_bytes_that_are_no_answer_are_a_protocol_error(answer: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        sign_in().result(answer)
    with pytest.raises(RemoteProtocolError):
        registration().result(answer)


@pytest.mark.parametrize("status", [0x01, 0x05, 0x19, 0x27, 0x2D, 0x2E, 0x2F, 0x3A, 0x7F, 0xC9])
def test_a_status_is_handed_on(status: int) -> None:
    for request in (sign_in(), registration()):
        with pytest.raises(CtapError) as caught:
            request.result(bytes([status]))
        assert caught.value.code == status
