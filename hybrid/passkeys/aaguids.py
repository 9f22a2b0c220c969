"""Whose passkeys these are: names of providers by AAGUID.

Names are hints for people: an AAGUID without attestation is a claim. They are those that providers publish in the
community list passkey-authenticator-aaguids (2026-08) or in their source.
"""

from __future__ import annotations

from uuid import UUID

AAGUID = UUID("e0292e03-97e0-421c-82f1-28e6935b08f4")  # of this project, drawn once, published in the README
ZERO = UUID(int=0)
ICLOUD_KEYCHAIN = UUID("fbfc3007-154e-4ecc-8c0b-6e020557d7bd")
GOOGLE_PASSWORD_MANAGER = UUID("ea9b8d66-4d01-1d21-3ce4-b6b48cb575d4")
IPHONE = UUID("f24a8e70-d0d3-f82c-2937-32523cc4de5a")  # what it says of itself over hybrid

_NAMES: dict[str, str] = {
    str(ICLOUD_KEYCHAIN): "iCloud Keychain",  # Apple Passwords by its newer name
    "dd4ec289-e01d-41c9-bb89-70fa845d4bf2": "iCloud Keychain (managed)",
    str(IPHONE): "iPhone",
    str(GOOGLE_PASSWORD_MANAGER): "Google Password Manager",
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
    str(AAGUID): "fido-hybrid",
}


def provider_name(aaguid: bytes | UUID) -> str | None:
    """Name of the provider, None for zeros and unknown ones."""
    return _NAMES.get(str(aaguid if isinstance(aaguid, UUID) else UUID(bytes=bytes(aaguid))))
