"""Names of providers."""

from __future__ import annotations

from uuid import UUID

import pytest

from hybrid.passkeys.aaguids import provider_name


@pytest.mark.parametrize(
    ("aaguid", "name"),
    [
        ("fbfc3007-154e-4ecc-8c0b-6e020557d7bd", "iCloud Keychain"),
        ("ea9b8d66-4d01-1d21-3ce4-b6b48cb575d4", "Google Password Manager"),
        ("08987058-cadc-4b81-b6e1-30de50dcbe96", "Windows Hello"),
        ("d3452668-01fd-4c12-926c-83a4204853aa", "Microsoft Password Manager"),
        ("bada5566-a7aa-401f-bd96-45619a55120d", "1Password"),
        ("d548826e-79b4-db40-a3d8-11116f7e8349", "Bitwarden"),
        ("531126d6-e717-415c-9320-3d9aa6981239", "Dashlane"),
        ("fdb141b2-5d84-443e-8a35-4698c205a502", "KeePassXC"),
        ("e0292e03-97e0-421c-82f1-28e6935b08f4", "fido-hybrid"),
        ("00000000-0000-0000-0000-000000000000", None),
        ("12345678-1234-1234-1234-123456789abc", None),
    ],
)
def test_name_of_a_provider(aaguid: str, name: str | None) -> None:
    assert provider_name(UUID(aaguid)) == provider_name(UUID(aaguid).bytes) == name
