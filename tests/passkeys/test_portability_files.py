"""KeePassXC's .passkey and Bitwarden's JSON: hand-written ones read, ours as they want them, losses, hostile ones."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest

from hybrid.errors import PortabilityError, PortabilityProblem
from hybrid.passkeys.bitwarden import read_bitwarden, write_bitwarden
from hybrid.passkeys.keepassxc_file import read_passkey_file, write_passkey_file
from hybrid.passkeys.portability import LeftOut, Loss, b64url, pem_of
from hybrid.passkeys.store import CredentialState
from tests.passkeys.portability_rig import NOW, der, full, plain, private_key
from tests.passkeys.rig import counting_random

DER = der(private_key())
IN_PASSKEY_FILE = {
    "relyingParty": "example.com",
    "url": "https://example.com/login",
    "username": "ann",
    "credentialId": b64url((1).to_bytes(32, "big")),
    "userHandle": b64url(b"user-1"),
    "privateKey": pem_of(DER),
}


def bitwarden_passkey() -> dict[str, Any]:
    return {
        "credentialId": "00010203-0405-0607-0809-0a0b0c0d0e0f",
        "keyType": "public-key",
        "keyAlgorithm": "ECDSA",
        "keyCurve": "P-256",
        "keyValue": b64url(DER),
        "rpId": "example.com",
        "userHandle": b64url(b"user-1"),
        "userName": "ann",
        "counter": "0",
        "rpName": "Example",
        "userDisplayName": "Ann",
        "discoverable": "true",
        "creationDate": "2027-01-15T08:00:00.000Z",
    }


def bitwarden_document(*passkeys: dict[str, Any]) -> dict[str, Any]:
    login = {"fido2Credentials": list(passkeys), "uris": [], "username": "ann", "password": "p", "totp": None}
    return {
        "encrypted": False,
        "folders": [{"id": "f", "name": "Work"}],
        "items": [
            {"id": "1", "type": 1, "name": "Example", "login": login, "revisionDate": "2027-01-15T08:00:01.5Z"},
            {"id": "2", "type": 2, "name": "A note", "secureNote": {"type": 0}},
            {"id": "3", "type": 1, "name": "No passkey", "login": {"username": "x"}},
        ],
    }


def dumped(document: Any) -> bytes:
    return json.dumps(document).encode()


# --- .passkey --------------------------------------------------------------------------------------------------------


def test_a_passkey_file_is_read() -> None:
    imported = read_passkey_file(dumped(IN_PASSKEY_FILE), now=NOW)
    assert imported.credentials == (
        plain(rp_name="", user_display_name="", created_at=NOW, modified_at=NOW, origin_store="passkey"),
    )


def test_a_passkey_file_is_written_as_keepassxc_wants_it() -> None:
    exported = write_passkey_file(plain())
    written = json.loads(exported.data)
    assert written == IN_PASSKEY_FILE | {"url": "https://example.com"}
    lines = written["privateKey"].splitlines()
    assert (lines[0], lines[-1]) == ("-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----")
    assert max(map(len, lines)) == 64


def test_every_loss_of_a_passkey_file_is_named() -> None:
    losses = [finding.what for finding in write_passkey_file(full()).report.losses]
    assert losses == [
        Loss.RP_NAME,
        Loss.DISPLAY_NAME,
        Loss.TIMES,
        Loss.CRED_PROTECT,
        Loss.PRF,
        Loss.CRED_BLOB,
        Loss.LARGE_BLOB,
        Loss.LARGE_BLOB_KEY,
        Loss.PAYMENTS,
        Loss.AAGUID,
        Loss.NOTE,
        Loss.ICON,
        Loss.USE,
    ]


@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
def test_other_keys_go_through_a_passkey_file(kind: str) -> None:
    (taken,) = read_passkey_file(write_passkey_file(plain(kind)).data, now=NOW).credentials
    assert (taken.algorithm, taken.private_key) == (plain(kind).algorithm, plain(kind).private_key)


def test_a_passkey_without_names_goes_through_a_passkey_file() -> None:
    """KeePassXC wants the members to be there since 2.7.7, not to be filled."""
    given = plain(user_name="", user_id=b"", discoverable=False)
    exported = write_passkey_file(given)
    members = json.loads(exported.data)
    assert (members["username"], members["userHandle"], exported.report.carried) == ("", "", 1)
    imported = read_passkey_file(exported.data, now=NOW)
    assert [finding.what for finding in imported.report.findings] == [LeftOut.USER_HANDLE]


def test_what_is_hidden_is_not_written() -> None:
    exported = write_passkey_file(plain(state=CredentialState.HIDDEN))
    assert (exported.data, exported.report.carried) == (b"", 0)
    assert [finding.what for finding in exported.report.findings] == [LeftOut.STATE]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"privateKey": pem_of(DER).replace("PRIVATE", "ENCRYPTED PRIVATE")}, LeftOut.KEY),
        ({"privateKey": pem_of(DER).replace("PRIVATE", "EC PRIVATE")}, LeftOut.KEY),
        ({"privateKey": b64url(DER)}, LeftOut.KEY),
        ({"privateKey": "x" * 100_000}, LeftOut.KEY),
        ({"privateKey": None}, LeftOut.KEY),
        ({"privateKey": pem_of(DER[:-3])}, LeftOut.KEY),
        ({"credentialId": "a b"}, LeftOut.CREDENTIAL_ID),
        ({"userHandle": "%"}, LeftOut.USER_HANDLE),
        ({"relyingParty": ["example.com"]}, LeftOut.MALFORMED),
        ({"relyingParty": "."}, LeftOut.RP_ID),
    ],
    ids=str,
)
def test_a_forged_passkey_file_gives_nothing(changes: dict[str, Any], why: LeftOut) -> None:
    imported = read_passkey_file(dumped(IN_PASSKEY_FILE | changes), now=NOW)
    assert (imported.credentials, [finding.what for finding in imported.report.findings]) == ((), [why])


@pytest.mark.parametrize("name", sorted(set(IN_PASSKEY_FILE) - {"url"}))
def test_a_passkey_file_without_a_member_is_none(name: str) -> None:
    with pytest.raises(PortabilityError) as caught:
        read_passkey_file(dumped({key: value for key, value in IN_PASSKEY_FILE.items() if key != name}), now=NOW)
    assert caught.value.reason is PortabilityProblem.FORMAT


# --- Bitwarden -------------------------------------------------------------------------------------------------------


def test_an_export_of_bitwarden_is_read() -> None:
    imported = read_bitwarden(dumped(bitwarden_document(bitwarden_passkey())), now=NOW)
    assert imported.credentials == (
        plain(
            credential_id=bytes(range(16)),
            user_display_name="Ann",
            created_at=NOW,  # 2027-01-15T08:00:00Z
            modified_at=NOW + 1,
            origin_store="bitwarden",
        ),
    )
    assert (imported.report.others, imported.report.findings) == (2, [])


def test_an_export_of_bitwarden_is_written_as_it_wants_it() -> None:
    exported = write_bitwarden(
        [plain(credential_id=bytes(range(16)), user_display_name="Ann", created_at=NOW)], random=counting_random()
    )
    written = json.loads(exported.data)
    assert set(written) == {"encrypted", "folders", "items"}
    assert written["encrypted"] is False
    (item,) = written["items"]
    assert (item["type"], item["name"]) == (1, "Example")
    assert UUID(item["id"]).version == 4
    assert item["login"]["fido2Credentials"] == [bitwarden_passkey()]
    assert item["login"]["uris"] == [{"match": None, "uri": "https://example.com"}]


def test_an_id_of_another_length_has_a_prefix() -> None:
    exported = write_bitwarden([plain(credential_id=b"\xfb\xff")], random=counting_random())
    passkey = json.loads(exported.data)["items"][0]["login"]["fido2Credentials"][0]
    assert passkey["credentialId"] == "b64.-_8"
    assert read_bitwarden(exported.data, now=NOW).credentials[0].credential_id == b"\xfb\xff"


@pytest.mark.parametrize("changes", [{}, {"discoverable": False}, {"discoverable": False, "user_id": b""}], ids=str)
def test_what_bitwarden_gets_comes_back(changes: dict[str, Any]) -> None:
    exported = write_bitwarden([plain(**changes)], random=counting_random())
    assert exported.report.findings == []
    assert read_bitwarden(exported.data, now=NOW + 9).credentials == (plain(origin_store="bitwarden", **changes),)


def test_every_loss_at_bitwarden_is_named() -> None:
    losses = [finding.what for finding in write_bitwarden([full()], random=counting_random()).report.losses]
    assert losses == [
        Loss.CRED_PROTECT,
        Loss.PRF,
        Loss.CRED_BLOB,
        Loss.LARGE_BLOB,
        Loss.LARGE_BLOB_KEY,
        Loss.PAYMENTS,
        Loss.AAGUID,
        Loss.NOTE,
        Loss.ICON,
        Loss.USE,
    ]


@pytest.mark.parametrize("kind", ["p384", "ed25519", "rsa"])
def test_bitwarden_gets_no_keys_that_it_does_not_know(kind: str) -> None:
    report = write_bitwarden([plain(kind)], random=counting_random()).report
    assert (report.carried, [finding.what for finding in report.findings]) == (0, [LeftOut.KEY_KIND])


@pytest.mark.parametrize(
    ("counter", "lost"), [("0", []), (0, []), (None, []), ("7", [Loss.COUNTER]), (7, [Loss.COUNTER])]
)
def test_a_counter_becomes_none(counter: Any, lost: list[Loss]) -> None:
    imported = read_bitwarden(dumped(bitwarden_document(bitwarden_passkey() | {"counter": counter})), now=NOW)
    assert imported.credentials[0].sign_count is None
    assert [finding.what for finding in imported.report.losses] == lost


def test_a_counter_goes_to_bitwarden() -> None:
    exported = write_bitwarden([plain(sign_count=7)], random=counting_random())
    assert json.loads(exported.data)["items"][0]["login"]["fido2Credentials"][0]["counter"] == "7"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"keyAlgorithm": "EdDSA"}, LeftOut.KEY_KIND),
        ({"keyCurve": "P-384"}, LeftOut.KEY_KIND),
        ({"keyType": None}, LeftOut.KEY_KIND),
        ({"keyValue": b64url(der(private_key("ed25519")))}, LeftOut.KEY_KIND),
        ({"keyValue": 1}, LeftOut.KEY),
        ({"credentialId": "not-a-uuid"}, LeftOut.CREDENTIAL_ID),
        ({"credentialId": 5}, LeftOut.CREDENTIAL_ID),
        ({"credentialId": "b64.!"}, LeftOut.CREDENTIAL_ID),
        ({"userHandle": 5}, LeftOut.USER_HANDLE),
        ({"userHandle": None}, LeftOut.USER_HANDLE),
        ({"counter": "x"}, LeftOut.MALFORMED),
        ({"counter": -1}, LeftOut.MALFORMED),
        ({"counter": 1.5}, LeftOut.MALFORMED),
        ({"counter": "9" * 5000}, LeftOut.MALFORMED),
        ({"rpName": 5}, LeftOut.MALFORMED),
        ({"rpId": None}, LeftOut.RP_ID),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_forged_passkey_of_bitwarden_is_left_out(changes: dict[str, Any], why: LeftOut) -> None:
    imported = read_bitwarden(dumped(bitwarden_document(bitwarden_passkey() | changes)), now=NOW)
    assert (imported.credentials, [finding.what for finding in imported.report.findings]) == ((), [why])


def test_what_is_in_the_bin_there_is_left_out() -> None:
    document = bitwarden_document(bitwarden_passkey())
    document["items"][0]["deletedDate"] = "2027-01-15T08:00:00Z"
    imported = read_bitwarden(dumped(document), now=NOW)
    assert (imported.credentials, [finding.what for finding in imported.report.findings]) == ((), [LeftOut.STATE])


@pytest.mark.parametrize("when", [None, 5, "soon", "0001-01-01T00:00:00Z", "1960-01-01", "9999-12-31T23:59:59-23:59"])
def test_a_time_that_is_none_becomes_now(when: Any) -> None:
    imported = read_bitwarden(dumped(bitwarden_document(bitwarden_passkey() | {"creationDate": when})), now=NOW + 3)
    assert imported.credentials[0].created_at == NOW + 3


def test_an_export_that_is_written_anew_keeps_all_that_is_not_ours() -> None:
    before = bitwarden_document(bitwarden_passkey() | {"later": {"x": 1}})
    (credential,) = read_bitwarden(dumped(before), now=NOW).credentials
    exported = write_bitwarden([credential, plain(number=2)], random=counting_random(), into=dumped(before))
    after = json.loads(exported.data)
    assert after["items"].pop()["login"]["fido2Credentials"][0]["userHandle"] == b64url(b"user-2")
    assert after == before
    assert exported.report.others == 2


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({"encrypted": True, "data": "2.x"}, PortabilityProblem.ENCRYPTED),
        ({"encrypted": False}, PortabilityProblem.FORMAT),
        ({"items": []}, PortabilityProblem.FORMAT),
        ({"encrypted": False, "items": {}}, PortabilityProblem.FORMAT),
        ({"encrypted": False, "items": [5]}, PortabilityProblem.MALFORMED),
        ({"encrypted": False, "items": [{"login": {"fido2Credentials": {}}}]}, PortabilityProblem.MALFORMED),
        ({"encrypted": False, "items": [{"login": {"fido2Credentials": [1]}}]}, PortabilityProblem.MALFORMED),
    ],
    ids=str,
)
def test_what_is_no_export_of_bitwarden_gives_one_error(document: Any, problem: PortabilityProblem) -> None:
    with pytest.raises(PortabilityError) as caught:
        read_bitwarden(dumped(document), now=NOW)
    assert caught.value.reason is problem
