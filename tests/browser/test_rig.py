"""The rig itself: the page, the screen, what is kept of failures, and what is left of it afterwards."""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import pytest
from PIL import Image

from hybrid.adapters.bluez_bus import call, system_bus
from hybrid.events import RequestReceived
from hybrid.testing.browser import Browser, BrowserOptions, NoCode, Page, PageError, Phone, ProgramFailed, open_browser
from hybrid.testing.browser import chromium as chromium_module
from hybrid.testing.browser import place as place_module
from hybrid.testing.browser.devtools import DevToolsError
from hybrid.testing.browser.phone import Approve, Ignore
from tests.browser.relying_party import RelyingParty

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def picture(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png))


# --- the page ---------------------------------------------------------------------------------------------------------


def test_click_fill_and_read(page: Page) -> None:
    page.evaluate(
        "document.body.innerHTML = '<div style=\"height: 3000px\"></div><input><button>Say it</button><p></p>';"
        "document.querySelector('button').onclick = event => { document.querySelector('p').textContent ="
        " `${event.isTrusted} ${document.querySelector('input').value}`; }"
    )
    page.fill("input", "hello")
    page.fill("input", "good bye")
    page.click("button")
    assert page.text("p") == "true good bye"
    assert page.wait_for("document.querySelector('p').textContent.length") == len("true good bye")
    with pytest.raises(PageError, match=r"not true within 0\.2 s"):
        page.wait_for("false", limit=0.2)
    with pytest.raises(PageError, match="no such thing"):
        page.evaluate("(() => { throw new Error('no such thing'); })()")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with pytest.raises(PageError, match="ERR_CONNECTION_REFUSED"):
            page.goto(f"http://localhost:{nobody.getsockname()[1]}/")


def test_a_tab_that_the_test_has_closed(page: Page) -> None:
    waiting = page.begin("new Promise(() => {})")
    page.close()  # and the fixture does it again
    told = r"this tab is closed; Browser\.new_page\(\) opens another"
    with pytest.raises(DevToolsError, match=told):
        waiting.result(10)
    with pytest.raises(DevToolsError, match=told):
        page.evaluate("1")


def test_a_test_that_has_closed_the_first_tab(browser: Browser, page: Page) -> None:
    browser.page.close()
    browser.tidy_up()
    assert browser.page.evaluate("location.href") == "about:blank"


def test_a_test_that_has_closed_every_tab(browser: Browser, page: Page, origin: str) -> None:
    browser.page.close()
    page.close()
    another = browser.new_page()
    another.goto(origin)
    another.close()
    browser.tidy_up()
    assert browser.page.evaluate("1") == 1


def test_nothing_but_this_machine_can_be_reached(page: Page) -> None:
    with socket.create_server(("127.0.0.2", 0)) as elsewhere:  # stands for the network that this test may not have
        for address in (f"http://127.0.0.2:{elsewhere.getsockname()[1]}/", "https://example.com/"):
            with pytest.raises(PageError, match="ERR_NAME_NOT_RESOLVED"):
                page.goto(address)


def test_nothing_of_one_test_is_left_for_the_next(browser: Browser, page: Page, origin: str) -> None:
    seen = "document.cookie + localStorage.getItem('a')"
    page.evaluate("document.cookie = 'a=b; max-age=999'; document.cookie = 'c=d'; localStorage.a = 'b'")
    assert page.evaluate(seen) == "a=b; c=db"
    browser.tidy_up()
    page.goto(origin)
    assert page.evaluate(seen) == "null"


def test_a_phone_of_one_test_is_put_away_before_the_next(
    browser: Browser, page: Page, phone: Phone, rp: RelyingParty
) -> None:
    ceremony = page.create(rp.creation_options())
    session = phone.begin(Ignore(60))
    session.wait_for(RequestReceived)
    browser.tidy_up()
    assert ceremony.outcome().error == "NotAllowedError"
    with pytest.raises(CancelledError):
        session.outcome()


def test_a_scan_of_one_test_is_ended_before_the_next(browser: Browser, page: Page) -> None:
    bluez = browser._place.bluez

    async def scan_and_forget() -> None:
        async with system_bus(bluez.address) as bus:
            await call(bus, "/org/bluez/hci0", "org.bluez.Adapter1", "StartDiscovery", "")
            assert bluez.discovering("hci0")
            await asyncio.to_thread(browser.tidy_up)
            assert not bluez.discovering("hci0")

    asyncio.run(scan_and_forget())


def test_views_and_pictures(browser: Browser, page: Page) -> None:
    def shade(image: Image.Image) -> int:
        return image.convert("L").crop((0, image.height - 5, 5, image.height)).tobytes()[0]

    page.view(400, 800, scale=2, dark=True, mobile=True)
    dark = picture(page.screenshot())
    assert dark.size == (800, 1600)
    page.view(400, 800, dark=False)
    light = picture(page.screenshot())
    assert light.size == (400, 800)
    assert shade(dark) < 64 < 192 < shade(light)
    page.view()
    screen = picture(browser.screenshot())
    assert screen.size == BrowserOptions().size


def test_a_dark_browser(rp: RelyingParty) -> None:
    with open_browser(BrowserOptions(size=(800, 900), dark=True)) as browser:
        browser.page.goto(rp.origin)
        assert browser.page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") is True
        ceremony = browser.page.create(rp.creation_options())
        assert browser.phone().approve().succeeded
        rp.register(ceremony.outcome().credential)
        label, png = browser.pictures()[0]
        screen = picture(png).convert("L")
        assert (label, screen.size) == ("Code", (800, 900))
        assert max(screen.crop((400, 5, 600, 10)).tobytes()) < 96


