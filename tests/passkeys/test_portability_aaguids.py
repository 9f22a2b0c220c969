"""Names of providers, and presets by the literal bytes of their getInfo."""

from __future__ import annotations

from uuid import UUID

import pytest
from fido2.ctap2.base import Info

from hybrid import cbor
from hybrid.passkeys.aaguids import OURS, PRESETS, Quirk, provider_name
from hybrid.passkeys.engine import AAGUID

F20, F21 = "68 4649444f5f325f30", "68 4649444f5f325f31"  # "FIDO_2_0", "FIDO_2_1"
PRF = "63 707266"
RK, UP, UV = "62 726b", "62 7570", "62 7576"
PLAT = "64 706c6174"
INTERNAL, HYBRID, CABLE = "68 696e7465726e616c", "66 687962726964", "65 6361626c65"
YES, NO = "f5", "f4"
ZERO = "50" + "00" * 16
IPHONE = "50 f24a8e70d0d3f82c293732523cc4de5a"

NEW_IPHONE = (
    f"a5 01 82{F20}{F21} 02 82 69 6c61726765426c6f62 {PRF} 03 {IPHONE}"
    f" 04 a3 {RK}{YES} {UV}{YES} 6c 6a736f6e4d65737361676573 {YES} 09 82 {INTERNAL}{HYBRID}"
)
GET_INFO = {
    "iphone": NEW_IPHONE,
    "iphone-ios18.0": NEW_IPHONE,
    "iphone-ios16": f"a4 01 81{F20} 03 {IPHONE} 04 a2 {RK}{YES} {UV}{YES} 09 82 {INTERNAL}{HYBRID}",
    "android": f"a5 01 82{F20}{F21} 02 81 {PRF} 03 {ZERO} 04 a4 {RK}{YES} {UP}{YES} {UV}{YES} {PLAT}{NO}"
    f" 09 82 {INTERNAL}{HYBRID}",
    "android-chrome2022": f"a5 01 82{F20}{F21} 02 82 6c 6465766963655075624b6579 {PRF} 03 {ZERO}"
    f" 04 a2 {RK}{YES} {UV}{YES} 09 83 {CABLE}{HYBRID}{INTERNAL}",
    "microg": f"a5 01 82{F20}{F21} 02 81 {PRF} 03 {ZERO} 04 a4 {RK}{YES} {UP}{YES} {UV}{YES} {PLAT}{NO}"
    f" 09 82 {INTERNAL}{CABLE}",
}


def test_there_is_a_row_for_every_preset() -> None:
    assert set(GET_INFO) == set(PRESETS)
    assert all(name == preset.name for name, preset in PRESETS.items())


@pytest.mark.parametrize("name", GET_INFO)
def test_get_info_of_a_preset_byte_for_byte(name: str) -> None:
    get_info = PRESETS[name].get_info
    assert get_info == bytes.fromhex(GET_INFO[name])
    assert Info.from_dict(cbor.decode(get_info)).aaguid == PRESETS[name].aaguid.bytes


@pytest.mark.parametrize("name", ["iphone", "android"])
def test_synced_phones_make_synced_passkeys_of_their_provider(name: str) -> None:
    preset = PRESETS[name]
    assert (preset.backup_eligible, preset.backed_up) == (True, True)
    wanted = {"iphone": ("iCloud Keychain", 1), "android": ("Google Password Manager", 0)}[name]
    assert (provider_name(preset.passkey_aaguid), preset.service_id) == wanted


def test_quirks() -> None:
    assert Quirk.NO_GET_INFO_REPLY in PRESETS["iphone"].quirks
    assert Quirk.NO_GET_INFO_REPLY not in PRESETS["android"].quirks
    assert PRESETS["iphone-ios16"].service_uuid == 0xFDE2
    assert PRESETS["iphone-ios18.0"].quirks - PRESETS["iphone"].quirks == {Quirk.PRF_DIFFERS}
    assert all(preset.backup_eligible or not preset.backed_up for preset in PRESETS.values())


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


def test_ours_is_the_engines() -> None:
    assert OURS == AAGUID
