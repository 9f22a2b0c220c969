"""hardware/vm/guest/repeat_adverts.py: it repeats what the kernel advertises, and nothing else.

If it put an advert on the air that the kernel has taken down, the radio tests in the VM would pass for no reason.
"""

from __future__ import annotations

import errno
import importlib.util
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "hardware" / "vm" / "guest" / "repeat_adverts.py"

LEGACY_ON, LEGACY_OFF = bytes.fromhex("010a200101"), bytes.fromhex("010a200100")
RESET = bytes.fromhex("01030c00")


def extended(on: bool, *handles: int) -> bytes:
    sets = b"".join(bytes((handle, 0, 0, 0)) for handle in handles)
    return bytes((1, 0x39, 0x20, 2 + len(sets), on, len(handles))) + sets


class Kernel:
    """The other end of a controller's HCI: says what the kernel commands, hears what is sent on top."""

    def __init__(self, hci: socket.socket, controller: Any) -> None:
        self.hci, self.controller = hci, controller
        self.hci.setblocking(False)

    def commands(self, *packets: bytes) -> None:
        """Send all, then let them be read."""
        for packet in packets:
            self.hci.send(packet)
        self.controller.listen()

    def sent(self) -> list[bytes]:
        packets = []
        while True:
            try:
                packets.append(self.hci.recv(300))
            except BlockingIOError:
                return packets

    def repeated(self) -> list[bytes]:
        self.controller.repeat()
        return self.sent()


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    spec = importlib.util.spec_from_file_location("repeat_adverts", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield Kernel(theirs, module.Controller(ours))


def test_nothing_is_sent_while_nothing_is_advertised(kernel: Kernel) -> None:
    assert kernel.repeated() == []


def test_a_legacy_advert_is_switched_off_and_on(kernel: Kernel) -> None:
    kernel.commands(RESET, LEGACY_ON)
    assert kernel.repeated() == [LEGACY_OFF, LEGACY_ON]


def test_only_the_sets_that_are_on_are_repeated(kernel: Kernel) -> None:
    kernel.commands(extended(True, 1, 2), extended(True, 3), extended(False, 2))
    assert sorted(kernel.repeated()) == sorted(extended(on, handle) for on in (False, True) for handle in (1, 3))


@pytest.mark.parametrize(
    ("on", "off"),
    [
        (LEGACY_ON, LEGACY_OFF),
        (LEGACY_ON, RESET),
        (extended(True, 1), extended(False, 1)),
        (extended(True, 1), extended(False)),
        (extended(True, 1), RESET),
        (extended(True, 1), bytes.fromhex("013c200101")),  # LE Remove Advertising Set
        (extended(True, 1), bytes.fromhex("013d2000")),  # LE Clear Advertising Sets
    ],
)
def test_what_the_kernel_takes_down_stays_down(kernel: Kernel, on: bytes, off: bytes) -> None:
    kernel.commands(on, off)
    assert kernel.repeated() == []


def test_an_advert_taken_down_while_it_was_repeated_is_taken_down_again(kernel: Kernel) -> None:
    kernel.commands(extended(True, 1))
    kernel.repeated()
    kernel.commands(extended(False, 1))  # may have been carried out before our "off, on"
    assert kernel.sent() == [extended(False, 1)]


def test_an_advert_that_only_changes_is_left_on(kernel: Kernel) -> None:
    kernel.commands(LEGACY_ON)
    kernel.repeated()
    kernel.commands(LEGACY_OFF, LEGACY_ON)
    assert kernel.sent() == []


def test_an_adapter_without_power_has_no_adverts(kernel: Kernel) -> None:
    class Down:
        def send(self, _: bytes) -> int:
            raise OSError(errno.ENETDOWN, "Network is down")

    kernel.commands(LEGACY_ON)
    hci, kernel.controller.hci = kernel.controller.hci, Down()
    assert kernel.repeated() == []
    kernel.controller.hci = hci
    assert kernel.repeated() == []
