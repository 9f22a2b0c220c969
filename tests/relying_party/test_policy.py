"""Classes of accounts, attestation, administrators, the log, names of providers."""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from fido2 import cbor
from fido2.utils import websafe_decode, websafe_encode

from examples.relying_party.website import audit
from examples.relying_party.website.audit import AuditLog, Happened
from examples.relying_party.website.database import Database
from examples.relying_party.website.providers import ProviderNames
from examples.relying_party.website.settings import Settings
from tests.relying_party.visitor import ORIGIN, RP_ID, Phone, Site, Visitor, create, reason, settings
from tests.relying_party.visitor import site as make_site


async def test_device_bound(site: Site, ann: Visitor, phone: Phone, synced_phone: Phone) -> None:
    assert reason(await ann.join("ann", synced_phone, policy="device-bound")) == "not-device-bound"
    assert site.website.accounts.everyone() == []
    assert site.events() == []
    assert reason(await ann.join("ann", phone, policy="device-bound")) == ""
    assert reason(await ann.add(synced_phone)) == "not-device-bound"
    assert site.events()[-1] == "refused"
    assert (await ann.sign_in(phone)).json()["upgrade"] is False


async def test_an_administrator_needs_two(site: Site, ann: Visitor, phone: Phone, other_phone: Phone) -> None:
    await ann.join("ann", phone, policy="admin")
    assert reason(await ann.post("codes/new")) == "add-passkey-first"
    assert reason(await ann.sign_in(phone)) == ""
    assert reason(await ann.post("codes/new")) == "add-passkey-first"
    assert reason(await ann.add(other_phone)) == ""
    assert reason(await ann.post("codes/new")) == ""
    remove = {"id": websafe_encode(other_phone.store.credentials()[0].credential_id)}
    assert reason(await ann.post("passkeys/remove", remove)) == "too-few"


async def test_the_class_counts_at_every_sign_in(
    site: Site, ann: Visitor, bob: Visitor, phone: Phone, other_phone: Phone, synced_phone: Phone
) -> None:
    await bob.join("bob", synced_phone)
    await ann.join("ann", phone, policy="admin")
    await ann.add(other_phone)
    assert reason(await ann.post("admin/policy", {"name": "bob", "policy": "device-bound"})) == ""
    assert site.events()[-1] == "admin-override"
    assert site.last_detail() == {"before": "any", "policy": "device-bound", "by": "ann"}
    assert (await bob.page("/account")).status_code == 303  # signed out at once
    assert reason(await bob.sign_in(synced_phone)) == "not-device-bound"
    assert site.last_detail()["reason"] == "not-device-bound"
    assert reason(await ann.post("admin/policy", {"name": "bob", "policy": "any"})) == ""
    assert reason(await bob.sign_in(synced_phone)) == ""


async def test_only_administrators_and_not_for_themselves(
    site: Site, ann: Visitor, bob: Visitor, phone: Phone, other_phone: Phone, synced_phone: Phone
) -> None:
    await bob.join("bob", synced_phone)
    assert reason(await bob.post("admin/policy", {"name": "bob", "policy": "admin"})) == "not-admin"
    assert (await bob.page("/admin")).status_code == 403
    await ann.join("ann", phone, policy="admin")
    await ann.add(other_phone)
    for body in ({"name": "ann", "policy": "any"}, {"name": "nobody", "policy": "any"}, {"name": "bob", "policy": "x"}):
        assert reason(await ann.post("admin/policy", body)) == "bad-request"


async def test_visitors_choose_no_class_outside_a_demonstration(ann: Visitor, phone: Phone) -> None:
    made = make_site(Settings(rp_id=RP_ID, origins=(ORIGIN,)))
    async with made.browser() as visitor:
        assert reason(await visitor.join("ann", phone, policy="admin")) == ""
    (account,) = made.website.accounts.everyone()
    assert account.policy == "any"
    made.website.close()


# --- attestation ------------------------------------------------------------------------------------------------------


