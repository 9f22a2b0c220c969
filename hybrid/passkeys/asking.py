"""Asks the person: one prompt at a time, with a time limit, taken away when the client cancels.

Turns answers into status bytes. What a prompt looks like is up to `hybrid.passkeys.consent` and the user interface.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from hybrid.passkeys.consent import Account, Consent, Decision, Operation, Prompt, harmless, shown_rp_id
from hybrid.passkeys.rejected import Rejected
from hybrid.passkeys.store import Credential, CredentialStore
from hybrid.ports import Peer
from hybrid.protocol.ctap import Status


class Asking:
    """The way from the engine to `consent`. `verifies`: an agreement counts only if it was checked who agrees."""

    def __init__(self, consent: Consent, store: CredentialStore, *, timeout: float, verifies: bool) -> None:
        self._consent = consent
        self._store = store
        self._timeout = timeout
        self._verifies = verifies
        self._asking: asyncio.Task[object] | None = None
        self._cancelled = False

    def cancel(self) -> None:
        """Take the open prompt away, if there is one; its request is answered with KEEPALIVE_CANCEL."""
        if self._asking is not None and not self._cancelled:
            self._cancelled = True
            self._asking.cancel()

    def prompt(
        self,
        operation: Operation,
        peer: Peer,
        rp_id: str = "",
        rp_name: str = "",
        accounts: Sequence[Account] = (),
        *,
        replaces: int = 0,
    ) -> Prompt:
        """Build a prompt; texts of the peer are made harmless."""
        return Prompt(
            operation=operation,
            rp_id=shown_rp_id(rp_id),
            rp_name=harmless(rp_name),
            accounts=tuple(accounts),
            saved_in=harmless(self._store.label, limit=4096),
            synced=self._store.synced,
            replaces=replaces,
            peer=replace(peer, linked_name=None if peer.linked_name is None else harmless(peer.linked_name)),
        )

    async def approval(self, prompt: Prompt) -> int:
        """Ask, and give the index of the account that was agreed to, 0 without accounts. Raises `Rejected`."""
        decision = await self.ask(prompt)
        chosen = 0 <= decision.account < max(1, len(prompt.accounts))
        if not (decision.approved and chosen and (decision.verified or not self._verifies)):
            raise Rejected(Status.OPERATION_DENIED)
        return decision.account

    async def presence(self, prompt: Prompt) -> None:
        """Ask only whether somebody is there and agrees. Raises `Rejected`."""
        if not (await self.ask(prompt)).approved:
            raise Rejected(Status.OPERATION_DENIED)

    async def ask(self, prompt: Prompt) -> Decision:
        """Ask. Raises `Rejected`, also when the time is over, whatever was asked."""
        self._asking, self._cancelled = asyncio.current_task(), False
        try:
            async with asyncio.timeout(self._timeout):
                return await self._consent.ask(prompt)
        except TimeoutError:
            raise Rejected(Status.USER_ACTION_TIMEOUT) from None
        except asyncio.CancelledError:
            # Ours only if nobody else cancelled the task as well.
            if self._cancelled and self._asking is not None and self._asking.uncancel() == 0:
                raise Rejected(Status.KEEPALIVE_CANCEL) from None
            raise
        finally:
            self._asking = None


def account_of(credential: Credential) -> Account:
    """A passkey as a prompt shows it."""
    return Account(
        harmless(credential.user_name),
        harmless(credential.user_display_name),
        credential.created_at,
        credential.last_used_at,
        credential.backup_eligible,
    )
