"""One tried command as text: how it is run, what in it must vary, where its golden copy is."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shlex
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path

import hybrid
from hybrid.errors import HybridError
from hybrid.invitation import Invitation, invite
from hybrid.protocol.qr import Hint
from tests.cli.stage import PATIENCE, Outcome, Stage, cancelled_at_the_end, run

GOLDEN = Path(__file__).parent / "golden"

Values = Mapping[str, str]
Setting = Callable[[Stage, Path], AbstractAsyncContextManager[Values]]
"""What is different about the stage while the command runs; gives values for the command line."""
Phone = Callable[[Stage, str], Awaitable[object]]
"""Scans the code that a command shows."""
Client = Callable[[Stage, Invitation], Awaitable[object]]
"""Shows the code that a phone answers."""


@dataclass(frozen=True)
class Scenario:
    """A command and who is there. ``{name}`` in `command` and `stdin` stands for a value of the stage."""

    command: str
    about: str
    stdin: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    setting: Setting | None = None
    phone: Phone | None = None
    client: Client | None = None
    hint: Hint = Hint.GET_ASSERTION


_MEMBERS = "id|rawId|clientDataJSON|authenticatorData|signature|userHandle|attestationObject|publicKey"
_VARYING = (
    (re.compile(r"FIDO:/\d{60,}"), "{code}"),
    (re.compile(rf'"({_MEMBERS})": "[A-Za-z0-9_-]{{20,}}"'), r'"\1": "{\1}"'),
    (re.compile(r"\b127\.0\.0\.1:\d+"), "{address}"),
)


def try_out(stage: Stage, scenario: Scenario, folder: Path) -> Outcome:
    """Run the scenario's command with its peers; what must vary is replaced in what it printed."""
    invitation = invite(scenario.hint, accept_link=True)  # as Chromium says in its codes
    values = {
        "tmp": str(folder),
        "relay": stage.relay,
        "ca": str(stage.ca_file),
        "code": invitation.url,
        "version": hybrid.__version__,
    }
    code: asyncio.Future[str] = asyncio.Future(loop=stage.loop)
    stack = contextlib.AsyncExitStack()
    values |= stage.call(_prepare(stage, scenario, folder, stack, invitation, code))

    def tell(line: str) -> None:
        found = re.search(r"FIDO:/\d+", line)
        if found and scenario.phone is not None:
            stage.loop.call_soon_threadsafe(_give, code, found[0])

    try:
        outcome = run(
            [word.format(**values) for word in shlex.split(scenario.command)][1:],
            stdin=scenario.stdin.format(**values),
            environment={
                "HOME": str(folder),
                **{name: value.format(**values) for name, value in scenario.environment.items()},
            },
            tell=tell,
        )
    finally:
        stage.call(stack.aclose())
    return Outcome(outcome.exit_code, _generic(outcome.stdout, values), _generic(outcome.stderr, values))


def _give(code: asyncio.Future[str], text: str) -> None:
    if not code.done():
        code.set_result(text)


async def _prepare(
    stage: Stage,
    scenario: Scenario,
    folder: Path,
    stack: contextlib.AsyncExitStack,
    invitation: Invitation,
    code: asyncio.Future[str],
) -> Values:
    values: Values = {}
    if scenario.setting is not None:
        values = await stack.enter_async_context(scenario.setting(stage, folder))
    if scenario.phone is not None:
        await stack.enter_async_context(cancelled_at_the_end(_be_phone(stage, scenario.phone, code)))
    if scenario.client is not None:
        await stack.enter_async_context(cancelled_at_the_end(_be_client(stage, scenario.client, invitation)))
    return values


async def _be_phone(stage: Stage, phone: Phone, code: asyncio.Future[str]) -> None:
    async with asyncio.timeout(PATIENCE):
        with contextlib.suppress(HybridError):  # what the command does to its peer is not looked at here
            await phone(stage, await code)


async def _be_client(stage: Stage, client: Client, invitation: Invitation) -> None:
    async with asyncio.timeout(PATIENCE):
        with contextlib.suppress(HybridError):
            await client(stage, invitation)


def _generic(text: str, values: Values) -> str:
    for name, value in sorted(values.items(), key=lambda item: -len(item[1])):
        text = text.replace(value, f"{{{name}}}")
    for pattern, name in _VARYING:
        text = pattern.sub(name, text)
    return text


def render(scenario: Scenario, outcome: Outcome) -> str:
    """The transcript as it stands in its file."""
    return (
        f"# {scenario.about}\n$ {scenario.command}\nexit code {outcome.exit_code}\n"
        f"--- stdout ---\n{outcome.stdout}--- stderr ---\n{outcome.stderr}"
    )
