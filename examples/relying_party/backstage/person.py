"""The person in front of the phone: prompts go to the panel, a click comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hybrid.passkeys.consent import Decision, Operation, Prompt

_TITLES = {
    Operation.CREATE: "Make a passkey?",
    Operation.SIGN_IN: "Sign in with a passkey?",
    Operation.NOTHING_FOUND: "No passkey here",
    Operation.SELECT: "Use this phone?",
    Operation.RESET: "Erase everything?",
}


@dataclass
class _Open:
    prompt: Prompt
    decision: asyncio.Future[Decision]


class PersonAtThePanel:
    """A `Consent`. Agreeing stands for unlocking the phone, so it counts as user verification: a demonstration."""

    def __init__(self, changed: Callable[[], None], told: Callable[[str], None]) -> None:
        self._changed = changed
        self._told = told
        self._open: _Open | None = None

    async def ask(self, prompt: Prompt) -> Decision:
        self._open = _Open(prompt, asyncio.get_running_loop().create_future())
        self._told(f"The phone asks: {_TITLES[prompt.operation]} for {prompt.rp_id}")
        try:
            return await self._open.decision
        finally:
            self._open = None
            self._changed()

    def decide(self, approved: bool, account: int = 0) -> bool:
        """A click. False if no question is open."""
        if self._open is None or self._open.decision.done():
            return False
        self._open.decision.set_result(Decision(approved, verified=approved, account=account))
        return True

    @property
    def shown(self) -> dict[str, Any] | None:
        """The open prompt for the panel."""
        if self._open is None:
            return None
        prompt = self._open.prompt
        return {
            "title": _TITLES[prompt.operation],
            "operation": prompt.operation.value,
            "site": prompt.rp_id,
            "siteName": prompt.rp_name,
            "accounts": [account.name for account in prompt.accounts],
            "savedIn": prompt.saved_in,
            "synced": prompt.synced,
        }
