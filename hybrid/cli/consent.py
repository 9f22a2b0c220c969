"""The person at the phone, asked on the controlling terminal: one prompt per operation, the default answer is no.

Asks on ``/dev/tty``, so that the code may come on standard input and nothing lands on stdout. What the computer says
about itself was made harmless by `hybrid.passkeys.consent` before it gets here.
"""

from __future__ import annotations

import asyncio
import os
import termios
from collections.abc import Iterator
from contextlib import contextmanager

from hybrid.cli.messages import UsageProblem
from hybrid.events import Proximity
from hybrid.passkeys.consent import (
    REFUSED,
    Account,
    Decision,
    Operation,
    PinProblem,
    PinPurpose,
    PinRequest,
    Prompt,
)
from hybrid.ports import LOCAL_PEER, Peer

_MAX_LINE = 1024
_PIN_PROBLEMS = {
    PinProblem.WRONG: "that is not the PIN",
    PinProblem.TOO_SHORT: "that is too short",
    PinProblem.TOO_LONG: "that is too long",
    PinProblem.MISMATCH: "the two are not the same",
}


class Terminal:
    """The controlling terminal of this process. Raises `UsageProblem` if there is none."""

    def __init__(self, path: str = "/dev/tty") -> None:
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_NOCTTY)
        except OSError:
            raise UsageProblem(
                "there is no terminal to ask you on", "run it in a terminal, or decide with --approve"
            ) from None

    def close(self) -> None:
        os.close(self._fd)

    def loud(self, text: str) -> str:
        """`text`, bold where the terminal can."""
        return text if os.environ.get("TERM", "dumb") == "dumb" else f"\x1b[1m{text}\x1b[0m"

    def write(self, text: str) -> None:
        os.write(self._fd, text.encode(errors="replace"))

    async def read_line(self, question: str, *, echo: bool = True) -> str | None:
        """Ask; give the line without its end, None at the end of input. Cancelling takes the question away."""
        loop = asyncio.get_running_loop()
        line: asyncio.Future[bytes] = loop.create_future()

        def readable() -> None:
            if not line.done():
                line.set_result(os.read(self._fd, _MAX_LINE))

        termios.tcflush(self._fd, termios.TCIFLUSH)  # keys pressed before the question do not answer it
        with self._echo(echo):
            self.write(question)
            loop.add_reader(self._fd, readable)
            answered = False
            try:
                data = await line
                answered = True
            finally:
                loop.remove_reader(self._fd)
                if not answered or not echo:
                    self.write("\n")
        return data.decode(errors="replace").rstrip("\n") if data else None

    @contextmanager
    def _echo(self, on: bool) -> Iterator[None]:
        if on:
            yield
            return
        before = termios.tcgetattr(self._fd)
        silent = termios.tcgetattr(self._fd)
        silent[3] &= ~termios.ECHO
        termios.tcsetattr(self._fd, termios.TCSADRAIN, silent)
        try:
            yield
        finally:
            termios.tcsetattr(self._fd, termios.TCSADRAIN, before)


class TerminalConsent:
    """A `Consent` and a `PinEntry` that ask on a `Terminal`."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    async def ask(self, prompt: Prompt) -> Decision:
        self._terminal.write(_headline(prompt, self._terminal.loud(prompt.rp_id)))
        match prompt.operation:
            case Operation.NOTHING_FOUND:
                await self._terminal.read_line("press return to go on ")
                return Decision(approved=True)
            case Operation.SIGN_IN if len(prompt.accounts) > 1:
                return await self._choose(prompt)
            case _:
                line = await self._terminal.read_line("go ahead? [y/N] ")
                return Decision(approved=(line or "").strip().lower() in ("y", "yes"))

    async def _choose(self, prompt: Prompt) -> Decision:
        for number, account in enumerate(prompt.accounts, 1):
            self._terminal.write(f"  {number}  {_account(account)}\n")
        line = await self._terminal.read_line(f"which one? [1-{len(prompt.accounts)}, anything else is no] ")
        text = (line or "").strip()
        if text.isascii() and text.isdigit() and 1 <= int(text) <= len(prompt.accounts):
            return Decision(approved=True, account=int(text) - 1)
        return REFUSED

    async def ask_pin(self, request: PinRequest) -> str | None:
        problem = f"{_PIN_PROBLEMS[request.problem]}; " if request.problem is not None else ""
        match request.purpose:
            case PinPurpose.SET:
                question = f"{problem}choose a PIN for this vault (4 characters or more, empty to stop): "
            case PinPurpose.REPEAT:
                question = "the same PIN again: "
            case PinPurpose.ENTER:
                question = f"{problem}PIN of this vault ({request.tries_left} tries left): "
            case PinPurpose.BLOCKED:
                self._terminal.write(f"{problem}too many wrong PINs; try again in {request.wait} s\n")
                return None
        return await self._terminal.read_line(question, echo=False) or None


def _account(account: Account) -> str:
    shown = account.display_name if account.display_name not in ("", account.name) else ""
    return f"{account.name or '(no name)'}{f' ({shown})' if shown else ''}{', synced' if account.synced else ''}"


def _headline(prompt: Prompt, site: str) -> str:
    lines = ["", f"  site      {site}"]
    if prompt.rp_name and prompt.rp_name != prompt.rp_id:
        lines.append(f"            (it calls itself {prompt.rp_name})")
    match prompt.operation:
        case Operation.CREATE:
            lines.append("  wants     a new passkey")
            lines.extend(f"  account   {_account(account)}" for account in prompt.accounts)
            lines.append(f"  saved in  {prompt.saved_in}, {'synced' if prompt.synced else 'on this device only'}")
            if prompt.replaces:
                lines.append(f"  replaces  {prompt.replaces} older passkey(s) of this account, kept in the archive")
        case Operation.SIGN_IN:
            lines.append("  wants     to sign you in")
            if len(prompt.accounts) == 1:
                lines.append(f"  account   {_account(prompt.accounts[0])}")
            lines.append(f"  kept in   {prompt.saved_in}")
        case Operation.NOTHING_FOUND:
            lines.append("  wants     to sign you in, but this vault has no passkey for it")
        case Operation.SELECT:
            lines.append("  wants     to know that you are here")
        case Operation.RESET:
            lines.append("  wants     to remove every passkey, the PIN and all settings of this authenticator")
    lines.extend(_way(prompt.peer))
    return "\n".join(lines) + "\n"


def _way(peer: Peer) -> list[str]:
    """How the request came, and what to make sure of."""
    if peer == LOCAL_PEER:
        return ["  through   a program on this machine, by hybrid serve-authenticator"]
    near = "Bluetooth vouches for it" if peer.proximity is Proximity.BLUETOOTH else "simulated, proves nothing"
    return [
        f"  through   a code that was scanned; nearness: {near}",
        "  are you signing in on the device that shows this code?",
    ]
