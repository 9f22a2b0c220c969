"""``hybrid serve-authenticator`` as a process: what it says, refuses, keeps, and how it ends."""

from __future__ import annotations

import json
import socket
import stat
import subprocess
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from fido2.ctap import CtapError
from fido2.ctap2.base import Ctap2
from fido2.ctap2.pin import ClientPin

from tests.door.conftest import COMMAND, Served
from tests.door.ctap_socket import SocketDevice, control

pytestmark = pytest.mark.slow  # most of it starts processes, or takes many examples

Serve = Callable[..., Served]
USER = {"id": b"1", "name": "ann", "displayName": "Ann"}
ES256: list[Mapping[str, Any]] = [{"type": "public-key", "alg": -7}]
PIN = "1234"


def _make(ctap: Ctap2, **more: Any) -> bytes:
    made = ctap.make_credential(bytes(32), {"id": "example.com", "name": "x"}, USER, ES256, **more)
    assert made.auth_data.credential_data is not None
    return made.auth_data.credential_data.credential_id


def test_it_is_ready_when_it_says_so_and_ends_on_sigterm(serve: Serve) -> None:
    served = serve("--approve", "always")
    assert served.said == [
        "hybrid: warning: every request is approved without asking anybody (--approve always)",
        f"listening on {served.path}",
    ]
    assert stat.S_IMODE(served.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(served.control_path.stat().st_mode) == 0o600
    device = SocketDevice(served.path)  # still connected when it ends
    assert Ctap2(device).info.max_msg_size == 7609
    assert served.end() == (0, "", "")
    assert not served.path.exists()
    assert not served.control_path.exists()
    device.close()


def test_a_preset_of_a_phone(serve: Serve) -> None:
    served = serve("--preset", "iphone", "--approve", "always")
    with SocketDevice(served.path) as device:
        info = Ctap2(device).info
        assert (info.extensions, info.transports) == (["largeBlob", "prf"], ["internal", "hybrid"])
        with pytest.raises(CtapError, match="MISSING_PARAMETER"):
            Ctap2(device).make_credential(bytes(32), {"id": "example.com"}, {"id": b"1", "name": "ann"}, ES256)
    assert served.end()[0] == 0


def test_a_newer_version_is_announced_on_request(serve: Serve) -> None:
    served = serve("--fido-2-3", "--approve", "always")
    with SocketDevice(served.path) as device:
        assert Ctap2(device).info.versions == ["FIDO_2_0", "FIDO_2_1", "FIDO_2_3"]


def test_what_programs_hear(serve: Serve) -> None:
    served = serve("--json-events", "--approve", "never")
    assert json.loads(served.said[-1]) == {"event": "listening", "where": str(served.path)}
    assert served.end() == (0, "", "")


def test_over_tcp(serve: Serve) -> None:
    served = serve("--tcp", "127.0.0.1:0", "--approve", "always")
    host, _, port = served.where.rpartition(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"\x00\x00\x00\x01\x04")
        assert connection.recv(5)[4] == 0
    assert served.end()[0] == 0


def test_state_outlives_connections_and_power_cycles(serve: Serve) -> None:
    served = serve("--approve", "always")
    with SocketDevice(served.path) as device:
        ctap = Ctap2(device)
        ClientPin(ctap).set_pin(PIN)
    assert control(served.control_path, {"command": "power-cycle"}) == {"ok": True}
    with SocketDevice(served.path) as device:
        ctap = Ctap2(device)
        assert ctap.info.options["clientPin"]
        with pytest.raises(CtapError, match="PIN_INVALID"):
            ClientPin(ctap).get_pin_token("4321")


def test_another_channel_cannot_continue_an_assertion(serve: Serve) -> None:
    served = serve("--approve", "always")
    with SocketDevice(served.path) as one, SocketDevice(served.path) as other:
        ctap = Ctap2(one)
        for number in range(3):
            user = {**USER, "id": bytes([number + 1])}
            ctap.make_credential(bytes(32), {"id": "example.com"}, user, ES256, options={"rk": True})
        first = ctap.get_assertion("example.com", bytes(32))
        assert first.number_of_credentials == 3
        assert ctap.get_next_assertion().user == {"id": b"\x02"}
        with pytest.raises(CtapError, match="NOT_ALLOWED"):
            Ctap2(other).get_next_assertion()


def test_a_prompt_waits_for_presence_and_can_be_cancelled(serve: Serve) -> None:
    served = serve("--approve", "always")
    with SocketDevice(served.path) as device:
        ctap = Ctap2(device)
        control(served.control_path, {"presence": "off"})
        failures: list[CtapError.ERR | int] = []

        def select() -> None:
            try:
                ctap.selection()
            except CtapError as error:
                failures.append(error.code)

        asking = threading.Thread(target=select)
        asking.start()
        while asking.is_alive():  # until it has arrived, there is nothing to cancel
            control(served.control_path, {"command": "cancel"})
        assert failures == [CtapError.ERR.KEEPALIVE_CANCEL]
        asking = threading.Thread(target=select)
        asking.start()
        control(served.control_path, {"presence": "on"})
        asking.join()
        assert len(failures) == 1


def test_nobody_agrees_with_never(serve: Serve) -> None:
    served = serve("--approve", "never")
    with SocketDevice(served.path) as device, pytest.raises(CtapError, match="OPERATION_DENIED"):
        _make(Ctap2(device))


def test_reset_only_within_its_window(serve: Serve) -> None:
    served = serve("--approve", "always", "--reset-window", "0.000001")
    with SocketDevice(served.path) as device, pytest.raises(CtapError, match="NOT_ALLOWED"):
        Ctap2(device).reset()


def test_the_phone_profile(serve: Serve) -> None:
    served = serve("--approve", "always", "--profile", "phone")
    with SocketDevice(served.path) as device:
        ctap = Ctap2(device)
        assert ctap.info.max_msg_size == 1 << 20
        _make(ctap)
        with pytest.raises(CtapError, match="INVALID_COMMAND"):
            ctap.reset()


@pytest.mark.parametrize("profile", ["phone", "roaming"])
@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("vault", "none"),
        ("vault", "file:key"),
        pytest.param("passkeys.kdbx", "file:key", marks=pytest.mark.slow),
    ],
)
def test_passkeys_stay_in_a_store(serve: Serve, tmp_path: Path, profile: str, name: str, key: str) -> None:
    if name.endswith(".kdbx"):
        pytest.importorskip("pykeepass", reason="needs the extra kdbx")
    (tmp_path / "key").touch(mode=0o600)
    (tmp_path / "key").write_bytes(bytes(range(32)))
    key = key.replace("file:", f"file:{tmp_path}/")
    store = ("--store", str(tmp_path / name), "--vault-key", key)
    arguments = ("--approve", "always", "--profile", profile, *store)
    served = serve(*arguments)
    with SocketDevice(served.path) as device:
        made = _make(Ctap2(device), options={"rk": True})
    assert served.end()[0] == 0
    served = serve(*arguments)
    with SocketDevice(served.path) as device:
        assert Ctap2(device).get_assertion("example.com", bytes(32)).credential["id"] == made


