"""Requests, people and clocks for the tests of `hybrid.passkeys`."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import Any

from hybrid import cbor
from hybrid.events import Proximity
from hybrid.passkeys.consent import Consent, Decision, Operation, Prompt
from hybrid.passkeys.engine import SoftwareAuthenticator
from hybrid.passkeys.store import CredentialStore
from hybrid.ports import Peer

RP_ID = "example.com"
HASH = hashlib.sha256(b"client data").digest()
PEER = Peer(channel="qr", hint=None, linked_name=None, proximity=Proximity.SIMULATED)


class Person:
    """Answers prompts from a list, then always as the last; remembers what was shown."""

    def __init__(self, *decisions: Decision) -> None:
        self.prompts: list[Prompt] = []
        self._decisions = list(decisions or [Decision(True, verified=True)])

    async def ask(self, prompt: Prompt) -> Decision:
        self.prompts.append(prompt)
        return self._decisions.pop(0) if len(self._decisions) > 1 else self._decisions[0]

    @property
    def asked_for(self) -> list[Operation]:
        return [prompt.operation for prompt in self.prompts]


class AbsentPerson:
    """Never answers. `waiting` is set while a prompt is open."""

    def __init__(self) -> None:
        self.waiting = asyncio.Event()
        self.dismissed = False

    async def ask(self, prompt: Prompt) -> Decision:
        self.waiting.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.dismissed = True
        raise AssertionError("unreachable")


class Clock:
    """A hand-cranked clock."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def counting_random() -> Callable[[int], bytes]:
    """Bytes that differ from call to call and are the same in every run."""
    calls = 0

    def random(size: int) -> bytes:
        nonlocal calls
        calls += 1
        return hashlib.shake_256(calls.to_bytes(4, "big")).digest(size)

    return random


def phone(store: CredentialStore, consent: Consent | None = None, **options: Any) -> SoftwareAuthenticator:
    """An authenticator with a willing person, a still clock and repeatable dice."""
    options = {"clock": Clock(), "random": counting_random(), **options}
    return SoftwareAuthenticator(store, consent or Person(), **options)


ABSENT = object()


def create_fields(**changes: Any) -> dict[Any, Any]:
    """Members of a good makeCredential request; `m5=...` sets member 5, ABSENT leaves one out."""
    fields: dict[Any, Any] = {
        1: HASH,
        2: {"id": RP_ID, "name": "Example"},
        3: {"id": b"user-1", "name": "ann", "displayName": "Ann"},
        4: [{"alg": -7, "type": "public-key"}],
    }
    return _changed(fields, changes)


def sign_in_fields(**changes: Any) -> dict[Any, Any]:
    """Members of a good getAssertion request, changed as in `create_fields`."""
    return _changed({1: RP_ID, 2: HASH}, changes)


def _changed(fields: dict[Any, Any], changes: dict[str, Any]) -> dict[Any, Any]:
    for name, value in changes.items():
        fields[int(name[1:])] = value
    return {key: value for key, value in fields.items() if value is not ABSENT}


def create(**changes: Any) -> bytes:
    return b"\x01" + cbor.encode(create_fields(**changes))


def sign_in(**changes: Any) -> bytes:
    return b"\x02" + cbor.encode(sign_in_fields(**changes))


def descriptor(credential_id: bytes, **more: Any) -> dict[str, Any]:
    return {"id": credential_id, "type": "public-key", **more}


def user(user_id: bytes, name: str = "ann") -> dict[str, Any]:
    return {"id": user_id, "name": name, "displayName": name.title()}
