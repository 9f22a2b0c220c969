"""What a website asks for, read strictly (WebAuthn Level 3, "PublicKeyCredentialCreationOptionsJSON" and its sibling).

Takes the JSON bare or as ``{"publicKey": ...}``, fills in what is missing, and refuses what it cannot read. Random
values come in as arguments. Members that mean nothing to a phone over hybrid (hints, attachment, attestation) are
ignored. RP ids are judged elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import UnionType
from typing import Any

from hybrid.errors import RefusalReason, RequestRefused
from hybrid.fido2_bridge import base64url
from hybrid.fido2_bridge.rp_id import normal_domain

ES256, EDDSA, RS256 = -7, -8, -257
DEFAULT_ALGORITHMS = (ES256, EDDSA, RS256)
MAX_USER_ID = 64

_PUBLIC_KEY = "public-key"


@dataclass(frozen=True, slots=True, kw_only=True)
class AssertionOptions:
    """A sign-in. `allow`: credential ids, empty for any passkey; `timeout` in seconds; `rp_id` None: the origin's."""

    challenge: bytes
    rp_id: str | None = None
    allow: tuple[bytes, ...] = ()
    extensions: Mapping[str, Any] = field(default_factory=dict, repr=False)
    timeout: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrationOptions:
    """A new passkey. `algorithms`: COSE numbers, best first; `exclude`: credential ids; `resident_key`: as asked."""

    challenge: bytes
    user_id: bytes = field(repr=False)
    user_name: str
    user_display_name: str
    rp_name: str
    rp_id: str | None = None
    algorithms: tuple[int, ...] = DEFAULT_ALGORITHMS
    exclude: tuple[bytes, ...] = ()
    resident_key: bool = True
    extensions: Mapping[str, Any] = field(default_factory=dict, repr=False)
    timeout: float | None = None


def assertion_options(rp_id: str, options_json: str | bytes | None = None, *, challenge: bytes) -> AssertionOptions:
    """Options of a command line: those of `options_json`, where given, with `rp_id` and `challenge` as defaults.

    Raises:
        RequestRefused: unreadable, or for another RP id: `OPTIONS`; or one of them is no domain name: `RP_ID`.
    """
    members = {} if options_json is None else load_options(options_json)
    _same_rp_id(_optional(members, "rpId", str), rp_id)
    return read_assertion_options({"rpId": rp_id, "challenge": challenge, **members})


def registration_options(
    rp_id: str,
    options_json: str | bytes | None = None,
    *,
    user_name: str | None = None,
    challenge: bytes,
    user_id: bytes,
) -> RegistrationOptions:
    """Options of a command line: those of `options_json`, where given, with the arguments as defaults.

    Without JSON a discoverable passkey is asked for. The display name defaults to the user name.

    Raises:
        RequestRefused: unreadable, for another RP id, or nobody named the user: `OPTIONS`; or an RP id is no domain
            name: `RP_ID`.
    """
    defaults: dict[str, Any] = {"challenge": challenge}
    if options_json is None:
        members: Mapping[str, Any] = {}
        defaults["authenticatorSelection"] = {"residentKey": "required"}
    else:
        members = load_options(options_json)
    rp = _given(_optional(members, "rp", Mapping) or {})
    _same_rp_id(_optional(rp, "id", str), rp_id)
    user = {"id": user_id, "name": user_name} | _given(_optional(members, "user", Mapping) or {})
    if user["name"] is None:
        raise _refused("the options name no user")
    return read_registration_options({**defaults, **members, "rp": {"id": rp_id, "name": rp_id, **rp}, "user": user})


def read_assertion_options(members: Mapping[str, Any]) -> AssertionOptions:
    """Read a PublicKeyCredentialRequestOptions mapping; bytes may stand where JSON has base64url.

    Raises:
        RequestRefused: a member missing or of the wrong type. `OPTIONS`.
    """
    return AssertionOptions(
        challenge=_bytes(members, "challenge"),
        rp_id=_text(members, "rpId"),
        allow=_credential_ids(members, "allowCredentials"),
        extensions=_optional(members, "extensions", Mapping) or {},
        timeout=_timeout(members),
    )


