"""What is loaded when: nothing slow by importing the package, no radio and no socket before the code is shown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # most of it starts processes, or takes many examples

RADIO_OR_SOCKET = {"asyncio", "socket", "_socket", "ssl", "_ssl", "bleak", "dbus_fast", "websockets", "http.client"}
USER_INTERFACE = {"qrcode", "click", "rich", "png", "PIL", "zxingcpp"}

# Stands where standard error is, and notes what is loaded when the code has been written and flushed.
_WATCH = """
import runpy, sys

class Watch:
    def __init__(self, stream, terminal):
        self._stream, self._terminal = stream, terminal
        self._shown, self.modules = "", None

    def write(self, text):
        self._shown += text
        return self._stream.write(text)

    def flush(self):
        self._stream.flush()
        if self.modules is None and ("FIDO:/" in self._shown or "\\u2580" in self._shown):
            self.modules = sorted(sys.modules)

    def isatty(self):
        return self._terminal

    def __getattr__(self, name):
        return getattr(self._stream, name)

report, terminal = sys.argv[1:3]
sys.argv[1:] = sys.argv[3:]
sys.stderr = watch = Watch(sys.stderr, terminal == "terminal")
try:
    runpy.run_module("hybrid", run_name="__main__", alter_sys=True)
finally:
    import json, pathlib
    pathlib.Path(report).write_text(json.dumps([watch.modules, sorted(sys.modules)]))
"""


@pytest.mark.parametrize("module", ["hybrid", "hybrid.protocol.client", "hybrid.protocol.authenticator", "hybrid.cli"])
def test_importing_loads_no_radio_socket_or_user_interface(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, json, {module}; print(json.dumps(sorted(sys.modules)))"],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(json.loads(done.stdout))
    assert module in loaded
    assert not loaded & (RADIO_OR_SOCKET | USER_INTERFACE | {"fido2"})


def test_a_name_that_needs_an_event_loop_loads_it_when_used() -> None:
    program = "import sys, hybrid; assert 'asyncio' not in sys.modules; hybrid.connect; assert 'asyncio' in sys.modules"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


@pytest.mark.parametrize("screen", ["terminal", "pipe"])
@pytest.mark.parametrize(
    "command",
    [
        ("get", "example.com"),
        ("create", "example.com", "--user", "ada"),
        ("info",),
        ("get", "example.com", "--json-events"),
    ],
    ids=" ".join,
)
def test_the_code_is_shown_before_radio_and_sockets_are_loaded(
    command: tuple[str, ...], screen: str, tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    done = subprocess.run(
        [sys.executable, "-c", _WATCH, str(report), screen, *command],
        capture_output=True,
        text=True,
        env={**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={tmp_path}/no-bus", "PYTHONUTF8": "1"},
    )
    assert done.returncode == 6, done.stderr
    when_shown, at_the_end = json.loads(report.read_text())
    assert when_shown is not None, done.stderr
    assert not set(when_shown) & RADIO_OR_SOCKET
    assert {"asyncio", "bleak"} <= set(at_the_end)
