"""Command lines that cannot be carried out, and ``hybrid vectors``."""

from __future__ import annotations

import json
from typing import Any

from tests.cli.people import files
from tests.cli.transcript import Scenario


def _vectors(*cases: dict[str, Any]) -> bytes:
    return json.dumps({"schema": "hybrid-vectors/1", "cases": cases}).encode()


_GOOD = {"id": "domain#0", "op": "tunnel.domain", "in": {"id": 0}, "out": {"domain": "cable.ua5v.com"}}
_BAD = {**_GOOD, "id": "domain#1", "out": {"domain": "cable.example"}}

SCENARIOS: dict[str, Scenario] = {
    "usage-no-arguments": Scenario("hybrid", "help on no arguments"),
    "usage-version": Scenario("hybrid --version", "the version"),
    "usage-unknown-command": Scenario("hybrid gett example.com", "a command that does not exist"),
    "usage-unknown-option": Scenario("hybrid get example.com --qr-fil x.png", "an option that does not exist"),
    "usage-no-rp-id": Scenario("hybrid get", "no RP id"),
    "usage-time-out": Scenario("hybrid get example.com --timeout-scan inf", "a time-out that is no number"),
    "usage-json": Scenario("hybrid get example.com --timeout-scan x --json-events", "the same for programs"),
    "usage-create-without-user": Scenario("hybrid create example.com", "nobody to make a passkey for"),
    "usage-rp-id-label": Scenario("hybrid get example..com", "an RP id that is no domain"),
    "usage-rp-id-suffix": Scenario("hybrid get co.uk", "an RP id that many share"),
    "usage-rp-id-address": Scenario("hybrid get 127.0.0.1", "an IP address"),
    "usage-origin": Scenario("hybrid get example.com --origin https://example.org", "an origin of another domain"),
    "usage-origin-http": Scenario("hybrid get example.com --origin http://example.com", "an origin without TLS"),
    "usage-options-not-json": Scenario("hybrid get example.com --options -", "options that are no JSON", stdin="hello"),
    "usage-options-wrong-type": Scenario(
        "hybrid get example.com --options -", "options of a wrong type", stdin='{{"publicKey": {{"challenge": 5}}}}'
    ),
    "usage-options-other-site": Scenario(
        "hybrid get example.com --options -",
        "options of another site",
        stdin='{{"challenge": "AAAA", "rpId": "example.org"}}',
    ),
    "usage-options-missing": Scenario("hybrid get example.com --options {tmp}/none.json", "options that are not there"),
    "usage-public-key": Scenario(
        "hybrid get example.com --public-key {tmp}/key.txt", "a key that is none", setting=files(key_txt=b"hello")
    ),
    "usage-two-files-on-stdin": Scenario(
        "hybrid get example.com --options - --public-key -", "one standard input for two files"
    ),
    "usage-qr-file": Scenario("hybrid get example.com --qr-file {tmp}/code.gif", "a picture of another kind"),
    "usage-qr-file-folder": Scenario("hybrid get example.com --qr-file {tmp}/none/code.png", "a folder not there"),
    "usage-relay": Scenario("hybrid get example.com --relay relay.example", "a relay without a port"),
    "usage-relay-name": Scenario("hybrid get example.com --relay-name https://x", "a relay's name that is none"),
    "usage-relay-ca-missing": Scenario("hybrid get example.com --relay-ca {tmp}/none.pem", "a CA file not there"),
    "usage-relay-ca": Scenario(
        "hybrid get example.com --relay-ca {tmp}/ca.txt", "a CA file without a certificate", setting=files(ca_txt=b"x")
    ),
    "usage-preset-roaming": Scenario(
        "hybrid serve-authenticator --tcp 127.0.0.1:0 --profile roaming --preset iphone", "a phone that is a key"
    ),
    "usage-virtual-bluez-command": Scenario("hybrid virtual-bluez -- /no/such", "a command that is not there"),
    "usage-virtual-bluez-json": Scenario("hybrid virtual-bluez --json-events -- /no/such", "the same for programs"),
    "usage-phone-no-code": Scenario("hybrid phone --vault-key none", "no code"),
    "usage-phone-two-codes": Scenario("hybrid phone {code} --qr-image x.png --vault-key none", "two codes"),
    "usage-phone-empty-stdin": Scenario("hybrid phone - --vault-key none", "no code on standard input"),
    "usage-vault-key-keyring": Scenario(
        "hybrid phone {code} --vault {tmp}/v --vault-key keyring --approve never",
        "a key ring where there is none",
        environment={"PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring"},
    ),
    "usage-vault-key-file": Scenario(
        "hybrid phone {code} --vault {tmp}/v --vault-key file:{tmp} --approve never", "a key file that is a folder"
    ),
    "usage-vault-key-no-file": Scenario("hybrid phone {code} --vault-key file:", "a key file without its path"),
    "usage-vault-key-unknown": Scenario("hybrid phone {code} --vault-key magic", "an unknown key kind"),
    "usage-approve": Scenario("hybrid phone {code} --approve maybe", "an unknown decision"),
    "usage-virtual-bluez": Scenario("hybrid virtual-bluez --strangers nan -- true", "a rate that is none"),
    "vectors": Scenario(
        "hybrid vectors {tmp}/one.json",
        "a file that passes",
        setting=files(one_json=_vectors(_GOOD)),
    ),
    "vectors-json": Scenario(
        "hybrid vectors --json {tmp}/one.json",
        "the same for programs",
        setting=files(one_json=_vectors(_GOOD)),
    ),
    "vectors-failing": Scenario(
        "hybrid vectors {tmp}/one.json", "a case fails", setting=files(one_json=_vectors(_GOOD, _BAD))
    ),
    "vectors-no-case": Scenario("hybrid vectors {tmp}/one.json", "no case", setting=files(one_json=_vectors())),
    "vectors-missing": Scenario("hybrid vectors {tmp}/none.json", "a file that is not there"),
    "vectors-not-json": Scenario("hybrid vectors {tmp}/x.json", "a file that is no JSON", setting=files(x_json=b"{")),
    "vectors-other-schema": Scenario(
        "hybrid vectors {tmp}/x.json", "another schema", setting=files(x_json=b'{"schema": "x", "cases": []}')
    ),
}
