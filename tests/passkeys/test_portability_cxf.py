"""Credential exchange documents: hand-written ones read, ours as others want them, losses by name, hostile ones."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from hybrid.errors import PortabilityError, PortabilityProblem
from hybrid.passkeys.cxf import read_cxf, write_cxf
from hybrid.passkeys.portability import LeftOut, Loss, b64url, public_key_of
from hybrid.passkeys.store import Credential, CredentialState
from tests.passkeys.portability_rig import LARGE_BLOB, NOW, der, full, plain, private_key, public_der
from tests.passkeys.rig import counting_random

KEY = b64url(der(private_key()))


def document() -> dict[str, Any]:
    """As an exporter of CXF 1.0 writes it: members after the types that Bitwarden publishes for the format."""
    return {
        "version": {"major": 1, "minor": 0},
        "exporterRpId": "vault.example",
        "exporterDisplayName": "Vault",
        "timestamp": NOW,
        "accounts": [
            {
                "id": "AQ",
                "username": "",
                "email": "ann@example.com",
                "collections": [{"id": "Ag", "title": "Work", "items": [{"item": "Aw"}]}],
                "items": [
                    {
                        "id": "Aw",
                        "creationAt": NOW - 1000,
                        "modifiedAt": NOW - 500,
                        "title": "Example",
                        "scope": {"urls": ["https://example.com"], "androidApps": []},
                        "credentials": [
                            {"type": "basic-auth", "username": {"fieldType": "string", "value": "ann"}},
                            {
                                "type": "passkey",
                                "credentialId": "AAECAwQFBgcICQoLDA0ODw==",  # with padding, which is let pass
                                "rpId": "example.com",
                                "username": "ann",
                                "userDisplayName": "Ann",
                                "userHandle": "dXNlci0x",
                                "key": KEY,
                                "fido2Extensions": {
                                    "hmacCredentials": {
                                        "algorithm": "hmac-sha256",
                                        "credWithUV": b64url(b"u" * 32),
                                        "credWithoutUV": b64url(b"n" * 32),
                                    },
                                    "credBlob": b64url(b"blob"),
                                    "largeBlob": {"uncompressedSize": 1, "data": b64url(LARGE_BLOB[0])},
                                    "payments": True,
                                    "later": {"is": "kept"},
                                },
                                "later": [1],
                            },
                        ],
                        "extensions": [{"name": "theirs"}],
                    },
                    {"id": "BA", "title": "Note", "credentials": [{"type": "from-the-future", "x": None}]},
                ],
            }
        ],
    }


def passkey_of(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["accounts"][0]["items"][0]["credentials"][1]
    return found


def dumped(document: Any) -> bytes:
    return json.dumps(document).encode()


def test_a_document_of_another_exporter_is_read() -> None:
    imported = read_cxf(dumped(document()), now=NOW)
    assert imported.credentials == (
        Credential(
            credential_id=bytes(range(16)),
            rp_id="example.com",
            rp_name="Example",
            user_id=b"user-1",
            user_name="ann",
            user_display_name="Ann",
            algorithm=-7,
            private_key=der(private_key()),
            created_at=NOW - 1000,
            modified_at=NOW - 500,
            backup_eligible=True,
            backed_up=True,
            secret_uv=b"u" * 32,
            secret_no_uv=b"n" * 32,
            cred_blob=b"blob",
            large_blob=LARGE_BLOB,
            payments=True,
            origin_store="cxf",
        ),
    )
    assert imported.report.as_json() == {
        "format": "cxf",
        "carried": 1,
        "others": 2,
        "sameAccount": 0,
        "leftOut": [],
        "losses": [],
    }
    assert public_key_of(imported.credentials[0]) == public_der(private_key())


def test_flags_are_what_the_person_says() -> None:
    (credential,) = read_cxf(dumped(document()), now=NOW, synced=False).credentials
    assert (credential.backup_eligible, credential.backed_up) == (False, False)


def test_what_is_written_has_the_members_of_the_format_and_no_padding() -> None:
    exported = write_cxf([full(credential_id=bytes(range(16)))], now=NOW, random=counting_random())
    written = json.loads(exported.data)
    assert written["version"] == {"major": 1, "minor": 0}
    assert written["timestamp"] == NOW
    assert set(written) == {"version", "exporterRpId", "exporterDisplayName", "timestamp", "accounts"}
    (account,) = written["accounts"]
    assert set(account) == {"id", "username", "email", "collections", "items"}
    (item,) = account["items"]
    assert set(item) == {"id", "creationAt", "modifiedAt", "title", "credentials"}
    assert item["credentials"] == [
        {
            "type": "passkey",
            "credentialId": "AAECAwQFBgcICQoLDA0ODw",
            "rpId": "example.com",
            "username": "ann",
            "userDisplayName": "Ann Ä. 안",
            "userHandle": "dXNlci0x",
            "key": KEY,
            "fido2Extensions": {
                "hmacCredentials": {
                    "algorithm": "hmac-sha256",
                    "credWithUV": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8",
                    "credWithoutUV": "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8",
                },
                "credBlob": "YmxvYg",
                "largeBlob": {"uncompressedSize": 1, "data": "qwAA"},
                "payments": True,
            },
        }
    ]


@pytest.mark.parametrize("kind", ["p256", "p384", "ed25519", "rsa"])
def test_what_is_written_is_read_again(kind: str) -> None:
    given = plain(kind, secret_uv=b"u" * 32, secret_no_uv=b"n" * 32, payments=True, cred_blob=b"x")
    exported = write_cxf([given], now=NOW, random=counting_random())
    assert exported.report.findings == []
    (taken,) = read_cxf(exported.data, now=NOW + 99).credentials
    assert taken == plain(
        kind, secret_uv=b"u" * 32, secret_no_uv=b"n" * 32, payments=True, cred_blob=b"x", origin_store="cxf"
    )


def test_without_a_name_of_the_site_the_title_is_its_id_and_does_not_become_a_name() -> None:
    exported = write_cxf([plain(rp_name="")], now=NOW, random=counting_random())
    assert json.loads(exported.data)["accounts"][0]["items"][0]["title"] == "example.com"
    assert read_cxf(exported.data, now=NOW).credentials[0].rp_name == ""


@pytest.mark.parametrize(
    ("changes", "losses"),
    [
        ({}, []),
        ({"backed_up": False}, [Loss.BACKUP_FLAGS]),
        ({"backup_eligible": False, "backed_up": False}, [Loss.BACKUP_FLAGS]),
        ({"algorithm": -9}, [Loss.ALGORITHM]),
        ({"discoverable": False}, [Loss.DISCOVERABLE]),
        ({"cred_protect": 2}, [Loss.CRED_PROTECT]),
        ({"large_blob_key": bytes(32)}, [Loss.LARGE_BLOB_KEY]),
        ({"aaguid": bytes(16)}, [Loss.AAGUID]),
        ({"note": "mine"}, [Loss.NOTE]),
        ({"use_count": 1, "last_used_at": NOW}, [Loss.USE]),
        ({"state": CredentialState.UNCONFIRMED}, [Loss.STATE]),
        ({"secret_uv": bytes(32), "secret_no_uv": bytes(32), "large_blob": LARGE_BLOB, "payments": True}, []),
    ],
    ids=lambda value: " ".join(value) or "nothing",
)
def test_each_loss_is_named(changes: dict[str, Any], losses: list[Loss]) -> None:
    report = write_cxf([plain(**changes)], now=NOW, random=counting_random()).report
    assert [(finding.rp_id, finding.user_name, finding.what) for finding in report.losses] == [
        ("example.com", "ann", loss) for loss in losses
    ]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"sign_count": 1}, LeftOut.COUNTER),
        ({"state": CredentialState.SUPERSEDED}, LeftOut.STATE),
        ({"state": CredentialState.DELETED}, LeftOut.STATE),
        ({"private_key": b"damaged"}, LeftOut.KEY),
    ],
    ids=str,
)
def test_what_is_not_given_away_is_named(changes: dict[str, Any], why: LeftOut) -> None:
    exported = write_cxf([plain(**changes), plain(number=2)], now=NOW, random=counting_random())
    assert [(finding.what, finding.user_name) for finding in exported.report.left_out] == [(why, "ann")]
    assert [credential.user_id for credential in read_cxf(exported.data, now=NOW).credentials] == [b"user-2"]


def test_a_counter_of_zero_goes() -> None:
    assert write_cxf([plain(sign_count=0)], now=NOW, random=counting_random()).report.carried == 1


def test_a_document_that_is_written_anew_keeps_all_that_is_not_ours() -> None:
    before = document()
    (credential,) = read_cxf(dumped(before), now=NOW).credentials
    exported = write_cxf([credential, plain(number=2)], now=NOW + 5, random=counting_random(), into=dumped(before))
    after = json.loads(exported.data)
    added = after["accounts"][0]["items"].pop()
    assert added["credentials"][0]["userHandle"] == b64url(b"user-2")
    passkey_of(before)["credentialId"] = b64url(bytes(range(16)))  # the padding goes
    assert after == before | {"timestamp": NOW + 5}
    assert exported.report.others == 2


def test_a_passkey_in_the_document_is_brought_up_to_date() -> None:
    (credential,) = read_cxf(dumped(document()), now=NOW).credentials
    changed = plain(credential_id=credential.credential_id, user_name="ann2")
    after = json.loads(write_cxf([changed], now=NOW, random=counting_random(), into=dumped(document())).data)
    assert passkey_of(after)["username"] == "ann2"
    assert passkey_of(after)["fido2Extensions"]["later"] == {"is": "kept"}
    assert len(after["accounts"][0]["items"]) == 2


def test_a_missing_secret_is_filled_in_without_touching_the_other() -> None:
    exported = write_cxf([plain(secret_uv=b"u" * 32)], now=NOW, random=counting_random())
    (taken,) = read_cxf(exported.data, now=NOW).credentials
    assert taken.secret_uv == b"u" * 32
    assert taken.secret_no_uv not in (None, b"u" * 32)
    assert len(taken.secret_no_uv or b"") == 32


# --- hostile and malformed -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ({"rpId": None}, LeftOut.RP_ID),
        ({"rpId": 5}, LeftOut.MALFORMED),
        ({"rpId": "https://example.com"}, LeftOut.RP_ID),
        ({"rpId": "Example.com"}, LeftOut.RP_ID),
        ({"rpId": "10.0.0.1"}, LeftOut.RP_ID),
        ({"rpId": "::1"}, LeftOut.RP_ID),
        ({"rpId": "example.com."}, LeftOut.RP_ID),
        ({"rpId": "ex\u0430mple.com"}, LeftOut.RP_ID),
        ({"rpId": "a" * 254}, LeftOut.RP_ID),
        ({"credentialId": None}, LeftOut.CREDENTIAL_ID),
        ({"credentialId": ""}, LeftOut.CREDENTIAL_ID),
        ({"credentialId": "AA+/"}, LeftOut.CREDENTIAL_ID),
        ({"credentialId": "A"}, LeftOut.CREDENTIAL_ID),
        ({"credentialId": b64url(bytes(1024))}, LeftOut.CREDENTIAL_ID),
        ({"userHandle": []}, LeftOut.USER_HANDLE),
        ({"userHandle": ""}, LeftOut.USER_HANDLE),
        ({"userHandle": b64url(bytes(65))}, LeftOut.USER_HANDLE),
        ({"username": {}}, LeftOut.MALFORMED),
        ({"userDisplayName": 1}, LeftOut.MALFORMED),
        ({"key": None}, LeftOut.KEY),
        ({"key": "!"}, LeftOut.KEY),
        ({"key": b64url(b"\x30" * 100)}, LeftOut.KEY),
        ({"key": b64url(bytes(9000))}, LeftOut.KEY),
        ({"key": KEY[:-4]}, LeftOut.KEY),
    ],
    ids=str,
)
def test_a_forged_passkey_is_left_out_and_the_rest_taken(members: dict[str, Any], why: LeftOut) -> None:
    forged = document()
    other = copy.deepcopy(passkey_of(forged)) | {"credentialId": "BBBB"}
    forged["accounts"][0]["items"][1]["credentials"].append(other)
    passkey_of(forged).update(members)
    imported = read_cxf(dumped(forged), now=NOW)
    assert [finding.what for finding in imported.report.left_out] == [why]
    assert [credential.credential_id for credential in imported.credentials] == [b"\x04\x10A"]
    assert imported.report.losses == []


def test_a_key_that_carries_the_public_key_of_another_is_refused() -> None:
    ours, theirs = (public_der(private_key(number=number))[-65:] for number in (1, 2))
    forged = document()
    passkey_of(forged)["key"] = b64url(der(private_key()).replace(ours, theirs))
    imported = read_cxf(dumped(forged), now=NOW)
    assert imported.credentials == ()
    assert imported.report.left_out[0].what in (LeftOut.KEY, LeftOut.PUBLIC_KEY)


@pytest.mark.parametrize(
    ("extensions", "loss"),
    [
        ({"hmacCredentials": {"algorithm": "hmac-sha512", "credWithUV": "AA", "credWithoutUV": "AA"}}, Loss.PRF),
        ({"hmacCredentials": {"algorithm": "hmac-sha256", "credWithUV": "AA", "credWithoutUV": "AA"}}, Loss.PRF),
        ({"hmacCredentials": {"algorithm": "hmac-sha256", "credWithUV": b64url(bytes(32))}}, Loss.PRF),
        ({"hmacCredentials": 5}, Loss.PRF),
        ({"credBlob": 5}, Loss.CRED_BLOB),
        ({"credBlob": b64url(bytes(2000))}, Loss.CRED_BLOB),
        ({"largeBlob": {"uncompressedSize": 2, "data": "qwAA"}}, Loss.LARGE_BLOB),
        ({"largeBlob": {"uncompressedSize": -1, "data": "qwAA"}}, Loss.LARGE_BLOB),
        ({"largeBlob": {"uncompressedSize": 1, "data": "AAAA"}}, Loss.LARGE_BLOB),
        ({"largeBlob": {"uncompressedSize": True, "data": "qwAA"}}, Loss.LARGE_BLOB),
        ({"largeBlob": {"uncompressedSize": 1 << 40, "data": "qwAA"}}, Loss.LARGE_BLOB),
        ({"payments": "yes"}, Loss.PAYMENTS),
    ],
    ids=str,
)
def test_an_extension_that_cannot_be_used_is_named_and_the_passkey_taken(
    extensions: dict[str, Any], loss: Loss
) -> None:
    odd = document()
    passkey_of(odd)["fido2Extensions"].update(extensions)
    imported = read_cxf(dumped(odd), now=NOW)
    assert imported.report.carried == 1
    assert [finding.what for finding in imported.report.losses] == [loss]


def test_a_passkey_that_is_left_out_has_lost_no_parts() -> None:
    odd = document()
    passkey_of(odd)["fido2Extensions"]["credBlob"] = 5
    passkey_of(odd)["userHandle"] = ""
    assert [finding.what for finding in read_cxf(dumped(odd), now=NOW).report.findings] == [LeftOut.USER_HANDLE]


def test_a_blob_that_inflates_to_much_is_not_inflated() -> None:
    import zlib

    squeezer = zlib.compressobj(9, wbits=-15)
    bomb = squeezer.compress(bytes(50 << 20)) + squeezer.flush()
    odd = document()
    passkey_of(odd)["fido2Extensions"]["largeBlob"] = {"uncompressedSize": 50 << 20, "data": b64url(bomb)}
    imported = read_cxf(dumped(odd), now=NOW)
    assert [finding.what for finding in imported.report.losses] == [Loss.LARGE_BLOB]


def test_one_id_twice_is_a_duplicate_or_a_clash() -> None:
    double = document()
    items = double["accounts"][0]["items"]
    items[1]["credentials"] = [
        copy.deepcopy(passkey_of(double)),
        copy.deepcopy(passkey_of(double)) | {"rpId": "other.example"},
    ]
    imported = read_cxf(dumped(double), now=NOW)
    assert [finding.what for finding in imported.report.left_out] == [LeftOut.DUPLICATE, LeftOut.ID_CLASH]
    assert [credential.rp_id for credential in imported.credentials] == ["example.com"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda d: d.pop("version"), PortabilityProblem.FORMAT),
        (lambda d: d.pop("accounts"), PortabilityProblem.FORMAT),
        (lambda d: d.update(version={"major": 2, "minor": 0}), PortabilityProblem.VERSION),
        (lambda d: d.update(version={"major": "1"}), PortabilityProblem.VERSION),
        (lambda d: d.update(version={"major": True}), PortabilityProblem.VERSION),
        (lambda d: d.update(accounts=[]), PortabilityProblem.MALFORMED),
        (lambda d: d.update(accounts={}), PortabilityProblem.MALFORMED),
        (lambda d: d.update(accounts=[5]), PortabilityProblem.MALFORMED),
        (lambda d: d["accounts"][0].update(items=None), PortabilityProblem.MALFORMED),
        (lambda d: d["accounts"][0]["items"][0].update(credentials=5), PortabilityProblem.MALFORMED),
        (lambda d: d["accounts"][0]["items"][0].update(credentials=["x"]), PortabilityProblem.MALFORMED),
    ],
)
def test_a_document_that_is_none_gives_one_error(
    change: Callable[[dict[str, Any]], object], problem: PortabilityProblem
) -> None:
    broken = document()
    change(broken)
    with pytest.raises(PortabilityError) as caught:
        read_cxf(dumped(broken), now=NOW)
    assert caught.value.reason is problem
    with pytest.raises(PortabilityError):
        write_cxf([plain()], now=NOW, random=counting_random(), into=dumped(broken))


def test_times_that_are_none_become_now() -> None:
    odd = document()
    odd["accounts"][0]["items"][0] |= {"creationAt": "yesterday", "modifiedAt": 1 << 62}
    (credential,) = read_cxf(dumped(odd), now=NOW).credentials
    assert (credential.created_at, credential.modified_at) == (NOW, NOW)


def test_a_minor_version_that_only_adds_is_read() -> None:
    later = document()
    later["version"]["minor"] = 7
    assert read_cxf(dumped(later), now=NOW).report.carried == 1
