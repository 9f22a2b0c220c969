"""Whose passkeys these are: names of providers by AAGUID, and known phones as data, for a phone to imitate them.

Names are hints for people: an AAGUID without attestation is a claim. They are those that providers publish in the
community list passkey-authenticator-aaguids (2026-08) or in their source. Presets are data about phones as others saw
them in 2022 to 2026; what nobody recorded is left out, not made up.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from hybrid import cbor

_ZERO = UUID(int=0)
_ICLOUD = UUID("fbfc3007-154e-4ecc-8c0b-6e020557d7bd")
_GOOGLE = UUID("ea9b8d66-4d01-1d21-3ce4-b6b48cb575d4")
_IPHONE_ITSELF = UUID("f24a8e70-d0d3-f82c-2937-32523cc4de5a")

OURS = UUID("e0292e03-97e0-421c-82f1-28e6935b08f4")

_NAMES: dict[str, str] = {
    "fbfc3007-154e-4ecc-8c0b-6e020557d7bd": "iCloud Keychain",  # Apple Passwords by its newer name
    "dd4ec289-e01d-41c9-bb89-70fa845d4bf2": "iCloud Keychain (managed)",
    "f24a8e70-d0d3-f82c-2937-32523cc4de5a": "iPhone",  # what it says of itself over hybrid
    "ea9b8d66-4d01-1d21-3ce4-b6b48cb575d4": "Google Password Manager",
    "adce0002-35bc-c60a-648b-0b25f1f05503": "Chrome on Mac",
    "b5397666-4885-aa6b-cebf-e52262a439a2": "Chromium Browser",
    "771b48fd-d3d4-4f74-9232-fc157ab0507a": "Edge on Mac",
    "d3452668-01fd-4c12-926c-83a4204853aa": "Microsoft Password Manager",
    "08987058-cadc-4b81-b6e1-30de50dcbe96": "Windows Hello",
    "9ddd1817-af5a-4672-a2b9-3e3dd95000a9": "Windows Hello",
    "6028b017-b1d4-4c02-b4b3-afcdafc96bb2": "Windows Hello",
    "53414d53-554e-4700-0000-000000000000": "Samsung Pass",
    "bada5566-a7aa-401f-bd96-45619a55120d": "1Password",
    "d548826e-79b4-db40-a3d8-11116f7e8349": "Bitwarden",
    "531126d6-e717-415c-9320-3d9aa6981239": "Dashlane",
    "b84e4048-15dc-4dd0-8640-f4f60813c8af": "NordPass",
    "0ea242b4-43c4-4a1b-8b17-dd6d0b6baec6": "Keeper",
    "f3809540-7f14-49c1-a8b3-8f813b225541": "Enpass",
    "50726f74-6f6e-5061-7373-50726f746f6e": "Proton Pass",
    "b78a0a55-6ef8-d246-a042-ba0f6d55050c": "LastPass",
    "b35a26b2-8f6e-4697-ab1d-d44db4da28c6": "Zoho Vault",
    "de503f9c-21a4-4f76-b4b7-558eb55c6f89": "Devolutions",
    "fdb141b2-5d84-443e-8a35-4698c205a502": "KeePassXC",
    "eaecdef2-1c31-5634-8639-f1cbd9c00a08": "KeePassDX",
    "a11a5faa-9f32-4b8c-8c5d-2f7d13e8c942": "AliasVault",
    str(OURS): "fido-hybrid",
}


def provider_name(aaguid: bytes | UUID) -> str | None:
    """Name of the provider, None for zeros and unknown ones."""
    return _NAMES.get(str(aaguid if isinstance(aaguid, UUID) else UUID(bytes=bytes(aaguid))))


class Quirk(StrEnum):
    """How a phone differs from what a client might expect."""

    ONE_COMMAND = "one-command"  # ends the session after one answer
    NO_GET_INFO_REPLY = "no-get-info-reply"  # an explicit getInfo gets no answer, or ends the session
    NEEDS_DISPLAY_NAME = "needs-display-name"  # makeCredential without user.displayName fails
    NEEDS_ALL_NAMES = "needs-all-names"  # and without rp.name and user.name
    LEAVES_WHEN_NOTHING_FOUND = "leaves-when-nothing-found"  # closes instead of status 0x2E
    STRICT_CBOR = "strict-cbor"  # requests must be canonical
    OFFERS_LINK = "offers-link"  # an update in every QR session
    NEVER_LINKS = "never-links"
    REFUSES_CHANNEL_LIST = "refuses-channel-list"  # an array in QR key 6 ends it
    PRF_DIFFERS = "prf-differs"  # values over hybrid differ from local ones
    ES256_ONLY = "es256-only"


@dataclass(frozen=True, slots=True)
class Preset:
    """A phone to imitate. `aaguid` is that of getInfo, `passkey_aaguid` that of the passkeys it makes.

    `options` and `transports` in the phone's order; `max_msg_size` None where its getInfo has none; `features` of the
    message after the handshake; `service_uuid` of its adverts; `service_id` of the relay it meets at; `seen`: on what
    the preset rests.
    """

    name: str
    seen: str
    versions: tuple[str, ...]
    extensions: tuple[str, ...]
    aaguid: UUID
    options: tuple[tuple[str, bool], ...]
    transports: tuple[str, ...]
    features: tuple[str, ...] | None
    passkey_aaguid: UUID
    backup_eligible: bool
    backed_up: bool
    service_id: int
    service_uuid: int = 0xFFF9
    max_msg_size: int | None = None
    quirks: frozenset[Quirk] = frozenset()

    @property
    def get_info(self) -> bytes:
        """CBOR of the getInfo response map, canonical: PIN protocols never, algorithms and limits not recorded."""
        members: dict[int, object] = {1: list(self.versions)}
        if self.extensions:
            members[2] = list(self.extensions)
        members |= {3: self.aaguid.bytes, 4: dict(self.options)}
        if self.max_msg_size is not None:
            members[5] = self.max_msg_size
        if self.transports:
            members[9] = list(self.transports)
        return cbor.encode(members)


_PHONE = frozenset({Quirk.ONE_COMMAND, Quirk.ES256_ONLY})
_APPLE = _PHONE | {Quirk.NO_GET_INFO_REPLY, Quirk.NEEDS_DISPLAY_NAME, Quirk.NEVER_LINKS}

PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            name="iphone",
            seen="an iPhone of 2026, logs of others",
            versions=("FIDO_2_0", "FIDO_2_1"),
            extensions=("largeBlob", "prf"),
            aaguid=_IPHONE_ITSELF,
            options=(("rk", True), ("uv", True), ("jsonMessages", True)),
            transports=("internal", "hybrid"),
            features=("ctap", "dc"),
            passkey_aaguid=_ICLOUD,
            backup_eligible=True,
            backed_up=True,
            service_id=1,
            quirks=_APPLE,
        ),
        Preset(
            name="iphone-ios18.0",
            seen="reports about iOS 18.0 to 18.3; its getInfo taken from 2026",
            versions=("FIDO_2_0", "FIDO_2_1"),
            extensions=("largeBlob", "prf"),
            aaguid=_IPHONE_ITSELF,
            options=(("rk", True), ("uv", True), ("jsonMessages", True)),
            transports=("internal", "hybrid"),
            features=("ctap", "dc"),
            passkey_aaguid=_ICLOUD,
            backup_eligible=True,
            backed_up=True,
            service_id=1,
            quirks=_APPLE | {Quirk.PRF_DIFFERS},
        ),
        Preset(
            name="iphone-ios16",
            seen="logs in webauthn-rs",
            versions=("FIDO_2_0",),
            extensions=(),
            aaguid=_IPHONE_ITSELF,
            options=(("rk", True), ("uv", True)),
            transports=("internal", "hybrid"),
            features=None,
            passkey_aaguid=_ICLOUD,
            backup_eligible=True,
            backed_up=True,
            service_id=1,
            service_uuid=0xFDE2,
            quirks=_APPLE,
        ),
        Preset(
            name="android",
            seen="Google Play services of 2025, logs in libwebauthn",
            versions=("FIDO_2_0", "FIDO_2_1"),
            extensions=("prf",),
            aaguid=_ZERO,
            options=(("up", True), ("rk", True), ("plat", False), ("uv", True)),
            transports=("internal", "hybrid"),
            features=("ctap", "dc"),
            passkey_aaguid=_GOOGLE,
            backup_eligible=True,
            backed_up=True,
            service_id=0,
            quirks=_PHONE | {Quirk.STRICT_CBOR, Quirk.OFFERS_LINK, Quirk.REFUSES_CHANNEL_LIST},
        ),
        Preset(
            name="android-chrome2022",
            seen="Chrome on Android of 2022, logs in webauthn-rs and Chromium's source",
            versions=("FIDO_2_0", "FIDO_2_1"),
            extensions=("devicePubKey", "prf"),
            aaguid=_ZERO,
            options=(("rk", True), ("uv", True)),
            transports=("cable", "hybrid", "internal"),
            features=None,
            passkey_aaguid=_GOOGLE,
            backup_eligible=True,
            backed_up=True,
            service_id=0,
            quirks=_PHONE
            | {Quirk.STRICT_CBOR, Quirk.OFFERS_LINK, Quirk.NEEDS_ALL_NAMES, Quirk.LEAVES_WHEN_NOTHING_FOUND},
        ),
        Preset(
            name="microg",
            seen="the source of microG of 2026-07; device-bound keys of its own",
            versions=("FIDO_2_0", "FIDO_2_1"),
            extensions=("prf",),
            aaguid=_ZERO,
            options=(("rk", True), ("up", True), ("uv", True), ("plat", False)),
            transports=("internal", "cable"),
            features=("dc", "ctap"),
            passkey_aaguid=_ZERO,
            backup_eligible=False,
            backed_up=False,
            service_id=0,
            quirks=_PHONE,
        ),
    )
}
