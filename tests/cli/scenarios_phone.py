"""``hybrid phone``: what it says, whatever the code, the vault, the radio, the relay and the client are like."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from websockets.frames import CloseCode

from hybrid import cbor
from hybrid.cli.terminal import qr_matrix
from hybrid.invitation import invite
from hybrid.passkeys.vault import open_vault
from hybrid.passkeys.vault_file import MAGIC, KdfCost
from hybrid.passkeys.vault_keys import FileKey, PassphraseKey
from hybrid.protocol.qr import Hint, encode_digits
from hybrid.testing.peers import clients
from tests.cli import people
from tests.cli.people import CREDENTIAL_ID, client, passkey, register, sign_in, vault
from tests.cli.pictures import blank_png, qr_png
from tests.cli.stage import DOMAIN, Stage
from tests.cli.transcript import Client, Scenario, Setting, Values

_VAULT = "--vault {tmp}/v --vault-key none"
_WITH = "--adapter hci1 --relay {relay} --relay-ca {ca}"
ALWAYS = f"hybrid phone - {_VAULT} --approve always {_WITH}"
_BAD = f"hybrid phone - {_VAULT} --approve always --adapter hci1 --relay {{bad}} --relay-ca {{ca}}"
_STDIN = "{code}\n"


def _phone(about: str, who: Client | None = None, more: str = "", *, setting: Setting | None = None) -> Scenario:
    return Scenario(f"{ALWAYS} {more}".strip(), about, _STDIN, client=who, setting=setting)


def _relay(about: str, setting: Setting, more: str = "") -> Scenario:
    return Scenario(f"{_BAD} {more}".strip(), about, _STDIN, setting=setting)


def _code(**changes: Any) -> str:
    """A code with members changed or, if None, taken away; m0 is the member with key 0."""
    members = cbor.decode_map(invite().qr.to_cbor())
    for name, value in changes.items():
        key = int(name[1:])
        members[key] = value
        if value is None:
            del members[key]
    return "FIDO:/" + encode_digits(cbor.encode(members))


def _strange(about: str, code: str) -> Scenario:
    return Scenario(f"hybrid phone {{strange}} {_VAULT} --approve always", about, setting=_showing(code))


def _showing(code: str) -> Setting:
    @contextlib.asynccontextmanager
    async def setting(stage: Stage, folder: Path) -> AsyncIterator[Values]:
        yield {"strange": code}

    return setting


def _picture(data: bytes) -> Setting:
    return people.files(code_png=data)


@contextlib.asynccontextmanager
async def _fresh_picture(stage: Stage, folder: Path) -> AsyncIterator[Values]:
    (folder / "code.png").write_bytes(qr_png(qr_matrix(invite().url)))  # made now, or it would be old in a long run
    yield {}


def _image(about: str, setting: Setting) -> Scenario:
    return Scenario(f"hybrid phone --qr-image {{tmp}}/code.png {_VAULT} --approve always", about, setting=setting)


def _two_codes() -> bytes:
    one, other = qr_matrix(invite().url), qr_matrix(invite().url)
    return qr_png([left + right for left, right in zip(one, other, strict=True)])


def _vault_file(about: str, content: bytes) -> Scenario:
    return Scenario(ALWAYS, about, _STDIN, setting=people.files(v=content))


@contextlib.asynccontextmanager
async def _open_folder(stage: Stage, folder: Path) -> AsyncIterator[Values]:
    os.chmod(folder, 0o777)
    yield {}


@contextlib.asynccontextmanager
async def _busy_vault(stage: Stage, folder: Path) -> AsyncIterator[Values]:
    os.mkdir(folder / "v")
    yield {}


@contextlib.asynccontextmanager
async def _encrypted_vault(stage: Stage, folder: Path) -> AsyncIterator[Values]:
    open_vault(folder / "v", PassphraseKey("correct horse"), cost=KdfCost(8, 1, 1)).close()
    yield {}


@contextlib.asynccontextmanager
async def _vault_with_key_file(stage: Stage, folder: Path) -> AsyncIterator[Values]:
    open_vault(folder / "v", FileKey(folder / "k"), cost=KdfCost(8, 1, 1)).add(passkey())
    open_vault(folder / "v2", FileKey(folder / "k2"), cost=KdfCost(8, 1, 1)).close()
    yield {}


@contextlib.asynccontextmanager
async def _restored_vault(stage: Stage, folder: Path) -> AsyncIterator[Values]:
    with open_vault(folder / "v") as made:
        made.add(passkey())
        old = (folder / "v").read_bytes()
        made.add(passkey(1))
        made.add(passkey(2))
    (folder / "v").write_bytes(old)
    yield {}


@contextlib.asynccontextmanager
async def _lost_vault(stage: Stage, folder: Path) -> AsyncIterator[Values]:
    open_vault(folder / "v").add(passkey())
    (folder / "v").unlink()
    yield {}


@contextlib.asynccontextmanager
async def _old_vault(stage: Stage, folder: Path) -> AsyncIterator[Values]:
    body = cbor.encode({1: 3, 2: []})
    (folder / "v").touch(0o600)
    (folder / "v").write_bytes(MAGIC + b"\x00\x01" + cbor.encode({1: "none", 2: hashlib.sha256(body).digest()}) + body)
    yield {}


class _LooksForFido23(clients.Client):
    """Insists on the newest version."""

    async def greeted(self) -> None:
        await super().greeted()
        assert b"FIDO_2_3" in self.greeting


_SUCCESS = {
    "phone-sign-in": _phone("a client signs in", client(lambda: clients.Client(sign_in())), setting=vault(passkey())),
    "phone-register": Scenario(
        ALWAYS,
        "a client registers",
        _STDIN,
        client=client(lambda: clients.Client(register())),
        hint=Hint.MAKE_CREDENTIAL,
    ),
    "phone-json-events": _phone(
        "the same for programs", client(lambda: clients.Client(sign_in())), "--json-events", setting=vault(passkey())
    ),
    "phone-argument": Scenario(
        f"hybrid phone {{code}} {_VAULT} --approve always {_WITH}",
        "the code as an argument",
        setting=vault(passkey()),
        client=client(lambda: clients.Client(sign_in())),
    ),
    "phone-many": _phone(
        "two commands of one client",
        client(lambda: clients.AsksAgainAfterAnswer(sign_in())),
        "--many",
        setting=vault(passkey()),
    ),
    "phone-other-service": Scenario(
        f"{ALWAYS} --service-id 266 --relay-name cable.ua5v.com",
        "a tunnel service without an assigned name",
        _STDIN,
        setting=vault(passkey()),
        client=client(lambda: clients.Client(sign_in()), relay_name=DOMAIN),
    ),
    "phone-fido-2-3": _phone(
        "a client that looks for FIDO_2_3",
        client(lambda: _LooksForFido23(sign_in())),
        "--fido-2-3",
        setting=vault(passkey()),
    ),
    "phone-client-left": _phone("the client leaves after the greeting", client(clients.LeavesAfterGreeting)),
    "phone-client-hung-up": _phone("the client hangs up after the greeting", client(clients.HangsUpAfterGreeting)),
    "phone-stays": _phone(
        "the client never closes", client(lambda: clients.StaysAfterAnswer(sign_in())), setting=vault(passkey())
    ),
}

_ANSWERS = {
    "phone-declined": Scenario(
        f"hybrid phone - {_VAULT} --approve never {_WITH}",
        "declined by policy",
        _STDIN,
        setting=vault(passkey()),
        client=client(lambda: clients.Client(sign_in())),
    ),
    "phone-no-credential": _phone("no passkey for the site", client(lambda: clients.Client(sign_in()))),
    "phone-already-registered": Scenario(
        ALWAYS,
        "a passkey that the site excludes",
        _STDIN,
        setting=vault(passkey()),
        client=client(lambda: clients.Client(register(CREDENTIAL_ID))),
        hint=Hint.MAKE_CREDENTIAL,
    ),
    "phone-hint-violated": _phone("another command than announced", client(lambda: clients.Client(register()))),
    "phone-unknown-command": _phone("a command we do not know", client(lambda: clients.Client(b"\x41\xa0"))),
}

_APPLE = "--preset iphone --relay-name cable.ua5v.com"  # its own relay has another name
_CHROME = "--preset android-chrome2022"

_PRESETS = {
    "phone-preset": _phone(
        "a client signs in to an iPhone",
        client(lambda: clients.Client(sign_in()), relay_name=DOMAIN),
        _APPLE,
        setting=vault(passkey()),
    ),
    "phone-preset-asked-again": _phone(
        "a client that asks an iPhone what it can do",
        client(clients.AsksOnlyGetInfo, relay_name=DOMAIN),
        _APPLE,
    ),
    "phone-preset-leaves": _phone(
        "no passkey for the site, on a phone that leaves then", client(lambda: clients.Client(sign_in())), _CHROME
    ),
    "phone-preset-leaves-json": _phone(
        "the same for programs", client(lambda: clients.Client(sign_in())), f"{_CHROME} --json-events"
    ),
    "phone-preset-channel-list": Scenario(
        f"hybrid phone {{strange}} {_VAULT} --approve always --preset android",
        "a code that lists channels, on a phone that stops then",
        setting=_showing(_code(m6=[0])),
    ),
    "phone-preset-many": Scenario(f"{ALWAYS} --preset iphone --many", "more than one command of such a phone", _STDIN),
    "phone-preset-unknown": Scenario(f"{ALWAYS} --preset nokia", "a phone that nobody told us of", _STDIN),
}

_CODES = {
    "phone-code-not-fido": Scenario(
        f"hybrid phone https://example.com {_VAULT} --approve always", "another kind of code"
    ),
    "phone-code-truncated": _strange("a code that is cut off", _code()[:-4]),
    "phone-code-letters": _strange("a code with letters", _code()[:-1] + "x"),
    "phone-code-no-digits": Scenario(f"hybrid phone FIDO:/ {_VAULT} --approve always", "a code without digits"),
    "phone-code-not-cbor": _strange("digits that hold no map", "FIDO:/" + encode_digits(b"hello")),
    "phone-code-no-key": _strange("no public key", _code(m0=None)),
    "phone-code-short-secret": _strange("a short secret", _code(m1=bytes(8))),
    "phone-code-not-on-curve": _strange("a point that is not on the curve", _code(m0=b"\x02" + b"\xff" * 32)),
    "phone-code-no-channel": _strange("a channel that we do not have", _code(m6=[7])),
    "phone-code-unknown-relay": Scenario(
        f"{ALWAYS} --service-id 7", "a tunnel service that the client does not know", _STDIN
    ),
    "phone-code-old": Scenario(
        f"hybrid phone {{strange}} {_VAULT} --approve always {_WITH} --timeout-advertise 0.5",
        "an old code",
        setting=_showing(_code(m3=1)),
    ),
    "phone-image": Scenario(
        f"hybrid phone --qr-image {{tmp}}/code.png {_VAULT} --approve always {_WITH} --timeout-advertise 0.5",
        "a code in a picture",
        setting=_fresh_picture,
    ),
    "phone-image-missing": Scenario(
        f"hybrid phone --qr-image {{tmp}}/none.png {_VAULT} --approve always", "a picture that is not there"
    ),
    "phone-image-not-a-picture": _image("a file that is no picture", _picture(b"hello")),
    "phone-image-truncated": _image("a picture that is cut off", _picture(qr_png(qr_matrix(invite().url))[:200])),
    "phone-image-blank": _image("a picture without a code", _picture(blank_png())),
    "phone-image-two-codes": _image("two codes in a picture", _picture(_two_codes())),
    "phone-image-no-extra": _image("the extra for pictures is not installed", people.without_zxing),
    "phone-image-other-code": _image("another code", _picture(qr_png(qr_matrix("https://example.com")))),
}

_VAULTS = {
    "phone-vault-readable": Scenario(ALWAYS, "a vault that others can read", _STDIN, setting=vault(mode=0o644)),
    "phone-vault-folder": Scenario(ALWAYS, "a folder that others can write in", _STDIN, setting=_open_folder),
    "phone-vault-not-a-vault": _vault_file("a file that is no vault", b"hello"),
    "phone-vault-newer": _vault_file("a vault of a later version", MAGIC + b"\x00\x63"),
    "phone-vault-encrypted": Scenario(ALWAYS, "an encrypted vault", _STDIN, setting=_encrypted_vault),
    "phone-vault-wrong-key": Scenario(
        ALWAYS.replace("none", "file:{tmp}/k2"), "a key file of another vault", _STDIN, setting=_vault_with_key_file
    ),
    "phone-vault-key-file": Scenario(
        ALWAYS.replace("none", "file:{tmp}/k"),
        "a key file",
        _STDIN,
        client=client(lambda: clients.Client(sign_in())),
        setting=_vault_with_key_file,
    ),
    "phone-vault-restored": _phone(
        "an old copy of the vault", client(lambda: clients.Client(sign_in())), setting=_restored_vault
    ),
    "phone-vault-migrated": _phone("a vault of release 0.1", client(clients.LeavesAfterGreeting), setting=_old_vault),
    "phone-vault-lost": _phone("a vault of which only the copy is left", setting=_lost_vault),
    "phone-vault-damaged": _vault_file("a damaged vault", MAGIC + b"\x00\x01" + cbor.encode({1: "none", 2: bytes(32)})),
    "phone-vault-is-a-folder": Scenario(ALWAYS, "a folder in the vault's place", _STDIN, setting=_busy_vault),
}

_PROTOCOL = {
    "phone-wrong-keys": _phone("a client with other keys", client(clients.WrongMessage1)),
    "phone-bad-point": _phone("a client without a point", client(clients.BadPoint)),
    "phone-type-nine": _phone("a message of an unknown type", client(clients.TypeNine)),
    "phone-oversize": Scenario(
        _BAD, "a message of more than 1 MiB", _STDIN, setting=people.relay_sending(bytes((1 << 20) + 1))
    ),
}

_TIMEOUTS = {
    "phone-timeout-advertise": _phone("no computer comes", more="--timeout-advertise 0.5"),
    "phone-timeout-request": _phone(
        "the computer asks nothing", client(clients.SilentAfterGreeting), "--timeout-request 0.05"
    ),
    "phone-timeout-tunnel": _relay("the relay is silent", people.silent_relay, "--timeout-tunnel 0.05"),
}

_BLUETOOTH = {
    "phone-no-dbus": Scenario(
        ALWAYS, "no system bus", _STDIN, environment={"DBUS_SYSTEM_BUS_ADDRESS": "unix:path={tmp}/no-bus"}
    ),
    "phone-adapter-off": _phone("switched off", setting=people.adapters_off),
    "phone-denied": _phone("permission denied", setting=people.denied),
    "phone-advert-refused": _phone(
        "BlueZ refuses the advert",
        setting=people.failing("RegisterAdvertisement", "Failed", "Failed to register advertisement"),
    ),
    "phone-adverts-full": _phone(
        "too many adverts",
        setting=people.failing("RegisterAdvertisement", "NotPermitted", "Maximum advertisements reached"),
    ),
}

_RELAYS = {
    "phone-relay-absent": _relay("nobody listens", people.no_relay),
    "phone-relay-certificate": Scenario(
        f"hybrid phone - {_VAULT} --approve always --relay {{relay}}", "a certificate nobody vouches for", _STDIN
    ),
    "phone-relay-404": _relay("status 404", people.relay_answering(404)),
    "phone-relay-409": _relay("status 409", people.relay_answering(409)),
    "phone-relay-not-a-relay": _relay("a server of something else", people.relay_sending(subprotocols=())),
    "phone-relay-no-routing-id": _relay("no routing ID", people.relay_sending(routing=False)),
    "phone-relay-text": _relay("a text frame", people.relay_sending("hello")),
    "phone-relay-closes": _relay("the relay stops waiting", people.relay_sending(close=CloseCode.GOING_AWAY)),
}

SCENARIOS: dict[str, Scenario] = {
    **_SUCCESS,
    **_ANSWERS,
    **_PRESETS,
    **_CODES,
    **_VAULTS,
    **_PROTOCOL,
    **_TIMEOUTS,
    **_BLUETOOTH,
    **_RELAYS,
}
