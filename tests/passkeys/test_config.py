"""authenticatorConfig, judged by python-fido2's Config."""

from __future__ import annotations

from typing import Any

import pytest
from fido2.ctap import CtapError
from fido2.ctap2.config import Config
from fido2.ctap2.pin import PinProtocol

from tests.passkeys.rig import HASH, RP_ID
from tests.passkeys.roaming_rig import PIN, PROTOCOLS, Key

ACFG = 0x20
CREATE: dict[int, Any] = {1: HASH, 2: {"id": RP_ID}, 3: {"id": b"u"}, 4: [{"alg": -7, "type": "public-key"}]}


def config(key: Key, pin: str = PIN) -> Config:
    return Config(key.ctap, key.protocol, key.token(ACFG, None, pin))


def refused(caught: pytest.ExceptionInfo[CtapError]) -> int:
    return int(caught.value.code)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_always_uv(protocol: type[PinProtocol]) -> None:
    key = Key(protocol=protocol)
    assert key.status(1, CREATE) == 0, "makeCredUvNotRqd"
    assert key.status(1, {**CREATE, 7: {"rk": True}}) == 0x36
    config(key).toggle_always_uv()
    options = key.ctap.info.options
    assert (options["alwaysUv"], options["makeCredUvNotRqd"]) == (True, False)
    assert key.status(1, CREATE) == 0x36
    assert key.status(2, {1: RP_ID, 2: HASH}) == 0x36
    assert key.status(2, {1: RP_ID, 2: HASH, 5: {"up": False}}) == 0x2E, "silent probes need no verification"
    token = key.token(1, RP_ID)
    assert key.status(1, {**CREATE, 8: key.protocol.authenticate(token, HASH), 9: protocol.VERSION}) == 0
    config(key).toggle_always_uv()
    options = key.ctap.info.options
    assert (options["alwaysUv"], options["makeCredUvNotRqd"]) == (False, True)
    assert key.status(1, CREATE) == 0


def test_always_uv_without_a_pin() -> None:
    key = Key(pin=None)
    Config(key.ctap).toggle_always_uv()
    assert key.status(1, CREATE) == 0x36
    assert key.status(0x0C, {2: bytes(17), 3: 0, 4: 17}) == 0x36
    assert key.status(0x0D, {1: 3, 2: {1: 6}}) == 0x36
    Config(key.ctap).toggle_always_uv()
    assert key.status(1, CREATE) == 0


def test_minimum_length() -> None:
    key = Key(pin="123456")
    config(key, "123456").set_min_pin_length(6)
    info = key.ctap.info
    assert (info.min_pin_length, info.force_pin_change) == (6, False)
    for length in (5, 64):
        with pytest.raises(CtapError) as caught:
            config(key, "123456").set_min_pin_length(length)
        assert refused(caught) == 0x37
    config(key, "123456").set_min_pin_length(8)
    info = key.ctap.info
    assert (info.min_pin_length, info.force_pin_change) == (8, True)
    with pytest.raises(CtapError) as caught:
        key.client_pin.change_pin("123456", "1234567")
    assert refused(caught) == 0x37
    key.client_pin.change_pin("123456", "12345678")
    assert key.ctap.info.force_pin_change is False
    key.ctap.reset()
    assert key.ctap.info.min_pin_length == 4


def test_the_pin_must_change() -> None:
    key = Key()
    config(key).set_min_pin_length(force_change_pin=True)
    assert key.ctap.info.force_pin_change is True
    with pytest.raises(CtapError) as caught:
        key.client_pin.get_pin_token(PIN)
    assert refused(caught) == 0x31
    with pytest.raises(CtapError) as caught:
        key.token(1, RP_ID)
    assert refused(caught) == 0x37
    with pytest.raises(CtapError) as caught:
        key.client_pin.change_pin(PIN, PIN)
    assert refused(caught) == 0x37
    key.client_pin.change_pin(PIN, "another")
    assert key.token(1, RP_ID, "another")


def test_the_token_ends_when_the_pin_must_change() -> None:
    key = Key()
    change = config(key)
    change.set_min_pin_length(force_change_pin=True)
    with pytest.raises(CtapError) as caught:
        change.toggle_always_uv()
    assert refused(caught) == 0x33


def test_min_pin_length_extension_for_configured_sites_only() -> None:
    key = Key()
    config(key).set_min_pin_length(5, rp_ids=[RP_ID])

    def output(rp_id: str) -> Any:
        made = key.ctap.make_credential(HASH, {"id": rp_id}, {"id": b"u"}, CREATE[4], extensions={"minPinLength": True})
        return made.auth_data.extensions

    assert output(RP_ID) == {"minPinLength": 5}
    assert output("example.org") is None
    config(key).set_min_pin_length(rp_ids=["example.org"])
    assert (output(RP_ID), output("example.org")) == (None, {"minPinLength": 5})
    with pytest.raises(CtapError) as caught:
        config(key).set_min_pin_length(rp_ids=["x"] * 9)
    assert refused(caught) == 0x28
    assert key.status(1, {**CREATE, 6: {"minPinLength": False}}) == 0x2C


def test_other_permissions_are_not_enough() -> None:
    key = Key()
    for permissions in (0x01, 0x02, 0x04, 0x10, 0x40):
        with pytest.raises(CtapError) as caught:
            Config(key.ctap, key.protocol, key.token(permissions, RP_ID)).toggle_always_uv()
        assert refused(caught) == 0x33
    with pytest.raises(CtapError) as caught:
        Config(key.ctap).toggle_always_uv()
    assert refused(caught) == 0x36


ROWS: dict[str, tuple[dict[int, Any] | None, int]] = {
    "no members": (None, 0x14),
    "subcommand is text": ({1: "2"}, 0x11),
    "enterprise attestation": ({1: 1}, 0x3E),
    "vendor": ({1: 0xFF}, 0x3E),
    "toggle": ({1: 2}, 0x00),
    "minimum without params": ({1: 3}, 0x00),
    "params is a list": ({1: 3, 2: []}, 0x11),
    "length is text": ({1: 3, 2: {1: "6"}}, 0x11),
    "longest": ({1: 3, 2: {1: 63}}, 0x00),
    "longer than any PIN": ({1: 3, 2: {1: 64}}, 0x37),
    "as many RP ids as announced": ({1: 3, 2: {2: ["x"] * 8}}, 0x00),
    "RP ids of bytes": ({1: 3, 2: {2: [b"x"]}}, 0x11),
    "change what is not set": ({1: 3, 2: {3: True}}, 0x35),
    "a policy we do not have": ({1: 3, 2: {4: True}}, 0x02),
}


@pytest.mark.parametrize(("fields", "expected"), ROWS.values(), ids=ROWS.keys())
def test_row(fields: dict[int, Any] | None, expected: int) -> None:
    key = Key(pin=None)
    assert key.status(0x0D, fields) == expected
    assert key.ctap.info.force_pin_change is False, "there is none to change"
