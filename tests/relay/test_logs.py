"""Log lines for people and for programs."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator
from datetime import datetime

import pytest

from tunnel_server.logs import JsonLines, set_up


@pytest.fixture(autouse=True)
def untouched() -> Iterator[None]:
    """Leave pytest's own handlers as they were."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], level = before
    root.setLevel(level)


def record(message: str, *arguments: object, error: bool = False) -> logging.LogRecord:
    return logging.LogRecord(
        "tunnel_server.app", logging.WARNING, "app.py", 1, message, arguments, sys.exc_info() if error else None
    )


def test_json_is_one_object_a_line() -> None:
    line = JsonLines().format(record('only %d "connections"\nat once, größer', 5))
    assert "\n" not in line
    read = json.loads(line)
    assert datetime.fromisoformat(read.pop("time")).utcoffset() is not None
    assert read == {
        "level": "warning",
        "logger": "tunnel_server.app",
        "message": 'only 5 "connections"\nat once, größer',
    }


def test_json_says_which_worker_and_what_went_wrong() -> None:
    try:
        raise ValueError("a bug")
    except ValueError:
        read = json.loads(JsonLines(3).format(record("sorry", error=True)))
    assert read["worker"] == 3
    assert read["error"].startswith("Traceback")
    assert read["error"].endswith("ValueError: a bug")


@pytest.mark.parametrize(("worker", "name"), [(None, "tunnel-server"), (2, "tunnel-server[2]")])
def test_text(worker: int | None, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    set_up("info", "text", worker=worker)
    logging.getLogger("tunnel_server.app").info("no new tunnels")
    logging.getLogger("tunnel_server.app").debug("nobody wants to know")
    assert capsys.readouterr().err == f"{name}: INFO: no new tunnels\n"


def test_json_from_the_start(capsys: pytest.CaptureFixture[str]) -> None:
    set_up("warning", "json")
    logging.getLogger("asyncio").info("an address")
    logging.getLogger("tunnel_server").warning("a word")
    assert json.loads(capsys.readouterr().err)["message"] == "a word"


def test_a_line_is_lost_rather_than_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    with open(reading, "rb", 0) as ours, open(writing, "w", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        set_up("info", "text")
        for number in range(5000):
            logging.getLogger("tunnel_server.app").info("line %d", number)
        taken = ours.read(1 << 20)
        assert taken.startswith(b"tunnel-server: INFO: line 0\n")
        assert taken.endswith(b"\n")
        logging.getLogger("tunnel_server.app").info("once more")
        assert ours.read(1 << 20) == b"tunnel-server: INFO: once more\n"
