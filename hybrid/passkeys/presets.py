"""Phones of others as data: what each says of itself, how it answers, how it keeps a session.

For those who write clients and own none of these phones. All of it is from what others saw and published in 2022 to
2026; none was compared with the real thing, and what nobody recorded is as this project's own phone has it.

A phone of a preset is one line, and one word more where it is put behind a code::

    phone = phone_for("iphone")
    await hybrid.answer(code, phone, habits=phone.profile.habits)
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any

from hybrid.errors import LocalProtocolError
from hybrid.passkeys.aaguids import GOOGLE_PASSWORD_MANAGER, ICLOUD_KEYCHAIN, IPHONE, ZERO
from hybrid.passkeys.algorithms import ES256
from hybrid.passkeys.consent import AlwaysApprove, Consent
from hybrid.passkeys.engine import SoftwareAuthenticator
from hybrid.passkeys.profiles import PHONE, Profile
from hybrid.passkeys.store import CredentialStore, MemoryStore
from hybrid.protocol.ctap import FEATURE_CTAP, FEATURE_DIGITAL_CREDENTIALS, Status
from hybrid.protocol.eid import GOOGLE_UUID
from hybrid.protocol.habits import Habits

_GOOGLE_RELAY, _APPLE_RELAY = 0, 1  # tunnel service ids
_BOTH = (FEATURE_CTAP, FEATURE_DIGITAL_CREDENTIALS)

# No source shows a phone's message size, list limits or algorithms: they leave them out. All are seen to make ES256.
_A_PHONE = replace(
    PHONE,
    algorithms=(ES256,),
    left_out=frozenset({5, 7, 8, 10}),
    transports=("internal", "hybrid"),
    habits=Habits(service_id=_GOOGLE_RELAY, one_command=True),
)

_IPHONE = replace(
    _A_PHONE,
    name="iphone",
    seen="an iPhone of 2026, logs of others",
    extensions=("largeBlob", "prf"),
    options=MappingProxyType({"rk": True, "uv": True, "jsonMessages": True}),
    aaguid=IPHONE,
    passkey_aaguid=ICLOUD_KEYCHAIN,
    synced=True,
    required_names=frozenset({"user.displayName"}),
    lenient=True,
    habits=Habits(service_id=_APPLE_RELAY, features=_BOTH, one_command=True, answers_get_info=False),
)

_ANDROID = replace(
    _A_PHONE,
    name="android",
    seen="Google Play services of 2025, logs in libwebauthn",
    extensions=("prf",),
    options=MappingProxyType({"up": True, "rk": True, "plat": False, "uv": True}),
    aaguid=ZERO,
    passkey_aaguid=GOOGLE_PASSWORD_MANAGER,
    synced=True,
    habits=Habits(
        service_id=_GOOGLE_RELAY,
        features=_BOTH,
        one_command=True,
        sends_update=True,
        takes_channel_list=False,  # Play services 26.18; later ones do
        unanswered=frozenset({Status.INVALID_CBOR}),
    ),
)

_PRESETS = (
    _IPHONE,
    replace(
        _IPHONE,
        name="iphone-ios18.0",
        seen="reports about iOS 18.0 to 18.3; its getInfo taken from 2026",
        prf_differs=True,
    ),
    replace(
        _IPHONE,
        name="iphone-ios16",
        seen="logs in webauthn-rs",
        versions=("FIDO_2_0",),
        extensions=(),
        options=MappingProxyType({"rk": True, "uv": True}),
        habits=replace(_IPHONE.habits, features=None, service_uuid=GOOGLE_UUID),
    ),
    _ANDROID,
    replace(
        _ANDROID,
        name="android-chrome2022",
        seen="Chrome on Android of 2022: logs in webauthn-rs, and Chromium's source",
        extensions=("devicePubKey", "prf"),
        options=MappingProxyType({"rk": True, "uv": True}),
        transports=("cable", "hybrid", "internal"),
        required_names=frozenset({"rp.name", "user.name", "user.displayName"}),
        tells_names=False,
        assertion_transports=("internal", "cable"),
        prf_at_create=False,
        habits=Habits(
            service_id=_GOOGLE_RELAY,
            features=None,
            one_command=True,
            sends_update=True,
            # It stops at every message that it cannot read.
            unanswered=frozenset(
                {
                    Status.INVALID_COMMAND,
                    Status.INVALID_LENGTH,
                    Status.UNEXPECTED_TYPE,
                    Status.INVALID_CBOR,
                    Status.MISSING_PARAMETER,
                }
            ),
            leaves_empty_handed=True,
            once_revision_0=True,
        ),
    ),
    replace(
        _A_PHONE,
        name="microg",
        seen="the source of microG of 2026-07; keys that stay on the device",
        extensions=("prf",),
        options=MappingProxyType({"rk": True, "up": True, "uv": True, "plat": False}),
        transports=("internal", "cable"),
        aaguid=ZERO,
        passkey_aaguid=ZERO,
        synced=False,
        lenient=True,
        habits=replace(_A_PHONE.habits, features=_BOTH[::-1]),
    ),
)

PRESETS: MappingProxyType[str, Profile] = MappingProxyType({preset.name: preset for preset in _PRESETS})


def preset(name: str) -> Profile:
    """The phone of this name, as the profile of an authenticator. Raises `LocalProtocolError` for an unknown name."""
    try:
        return PRESETS[name]
    except KeyError:
        raise LocalProtocolError(f"{name!r} is none of the presets: {', '.join(PRESETS)}") from None


def phone_for(
    name: str, store: CredentialStore | None = None, consent: Consent | None = None, **options: Any
) -> SoftwareAuthenticator:
    """A phone that behaves as the preset `name` does, for `hybrid.answer` with ``habits=phone.profile.habits``.

    `store` keeps its passkeys, `consent` answers its prompts; left out, that is the memory of this program and a policy
    that agrees to everything. `options` are those of `SoftwareAuthenticator`. Raises `LocalProtocolError`.
    """
    return SoftwareAuthenticator(
        MemoryStore() if store is None else store,
        AlwaysApprove() if consent is None else consent,
        profile=preset(name),
        **options,
    )