class Maker:
    """Makes devices: a CA, and attestation certificates as WebAuthn wants them ("Packed Attestation")."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "A maker of devices")])
        self.root = self._signed(self._name, self._key.public_key(), x509.BasicConstraints(ca=True, path_length=0))

    def _signed(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, constraints: x509.BasicConstraints
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(constraints, critical=True)
            .sign(self._key, hashes.SHA256())
        )

    def attest(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Vouch for the device behind a registration."""
        attestation = cbor.decode(websafe_decode(answer["response"]["attestationObject"]))
        assert isinstance(attestation, dict)
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.COUNTRY_NAME, "SE"),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "A maker"),
                x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "Authenticator Attestation"),
                x509.NameAttribute(NameOID.COMMON_NAME, "A device"),
            ]
        )
        leaf = self._signed(subject, key.public_key(), x509.BasicConstraints(ca=False, path_length=None))
        signed = attestation["authData"] + sha256(websafe_decode(answer["response"]["clientDataJSON"])).digest()
        statement = {
            "alg": -7,
            "sig": key.sign(signed, ec.ECDSA(hashes.SHA256())),
            "x5c": [leaf.public_bytes(Encoding.DER)],
        }
        vouched = cbor.encode({"fmt": "packed", "attStmt": statement, "authData": attestation["authData"]})
        return {**answer, "response": {**answer["response"], "attestationObject": websafe_encode(vouched)}}


@pytest.fixture
def maker() -> Maker:
    return Maker()


@pytest.fixture
def strict_site(maker: Maker, tmp_path: Path) -> Iterator[Site]:
    """A website that trusts one maker."""
    path = tmp_path / "roots.pem"
    path.write_bytes(maker.root.public_bytes(Encoding.PEM))
    made = make_site(settings(attestation_roots=path))
    yield made
    made.website.close()


@pytest.mark.parametrize(
    ("policy", "expected"), [("any", ""), ("device-bound", "attestation"), ("admin", "attestation")]
)
async def test_without_attestation(strict_site: Site, phone: Phone, policy: str, expected: str) -> None:
    async with strict_site.browser() as visitor:
        options = await visitor.options("join/begin", name="ann", policy=policy)
        assert options["attestation"] == ("none" if policy == "any" else "direct")
        assert reason(await visitor.post("join/finish", create(options, phone))) == expected


async def test_with_attestation_by_the_trusted_maker(strict_site: Site, maker: Maker, phone: Phone) -> None:
    async with strict_site.browser() as visitor:
        options = await visitor.options("join/begin", name="ann", policy="device-bound")
        answer = maker.attest(create(options, phone))
        assert reason(await visitor.post("join/finish", answer)) == ""
        assert reason(await visitor.sign_in(phone)) == ""


async def test_with_attestation_by_somebody_of_the_same_name(strict_site: Site, phone: Phone) -> None:
    async with strict_site.browser() as visitor:
        options = await visitor.options("join/begin", name="ann", policy="device-bound")
        answer = Maker().attest(create(options, phone))
        assert reason(await visitor.post("join/finish", answer)) == "attestation"


async def test_with_an_attestation_that_is_none(strict_site: Site, phone: Phone) -> None:
    async with strict_site.browser() as visitor:
        for statement in ({"alg": -7, "sig": b"", "x5c": [b""]}, {"alg": -7, "sig": b"", "x5c": 5}, {"alg": -7}):
            options = await visitor.options("join/begin", name="ann", policy="device-bound")
            answer = create(options, phone)
            attestation = cbor.decode(websafe_decode(answer["response"]["attestationObject"]))
            assert isinstance(attestation, dict)
            made = cbor.encode({**attestation, "fmt": "packed", "attStmt": statement})
            answer["response"]["attestationObject"] = websafe_encode(made)
            assert reason(await visitor.post("join/finish", answer)) == "attestation"


# --- the log ----------------------------------------------------------------------------------------------------------


async def test_the_log_cannot_be_rewritten(site: Site, ann: Visitor, phone: Phone) -> None:
    await ann.join("ann", phone)
    for statement in ("UPDATE audit SET event = 'signed-out'", "DELETE FROM audit"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            site.website.database.run(statement)
    assert site.website.audit.intact()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE audit SET detail = '{}' WHERE number = 2",
        "UPDATE audit SET at = at + 1 WHERE number = 1",
        "UPDATE audit SET account = NULL WHERE number = 1",
        "DELETE FROM audit WHERE number = 2",
        "DELETE FROM audit WHERE number = 1",
        "INSERT INTO audit SELECT -1, at, account, event, detail, chain FROM audit WHERE number = 1",
    ],
)
async def test_a_file_that_was_changed_behind_its_back_shows(
    site: Site, ann: Visitor, phone: Phone, damage: str
) -> None:
    await ann.join("ann", phone)
    database = site.website.database
    database.run("DROP TRIGGER audit_is_not_rewritten")
    database.run("DROP TRIGGER audit_is_not_shortened")
    database.run(damage)
    assert not site.website.audit.intact()


