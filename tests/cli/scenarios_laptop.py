"""``hybrid get``, ``create`` and ``info``: what they say, whatever the radio, the relay and the phone do."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from websockets.frames import CloseCode

from hybrid.errors import Stage as In
from hybrid.passkeys.consent import NeverApprove
from hybrid.protocol.keys import MAX_MESSAGE_SIZE
from hybrid.testing.peers import phones
from tests.cli import people
from tests.cli.people import good_phone, passkey, phone
from tests.cli.transcript import Phone, Scenario, Setting

_WITH = "--adapter hci0 --relay {relay} --relay-ca {ca}"
_BAD = "--adapter hci0 --relay {bad} --relay-ca {ca}"
GET = f"hybrid get example.com {_WITH}"
CREATE = f"hybrid create example.com --user ada {_WITH}"
INFO = f"hybrid info {_WITH}"

_OPTIONS: dict[str, Any] = {"challenge": "AAAA", "allowCredentials": []}
_CREATE_OPTIONS: dict[str, Any] = {
    "challenge": "AAAA",
    "rp": {"id": "example.com", "name": "Example"},
    "user": {"id": "AAAA", "name": "ada", "displayName": "Ada"},
    "pubKeyCredParams": [{"type": "public-key", "alg": -7}],
    "excludeCredentials": [{"type": "public-key", "id": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"}],
}


def _file(document: dict[str, Any]) -> Setting:
    return people.files(options_json=json.dumps(document).encode())


def _get(about: str, who: Phone, more: str = "") -> Scenario:
    return Scenario(f"{GET} {more}".strip(), about, phone=who)


def _bad(about: str, make: Callable[[], phones.Phone], more: str = "") -> Scenario:
    return _get(about, phone(make), more)


def _relay(about: str, setting: Setting) -> Scenario:
    return Scenario(f"hybrid get example.com {_BAD}", about, setting=setting, phone=good_phone(passkey()))


def _status(status: int) -> Callable[[], phones.Phone]:
    return lambda: phones.Phone(response=bytes([status]))


_SUCCESS = {
    "get": _get("a passkey signs in", good_phone(passkey())),
    "get-json-events": _get("the same for programs", good_phone(passkey()), "--json-events"),
    "get-no-qr": _get("without a terminal there is a code all the same", good_phone(passkey()), "--no-qr"),
    "get-options-bare": Scenario(
        f"{GET} --options -", "options on standard input", '{{"challenge": "AAAA"}}', phone=good_phone(passkey())
    ),
    "get-options-public-key": Scenario(
        f"{GET} --options {{tmp}}/options.json",
        "options in a file, in publicKey",
        setting=_file({"publicKey": _OPTIONS}),
        phone=good_phone(passkey()),
    ),
    "get-verified": Scenario(
        f"{GET} --public-key {{tmp}}/key.pem",
        "the signature fits the key",
        setting=people.files(key_pem=people.public_key(passkey())),
        phone=good_phone(passkey()),
    ),
    "get-wrong-key": Scenario(
        f"{GET} --public-key {{tmp}}/key.pem",
        "the signature does not fit the key",
        setting=people.files(key_pem=people.public_key(None)),
        phone=good_phone(passkey()),
    ),
    "get-localhost": Scenario(
        f"hybrid create localhost --user ada --origin http://localhost:8000 {_WITH}",
        "localhost with an http origin",
        phone=good_phone(),
    ),
    "create": Scenario(CREATE, "a passkey is made", phone=good_phone()),
    "info": Scenario(INFO, "the phone tells about itself", phone=good_phone()),
    "info-no-ctap": Scenario(INFO, "a phone that speaks no CTAP", phone=phone(phones.FeaturesWithoutCtap)),
    "get-sends-shutdown": _bad(
        "a phone that says goodbye after its answer", lambda: phones.SendsShutdown(response=b"\x2e")
    ),
}

_ANSWERS = {
    "get-declined": _get("declined on the phone", good_phone(passkey(), consent=NeverApprove())),
    "get-no-credential": _get("no passkey for the site", good_phone()),
    "create-already-registered": Scenario(
        f"hybrid create example.com --options {{tmp}}/options.json {_WITH}",
        "a passkey that the site excludes",
        setting=_file(_CREATE_OPTIONS),
        phone=good_phone(passkey()),
    ),
    "get-user-timeout-on-phone": _bad("nobody answered on the phone", _status(0x2F)),
    "get-not-allowed": _bad("status 0x30", _status(0x30)),
    "create-no-algorithm": Scenario(CREATE, "no common algorithm", phone=phone(_status(0x26))),
    "create-full": Scenario(CREATE, "no room on the phone", phone=phone(_status(0x28))),
    "get-other-status": _bad("a status without a name", _status(0x7F)),
    "get-empty-answer": _bad("an answer without a status", lambda: phones.Phone(response=b"")),
    "get-bad-answer": _bad("an answer that is no CBOR", lambda: phones.Phone(response=b"\x00\xff")),
    "get-left-without-answer": _bad("the phone leaves while asked", phones.ClosesWithoutAnswer),
    "get-left-with-goodbye": _bad("the phone says goodbye while asked", phones.ShutdownInsteadOfAnswer),
    "get-left-json": _bad("the same for programs", phones.ClosesWithoutAnswer, "--json-events"),
    "get-no-ctap": _bad("the phone speaks no CTAP", phones.FeaturesWithoutCtap),
}

_PROTOCOL = {
    "get-wrong-psk": _bad("a phone that does not know the secret", phones.WrongPsk),
    "get-short-message-2": _bad("message 2 is short", phones.ShortMessage2),
    "get-bad-point": _bad("message 2 has no point", phones.BadPoint),
    "get-no-getinfo": _bad("no getInfo", phones.NoGetInfo),
    "get-unreadable-greeting": _bad("an unreadable introduction", phones.UnreadableGreeting),
    "get-bad-padding": _bad("bad padding", phones.BadPadding),
    "get-hangs-up-handshake": _bad("the phone hangs up in the handshake", lambda: phones.HangsUp(In.HANDSHAKE)),
    "get-hangs-up-greeting": _bad("the phone hangs up before its introduction", lambda: phones.HangsUp(In.GREETING)),
}

_TIMEOUTS = {
    "get-timeout-scan": Scenario(f"{GET} --timeout-scan 0.05", "no phone comes"),
    "get-timeout-scan-stranger": _bad("only strangers come", phones.WrongTag, "--timeout-scan 0.5"),
    "get-timeout-handshake": _bad("silence", lambda: phones.SilentAt(In.HANDSHAKE), "--timeout-handshake 0.05"),
    "get-timeout-greeting": _bad("silence", lambda: phones.SilentAt(In.GREETING), "--timeout-greeting 0.05"),
    "get-timeout-user": _bad("nobody touches the phone", phones.NeverAnswers, "--timeout-user 0.05"),
    "get-timeout-tunnel": Scenario(
        f"hybrid get example.com {_BAD} --timeout-tunnel 0.05",
        "the relay is silent",
        setting=people.silent_relay,
        phone=good_phone(passkey()),
    ),
    "get-timeout-json": Scenario(f"{GET} --timeout-scan 0.05 --json-events", "the same for programs"),
}

_BLUETOOTH = {
    "get-no-dbus": Scenario(
        "hybrid get example.com",
        "no system bus",
        environment={"DBUS_SYSTEM_BUS_ADDRESS": "unix:path={tmp}/no-bus"},
    ),
    "get-no-bluetooth-service": Scenario("hybrid get example.com", "no Bluetooth service", setting=people.no_service),
    "get-no-adapter": Scenario("hybrid get example.com", "no adapter", setting=people.no_adapters),
    "get-unknown-adapter": Scenario("hybrid get example.com --adapter hci7", "an adapter that is not there"),
    "get-adapter-off": Scenario("hybrid get example.com --adapter hci0", "switched off", setting=people.adapters_off),
    "get-adapters-off": Scenario("hybrid get example.com", "all switched off", setting=people.adapters_off),
    "get-denied": Scenario("hybrid get example.com", "permission denied", setting=people.denied),
    "get-scan-refused": Scenario(
        "hybrid get example.com",
        "BlueZ does not scan",
        setting=people.failing("StartDiscovery", "InProgress", "Operation already in progress"),
    ),
    "get-adapter-off-json": Scenario(
        "hybrid get example.com --adapter hci0 --json-events", "the same for programs", setting=people.adapters_off
    ),
}

_RELAYS = {
    "get-relay-absent": _relay("nobody listens", people.no_relay),
    "get-relay-certificate": Scenario(
        "hybrid get example.com --adapter hci0 --relay {relay}",
        "a certificate nobody vouches for",
        phone=good_phone(passkey()),
    ),
    "get-relay-name": Scenario(
        f"{GET} --relay-name other.example", "a certificate for another name", phone=good_phone(passkey())
    ),
    "get-relay-not-a-relay": _relay("a server of something else", people.relay_sending(subprotocols=())),
    "get-relay-404": _relay("status 404", people.relay_answering(404)),
    "get-relay-410": _relay("status 410", people.relay_answering(410)),
    "get-relay-403": _relay("status 403", people.relay_answering(403)),
    "get-relay-503": _relay("status 503", people.relay_answering(503)),
    "get-relay-500": _relay("status 500", people.relay_answering(500)),
    "get-relay-redirect": _relay(
        "a redirect without TLS", people.relay_answering(302, "Location: http://portal.example/")
    ),
    "get-relay-text": _relay("a text frame", people.relay_sending("hello")),
    "get-relay-oversize": _relay("more than 1 MiB", people.relay_sending(bytes(MAX_MESSAGE_SIZE + 1))),
    "get-relay-lost": _relay("a limit of the relay", people.relay_sending(close=CloseCode.POLICY_VIOLATION)),
    "get-proxy": Scenario(
        "hybrid get example.com --adapter hci0",
        "a proxy that is not there",
        environment={"HTTPS_PROXY": "http://{bad}"},
        setting=people.no_relay,
        phone=good_phone(passkey()),
    ),
}

SCENARIOS: dict[str, Scenario] = {**_SUCCESS, **_ANSWERS, **_PROTOCOL, **_TIMEOUTS, **_BLUETOOTH, **_RELAYS}
