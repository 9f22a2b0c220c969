"""What happens in the recorded terminals: the demonstration, and a laptop and a phone side by side."""

from __future__ import annotations

import asyncio
from pathlib import Path

from hybrid.protocol.tunnel import tunnel_domain
from hybrid.testing.throwaway_ca import ThrowawayCA
from hybrid.testing.virtual_bluez import virtual_bluez
from scripts.pictures.terminal import Terminal, private_folder, rows_of, terminal_svg
from tunnel_server.app import serve

_PROMPT = r"^\$$"
_PASSPHRASE = "correct horse battery"
_LAPTOP, _PHONE = 76, 82  # columns


def demonstration() -> str:
    """``hybrid demo`` from beginning to end."""
    with private_folder() as folder, Terminal(folder, {}, 104, 40) as terminal:
        terminal.enter("hybrid demo")
        terminal.wait_for("^done: ")
        shown = terminal.wait_for(_PROMPT)
    return terminal_svg([("hybrid demo", rows_of(shown)[:-1], 104)], "hybrid demo, recorded in a terminal")


def laptop_and_phone() -> str:
    """A laptop that shows a code, and the phone that answers it."""
    with private_folder() as folder:
        return asyncio.run(_laptop_and_phone(folder))


async def _laptop_and_phone(folder: Path) -> str:
    authority, domain = ThrowawayCA.create(), tunnel_domain(0)
    authority.write(folder, domain)  # the commands read its ca.pem
    async with serve(port=0, ssl_context=authority.server_context(domain)) as server, virtual_bluez() as bluez:
        env, relay = bluez.environment, f"localhost:{server.port}"
        # Entered here and not in the thread: whoever is interrupted closes the terminals, and with them the thread.
        with Terminal(folder, env, _LAPTOP, 36) as laptop, Terminal(folder, env, _PHONE, 36) as phone:
            with_code, answered = await asyncio.to_thread(_record, laptop, phone, f"--relay {relay} --relay-ca ca.pem")
    answered = answered.replace(str(folder), "~")
    windows = [("laptop", rows_of(with_code), _LAPTOP), ("phone", rows_of(answered)[:-1], _PHONE)]
    return terminal_svg(windows, "a laptop shows a code in its terminal, a phone in another terminal answers it")


def _record(laptop: Terminal, phone: Terminal, options: str) -> tuple[str, str]:
    """Give the laptop's screen with the code, and the phone's after its answer."""
    laptop.enter(f"hybrid create demo.example --user ada --qr-file code.png \\\n  {options}")
    with_code = laptop.wait_for("waiting for your phone")
    phone.enter(f"hybrid phone --qr-image code.png --vault passkeys \\\n  {options}")
    for question in ("choose a passphrase", "again"):
        phone.wait_for(question)
        phone.enter(_PASSPHRASE)
    phone.wait_for("y/N")
    phone.enter("y")
    phone.wait_for("answer is sent")
    return with_code, phone.wait_for(_PROMPT)