def test_a_long_log_is_checked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not with every page; but from the beginning again when somebody else had the file in hand."""
    hashed: list[int] = []
    link = audit._link

    def counted(chain: bytes, number: int, *line: Any) -> bytes:
        hashed.append(number)
        return link(chain, number, *line)

    monkeypatch.setattr(audit, "_link", counted)
    database = Database(tmp_path / "accounts.db")
    log = AuditLog(database, lambda: 1)
    for _ in range(3):
        log.note(Happened.SIGNED_OUT)
    hashed.clear()
    assert log.intact()
    assert log.intact()
    assert hashed == [1, 2, 3]
    log.note(Happened.SIGNED_OUT)
    hashed.clear()
    assert log.intact()
    assert hashed == [4]
    with contextlib.closing(sqlite3.connect(tmp_path / "accounts.db")) as stranger:
        stranger.execute("DROP TRIGGER audit_is_not_rewritten")
        stranger.execute("UPDATE audit SET at = 2 WHERE number = 2")
        stranger.commit()
    assert not log.intact()
    assert not log.intact()
    database.close()


async def test_no_secrets_in_the_log(site: Site, ann: Visitor, bob: Visitor, phone: Phone) -> None:
    joined = await ann.join("ann", phone)
    await bob.post("codes/use", {"name": "ann", "code": joined.json()["codes"][0]})
    text = json.dumps([list(map(str, row)) for row in site.website.database.rows("SELECT * FROM audit")])
    tokens = [cookie.value for visitor in (ann, bob) for cookie in visitor.client.cookies.jar]
    (kept,) = phone.store.credentials()
    for secret in (*joined.json()["codes"], *tokens, websafe_encode(kept.credential_id)):
        assert secret
        assert secret not in text
    with pytest.raises(ValueError, match="not for the log"):
        site.website.audit.note(Happened.SIGNED_IN, None, code="x")


async def test_tokens_are_kept_hashed(site: Site, ann: Visitor, phone: Phone) -> None:
    await ann.join("ann", phone)
    await ann.options("sign-in/begin")
    kept = str([[bytes(row["hash"]) for row in site.website.database.rows("SELECT hash FROM session")]])
    assert all(cookie.value and cookie.value not in kept for cookie in ann.client.cookies.jar)


# --- names ------------------------------------------------------------------------------------------------------------

ICLOUD = UUID("fbfc3007-154e-4ecc-8c0b-6e020557d7bd")
UNHEARD_OF = UUID("12345678-1234-1234-1234-123456789abc")


def test_names_of_providers(tmp_path: Path) -> None:
    listed = tmp_path / "aaguids.json"
    listed.write_text(json.dumps({str(UNHEARD_OF): {"name": "A new one"}, str(ICLOUD): {"name": "An impostor"}}))
    names = ProviderNames(listed)
    assert names.of(UNHEARD_OF) == "A new one"
    assert names.of(ICLOUD) == "iCloud Keychain"
    assert names.of(UUID(int=0)) is None
    assert ProviderNames().of(UNHEARD_OF) is None


@pytest.mark.parametrize("text", ["{}", "", "[]", '{"x": {"name": "y"}}', f'{{"{UNHEARD_OF}": 5}}', "\x00"])
def test_a_list_that_became_empty(text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    listed = tmp_path / "aaguids.json"
    listed.write_text(text)
    with caplog.at_level(logging.WARNING):
        names = ProviderNames(listed)
    assert names.of(ICLOUD) == "iCloud Keychain"
    assert "only our own names are shown" in caplog.text


def test_a_list_that_is_gone(tmp_path: Path) -> None:
    assert ProviderNames(tmp_path / "nothing.json").of(ICLOUD) == "iCloud Keychain"
