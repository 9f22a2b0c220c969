"""Repeat adverts as a radio does: btvirt alone reports an advert once, when advertising or scanning starts.

A report that comes before bluetoothd has noticed that its discovery started would then be lost for good. This
process reads the HCI commands that the kernel sends to each controller and so knows which advertising is on;
every half second it switches just that off and on again (Bluetooth Core 5.4, volume 4 part E, sections 7.8.9 "LE
Set Advertising Enable" and 7.8.56 "LE Set Extended Advertising Enable"). It puts nothing on the air that the
kernel has not put there: an advert that was lost with the adapter's power stays lost.
"""

from __future__ import annotations

import errno
import selectors
import socket
import struct
import sys
import time

PERIOD = 0.5

SOL_HCI = 0
HCI_FILTER = 2
COMMAND_PACKET = 1

RESET = 0x0C03
ADVERTISING_ENABLE = 0x200A
EXTENDED_ENABLE = 0x2039
REMOVE_SET = 0x203C
CLEAR_SETS = 0x203D

LEGACY = -1  # stands for the one advert of a controller without advertising sets


class Controller:
    """The advertising of one controller, as the kernel drives it. `hci` gives and takes HCI commands."""

    def __init__(self, hci: socket.socket) -> None:
        self.hci = hci
        self.hci.setblocking(False)
        self.on: set[int] = set()
        self.repeated = 0.0

    def listen(self) -> None:
        """Take in every command that waits to be read."""
        before = set(self.on)
        while (packet := self.next_command()) is not None:
            (opcode,) = struct.unpack_from("<xH", packet)
            self.heard(opcode, packet[4:])
        # The kernel's "off" and our "off, on" may have crossed: then ours came last, and is taken back.
        if time.monotonic() - self.repeated < PERIOD / 2:
            for handle in before - self.on:
                self.enable(handle, False)

    def next_command(self) -> bytes | None:
        try:
            return self.hci.recv(300)
        except BlockingIOError:
            return None

    def heard(self, opcode: int, parameters: bytes) -> None:
        if opcode in (RESET, CLEAR_SETS):
            self.on.clear()
        elif opcode == REMOVE_SET:
            self.on.discard(parameters[0])
        elif opcode == ADVERTISING_ENABLE:
            self.switched([LEGACY], bool(parameters[0]))
        elif opcode == EXTENDED_ENABLE:
            handles = [parameters[2 + 4 * i] for i in range(parameters[1])]
            self.switched(handles or list(self.on), bool(parameters[0]))  # none named: all

    def switched(self, handles: list[int], on: bool) -> None:
        if on:
            self.on.update(handles)
        else:
            self.on.difference_update(handles)

    def repeat(self) -> None:
        for handle in list(self.on):
            self.enable(handle, False)
            self.enable(handle, True)
        self.repeated = time.monotonic()

    def enable(self, handle: int, on: bool) -> None:
        if handle == LEGACY:
            opcode, parameters = ADVERTISING_ENABLE, struct.pack("<B", on)
        else:
            opcode, parameters = EXTENDED_ENABLE, struct.pack("<BBBHB", on, 1, handle, 0, 0)
        try:
            self.hci.send(struct.pack("<BHB", COMMAND_PACKET, opcode, len(parameters)) + parameters)
        except OSError as error:
            if error.errno != errno.ENETDOWN:
                raise
            self.on.clear()  # no power: the kernel sends no command for that


def open_hci(name: str) -> socket.socket:
    """A raw socket on an adapter: reads the commands that others send to it, sends our own."""
    hci = socket.socket(socket.AF_BLUETOOTH, socket.SOCK_RAW, socket.BTPROTO_HCI)
    hci.setsockopt(SOL_HCI, HCI_FILTER, struct.pack("<IIIH2x", 1 << COMMAND_PACKET, 0, 0, 0))
    hci.bind((int(name.removeprefix("hci")),))
    return hci


def main(names: list[str]) -> None:
    controllers = [Controller(open_hci(name)) for name in names]
    ready = selectors.DefaultSelector()
    for controller in controllers:
        ready.register(controller.hci, selectors.EVENT_READ, controller)
    due = time.monotonic() + PERIOD
    while True:
        for key, _ in ready.select(max(0.0, due - time.monotonic())):
            key.data.listen()
        if time.monotonic() >= due:
            due = time.monotonic() + PERIOD
            for controller in controllers:
                controller.listen()
                controller.repeat()


if __name__ == "__main__":
    main(sys.argv[1:])
