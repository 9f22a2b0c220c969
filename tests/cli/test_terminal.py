"""The screen: the code as a camera sees it, lines that count down, and what is left in the end."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import zxingcpp
from PIL import Image

from hybrid.adapters.qr_image import read_code
from hybrid.cli.messages import Explanation
from hybrid.cli.terminal import Screen, event_name, half_blocks, qr_matrix, save_qr
from hybrid.errors import InvalidQR, QRProblem
from hybrid.events import AdvertSeen, Closed, HandshakeDone, Proximity, Scanning
from hybrid.invitation import invite
from tests.cli.pictures import qr_png
from tests.cli.screen_rig import FakeTerminal

FAILED = Explanation("it failed", "mend it", 1)
SEEN = AdvertSeen("relay.example", Proximity.BLUETOOTH, -60)


@pytest.fixture(autouse=True)
def a_common_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    monkeypatch.delenv("NO_COLOR", raising=False)


@pytest.fixture
def terminal() -> FakeTerminal:
    return FakeTerminal()


@pytest.fixture
def screen(terminal: FakeTerminal) -> Screen:
    return Screen(stream=terminal)


@pytest.mark.parametrize("dark", [True, False])
def test_in_colour_the_code_is_right_on_every_screen(terminal: FakeTerminal, screen: Screen, dark: bool) -> None:
    url = invite().url
    screen.show_code(url)
    assert terminal.scanned(dark_background=dark) == url


@pytest.mark.parametrize("dark", [True, False])
def test_without_colour_invert_serves_light_screens(
    terminal: FakeTerminal, screen: Screen, monkeypatch: pytest.MonkeyPatch, dark: bool
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    url = invite().url
    screen.show_code(url, invert=not dark)
    assert "\x1b" not in terminal.getvalue()
    assert terminal.scanned(dark_background=dark) == url
    assert terminal.scanned(dark_background=not dark) is None


def test_invert_in_colour_swaps_dark_and_light() -> None:
    matrix = qr_matrix("x")
    plain, inverted = half_blocks(matrix), half_blocks(matrix, invert=True)
    swap = str.maketrans(" ▄▀█", "█▀▄ ")
    rows = len(matrix) // 2  # the last line's lower half is outside the code, and dark or light as it comes
    assert [line.translate(swap) for line in plain[:rows]] == inverted[:rows]


def test_the_code_has_its_quiet_zone() -> None:
    matrix = qr_matrix(invite().url)
    border = [*matrix[:4], *matrix[-4:], *(row[:4] + row[-4:] for row in matrix)]
    assert not any(module for row in border for module in row)


@pytest.mark.parametrize(("columns", "lines"), [("80", "24"), ("41", "24"), ("60", "50")])
def test_the_code_goes_when_the_phone_was_heard(
    terminal: FakeTerminal, screen: Screen, monkeypatch: pytest.MonkeyPatch, columns: str, lines: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("LINES", lines)
    screen.show_code(invite().url)
    screen.on_event(SEEN)
    if columns == "80":
        assert terminal.lines == ["hybrid: phone found, meeting it at relay.example", ""]
    assert terminal.scanned() is None


@pytest.mark.parametrize("end", ["fail", "stopped", "close"])
def test_no_code_that_has_expired_is_left(terminal: FakeTerminal, screen: Screen, end: str) -> None:
    screen.show_code(invite().url)
    match end:
        case "fail":
            screen.fail("x.y", FAILED)
            assert terminal.lines == ["hybrid: error: it failed", "hybrid: hint: mend it", ""]
        case "stopped":
            screen.stopped()
            assert terminal.lines == ["hybrid: stopped", ""]
        case _:
            screen.close()
            assert terminal.lines == [""]


def test_what_the_terminal_writes_for_ctrl_c_is_written_over(terminal: FakeTerminal, screen: Screen) -> None:
    screen.say("working")
    terminal.write("^C")
    screen.stopped()
    assert terminal.lines == ["hybrid: working", "hybrid: stopped", ""]


def test_a_code_that_has_scrolled_away_is_left_alone(
    terminal: FakeTerminal, screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINES", "20")
    screen.show_code(invite().url)
    assert terminal.lines[0] == "hybrid: the code needs 24 lines and this terminal has 20"
    screen.on_event(SEEN)
    assert "\x1b[22A" not in terminal.getvalue()
    assert not re.search(r"\x1b\[\d+A", terminal.getvalue())


def test_a_narrow_terminal_gets_the_line_instead(
    terminal: FakeTerminal, screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    url = invite().url
    screen.show_code(url)
    text = "".join(terminal.lines)
    assert "41 columns" in text
    assert text.endswith(url)


def test_a_terminal_without_half_blocks_gets_the_line_instead(screen: Screen, terminal: FakeTerminal) -> None:
    terminal.encoding = "iso-8859-1"
    url = invite().url
    screen.show_code(url)
    assert "".join(terminal.lines[1:]) == url


def test_a_dumb_terminal_gets_no_sequences(terminal: FakeTerminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    screen = Screen(stream=terminal)
    url = invite().url
    screen.show_code(url)
    screen.on_event(Scanning(5))
    screen.on_event(SEEN)
    assert "\x1b" not in terminal.getvalue()
    assert terminal.scanned() == url


def test_no_qr_on_a_terminal_shows_nothing(terminal: FakeTerminal, screen: Screen) -> None:
    screen.show_code(invite().url, picture=False)
    assert terminal.getvalue() == ""


def test_without_a_terminal_the_code_is_a_line_of_its_own() -> None:
    stream, url = io.StringIO(), invite().url
    Screen(stream=stream).show_code(url, picture=False)
    assert stream.getvalue() == f"{url}\n"


async def test_the_time_left_is_on_the_last_line(
    terminal: FakeTerminal, screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    start = loop.time()
    now = start
    monkeypatch.setattr(loop, "time", lambda: now)
    screen.on_event(Scanning(90))
    sentence = "hybrid: waiting for your phone (Bluetooth must be on, on both)"
    assert terminal.lines == [f"{sentence}, 90 s left"]
    now = start + 30.2
    assert screen._countdown is not None
    screen._countdown._timer.cancel()
    screen._countdown._tick()
    assert terminal.lines == [f"{sentence}, 60 s left"]
    now = start + 1000
    screen._countdown._timer.cancel()
    screen._countdown._tick()
    assert terminal.lines == [f"{sentence}, 0 s left"]
    screen.on_event(HandshakeDone())
    assert terminal.lines == [sentence, "hybrid: the connection is secure", ""]
    assert screen._countdown is None


async def test_a_status_line_never_wraps(
    terminal: FakeTerminal, screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    screen.on_event(Scanning(90))
    assert terminal.lines == ["hybrid: waiting fo, 90 s left"]
    screen.close()


async def test_without_a_terminal_nothing_counts() -> None:
    stream = io.StringIO()
    screen = Screen(stream=stream)
    screen.on_event(Scanning(90))
    assert stream.getvalue() == "hybrid: waiting for your phone (Bluetooth must be on, on both)\n"


def test_json_is_one_object_a_line() -> None:
    stream, url = io.StringIO(), invite().url
    screen = Screen(json_events=True, stream=stream)
    screen.show_code(url, picture=False)
    screen.on_event(SEEN)
    screen.on_event(Closed())
    screen.say("not for programs")
    screen.warn("careful")
    screen.fail("x.y", FAILED)
    assert [json.loads(line) for line in stream.getvalue().splitlines()] == [
        {"event": "invitation", "url": url},
        {"event": "advert-seen", "tunnel_domain": "relay.example", "proximity": "bluetooth", "rssi": -60},
        {"event": "closed"},
        {"event": "warning", "message": "careful"},
        {"event": "error", "identifier": "x.y", "message": "it failed", "hint": "mend it", "exit_code": 1},
    ]


def test_event_names() -> None:
    assert event_name(SEEN) == "advert-seen"
    assert event_name(HandshakeDone()) == "handshake-done"


class _Failing(io.StringIO):
    def __init__(self, why: OSError) -> None:
        super().__init__()
        self._why = why

    def write(self, text: str) -> int:
        raise self._why


@pytest.mark.parametrize("why", [BrokenPipeError(), OSError(errno.ENOSPC, "")])
def test_a_reader_that_leaves_with_the_code_changes_nothing(why: OSError) -> None:
    screen = Screen(stream=_Failing(why))
    screen.show_code(invite().url)
    screen.say("goes on")
    screen.close()


def test_a_closed_stderr_is_no_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    Screen().say("to nobody")


@pytest.mark.parametrize("name", ["code.png", "code.PNG"])
def test_the_png_holds_the_code(tmp_path: Path, name: str) -> None:
    url = invite().url
    save_qr(url, tmp_path / name)
    assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert read_code(tmp_path / name) == url


def test_an_inverted_png_holds_the_code(tmp_path: Path) -> None:
    url = invite().url
    save_qr(url, tmp_path / "code.png", invert=True)
    with Image.open(tmp_path / "code.png") as image:
        assert image.convert("L").getpixel((0, 0)) == 0
    assert read_code(tmp_path / "code.png") == url


def test_the_svg_holds_the_code(tmp_path: Path) -> None:
    url = invite().url
    save_qr(url, tmp_path / "code.svg")
    text = (tmp_path / "code.svg").read_text()
    found = re.search(r'viewBox="0 0 (\d+) \1"', text)
    assert found is not None
    size, scale = int(found[1]), 4
    image = Image.new("L", (size * scale, size * scale), 255)
    for x, y in re.findall(r"M(\d+) (\d+)h1v1h-1z", text):
        left, top = int(x) * scale, int(y) * scale
        image.paste(0, (left, top, left + scale, top + scale))
    formats = zxingcpp.BarcodeFormats(zxingcpp.BarcodeFormat.QRCode)
    assert [code.text for code in zxingcpp.read_barcodes(image, formats=formats)] == [url]


def test_pictures_are_of_two_kinds(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"neither \.png nor \.svg"):
        save_qr("x", tmp_path / "code.jpg")


def test_a_photograph_is_read(tmp_path: Path) -> None:
    """Turned, grey and small, as a camera gives it."""
    url = invite().url
    (tmp_path / "flat.png").write_bytes(qr_png(qr_matrix(url), dark=70, light=180))
    with Image.open(tmp_path / "flat.png") as flat:
        flat.convert("RGB").rotate(17, expand=True, fillcolor=(150, 150, 150)).save(tmp_path / "photo.jpg", quality=60)
    assert read_code(tmp_path / "photo.jpg") == url


def _side_by_side(folder: Path, *texts: str) -> Path:
    images = []
    for number, text in enumerate(texts):
        (folder / f"{number}.png").write_bytes(qr_png(qr_matrix(text)))
        with Image.open(folder / f"{number}.png") as picture:
            images.append(picture.convert("L"))
    sheet = Image.new("L", (sum(image.width for image in images), max(image.height for image in images)), 255)
    left = 0
    for image in images:
        sheet.paste(image, (left, 0))
        left += image.width
    sheet.save(folder / "sheet.png")
    return folder / "sheet.png"


def test_other_codes_in_the_picture_do_not_matter(tmp_path: Path) -> None:
    url = invite().url
    assert read_code(_side_by_side(tmp_path, "https://example.com", url)) == url


def test_two_codes_are_one_too_many(tmp_path: Path) -> None:
    with pytest.raises(InvalidQR) as caught:
        read_code(_side_by_side(tmp_path, invite().url, invite().url))
    assert caught.value.reason is QRProblem.SEVERAL


def test_a_bomb_is_not_a_picture(tmp_path: Path) -> None:
    with Image.new("1", (10_000, 10_000)) as image:
        image.save(tmp_path / "bomb.png")
    with pytest.raises(InvalidQR) as caught:
        read_code(tmp_path / "bomb.png")
    assert caught.value.reason is QRProblem.NOT_A_PICTURE


def test_without_the_extra_the_phone_names_it(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['zxingcpp'] = None; from hybrid.cli.main import run;"
        "run(['phone', '--qr-image', 'x.png', '--vault-key', 'none', '--approve', 'always'])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, timeout=30)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        "hybrid: error: reading a code from a picture needs a part that is not installed\n"
        'hybrid: hint: install it with: pip install "fido-hybrid[image]"\n'
    )
