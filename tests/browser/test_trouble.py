"""What goes wrong between a laptop and a phone, and what becomes of it in the page, on the phone, in Chromium's log."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from hybrid.adapters.qr_image import read_code
from hybrid.errors import (
    BluetoothProblem,
    BluetoothUnavailable,
    InvalidQR,
    PeerTimeout,
    Stage,
    TunnelError,
    TunnelProblem,
)
from hybrid.events import Advertising, ClientArrived, CodeIsOld, Event, RequestReceived, ResponseSent, TunnelOpened
from hybrid.ports import Advertiser, Channel, TunnelService
from hybrid.protocol.authenticator import Introduction
from hybrid.protocol.tunnel import TunnelRequest
from hybrid.testing.browser import Browser, Page, Phone
from hybrid.testing.browser.phone import Approve, Decline, Ignore, Misbehave, PhoneLeft
from hybrid.testing.browser.place import NoCode
from hybrid.testing.peers import phones
from tests.browser.ceremonies import Ceremonies, errors_of
from tests.browser.conftest import FOREIGN_CA, REFUSING
from tests.browser.relying_party import RelyingParty

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

NOT_ALLOWED = "NotAllowedError"
SHOWING, CONNECTING = "kCableV2QRCode", "kCableV2Connecting"


def wait_for_code(browser: Browser, file: Path) -> None:
    while True:  # the time limit of the test ends it
        browser.screenshot(file)
        with contextlib.suppress(InvalidQR):
            read_code(file)
            return


# --- the person -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["create", "get"])
def test_decline(page: Page, phone: Phone, rp: RelyingParty, method: str) -> None:
    ceremony = page.create(rp.creation_options()) if method == "create" else page.get(rp.request_options())
    # at get there is nothing to find: a stranger does not learn that
    assert phone.decline().statuses == (0x27,)
    assert ceremony.outcome().error == NOT_ALLOWED
    assert ceremony.log().ctap_statuses == (0x27,)
    assert not phone.passkeys


def test_waiting_for_what_never_happens(page: Page, phone: Phone, rp: RelyingParty) -> None:
    ceremony = page.create(rp.creation_options())
    session = phone.begin(Decline(after=1))
    with pytest.raises(TimeoutError, match="no ResponseSent on the phone"):
        session.wait_for(ResponseSent, limit=0)
    with pytest.raises(TimeoutError, match="the phone's session goes on after 0 s"):
        session.outcome(0)
    with pytest.raises(PhoneLeft, match="the session ended before CodeIsOld"):
        session.wait_for(CodeIsOld)
    assert ceremony.outcome().error == NOT_ALLOWED


def test_no_passkey_here(ceremonies: Ceremonies, page: Page, phone: Phone, rp: RelyingParty) -> None:
    ceremonies.create()
    ceremony = page.get(rp.request_options())
    assert phone.no_passkey().statuses == (0x2E,)
    assert ceremony.outcome().error == NOT_ALLOWED
    assert ceremony.log().ctap_statuses == (0x2E,)


def test_a_slow_person(page: Page, phone: Phone, rp: RelyingParty) -> None:
    ceremony = page.create(rp.creation_options())
    assert phone.approve(after=3).succeeded
    outcome = ceremony.outcome()
    rp.register(outcome.credential)
    assert outcome.seconds >= 3


def test_the_phone_gives_up_on_its_person(page: Page, phone: Phone, rp: RelyingParty) -> None:
    ceremony = page.create(rp.creation_options())
    assert phone.ignore(seconds=1).statuses == (0x2F,)
    assert ceremony.outcome().error == NOT_ALLOWED
    assert ceremony.log().ctap_statuses == (0x2F,)


def test_the_code_is_switched_off_before_anybody_scans_it(browser: Browser, page: Page, rp: RelyingParty) -> None:
    ceremony = page.create(rp.creation_options())
    browser.use_phone()
    browser.close_dialog(ceremony)
    assert ceremony.outcome().error == NOT_ALLOWED
    assert ceremony.log().steps == (SHOWING, "kClosed")


def test_the_code_of_a_test_before_is_not_scanned(
    browser: Browser, page: Page, phone: Phone, rp: RelyingParty, tmp_path: Path
) -> None:
    ceremony = page.create(rp.creation_options())
    browser.use_phone()
    wait_for_code(browser, tmp_path / "screen.png")
    browser.tidy_up()
    with pytest.raises(NoCode):
        phone.begin(Decline(), code_within=0.5).outcome()
    browser.close_dialog(ceremony)


def test_the_dialog_is_closed_while_the_phone_asks(
    browser: Browser, page: Page, phone: Phone, rp: RelyingParty
) -> None:
    ceremony = page.create(rp.creation_options())
    session = phone.begin(Ignore(60))
    session.wait_for(RequestReceived)
    browser.close_dialog(ceremony)
    assert ceremony.outcome().error == NOT_ALLOWED
    left = session.outcome()
    assert (left.statuses, left.error) == ((), None)
    assert not phone.passkeys


def test_the_page_gives_up(page: Page, phone: Phone, rp: RelyingParty) -> None:
    ceremony = page.create(rp.creation_options())
    session = phone.begin(Ignore(60))
    session.wait_for(RequestReceived)
    ceremony.abort()
    assert ceremony.outcome().error == "AbortError"
    assert (session.outcome().statuses, session.outcome().error) == ((), None)


@pytest.mark.parametrize("account", [None, "ada"])
def test_an_account_that_is_not_there_is_refused(ceremonies: Ceremonies, account: str | None) -> None:
    ceremonies.create("ada")
    ceremony = ceremonies.page.get(ceremonies.rp.request_options())
    asked = ceremonies.phone.approve(account="bob" if account is None else account)
    assert asked.statuses == ((0x27,) if account is None else (0x00,))
    assert (ceremony.outcome().error == NOT_ALLOWED) is (account is None)


# --- the connection ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "steps", "error"),
    [
        (TunnelOpened, (SHOWING,), ""),
        (Advertising, (SHOWING,), "-> (error reading)"),
        (ClientArrived, (SHOWING, CONNECTING), "-> (error reading)"),
        (RequestReceived, (SHOWING, CONNECTING), "is fatal to the request"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_hang_up(
    browser: Browser,
    page: Page,
    phone: Phone,
    rp: RelyingParty,
    at: type[Event],
    steps: tuple[str, ...],
    error: str,
) -> None:
    ceremony = page.create(rp.creation_options())
    left = phone.hang_up(at)
    assert type(left.events[-1]) is at or ResponseSent not in map(type, left.events)
    if at in (ClientArrived, RequestReceived):
        ceremony.wait_for_log(error)
    if at is not RequestReceived:  # Chromium waits for another phone, or shows that it is connecting
        browser.close_dialog(ceremony)
    assert ceremony.outcome().error == NOT_ALLOWED
    log = ceremony.log()
    assert log.steps[: len(steps)] == steps
    if at is not Advertising:  # the laptop may or may not have heard it in the moment that it was there
        assert bool(errors_of(log)) is log.advert_matched is (at is not TunnelOpened)
    assert not errors_of(log) or any(error in line for line in errors_of(log))


def test_out_of_range(browser: Browser, page: Page, phone: Phone, rp: RelyingParty) -> None:
    ceremony = page.create(rp.creation_options())
    gave_up = phone.out_of_range(seconds=1).error
    assert isinstance(gave_up, PeerTimeout)
    assert gave_up.stage is Stage.ADVERTISE
    browser.close_dialog(ceremony)
    log = ceremony.log()
    assert not log.advert_matched
    assert log.steps == (SHOWING, "kClosed")


def test_bluetooth_off_on_the_phone(browser: Browser, page: Page, phone: Phone, rp: RelyingParty) -> None:
    phone.bluetooth(False)
    ceremony = page.create(rp.creation_options())
    error = phone.approve().error
    assert isinstance(error, BluetoothUnavailable)
    assert error.reason is BluetoothProblem.OFF
    browser.close_dialog(ceremony)
    assert not ceremony.log().advert_matched


def test_bluetooth_off_on_the_laptop(browser: Browser, page: Page, phone: Phone, rp: RelyingParty) -> None:
    browser.bluetooth(False)
    ceremony = page.create(rp.creation_options())
    ceremony.wait_for_log("UI step: kBlePowerOnAutomatic")
    browser.close_dialog(ceremony)
    assert ceremony.outcome().error == NOT_ALLOWED
    browser.bluetooth(True)
    ceremony = page.create(rp.creation_options())
    assert phone.approve().succeeded
    rp.register(ceremony.outcome().credential)


def test_relay_down(browser: Browser, page: Page, phone: Phone, rp: RelyingParty) -> None:
    browser.relay(up=False)
    ceremony = page.create(rp.creation_options())
    error = phone.approve().error
    assert isinstance(error, TunnelError)
    assert error.reason is TunnelProblem.UNREACHABLE
    browser.close_dialog(ceremony)
    browser.relay(up=True)
    ceremony = page.create(rp.creation_options())
    assert phone.approve().succeeded
    rp.register(ceremony.outcome().credential)


def test_relay_goes_down_while_the_phone_asks(browser: Browser, page: Page, phone: Phone, rp: RelyingParty) -> None:
    ceremony = page.create(rp.creation_options())
    session = phone.begin(Approve(after=60))
    session.wait_for(RequestReceived)
    browser.relay(up=False)
    assert ceremony.outcome().error == NOT_ALLOWED
    assert session.outcome().statuses == ()
    assert any("is fatal to the request" in line for line in ceremony.log().errors)


@pytest.mark.parametrize(("service_id", "net_errors"), [(REFUSING, ()), (FOREIGN_CA, (-202,))])
def test_the_laptop_cannot_reach_or_trust_the_relay(
    browser: Browser, page: Page, rp: RelyingParty, service_id: int, net_errors: tuple[int, ...]
) -> None:
    ceremony = page.create(rp.creation_options())
    session = browser.phone(service_id=service_id).begin(Approve())
    ceremony.wait_for_log("tunnel failed to connect")
    browser.close_dialog(ceremony)
    assert ceremony.outcome().error == NOT_ALLOWED
    log = ceremony.log()
    assert log.advert_matched
    assert not log.connected
    assert log.net_errors == net_errors
    session.cancel()


class _OtherRoute(phones.Phone):
    """Advertises a routing id that its relay has never heard of: the laptop is told 404."""

    async def run(self, to: str | Introduction, *, advertiser: Advertiser, tunnels: TunnelService) -> None:
        await super().run(to, advertiser=advertiser, tunnels=_OtherRouteTunnels(tunnels))


class _OtherRouteTunnels:
    loopback = True

    def __init__(self, tunnels: TunnelService) -> None:
        self._tunnels = tunnels

    async def open(self, request: TunnelRequest) -> Channel:
        return _OtherRouteChannel(await self._tunnels.open(request))


class _OtherRouteChannel:
    bounded = True
    signals = False

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        assert channel.routing_id is not None
        self.routing_id = bytes(byte ^ 0xFF for byte in channel.routing_id)
        self.send, self.receive, self.aclose = channel.send, channel.receive, channel.aclose


# --- phones that break a rule -----------------------------------------------------------------------------------------


NEVER_HEARD = [phones.WrongTag(), phones.ShortAdvert()]

# What Chromium logs for each, by version 156.
REFUSED_BEFORE_THE_REQUEST = [
    (_OtherRoute(), "tunnel failed to connect"),
    (phones.WrongPsk(), "caBLEv2 handshake failed"),
    (phones.NoGetInfo(), "missing getInfo response"),
    (phones.UnreadableGreeting(), "decode failed for caBLE post-handshake message"),
    (phones.FeaturesWithoutCtap(), "doesn't support CTAP"),
]
REFUSED_AFTER_IT = [
    (phones.TypeNine(), "invalid message type 9"),
    (phones.SkippedCounter(), "decryption failed for caBLE message"),
    (phones.ReusedCounter(), "decryption failed for caBLE message"),
    (phones.ShutdownInsteadOfAnswer(), "invalid shutdown frame"),
    (phones.PlainAnswer(), "decryption failed for caBLE message"),
    (phones.ClosesWithoutAnswer(), "-> (error reading)"),
    (phones.EmptyAnswer(), "-> (error reading)"),
    (phones.Phone(response=b"\x36"), "CTAP error response code 54"),
    (phones.Phone(response=b"\xff"), "CTAP error response code 255"),
]


def _name(value: object) -> str:
    return type(value).__name__ if isinstance(value, phones.Phone) else ""


@pytest.mark.parametrize("peer", NEVER_HEARD, ids=_name)
def test_an_advert_that_does_not_belong_to_the_code(
    browser: Browser, page: Page, phone: Phone, rp: RelyingParty, peer: phones.Phone
) -> None:
    ceremony = page.create(rp.creation_options())
    phone.misbehave(peer, seconds=1)
    assert not ceremony.is_over
    browser.close_dialog(ceremony)
    assert not ceremony.log().advert_matched


@pytest.mark.parametrize(("peer", "words"), REFUSED_BEFORE_THE_REQUEST, ids=_name)
def test_a_phone_that_chromium_does_not_talk_to(
    browser: Browser, page: Page, phone: Phone, rp: RelyingParty, peer: phones.Phone, words: str
) -> None:
    ceremony = page.create(rp.creation_options())
    phone.begin(Misbehave(peer, seconds=60))
    ceremony.wait_for_log(words)
    browser.close_dialog(ceremony)
    assert ceremony.outcome().error == NOT_ALLOWED
    log = ceremony.log()
    assert log.advert_matched
    assert not log.connected


@pytest.mark.parametrize(("peer", "words"), REFUSED_AFTER_IT, ids=_name)
def test_an_answer_that_chromium_does_not_take(
    page: Page, phone: Phone, rp: RelyingParty, peer: phones.Phone, words: str
) -> None:
    ceremony = page.create(rp.creation_options())
    phone.misbehave(peer, seconds=60)
    assert ceremony.outcome().error == NOT_ALLOWED
    log = ceremony.log()
    assert log.connected
    assert any(words in line for line in log.errors)
