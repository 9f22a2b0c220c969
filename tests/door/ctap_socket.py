"""python-fido2's device over the door's socket: how a foreign judge gets in, and an example for one."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fido2.ctap import STATUS, CtapDevice
from fido2.hid import CAPABILITY


class SocketDevice(CtapDevice):
    """One connection, so one channel."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))

    @property
    def capabilities(self) -> int:
        return CAPABILITY.CBOR

    def call(
        self,
        cmd: int,
        data: bytes = b"",
        event: threading.Event | None = None,
        on_keepalive: Callable[[STATUS], None] | None = None,
    ) -> bytes:
        self._socket.sendall(len(data).to_bytes(4, "big") + data)
        return self._read(int.from_bytes(self._read(4), "big"))

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self._socket.recv(size - len(data))
            if not more:
                raise ConnectionError("the door closed")
            data += more
        return data

    def close(self) -> None:
        self._socket.close()

    @classmethod
    def list_devices(cls) -> Iterator[CtapDevice]:
        return iter(())


def control(path: Path, value: Any) -> dict[str, Any]:
    """Send one command to the control socket."""
    with socket.socket(socket.AF_UNIX) as connection, connection.makefile("rw") as stream:
        connection.connect(str(path))
        stream.write(json.dumps(value) + "\n")
        stream.flush()
        answer: dict[str, Any] = json.loads(stream.readline())
        return answer
