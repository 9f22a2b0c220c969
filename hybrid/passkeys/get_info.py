"""authenticatorGetInfo (CTAP 2.3 §6.4): what a profile says of itself, and what changes with its state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from hybrid import cbor
from hybrid.passkeys.config import MAX_MIN_PIN_RP_IDS
from hybrid.passkeys.config import Subcommand as ConfigSubcommand
from hybrid.passkeys.extensions import MAX_CRED_BLOB_SIZE
from hybrid.passkeys.large_blobs import MAX_ARRAY_SIZE
from hybrid.passkeys.pin import MAX_PIN_SIZE, PROTOCOLS
from hybrid.passkeys.pin_protocols import sealed_for
from hybrid.passkeys.profiles import Profile
from hybrid.passkeys.requests import PUBLIC_KEY
from hybrid.passkeys.state import AuthenticatorState


def get_info(profile: Profile, aaguid: UUID, algorithms: Sequence[int]) -> dict[int, Any]:
    """What never changes."""
    info: dict[int, Any] = {
        1: list(profile.versions),
        2: list(profile.extensions),
        3: aaguid.bytes,
        4: dict(profile.options),
        5: profile.max_message_size,
        7: profile.max_list_length,
        8: profile.max_credential_id_size,
        9: list(profile.transports),
        10: [{"alg": algorithm, "type": PUBLIC_KEY} for algorithm in algorithms],
    }
    if "credBlob" in profile.extensions:
        info[15] = MAX_CRED_BLOB_SIZE
    return {key: value for key, value in info.items() if value != [] and key not in profile.left_out}


def roaming_info(state: AuthenticatorState, remaining: int, random: Callable[[int], bytes]) -> dict[int, Any]:
    """What a roaming authenticator adds; member 4 goes into the options above."""
    info: dict[int, Any] = {
        4: {
            "alwaysUv": state.always_uv,
            "clientPin": state.pin_hash is not None,
            "makeCredUvNotRqd": not state.always_uv,
        },
        6: list(PROTOCOLS),
        11: MAX_ARRAY_SIZE,
        12: state.force_pin_change,
        13: state.min_pin_length,
        16: MAX_MIN_PIN_RP_IDS,
        20: remaining,
        22: ["none", "packed"],
        29: MAX_PIN_SIZE,
        31: [int(subcommand) for subcommand in ConfigSubcommand],
    }
    if state.persistent_token is not None:
        token = state.persistent_token
        info[25] = sealed_for(token, b"encIdentifier", state.identifier, random(16))
        info[30] = sealed_for(token, b"encCredStoreState", state.store_state, random(16))
    return info


def encoded(*parts: dict[int, Any]) -> bytes:
    """The response map of these parts."""
    options = {name: value for part in parts for name, value in part.get(4, {}).items()}
    return cbor.encode(
        {key: value for part in parts for key, value in part.items()} | ({4: options} if options else {})
    )
