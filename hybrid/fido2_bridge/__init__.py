"""The one door to python-fido2, and what a WebAuthn client owes its caller.

`HybridWebAuthnClient` signs in and registers through a session with exactly one command on the wire;
`HybridCtapDevice` is the same session as python-fido2's device, for whoever brings a client of their own;
`SoftwareCtapDevice` is an authenticator in this process, for tests of websites and clients.
Below them, without python-fido2 and without a loop:

- `rp_id`: which RP ids an origin may use.
- `options`: the JSON that a website hands out, read strictly.
- `extensions`: prf, largeBlob and credProps between website and phone.
- `answers` and `credential_key`: the phone's bytes, parsed; nothing in them is believed.
- `ceremony`: plan, request, checked result, JSON.
- `webauthn`: the whole of that in one call, for programs on the loop.
- `info`: getInfo as a table.

A command line imports those modules directly; python-fido2 is loaded only when one of the names here is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hybrid.fido2_bridge.client import HybridClientDataCollector, HybridWebAuthnClient
    from hybrid.fido2_bridge.device import CtapSession, HybridCtapDevice
    from hybrid.fido2_bridge.software_device import SoftwareCtapDevice
    from hybrid.fido2_bridge.webauthn import get_assertion, make_credential

__all__ = [
    "CtapSession",
    "HybridClientDataCollector",
    "HybridCtapDevice",
    "HybridWebAuthnClient",
    "SoftwareCtapDevice",
    "get_assertion",
    "make_credential",
]


def __getattr__(name: str) -> Any:
    # python-fido2 takes a tenth of a second to load, which would delay the QR code of a command line.
    if name in ("HybridClientDataCollector", "HybridWebAuthnClient"):
        from hybrid.fido2_bridge import client

        return getattr(client, name)
    if name in ("get_assertion", "make_credential"):
        from hybrid.fido2_bridge import webauthn

        return getattr(webauthn, name)
    if name in ("CtapSession", "HybridCtapDevice"):
        from hybrid.fido2_bridge import device

        return getattr(device, name)
    if name == "SoftwareCtapDevice":
        from hybrid.fido2_bridge import software_device

        return software_device.SoftwareCtapDevice
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
