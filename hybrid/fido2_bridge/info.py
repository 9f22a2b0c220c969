"""The phone's getInfo (CTAP 2.3, "authenticatorGetInfo"): what a client reads of it, and all of it as a table."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from hybrid import cbor
from hybrid.errors import RemoteProtocolError
from hybrid.fido2_bridge import base64url

_MEMBERS = (
    "versions",
    "extensions",
    "aaguid",
    "options",
    "maxMsgSize",
    "pinUvAuthProtocols",
    "maxCredentialCountInList",
    "maxCredentialIdLength",
    "transports",
    "algorithms",
    "maxSerializedLargeBlobArray",
    "forcePINChange",
    "minPINLength",
    "firmwareVersion",
    "maxCredBlobLength",
    "maxRPIDsForSetMinPINLength",
    "preferredPlatformUvAttempts",
    "uvModality",
    "certifications",
    "remainingDiscoverableCredentials",
    "vendorPrototypeConfigCommands",
    "attestationFormats",
    "uvCountSinceLastPinEntry",
    "longTouchForReset",
    "encIdentifier",
    "transportsForReset",
    "pinComplexityPolicy",
    "pinComplexityPolicyURL",
    "maxPINLength",
    "encCredStoreState",
    "authenticatorConfigCommands",
)
NAMES = dict(enumerate(_MEMBERS, 1))

_EXTENSIONS, _AAGUID, _TRANSPORTS = 2, 3, 9


@dataclass(frozen=True, slots=True)
class PhoneInfo:
    """What a WebAuthn client needs of getInfo: names of extensions; transports of a new credential, sorted."""

    extensions: frozenset[str]
    transports: tuple[str, ...]


def read_get_info(get_info: bytes) -> PhoneInfo:
    """Read the getInfo response map.

    Raises:
        RemoteProtocolError: not a map, or extensions or transports that are not a list of text.
    """
    members = cbor.decode_map(get_info)
    transports = set(_texts(members, _TRANSPORTS))
    # "cable" is the old name; and hybrid is how we got here, whatever the phone says
    return PhoneInfo(
        extensions=frozenset(_texts(members, _EXTENSIONS)),
        transports=tuple(sorted(transports - {"cable"} | {"hybrid"})),
    )


def _texts(members: dict[Any, Any], key: int) -> list[str]:
    value = members.get(key, [])
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise RemoteProtocolError(f"getInfo has {NAMES[key]} that are not a list of text")
    return value


def describe_get_info(get_info: bytes, features: Iterable[str]) -> dict[str, Any]:
    """Give getInfo as a JSON object under CTAP's member names, and the `features` of the session.

    The AAGUID is UUID text, other bytes are base64url; unknown members stay under their number as text.

    Raises:
        RemoteProtocolError: not a map.
    """
    table: dict[str, Any] = {}
    members = cbor.decode_map(get_info)
    for key in [*sorted(key for key in members if type(key) is int), *(k for k in members if type(k) is not int)]:
        value = members[key]
        if key == _AAGUID and isinstance(value, bytes) and len(value) == 16:
            table[NAMES[key]] = str(uuid.UUID(bytes=value))
        else:
            table.setdefault(NAMES.get(key) or _key(key), _plain(value))
    table["features"] = list(features)
    return table


def _key(key: int | str | bytes) -> str:
    return base64url.encode(key) if isinstance(key, bytes) else str(key)


def _plain(value: Any) -> Any:
    match value:
        case None | bool() | int() | str():
            return value
        case bytes():
            return base64url.encode(value)
        case float():
            return value if math.isfinite(value) else str(value)
        case list():
            return [_plain(item) for item in value]
        case dict():
            return {_key(key): _plain(item) for key, item in value.items()}
        case _:
            return str(value)  # CBOR's undefined and simple values, which JSON does not have
