"""``python -m examples.relying_party``: the website with its side panel, until Ctrl-C. Prints the address."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import uvicorn

from examples.relying_party.backstage.routes import HERE, Onlooker, Panel, kinds
from examples.relying_party.backstage.stage import RealWorld, Stage, open_stage
from examples.relying_party.website.app import Website
from examples.relying_party.website.settings import Settings

_HOST = "127.0.0.1"


class _Server(uvicorn.Server):
    """Ends on a signal without dying of it, so that everything is tidied up; what the panel waits for ends first."""

    def __init__(self, config: uvicorn.Config, stage: Stage) -> None:
        super().__init__(config)
        self._stage = stage

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._stage.aclose()
        await super().shutdown(sockets)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 0xFFFF:
        raise argparse.ArgumentTypeError("a port is a number up to 65535")
    return int(text)


def _file(text: str) -> Path:
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"there is no file {text}")
    return Path(text)


def _file_to_be(text: str) -> Path:
    if not Path(text).parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {Path(text).parent}")
    return Path(text)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m examples.relying_party",
        description="The website with its side panel, until Ctrl-C. Prints the address.",
    )
    parser.add_argument("--port", type=_port, default=8000, help="0 for any free one (default: 8000)")
    parser.add_argument("--database", type=_file_to_be, help="SQLite file (default: in memory)")
    parser.add_argument("--provider-list", type=Path, help="community list of AAGUIDs, JSON")
    parser.add_argument("--attestation-roots", type=_file, help="PEM file of CAs for the stricter classes")
    parser.add_argument("--related", action="append", default=[], metavar="ORIGIN", help="may use the RP id too")
    real = parser.add_argument_group("for a real browser's code, as in hybrid phone")
    real.add_argument("--adapter", help="Bluetooth adapter of the phone, e.g. hci0")
    real.add_argument("--relay", metavar="HOST:PORT")
    real.add_argument("--relay-name", metavar="NAME")
    real.add_argument("--relay-ca", type=_file, metavar="FILE")
    return parser.parse_args()


async def run(options: argparse.Namespace, listener: socket.socket) -> None:
    """Serve on `listener` until a signal comes."""
    origin = f"http://localhost:{listener.getsockname()[1]}"
    settings = Settings(
        rp_id="localhost",
        origins=(origin,),
        related=tuple(options.related),
        database=options.database,
        provider_list=options.provider_list,
        attestation_roots=options.attestation_roots,
        open_classes=True,
    )
    real = RealWorld(options.adapter, options.relay, options.relay_name, options.relay_ca)
    async with open_stage(origin, real) as stage:
        website = Website(settings, panel=(HERE, {"kinds": kinds()}))
        app = Onlooker(website.app(*Panel(stage, website.page).routes), stage)
        config = uvicorn.Config(
            app, lifespan="off", log_level="warning", access_log=False, ws="none", server_header=False
        )
        print(f"open {origin} in a browser; Ctrl-C ends it", flush=True)
        if stage.bluetooth_problem is not None:
            print(f"no Bluetooth here ({stage.bluetooth_problem}): the page plays the laptop itself", flush=True)
        try:
            await _Server(config, stage).serve([listener])
        finally:
            website.close()


def main() -> int:
    options = _arguments()
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((_HOST, options.port))
        listener.listen()
    except OSError as error:
        print(f"port {options.port} cannot be had ({error.strerror}); try --port 0", file=sys.stderr)
        return 1
    with listener:
        asyncio.run(run(options, listener))
    return 0


if __name__ == "__main__":
    sys.exit(main())
