"""What an authenticator is, as data: the phone that hybrid peers expect, and a roaming one (CTAP 2.3 §6.4, getInfo).

The same engine serves both. The phones of others are in `hybrid.passkeys.presets`. Nothing here answers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from uuid import UUID

from hybrid.passkeys.aaguids import AAGUID
from hybrid.passkeys.algorithms import STANDARD
from hybrid.protocol.ctap import Command
from hybrid.protocol.habits import Habits


@dataclass(frozen=True, slots=True)
class Profile:
    """Numbers and names of one kind of authenticator.

    `roaming`: has PIN/UV protocols, next assertions, silent probes and management, verifies a person by PIN tokens
    only and counts signatures; a phone verifies by itself, every time. `versions`, `extensions`, `transports`: as
    announced, short names first, then bytewise. `options`: those that never change. `attestation`: format given
    unless a request asks for another.

    The rest is where phones differ. `seen`: on what a preset rests; `aaguid`: that of getInfo; `passkey_aaguid`: that
    of passkeys, None for the same; `algorithms`: those on without a switch; `left_out`: members that getInfo does not
    have; `synced`: whether sites are told that new passkeys are backed up, None for as the store says;
    `required_names`: of "rp.name", "user.name" and "user.displayName", which must be there, if only empty; `lenient`:
    takes maps whose keys are not sorted; `tells_names`: those of the account that was chosen; `assertion_transports`:
    those of the passkey, in an assertion; `prf_at_create`: evaluates prf for a new passkey too; `prf_differs`: gives
    other values than it should; `habits`: how it keeps a session.
    """

    name: str
    roaming: bool
    versions: tuple[str, ...]
    extensions: tuple[str, ...]
    options: MappingProxyType[str, bool]
    max_message_size: int
    max_list_length: int
    max_credential_id_size: int
    transports: tuple[str, ...]
    attestation: str
    commands: frozenset[int]
    seen: str = ""
    aaguid: UUID = AAGUID
    passkey_aaguid: UUID | None = None
    algorithms: tuple[int, ...] = STANDARD
    left_out: frozenset[int] = frozenset()
    synced: bool | None = None
    required_names: frozenset[str] = frozenset()
    lenient: bool = False
    tells_names: bool = True
    assertion_transports: tuple[str, ...] = ()
    prf_at_create: bool = True
    prf_differs: bool = False
    habits: Habits = field(default_factory=Habits)


PHONE = Profile(
    name="phone",
    roaming=False,
    versions=("FIDO_2_0", "FIDO_2_1"),
    extensions=("prf", "credBlob", "largeBlob", "credProtect"),
    options=MappingProxyType({"rk": True, "up": True, "uv": True}),
    max_message_size=1 << 20,  # absent would mean 1024 to some clients
    max_list_length=64,
    max_credential_id_size=1023,
    transports=("hybrid", "internal"),
    attestation="none",
    commands=frozenset({Command.MAKE_CREDENTIAL, Command.GET_ASSERTION, Command.GET_INFO}),
)

ROAMING = Profile(
    name="roaming",
    roaming=True,
    versions=("FIDO_2_0", "FIDO_2_1"),
    extensions=(
        "credBlob",
        "credProtect",
        "hmac-secret",
        "largeBlobKey",
        "minPinLength",
        "hmac-secret-mc",
        "thirdPartyPayment",
    ),
    # "up" is left out: true is its default, and a client of CTAP 2.0 that reads it may not send it in makeCredential.
    options=MappingProxyType(
        {
            "rk": True,
            "authnrCfg": True,
            "credMgmt": True,
            "largeBlobs": True,
            "perCredMgmtRO": True,
            "pinUvAuthToken": True,
            "setMinPINLength": True,
        }
    ),
    max_message_size=7609,
    max_list_length=8,
    max_credential_id_size=128,
    transports=("usb",),
    attestation="packed",
    commands=frozenset(Command),
)

PROFILES = MappingProxyType({profile.name: profile for profile in (PHONE, ROAMING)})