def read_registration_options(members: Mapping[str, Any]) -> RegistrationOptions:
    """Read a PublicKeyCredentialCreationOptions mapping; bytes may stand where JSON has base64url.

    Raises:
        RequestRefused: a member missing or of the wrong type, or a user id that is not 1 to 64 bytes. `OPTIONS`.
    """
    rp = _optional(members, "rp", Mapping)
    user = _optional(members, "user", Mapping)
    if rp is None or user is None:
        raise _refused("the options lack rp or user")
    user_id = _bytes(user, "id")
    if not 1 <= len(user_id) <= MAX_USER_ID:
        raise _refused("user.id is not 1 to 64 bytes long")
    user_name = _text(user, "name") or ""
    display_name = _text(user, "displayName")
    return RegistrationOptions(
        challenge=_bytes(members, "challenge"),
        user_id=user_id,
        user_name=user_name,
        user_display_name=user_name if display_name is None else display_name,
        rp_name=_text(rp, "name") or "",
        rp_id=_text(rp, "id"),
        algorithms=_algorithms(members),
        exclude=_credential_ids(members, "excludeCredentials"),
        resident_key=_resident_key(members),
        extensions=_optional(members, "extensions", Mapping) or {},
        timeout=_timeout(members),
    )


def load_options(options: Mapping[str, Any] | str | bytes) -> Mapping[str, Any]:
    """Members of a website's options: JSON text or parsed, bare or under ``publicKey``; nulls count as absent.

    Raises:
        RequestRefused: not JSON, or no object. `OPTIONS`.
    """
    members: Any = options
    if isinstance(options, str | bytes):
        try:
            members = json.loads(options)
        except (ValueError, RecursionError):
            raise _refused("the options are not JSON") from None
    if isinstance(members, Mapping) and "publicKey" in members:
        members = members["publicKey"]
    if not isinstance(members, Mapping):
        raise _refused("the options are not a JSON object")
    return _given(members)


def _given(members: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out nulls, which WebIDL takes for absent."""
    return {name: value for name, value in members.items() if value is not None}


def _same_rp_id(given: str | None, rp_id: str) -> None:
    if given is not None and normal_domain(given) != normal_domain(rp_id):
        raise _refused(f"the options are for another RP id than {rp_id}")


def _optional(members: Mapping[str, Any], name: str, kind: type[Any] | UnionType) -> Any:
    value = members.get(name)
    if value is not None and not isinstance(value, kind):
        raise _refused(f"{name} in the options has the wrong type")
    return value


def _text(members: Mapping[str, Any], name: str) -> str | None:
    value = _optional(members, name, str)
    if value is None:
        return None
    try:
        value.encode()
    except UnicodeEncodeError:  # JSON can spell half a surrogate pair; CBOR cannot
        raise _refused(f"{name} in the options is not valid text") from None
    return str(value)


def _bytes(members: Mapping[str, Any], name: str) -> bytes:
    value = members.get(name)
    if value is None:
        raise _refused(f"the options lack {name}")
    return read_bytes(value, name)


def read_bytes(value: Any, name: str) -> bytes:
    """Bytes as they are, text as base64url.

    Raises:
        RequestRefused: neither; the sentence calls it `name`. `OPTIONS`.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, str):
        try:
            return base64url.decode(value)
        except ValueError:
            pass
    raise _refused(f"{name} in the options is not base64url")


def _descriptors(members: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    entries = _optional(members, name, list | tuple) or ()
    if not all(isinstance(entry, Mapping) for entry in entries):
        raise _refused(f"{name} in the options has the wrong type")
    known = [entry for entry in entries if entry.get("type") == _PUBLIC_KEY]
    # Dropping the last entry would turn a narrow request into one for any credential, or for any algorithm.
    if entries and not known:
        raise _refused(f"{name} in the options has no entry of type public-key")
    return known


def _credential_ids(members: Mapping[str, Any], name: str) -> tuple[bytes, ...]:
    return tuple(_bytes(entry, "id") for entry in _descriptors(members, name))


def _algorithms(members: Mapping[str, Any]) -> tuple[int, ...]:
    algorithms = [entry.get("alg") for entry in _descriptors(members, "pubKeyCredParams")]
    if not all(type(algorithm) is int and abs(algorithm) < 1 << 31 for algorithm in algorithms):
        raise _refused("an algorithm in the options is not a COSE number")
    return tuple(algorithm for algorithm in algorithms if algorithm is not None) or DEFAULT_ALGORITHMS


def _resident_key(members: Mapping[str, Any]) -> bool:
    selection = _optional(members, "authenticatorSelection", Mapping) or {}
    wish = _optional(selection, "residentKey", str)
    if wish in ("required", "preferred", "discouraged"):
        return bool(wish != "discouraged")  # a phone stores every passkey as a discoverable one anyway
    return _optional(selection, "requireResidentKey", bool) or False


def _timeout(members: Mapping[str, Any]) -> float | None:
    value = _optional(members, "timeout", int | float)
    return value / 1000 if value and 0 < value < 1 << 32 else None


def _refused(message: str) -> RequestRefused:
    return RequestRefused(message, RefusalReason.OPTIONS)
