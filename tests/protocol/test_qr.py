"""The QR invitation: digits and members, what is refused and what is not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybrid import cbor
from hybrid.errors import InvalidQR, LocalProtocolError, QRProblem
from hybrid.protocol.keys import compressed
from hybrid.protocol.qr import GREASE_KEY, SCHEME, Hint, QrInvitation, Transport, decode_digits, encode_digits
from tests.protocol.sides import CLIENT_IDENTITY, PHONE_IDENTITY, invitation, secret

GOOD: dict[Any, Any] = {0: compressed(CLIENT_IDENTITY.public_key()), 1: bytes(16), 2: 2, 3: 1_700_000_000, 5: "ga"}


def parsed(change: dict[Any, Any] | None = None, *, without: tuple[int, ...] = ()) -> QrInvitation:
    fields = {key: value for key, value in {**GOOD, **(change or {})}.items() if key not in without}
    return QrInvitation.parse(SCHEME + encode_digits(cbor.encode(fields)))


def refusal(url: str) -> QRProblem:
    with pytest.raises(InvalidQR) as info:
        QrInvitation.parse(url)
    assert str(info.value)
    return info.value.reason


# --- digits


@given(st.binary(max_size=200))
def test_digits_round_trip(data: bytes) -> None:
    digits = encode_digits(data)
    assert digits.isascii()
    assert set(digits) <= set("0123456789")
    assert decode_digits(digits) == data


@given(st.text(max_size=60) | st.text("0123456789", max_size=80))
def test_any_digits_give_bytes_or_a_documented_error(digits: str) -> None:
    try:
        data = decode_digits(digits)
    except InvalidQR:
        return
    assert encode_digits(data) == digits


@pytest.mark.parametrize("length", [1, 2, 4, 6, 7, 9, 11, 12, 14, 16])
def test_lengths_that_no_chunk_has_are_refused(length: int) -> None:
    for digits in ("0" * length, "0" * (17 + length)):
        with pytest.raises(InvalidQR):
            decode_digits(digits)


@pytest.mark.parametrize(("size", "length"), [(1, 3), (2, 5), (3, 8), (4, 10), (5, 13), (6, 15), (7, 17)])
def test_numbers_fit_their_bytes(size: int, length: int) -> None:
    assert decode_digits(str(256**size - 1)) == b"\xff" * size
    for number in (256**size, 10**length - 1):
        with pytest.raises(InvalidQR):
            decode_digits(str(number))


@pytest.mark.parametrize(
    "digits", ["12a", "+12", " 12", "12 ", "1_2", "-12", "\N{FULLWIDTH DIGIT ONE}12", "\u0661\u0662\u0663", "12\n"]
)
def test_only_ascii_digits_are_digits(digits: str) -> None:
    with pytest.raises(InvalidQR):
        decode_digits(digits)


# --- the URL


@pytest.mark.parametrize("scheme", ["FIDO:/", "fido:/", "Fido:/"])
def test_the_scheme_is_read_in_either_case(scheme: str) -> None:
    url = invitation().url
    assert url.startswith("FIDO:/")
    assert QrInvitation.parse(scheme + url[6:]) == invitation()


@pytest.mark.parametrize(
    "scheme", ["", "FIDO:", "FIDO://", "FIDO", " FIDO:/", "HTTP:/", "F\u0131DO:/", "\ufb01DO:/", "FIDO:\u2215"]
)
def test_other_schemes_are_refused(scheme: str) -> None:
    assert refusal(scheme + invitation().url[6:]) in (QRProblem.NOT_FIDO, QRProblem.DIGITS)


def test_a_dotless_i_is_no_i() -> None:
    assert refusal("f\u0131do:/" + invitation().url[6:]) is QRProblem.NOT_FIDO


def test_nothing_may_be_missing_or_follow() -> None:
    url = invitation().url
    assert refusal("FIDO:/") is QRProblem.DIGITS
    assert refusal(url + "\n") is QRProblem.DIGITS
    assert refusal(url[:-1]) is QRProblem.DIGITS
    encoded = invitation().to_cbor()
    assert refusal(SCHEME + encode_digits(encoded + b"\x00")) is QRProblem.CBOR
    assert refusal(SCHEME + encode_digits(encoded[:-1])) is QRProblem.CBOR
    assert refusal(SCHEME + encode_digits(b"\x80")) is QRProblem.CBOR
    assert refusal(SCHEME + encode_digits(b"\xa2\x01\x00\x01\x00")) is QRProblem.CBOR


@given(
    st.text(max_size=80)
    | st.text("0123456789", max_size=250).map(SCHEME.__add__)
    | st.binary(max_size=80).map(lambda data: SCHEME + encode_digits(data))
)
def test_any_text_gives_an_invitation_or_a_documented_error(url: str) -> None:
    try:
        QrInvitation.parse(url)
    except InvalidQR:
        return


@given(
    st.dictionaries(
        st.sampled_from([0, 1, 2, 3, 4, 5, 6, 65535, "x", -1]),
        st.integers().map(lambda n: n % 2**63)
        | st.booleans()
        | st.none()
        | st.text(max_size=4)
        | st.binary(max_size=34)
        | st.lists(
            st.integers(0, 3) | st.booleans() | st.text(max_size=2) | st.lists(st.none(), max_size=1), max_size=3
        )
        | st.floats(),
    )
)
def test_any_members_give_an_invitation_or_a_documented_error(change: dict[Any, Any]) -> None:
    try:
        qr = parsed(change)
    except InvalidQR:
        return
    if qr.transports:
        assert QrInvitation.parse(qr.url) == qr
    else:
        with pytest.raises(LocalProtocolError):
            qr.to_cbor()


# --- members


@given(
    st.none() | st.integers(0, 2**32),
    st.none() | st.integers(0, 2**40),
    st.none() | st.booleans(),
    st.none() | st.text(max_size=5),
    st.sampled_from([(False, (Transport.WEBSOCKET,)), (True, (Transport.WEBSOCKET,)), (True, tuple(Transport))]),
    st.booleans(),
)
def test_invitations_round_trip(
    known: int | None,
    timestamp: int | None,
    state_assisted: bool | None,
    hint: str | None,
    transports: tuple[bool, tuple[Transport, ...]],
    grease: bool,
) -> None:
    qr = QrInvitation(
        public_key=CLIENT_IDENTITY.public_key(),
        secret=secret("qr", 16),
        known_domains=known,
        timestamp=timestamp,
        state_assisted=state_assisted,
        hint_text=hint,
        transports=transports[1],
        transports_stated=transports[0],
    )
    sent = QrInvitation(
        **{**{name: getattr(qr, name) for name in qr.__slots__}, "extra": ((GREASE_KEY, 0),) if grease else ()}
    )
    assert QrInvitation.parse(sent.url) == qr


@pytest.mark.parametrize("bit", range(6))
def test_any_flipped_digit_changes_something_or_is_refused(bit: int) -> None:
    url = invitation().url
    for at in range(6 + bit, len(url), 6):
        other = url[:at] + str((int(url[at]) + 1) % 10) + url[at + 1 :]
        try:
            assert QrInvitation.parse(other) != invitation()
        except InvalidQR:
            continue


@pytest.mark.parametrize("key", [0, 1])
def test_key_and_secret_are_mandatory(key: int) -> None:
    assert parsed().secret == bytes(16)
    with pytest.raises(InvalidQR) as info:
        parsed(without=(key,))
    assert info.value.reason is QRProblem.FIELD


@pytest.mark.parametrize("value", ["text", 1, None, [0], True])
@pytest.mark.parametrize("key", [0, 1])
def test_key_and_secret_are_bytes(key: int, value: object) -> None:
    with pytest.raises(InvalidQR):
        parsed({key: value})


@pytest.mark.parametrize("size", [0, 15, 17, 32])
def test_the_secret_has_16_bytes(size: int) -> None:
    with pytest.raises(InvalidQR) as info:
        parsed({1: bytes(size)})
    assert info.value.reason is QRProblem.FIELD
    with pytest.raises(LocalProtocolError):
        QrInvitation(public_key=CLIENT_IDENTITY.public_key(), secret=bytes(size))


@pytest.mark.parametrize(
    "point",
    [GOOD[0][:-1], GOOD[0] + b"\x00", b"\x04" + GOOD[0][1:], b"\x00" + GOOD[0][1:], b"\x02" + b"\xff" * 32, bytes(33)],
)
def test_the_public_key_is_a_compressed_point(point: bytes) -> None:
    with pytest.raises(InvalidQR) as info:
        parsed({0: point})
    assert info.value.reason is QRProblem.KEY


@pytest.mark.parametrize(
    ("key", "value"),
    [(2, "2"), (2, b"2"), (2, True), (2, None), (4, 1), (4, "true"), (4, None), (5, b"ga"), (5, 1), (5, None)],
)
def test_members_of_another_type_are_refused(key: int, value: object) -> None:
    with pytest.raises(InvalidQR) as info:
        parsed({key: value})
    assert info.value.reason is QRProblem.FIELD


def test_missing_members_have_defaults() -> None:
    qr = parsed(without=(2, 3, 5))
    assert (qr.known_domains, qr.timestamp, qr.state_assisted, qr.hint_text) == (None, None, None, None)
    assert qr.hint is Hint.GET_ASSERTION
    assert qr.stated_hint is None
    assert not qr.wants_link
    assert qr.transports == (Transport.WEBSOCKET,)
    assert [qr.knows_service(number) for number in (0, 1, 2, 255, 256)] == [True, True, False, False, True]


@pytest.mark.parametrize(
    ("known", "answers"), [(0, [0, 0, 0, 1]), (1, [1, 0, 0, 1]), (2, [1, 1, 0, 1]), (3, [1, 1, 1, 1])]
)
def test_services_below_256_must_be_known(known: int, answers: list[int]) -> None:
    qr = parsed({2: known})
    assert [int(qr.knows_service(number)) for number in (0, 1, 2, 256)] == answers


@pytest.mark.parametrize(("stated", "wants"), [(True, True), (False, False)])
def test_only_true_asks_for_a_link(stated: bool, wants: bool) -> None:
    assert parsed({4: stated}).wants_link is wants


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        ("ga", Hint.GET_ASSERTION),
        ("mc", Hint.MAKE_CREDENTIAL),
        ("dcp", Hint.PRESENT_CREDENTIAL),
        ("dci", Hint.ISSUE_CREDENTIAL),
        ("GA", None),
        ("", None),
        ("new", None),
    ],
)
def test_unknown_hints_are_treated_as_ga(text: str, stated: Hint | None) -> None:
    qr = parsed({5: text})
    assert qr.hint_text == text
    assert qr.stated_hint is stated
    assert qr.hint is (stated or Hint.GET_ASSERTION)


@pytest.mark.parametrize("value", ["soon", None, True, 1.5, b""])
def test_a_strange_time_is_ignored(value: object) -> None:
    assert parsed({3: value}).timestamp is None


@pytest.mark.parametrize(
    ("value", "transports"),
    [
        (True, (0,)),  # the meaning of key 6 before CTAP 2.3
        (False, (0,)),
        ("x", (0,)),
        ([], (0,)),
        ([0], (0,)),
        ([1, 0], (0, 1)),
        ([0, 0, 7], (0,)),
        ([7], ()),
        (["x", True, [1], 1], (1,)),
    ],
)
def test_channels(value: object, transports: tuple[int, ...]) -> None:
    assert parsed({6: value}).transports == transports


def test_unknown_keys_are_ignored() -> None:
    assert parsed({GREASE_KEY: 0, 7: "new", -1: 0, "text": [1]}) == parsed()


def test_what_we_write_is_canonical_and_omits_what_is_unsaid() -> None:
    assert set(cbor.decode(invitation().to_cbor())) == {0, 1, 2, 3, 5}
    assert set(cbor.decode(invitation(state_assisted=True).to_cbor())) == {0, 1, 2, 3, 4, 5}
    assert cbor.encode(cbor.decode(invitation().to_cbor())) == invitation().to_cbor()


# --- secrets


def test_the_tunnel_id_does_not_depend_on_the_key() -> None:
    assert invitation().tunnel_id() == invitation(PHONE_IDENTITY.public_key()).tunnel_id()
    assert len(invitation().tunnel_id()) == 16
    assert len(invitation().eid_key()) == 64


def test_the_psk_takes_the_whole_plaintext() -> None:
    plaintext = secret("plaintext", 16)
    psks = {invitation().psk(plaintext[:at] + bytes([plaintext[at] ^ 1]) + plaintext[at + 1 :]) for at in range(16)}
    assert len(psks | {invitation().psk(plaintext)}) == 17


def test_no_secret_shows() -> None:
    qr = invitation()
    assert repr(qr) == str(qr) == "<QrInvitation ga>"
