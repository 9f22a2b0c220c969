"""What the formats share: JSON within bounds, RP ids in form, clashes in a store, private files, and noise as input."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybrid.errors import PortabilityError, PortabilityProblem
from hybrid.passkeys import portability
from hybrid.passkeys.bitwarden import read_bitwarden
from hybrid.passkeys.cxf import read_cxf, write_cxf
from hybrid.passkeys.keepassxc_file import read_passkey_file
from hybrid.passkeys.portability import (
    Exported,
    Imported,
    LeftOut,
    Loss,
    Report,
    UnusablePasskey,
    algorithms_of,
    checked,
    from_b64url,
    import_into,
    is_rp_id,
    public_key_of,
    read_file,
    read_json,
    write_private,
)
from hybrid.passkeys.store import CredentialState, MemoryStore
from tests.passkeys.portability_rig import NOW, der, plain, private_key, public_der
from tests.passkeys.rig import counting_random
from tests.passkeys.test_portability_cxf import document, dumped
from tests.passkeys.test_portability_files import IN_PASSKEY_FILE, bitwarden_document, bitwarden_passkey


@pytest.mark.parametrize(
    "text",
    ["example.com", "a.b.c.example", "localhost", "xn--80ak6aa92e.com", "my_host.example", "1x.example", "0.example"],
)
def test_an_rp_id_in_form(text: str) -> None:
    assert is_rp_id(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "example.com.",
        ".example.com",
        "example..com",
        "EXAMPLE.com",
        "exämple.com",
        "-a.example",
        "a-.example",
        "127.0.0.1",
        "1",
        "a.1",
        "a.0x7f",
        "[::1]",
        "example.com:443",
        "https://example.com",
        "example.com/x",
        "user@example.com",
        " example.com",
        "example.com\n",
        "a" * 64 + ".example",
        ".".join(["a" * 60] * 5),
    ],
)
def test_no_rp_id(text: str) -> None:
    assert not is_rp_id(text)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", PortabilityProblem.MALFORMED),
        (b"[]", PortabilityProblem.MALFORMED),
        (b'"text"', PortabilityProblem.MALFORMED),
        (b"{} {}", PortabilityProblem.MALFORMED),
        (b'{"a": NaN}', PortabilityProblem.MALFORMED),
        (b'{"a": 1e999}', PortabilityProblem.MALFORMED),
        (b'{"a": ' + b"9" * 5000 + b"}", PortabilityProblem.MALFORMED),
        (b'{"a": 1, "a": 2}', PortabilityProblem.MALFORMED),
        (b'{"a": "\\ud800"}', PortabilityProblem.MALFORMED),
        (b'{"a": "\xff"}', PortabilityProblem.MALFORMED),
        (b"\x00\x01binary", PortabilityProblem.MALFORMED),
        (b"[" * 100_000, PortabilityProblem.TOO_DEEP),
        (b'{"a":' * 33 + b"1" + b"}" * 33, PortabilityProblem.TOO_DEEP),
        (b'{"a": "' + b"x" * portability.MAX_FILE_SIZE, PortabilityProblem.TOO_LARGE),
    ],
    ids=range(14),
)
def test_bad_json_gives_one_error(data: bytes, problem: PortabilityProblem) -> None:
    with pytest.raises(PortabilityError) as caught:
        read_json(data)
    assert caught.value.reason is problem
    assert str(caught.value).isprintable()


def test_json_at_the_bounds_is_read() -> None:
    assert read_json(b'{"a":' * 32 + b"1" + b"}" * 32)
    assert read_json(b'\xef\xbb\xbf{"a": "[[[[ \\" {{{{"}') == {"a": '[[[[ " {{{{'}


@pytest.mark.parametrize("data", [b'\\"' * 200_000, b'"' + b'\\"' * 200_000 + b"\\", b'{"' * 30 + b'\\"' * 200_000])
def test_quotes_without_an_end_are_read_in_one_pass(data: bytes) -> None:
    with pytest.raises(PortabilityError):  # in the square of the time it would reach pytest's time limit
        read_json(data)


@pytest.mark.parametrize("text", ["A", "A+", "A A=", "ÄA", "AA\n", None, 5, b"AA"], ids=repr)
def test_no_base64url(text: object) -> None:
    with pytest.raises(ValueError, match="not base64url"):
        from_b64url(text)


@pytest.mark.parametrize(
    ("kind", "numbers"), [("p256", (-7, -9)), ("p384", (-35, -51)), ("ed25519", (-8, -19)), ("rsa", (-257,))]
)
def test_the_key_says_which_algorithms_it_serves(kind: str, numbers: tuple[int, ...]) -> None:
    key = private_key(kind)
    assert algorithms_of(der(key)) == numbers
    assert public_key_of(plain(kind)) == public_der(key)


def test_a_key_in_another_wrapping_is_refused() -> None:
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    key = private_key()
    bare = key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    locked = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, BestAvailableEncryption(b"pw"))
    for wrapped in (bare, locked, b"", b"0"):
        with pytest.raises(UnusablePasskey) as caught:
            algorithms_of(wrapped)
        assert caught.value.why is LeftOut.KEY


def test_keys_that_do_not_sign_or_are_weak_are_refused() -> None:
    from cryptography.hazmat.primitives.asymmetric import rsa, x25519

    for key in (x25519.X25519PrivateKey.generate(), rsa.generate_private_key(65537, 1024)):
        with pytest.raises(UnusablePasskey) as caught:
            algorithms_of(der(key))
        assert caught.value.why is LeftOut.KEY_KIND


def test_a_public_key_cannot_be_had_of_a_damaged_passkey() -> None:
    with pytest.raises(PortabilityError):
        public_key_of(plain(private_key=b"x"))


def test_checks_mend_what_can_be_mended_and_say_so() -> None:
    report = Report("x")
    mended = checked(
        plain(user_name="é" * 200, sign_count=3, backup_eligible=False, backed_up=True, secret_uv=b"short"), report
    )
    assert (mended.user_name, mended.sign_count, mended.backed_up, mended.secret_uv) == ("é" * 128, None, False, None)
    assert [finding.what for finding in report.losses] == [Loss.COUNTER, Loss.NAME, Loss.PRF, Loss.BACKUP_FLAGS]


def imported(*credentials: Any) -> Imported:
    return Imported(credentials, Report("x"))


def test_an_import_replaces_nothing() -> None:
    store = MemoryStore()
    ours = plain(user_name="ours")
    store.add(ours)
    clash = plain(number=2, credential_id=ours.credential_id)
    other_site = plain(rp_id="other.example")
    beside = plain(number=3, user_id=ours.user_id)
    new = plain(number=4)
    report = import_into(store, imported(plain(user_name="theirs"), clash, other_site, beside, new))
    assert [finding.what for finding in report.left_out] == [LeftOut.ALREADY_THERE, LeftOut.ID_CLASH, LeftOut.ID_CLASH]
    assert (report.carried, report.same_account) == (2, 1)
    assert store.credentials() == [ours, beside, new]


def test_a_removed_passkey_is_there_still_and_clashes() -> None:
    store = MemoryStore()
    store.add(plain(state=CredentialState.DELETED))
    report = import_into(store, imported(plain()))
    assert [finding.what for finding in report.left_out] == [LeftOut.ALREADY_THERE]


def test_a_damaged_record_of_ours_is_no_reason_to_stop() -> None:
    store = MemoryStore()
    store.add(plain(private_key=b"damaged"))
    report = import_into(store, imported(plain(), plain(number=2)))
    assert ([finding.what for finding in report.left_out], report.carried) == ([LeftOut.ID_CLASH], 1)


def test_too_many_passkeys_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portability, "MAX_PASSKEYS", 1)
    exported = write_cxf([plain(), plain(number=2)], now=NOW, random=counting_random())
    with pytest.raises(PortabilityError) as caught:
        read_cxf(exported.data, now=NOW)
    assert caught.value.reason is PortabilityProblem.TOO_LARGE


# --- files -----------------------------------------------------------------------------------------------------------


def test_what_is_written_is_its_owners_alone(tmp_path: Path) -> None:
    old_mask = os.umask(0)
    try:
        write_private(tmp_path / "out", b"secret")
    finally:
        os.umask(old_mask)
    assert (tmp_path / "out").read_bytes() == b"secret"
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["out"]


def test_a_file_that_is_there_stays_without_being_asked(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"before")
    with pytest.raises(PortabilityError) as caught:
        write_private(path, b"after")
    assert caught.value.reason is PortabilityProblem.EXISTS
    assert path.read_bytes() == b"before"
    write_private(path, b"after", overwrite=True)
    assert path.read_bytes() == b"after"
    assert os.listdir(tmp_path) == ["out"]


def test_a_link_is_not_followed_to_write(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_bytes(b"theirs")
    (tmp_path / "out").symlink_to(tmp_path / "theirs")
    with pytest.raises(PortabilityError):
        write_private(tmp_path / "out", b"secret")
    write_private(tmp_path / "out", b"secret", overwrite=True)
    assert (tmp_path / "theirs").read_bytes() == b"theirs"


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "none", tmp_path, tmp_path / "pipe"):
        with pytest.raises(PortabilityError) as caught:
            read_file(path)
        assert caught.value.reason is PortabilityProblem.ACCESS
    with pytest.raises(PortabilityError):
        write_private(tmp_path / "no" / "folder", b"")


def test_a_large_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    with open(tmp_path / "large", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(PortabilityError) as caught:
        read_file(tmp_path / "large")
    assert caught.value.reason is PortabilityProblem.TOO_LARGE


def test_no_secret_in_repr() -> None:
    exported = Exported(b"secret", Report("cxf", moved=[b"1", b"2"]))
    assert repr(exported) == "<Exported cxf, 2 passkeys>"


# --- noise -----------------------------------------------------------------------------------------------------------

READERS: list[tuple[Callable[[bytes], Imported], bytes]] = [
    (lambda data: read_cxf(data, now=NOW), dumped(document())),
    (lambda data: read_bitwarden(data, now=NOW), dumped(bitwarden_document(bitwarden_passkey()))),
    (lambda data: read_passkey_file(data, now=NOW), dumped(IN_PASSKEY_FILE)),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(("read", "good"), READERS, ids=["cxf", "bitwarden", "passkey"])
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_value_in_any_place_is_read_or_refused(
    read: Callable[[bytes], Imported], good: bytes, data: st.DataObject
) -> None:
    value = json.loads(good)
    place = value
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        inner = place[key]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.booleans()):
            break
        place = inner
    place[key] = data.draw(JSON)
    try:
        taken = read(dumped(value))
    except PortabilityError:
        return
    for credential in taken.credentials:
        assert is_rp_id(credential.rp_id)
        assert public_key_of(credential)


@pytest.mark.parametrize(("read", "good"), READERS, ids=["cxf", "bitwarden", "passkey"])
@given(noise=st.binary(max_size=200))
@settings(max_examples=40, deadline=None)
def test_noise_is_refused(read: Callable[[bytes], Imported], good: bytes, noise: bytes) -> None:
    with pytest.raises(PortabilityError):
        read(noise)


@pytest.mark.parametrize(("read", "good"), READERS, ids=["cxf", "bitwarden", "passkey"])
def test_a_file_that_ends_early_is_refused(read: Callable[[bytes], Imported], good: bytes) -> None:
    for size in range(0, len(good), 13):
        with pytest.raises(PortabilityError):
            read(good[:size])