def test_a_screen_without_a_code(phone: Phone) -> None:
    with pytest.raises(NoCode, match="the browser"):
        phone.begin(Approve(), code_within=1).outcome()


def test_a_screen_with_a_choice_of_devices(page: Page, phone: Phone, rp: RelyingParty) -> None:
    ceremony = page.create(rp.creation_options(authenticatorSelection={}))
    ceremony.wait_for_log("UI step: kMechanismSelection")
    with pytest.raises(NoCode, match=r"choose a device first, see Browser\.use_phone"):
        phone.begin(Approve(), code_within=0.5).outcome()
    ceremony.abort()
    assert ceremony.outcome().error == "AbortError"


def test_pictures_while_a_phone_makes_more(browser: Browser, page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    place = browser._place

    def another_one_comes(picture: Image.Image) -> bytes:
        place.keep_picture("meanwhile")
        return b"a picture"

    monkeypatch.setattr(place_module, "png", another_one_comes)
    place.keep_picture("one")
    place.keep_picture("two")
    assert browser.pictures() == [("one", b"a picture"), ("two", b"a picture")]


# --- failures ---------------------------------------------------------------------------------------------------------


def test_what_is_seen_of_a_failure_is_kept(tmp_path: Path, origin: str) -> None:
    (tmp_path / "test_it.py").write_text(
        textwrap.dedent(f"""
        import pytest
        from tests.browser.relying_party import RelyingParty

        @pytest.fixture
        def account(hybrid_page):
            hybrid_page.goto({origin!r})
            raise ValueError("no account")

        def test_sign_in(account):
            pass

        def test_registration(hybrid_page, hybrid_phone):
            hybrid_page.goto({origin!r})
            ceremony = hybrid_page.create(RelyingParty({origin!r}).creation_options())
            hybrid_phone.decline()
            assert ceremony.outcome().error is None
        """)
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py", "--hybrid-pictures=seen"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
    )
    assert "1 failed, 1 error" in done.stdout
    in_a_fixture = sorted(path.name for path in (tmp_path / "seen" / "test_it.py-test_sign_in").iterdir())
    assert in_a_fixture == ["00-now.png", "fido.log"]
    assert "seen/test_it.py-test_registration" in done.stdout
    assert "CTAP error response code 39" in done.stdout
    folder = tmp_path / "seen" / "test_it.py-test_registration"
    kept = sorted(path.name for path in folder.iterdir())
    assert kept[0] == "00-Code.png"
    assert [name.partition("-")[2] for name in kept] == [
        "Code.png",
        "TunnelOpened.png",
        "Advertising.png",
        "ClientArrived.png",
        "RequestReceived.png",
        "ResponseSent.png",
        "Closed.png",
        "end.png",
        "now.png",
        "",
    ]
    assert kept[-1] == "fido.log"
    assert all(picture((folder / name).read_bytes()).size == (1280, 1000) for name in kept[:-1])


def test_a_program_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chromium_module, "_FLAGS", ("--version",))  # says so, and ends
    with pytest.raises(ProgramFailed, match="chromium ended with code 0"), open_browser():
        pass


# --- the end ----------------------------------------------------------------------------------------------------------

_SCRIPT = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what runs behind it
from hybrid.testing.browser import open_browser
with open_browser() as browser:
    print(browser._place.display.name, flush=True)
    {what}
"""


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose path leaves room for the sockets in it; otherwise the rig would use another."""
    folder = Path(tempfile.mkdtemp(prefix="rig-"))
    yield folder
    shutil.rmtree(folder)


def _processes_of(folder: Path) -> list[str]:
    """Command lines of all processes that have something of this folder in their environment or arguments."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            told = (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in told:
            found.append((process / "cmdline").read_text() if process.exists() else "")
    return found


@pytest.mark.parametrize(
    ("what", "signal_number", "code"),
    [
        ("pass", None, 0),
        ("raise SystemExit(3)", None, 3),
        ("os._exit(4)", None, 4),
        ("time.sleep(60)", signal.SIGTERM, -signal.SIGTERM),
        ("time.sleep(60)", signal.SIGKILL, -signal.SIGKILL),
        ("time.sleep(60)", signal.SIGINT, -signal.SIGINT),
    ],
    ids=["left", "exception", "gone", "SIGTERM", "SIGKILL", "SIGINT"],
)
def test_nothing_is_left(short_folder: Path, what: str, signal_number: signal.Signals | None, code: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _SCRIPT.format(what=what)],
        env=os.environ | {"TMPDIR": str(short_folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        display = process.stdout.readline().strip()
        assert display.startswith(":")
        if signal_number is not None:
            assert _processes_of(short_folder)
            process.send_signal(signal_number)
        assert process.wait(60) == code
    until = time.monotonic() + 60
    while (left := (_processes_of(short_folder), list(short_folder.iterdir()))) != ([], []):
        assert time.monotonic() < until, left
        time.sleep(0.05)  # processes of others do not tell us
    assert not Path(f"/tmp/.X{display[1:]}-lock").exists()


def test_a_window_closed_by_accident_is_told(rp: RelyingParty) -> None:
    with open_browser() as browser:
        browser.page.goto(rp.origin)
        ceremony = browser.page.create(rp.creation_options())
        browser.page.close()
        with pytest.raises(PageError, match="is gone"):
            ceremony.outcome()