def test_a_dead_process_leaves_no_obstacle(serve: Serve) -> None:
    served = serve("--approve", "always")
    served.process.kill()
    served.process.communicate()
    assert served.path.exists()
    assert serve("--approve", "always").end()[0] == 0


def _refused(*arguments: str) -> str:
    done = subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # without a terminal
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    error, hint = done.stderr.splitlines()[-2:]
    assert hint.startswith("hybrid: hint: ")
    return error.removeprefix("hybrid: error: ")


def test_it_needs_one_socket(tmp_path: Path) -> None:
    sentence = "there is no socket to serve on, or two"
    assert _refused() == sentence
    assert _refused("--socket", str(tmp_path / "door"), "--tcp", "127.0.0.1:0") == sentence


@pytest.mark.parametrize("address", ["0.0.0.0:0", "192.0.2.1:99", "[::]:0", "[2001:db8::1]:5"])
def test_it_is_not_served_to_other_machines(address: str) -> None:
    assert _refused("--tcp", address).startswith("an authenticator is not served to other machines")


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.1:", "127.0.0.1:70000", "127.0.0.1:-1", ":1", "example:1"])
def test_addresses_that_are_none(address: str) -> None:
    assert _refused("--tcp", address) == f"{address} is no address to listen on"


def test_a_socket_in_use_and_a_path_that_is_too_long(serve: Serve, tmp_path: Path) -> None:
    served = serve("--approve", "always")
    assert _refused("--approve", "never", "--socket", str(served.path)).endswith("somebody listens there already")
    assert "at most 107 bytes" in _refused("--approve", "never", "--socket", str(tmp_path / ("x" * 200)))
    missing = tmp_path / "missing" / "door"
    assert _refused("--approve", "never", "--socket", str(missing)).endswith("no such file or directory")


def test_asking_needs_a_terminal(tmp_path: Path) -> None:
    assert _refused("--socket", str(tmp_path / "door")) == "there is no terminal to ask you on"
    assert not (tmp_path / "door").exists()
