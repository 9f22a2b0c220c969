"""A virtual authenticator for python-fido2, in this process: for tests of relying parties and clients.

One line makes one, with passkeys in memory and nobody to be asked::

    device = SoftwareCtapDevice(pin="1234")
    client = Fido2Client(device, DefaultClientDataCollector("https://example.com"), device.interaction)

The same engine as the phone's (`hybrid.passkeys`), behind python-fido2's `CtapDevice`, usable from any thread, also one
that runs an event loop. It gives way to every request, so it is no place for passkeys that matter.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from fido2.client import UserInteraction
from fido2.ctap import STATUS, CtapDevice
from fido2.ctap2.base import Ctap2
from fido2.ctap2.pin import ClientPin
from fido2.hid import CAPABILITY

from hybrid.errors import PeerClosed, Stage
from hybrid.fido2_bridge.device import CtapSession, HybridCtapDevice
from hybrid.passkeys import presets
from hybrid.passkeys.consent import AlwaysApprove, Consent, Decision, Prompt
from hybrid.passkeys.engine import SoftwareAuthenticator
from hybrid.passkeys.profiles import ROAMING, Profile
from hybrid.passkeys.store import CredentialStore, MemoryStore
from hybrid.ports import LOCAL_PEER


class SoftwareCtapDevice(CtapDevice):
    """A virtual authenticator as python-fido2's device.

    `store` keeps its passkeys, `consent` answers its prompts; left out, that is the memory of this program and a policy
    that agrees to everything. `profile` is `ROAMING`, a security key, or `PHONE`; `preset` names a phone to behave as
    (`hybrid.passkeys.presets`). A security key verifies its user by `pin`, set if the store knows none, which
    `interaction` types; without one, a site has to discourage verification. A phone is for `HybridWebAuthnClient`, by
    its `session`. Other `options` are those of `SoftwareAuthenticator`. While `consent` is asked, `on_keepalive` of a
    call hears UPNEEDED, on a thread of ours; the `event` of a call cancels it.
    """

    def __init__(
        self,
        store: CredentialStore | None = None,
        consent: Consent | None = None,
        *,
        profile: Profile = ROAMING,
        preset: str | None = None,
        pin: str | None = None,
        **options: Any,
    ) -> None:
        self._prompts = _Announced(AlwaysApprove() if consent is None else consent)
        authenticator = SoftwareAuthenticator(
            MemoryStore() if store is None else store,
            self._prompts,
            profile=profile if preset is None else presets.preset(preset),
            **options,
        )
        self._session = _Session(authenticator)
        self._device = HybridCtapDevice(self._session)
        self._one_call = threading.Lock()
        self._stop = weakref.finalize(self, _Session.stop, self._session)
        self._pin = pin
        if pin is not None and not (ctap := Ctap2(self)).info.options["clientPin"]:
            ClientPin(ctap).set_pin(pin)

    @property
    def session(self) -> CtapSession:
        """The same authenticator in the shape of a hybrid session, for `HybridWebAuthnClient`."""
        return self._session

    @property
    def interaction(self) -> UserInteraction:
        """Somebody who types the PIN, for python-fido2's client."""
        return _Typist(self._pin)

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
        """Answer one CTAP request, on whatever thread.

        Raises:
            CtapError: `cmd` is not CBOR, or `event` was set (KEEPALIVE_CANCEL).
            PeerClosed: a phone of this preset would leave in place of an answer.
            RuntimeError: the device is closed.
        """
        with self._one_call:
            self._prompts.announce = on_keepalive
            try:
                return self._device.call(cmd, data, event)
            finally:
                self._prompts.announce = None

    def power_cycle(self) -> None:
        """Unplug it and plug it in: PIN tokens and what a power-up allows begin anew, passkeys stay."""
        with self._one_call:
            asyncio.run_coroutine_threadsafe(self._session.power_cycle(), self._session.loop).result()

    def close(self) -> None:
        """End the thread of the device. Its store stays as it is."""
        self._stop()

    @classmethod
    def list_devices(cls) -> Iterator[CtapDevice]:
        """Give nothing: it exists when somebody makes one."""
        return iter(())


class _Typist(UserInteraction):
    def __init__(self, pin: str | None) -> None:
        self._pin = pin

    def request_pin(self, permissions: ClientPin.PERMISSION, rp_id: str | None) -> str | None:
        return self._pin


class _Announced:
    """A `Consent` that tells python-fido2 when it asks."""

    def __init__(self, consent: Consent) -> None:
        self.announce: Callable[[STATUS], None] | None = None
        self._consent = consent

    async def ask(self, prompt: Prompt) -> Decision:
        if self.announce is not None:
            self.announce(STATUS.UPNEEDED)
        return await self._consent.ask(prompt)


class _Session:
    """An engine on an event loop of its own, in the shape of a hybrid session."""

    def __init__(self, authenticator: SoftwareAuthenticator) -> None:
        self.loop = asyncio.new_event_loop()
        self._authenticator = authenticator
        self._thread = threading.Thread(target=self._run, name="software authenticator", daemon=True)
        running = threading.Event()
        self.loop.call_soon(running.set)
        self._thread.start()
        running.wait()

    @property
    def get_info(self) -> bytes:
        return self._authenticator.get_info

    async def call(self, request: bytes, *, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 as a session has it
        async with asyncio.timeout(timeout):
            answer = await self._authenticator.call(request, peer=LOCAL_PEER, channel=self)
        if self._authenticator.profile.habits.leaves(request, answer[0]):
            raise PeerClosed(Stage.RESPONSE)
        return answer

    async def power_cycle(self) -> None:
        self._authenticator.power_cycle()

    def stop(self) -> None:
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.loop.stop)
        if threading.current_thread() is not self._thread:  # a garbage collector may run anywhere
            self._thread.join()

    def _run(self) -> None:
        try:
            self.loop.run_forever()
            self.loop.run_until_complete(_cancelled(asyncio.all_tasks(self.loop)))
        finally:
            self.loop.close()


async def _cancelled(tasks: set[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
