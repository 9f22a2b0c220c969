"""Words with systemd, and its units as systemd itself judges them."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.programs import need
from tunnel_server.systemd import listening_sockets, notify, watchdog_interval

UNITS = Path(__file__).parents[2] / "packaging" / "systemd"


@pytest.mark.parametrize("abstract", [False, True])
def test_notifies(abstract: bool, tmp_path: Path) -> None:
    address = f"@relay-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.settimeout(10)
        systemd.bind(address.replace("@", "\0"))
        notify("READY=1", {"NOTIFY_SOCKET": address})
        assert systemd.recv(100) == b"READY=1"


@pytest.mark.parametrize("address", ["", "/nonexistent/notify", "vsock:2:1"])
def test_nobody_listens(address: str) -> None:
    notify("READY=1", {"NOTIFY_SOCKET": address})
    notify("READY=1", {})


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_watchdog(environ: dict[str, str], seconds: float | None) -> None:
    assert watchdog_interval(environ) == seconds


def test_takes_sockets_by_name() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        first = 200  # far from descriptors that are in use
        for index, made in enumerate((one, two)):
            os.dup2(made.fileno(), first + index)
        environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2", "LISTEN_FDNAMES": "relay:admin"}
        found = listening_sockets(environ, first)
        assert {name: [made.getsockname() for made in sockets] for name, sockets in found.items()} == {
            "relay": [one.getsockname()],
            "admin": [two.getsockname()],
        }
        assert not any(made.get_inheritable() for sockets in found.values() for made in sockets)
        for sockets in found.values():
            sockets[0].close()


@pytest.mark.parametrize("environ", [{}, {"LISTEN_PID": "1", "LISTEN_FDS": "1"}, {"LISTEN_FDS": "1"}])
def test_sockets_for_somebody_else(environ: dict[str, str]) -> None:
    assert listening_sockets(environ) == {}


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """Copies of the units, whose program is one that is here."""
    for unit in UNITS.iterdir():
        text = unit.read_text().replace("/opt/fido-hybrid/bin/tunnel-server", sys.executable)
        (tmp_path / unit.name).write_text(text)
    return tmp_path


@pytest.mark.slow
def test_systemd_accepts_the_units(units: Path) -> None:
    need("systemd-analyze")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(str(unit) for unit in sorted(units.iterdir()))],
        capture_output=True,
        text=True,
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{units}:"},
    )
    ours = [line for line in done.stderr.splitlines() if "tunnel-server" in line]
    assert (done.returncode, ours) == (0, [])


@pytest.mark.slow
def test_the_service_is_locked_up(units: Path) -> None:
    need("systemd-analyze")
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=20", "tunnel-server.service"],
        capture_output=True,
        text=True,
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{units}:"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"exposure level for tunnel-server\.service: [01]\.\d", done.stdout)
