"""Chromium's log, on lines that Debian's Chromium 156 wrote in ceremonies of this project's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from hybrid.testing.browser.fido_log import FidoLog

HEAD = "[10721:10721:1121/152101.121703:{}:components/device_event_log/device_event_log_impl.cc:214] "
DEBUG, ERROR = HEAD.format("VERBOSE1"), HEAD.format("ERROR").replace("214", "211")
LOG = f"""\
/usr/bin/chromium: 9: [: 25274793984: unexpected operator

DevTools listening on ws://127.0.0.1:36279/devtools/browser/848ed128-260c-4668-86e4-709ec8520180
{DEBUG}[15:21:00.466] FIDO: EVENT: get_assertion_request_handler.cc:340 Starting GetAssertion flow: {{
   "hints": [ "hybrid" ],
   "rpId": "localhost"
}}

{DEBUG}[15:21:00.466] Bluetooth: EVENT: bluetooth_adapter_bluez.cc:1287 /org/bluez/hci0: using adapter.
{DEBUG}[15:21:00.519] FIDO: EVENT: authenticator_request_dialog_model.cc:158 UI step: kCableV2QRCode
{DEBUG}[15:21:00.866] FIDO: DEBUG: v2_discovery.cc:174 (680A42ADD58CC10CA3AAC52D8AC74682159EC67B matches QR code)
{DEBUG}[15:21:00.866] FIDO: EVENT: authenticator_request_dialog_model.cc:158 UI step: kCableV2Connecting
[10721:10764:1121/152100.880093:ERROR:net/socket/ssl_client_socket_impl.cc:902] handshake failed; \
returned -1, SSL error code 1, net_error -202
{DEBUG}[15:21:00.985] FIDO: DEBUG: fido_tunnel_device.cc:628 tunnel-E14BA9AE2B630D4E: established v2.1
{DEBUG}[15:21:01.121] FIDO: DEBUG: ctap2_device_operation.h:142 -> (CTAP2 error code 0x2e (kCtap2ErrNoCredentials))
{ERROR}[15:21:01.121] FIDO: get_assertion_request_handler.cc:675 Failing assertion request due to status 2
"""


@pytest.fixture
def log(tmp_path: Path) -> FidoLog:
    path = tmp_path / "chromium.log"
    path.write_text(LOG)
    return FidoLog(path)


def test_what_the_lines_tell(log: FidoLog) -> None:
    report = log.since()
    assert report.steps == ("kCableV2QRCode", "kCableV2Connecting")
    assert report.advert_matched
    assert report.connected
    assert report.ctap_statuses == (0x2E,)
    assert report.net_errors == (-202,)
    assert report.errors == ("Failing assertion request due to status 2",)
    assert [line.part for line in report.lines] == ["FIDO", "Bluetooth", *["FIDO"] * 3, "", *["FIDO"] * 3]


def test_an_entry_may_have_several_lines(log: FidoLog) -> None:
    first = log.since().lines[0]
    assert (first.level, first.source) == ("EVENT", "get_assertion_request_handler.cc:340")
    assert first.text.endswith('"rpId": "localhost"\n}')


def test_since_a_mark(log: FidoLog) -> None:
    mark = LOG.index(ERROR)
    assert [line.level for line in log.since(mark).lines] == ["ERROR"]
    assert log.since(log.size).lines == ()


def test_the_text_is_that_of_the_fido_part(log: FidoLog) -> None:
    text = log.since().text
    assert "using adapter" not in text
    assert "FIDO: ERROR: get_assertion_request_handler.cc:675 Failing assertion request due to status 2" in text


@pytest.mark.parametrize("noise", ["", "[", "[1:2:", "[1:2:3/4:ERROR:x] [", "\x00\xff", "[[1:1:1/1:A:b] [1] B: c:1"])
def test_other_lines_are_passed_over(tmp_path: Path, noise: str) -> None:
    path = tmp_path / "chromium.log"
    path.write_text(noise)
    assert [line for line in FidoLog(path).since().lines if line.part] == []
