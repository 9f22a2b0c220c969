"""The pictures of the documents: there, small, harmless, and drawn as the scripts draw them."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from scripts.make_manual import ROOT
from scripts.make_pictures import FOLDER, drawn
from scripts.pictures.terminal import Span, Terminal, rows_of, terminal_svg
from tests.packaging.programs import need

DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*/*.md")])
PICTURES = sorted(path for path in FOLDER.iterdir() if path.suffix in (".svg", ".png"))
_SHOWN = re.compile(r'!\[[^\]]+\]\(([^)]+)\)|<img src="([^"]+)"|srcset="([^"]+)"')


def shown(document: Path) -> list[Path]:
    """Pictures that a document shows; badges and the like of other websites would count as missing."""
    return [
        (document.parent / next(filter(None, found.groups()))).resolve()
        for found in _SHOWN.finditer(document.read_text())
    ]


def test_every_picture_that_is_shown_is_there_and_the_other_way_round() -> None:
    assert {path for document in DOCUMENTS for path in shown(document)} == set(PICTURES)


def test_the_readme_shows_what_it_is_about() -> None:
    names = {path.name for path in shown(ROOT / "README.md")}
    assert {"terminal-demo.svg", "what-travels-where.svg", "website-account-light.png"} <= names


def test_what_is_drawn_is_what_is_committed() -> None:
    for name, content in drawn().items():
        assert (FOLDER / name).read_bytes() == content, "run python -m scripts.make_pictures diagram"


def test_all_of_them_are_small() -> None:
    assert sum(path.stat().st_size for path in PICTURES) < 1_500_000


@pytest.mark.parametrize("path", [path for path in PICTURES if path.suffix == ".svg"], ids=lambda path: path.name)
def test_drawings_load_nothing_and_describe_themselves(path: Path) -> None:
    text = path.read_text()
    root = ElementTree.fromstring(text)
    assert root.get("viewBox")
    assert root.get("aria-label") or root.get("aria-labelledby")
    assert not re.search(r"href|url\(|<script|@import|https?://(?!www\.w3\.org/2000/svg)", text)
    assert "/tmp/" not in text


def test_the_diagram_follows_the_readers_setting() -> None:
    assert "prefers-color-scheme: dark" in (FOLDER / "what-travels-where.svg").read_text()


_FAILING = """
import sys
from scripts import make_pictures
from scripts.pictures.terminal import Terminal, private_folder

def picture():
    with private_folder() as folder, Terminal(folder, {}, 80, 24) as terminal:
        print(terminal.server, flush=True)
        terminal.wait_for("what never comes")

make_pictures.KINDS = {"terminals": picture}
sys.argv = ["make_pictures"]
make_pictures.main()
"""


def assert_ended(process: int) -> None:
    """Wait for the end of a process that is not ours. Its id may be somebody else's by now only if it has ended."""
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(process)
        try:
            assert select.select([handle], [], [], 30)[0], f"{process} still runs"
        finally:
            os.close(handle)


def fail(folder: Path, servers: list[int]) -> None:
    with Terminal(folder, {}, 80, 24) as terminal:
        servers.append(terminal.server)
        raise SystemExit("it never came")


def test_a_picture_that_fails_leaves_no_terminal(tmp_path: Path) -> None:
    need("tmux")
    servers: list[int] = []
    with pytest.raises(SystemExit, match="never came"):
        fail(tmp_path, servers)
    assert_ended(*servers)


def test_a_terminal_that_does_not_start_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need("tmux")
    servers = []

    def interrupted(terminal: Terminal, _: str) -> str:
        servers.append(terminal.server)
        raise KeyboardInterrupt

    monkeypatch.setattr(Terminal, "wait_for", interrupted)
    with pytest.raises(KeyboardInterrupt), Terminal(tmp_path, {}, 80, 24):
        pass
    assert_ended(*servers)


def test_a_terminal_whose_shell_has_left(tmp_path: Path) -> None:
    need("tmux")
    with Terminal(tmp_path, {}, 80, 24) as terminal:
        server = terminal.server
        terminal.enter("exit")
        assert_ended(server)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_who_ends_the_pictures_ends_their_terminals(number: signal.Signals) -> None:
    need("tmux")
    command = [sys.executable, "-c", _FAILING]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        server = int(process.stdout.readline())
        process.send_signal(number)
        assert process.wait(30) != 0
    assert_ended(server)


def test_a_terminals_styles_are_read() -> None:
    rows = rows_of("$ \x1b[1mbold\x1b[0m plain \n\n\x1b[30;107m▀ \x1b[39m\x1b[49m.\n  \n")
    assert rows == [
        [Span(0, "$ ", ""), Span(2, "bold", "bold"), Span(6, " plain ", "")],
        [],
        [Span(0, "▀ ", "painted"), Span(2, ".", "")],
    ]
    drawing = terminal_svg([("a <title>", rows, 20)], "what it shows")
    ElementTree.fromstring(drawing)
    assert "a &lt;title&gt;" in drawing
    assert 'class="paper"' in drawing
    assert 'class="ink"' in drawing
