"""WebAuthn for a program on the loop: the website's options in, the JSON for the website out, one command between.

What a browser's ``navigator.credentials`` does (Web Authentication Level 3, "Web Authentication API"), for a session.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybrid.fido2_bridge.ceremony import plan_assertion, plan_registration
from hybrid.fido2_bridge.credential_key import CredentialKey
from hybrid.fido2_bridge.device import CtapSession
from hybrid.fido2_bridge.options import load_options, read_assertion_options, read_registration_options

Options = Mapping[str, Any] | str | bytes
"""As the website hands them out: JSON text or parsed, bare or under ``publicKey``; bytes may stand for base64url."""


async def get_assertion(
    session: CtapSession, options: Options, *, origin: str, public_key: CredentialKey | None = None
) -> dict[str, Any]:
    """Sign in; give AuthenticationResponseJSON.

    `options`: PublicKeyCredentialRequestOptions; `origin`: of the website, e.g. ``https://example.com``;
    `public_key`: where it is known, the signature is checked as well.

    Raises:
        RequestRefused: the origin may not use the RP id, or the options are unusable; nothing was sent.
        CtapError: python-fido2's, for a status of the phone.
        ResponseRejected, RemoteProtocolError, and what `Session.call` raises
    """
    plan = plan_assertion(read_assertion_options(load_options(options)), origin)
    request = plan.request(session.get_info)
    answer = await session.call(request.message, timeout=plan.options.timeout)
    return request.result(answer, public_key=public_key).to_json()


async def make_credential(session: CtapSession, options: Options, *, origin: str) -> dict[str, Any]:
    """Register; give RegistrationResponseJSON.

    `options`: PublicKeyCredentialCreationOptions; `origin` and failures as for `get_assertion`.
    """
    plan = plan_registration(read_registration_options(load_options(options)), origin)
    request = plan.request(session.get_info)
    answer = await session.call(request.message, timeout=plan.options.timeout)
    return request.result(answer).to_json()
