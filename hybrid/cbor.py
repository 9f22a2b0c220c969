"""CBOR as this protocol family wants it: strict on the way in, CTAP2 canonical on the way out.

In (`decode`): definite lengths, no duplicate keys, no tags, nothing after the value, bounded depth. Unsorted keys and
long-form integers pass, because peers differ. Out (`encode`): the CTAP2 canonical form (CTAP 2.3 §8, "Message
Encoding"): keys sorted by major type, then length, then bytes, at every level.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import cbor2

from hybrid.errors import RemoteProtocolError

MAX_DEPTH = 8  # a prf evalByCredential request nests five maps; authenticator limits of 4 are too small


class _EveryTagRefused(Mapping[int, Callable[..., Any]]):
    """Stands in for cbor2's tag decoders, so that a tag never becomes a date, a bignum or a cycle."""

    def __getitem__(self, tag: int) -> Callable[..., Any]:
        def refuse(*_: object) -> NoReturn:
            raise cbor2.CBORDecodeError(f"tag {tag}")

        return refuse

    def __contains__(self, tag: object) -> bool:
        return True

    def __iter__(self) -> Iterator[int]:
        return iter(())

    def __len__(self) -> int:
        return 1


_NO_TAGS = _EveryTagRefused()


def decode(data: bytes, *, max_depth: int = MAX_DEPTH) -> Any:
    """Decode exactly one value.

    Raises:
        RemoteProtocolError: not CBOR, truncated, followed by more bytes, indefinite, tagged, too deep, a key twice,
            or a map key that is neither integer, text nor bytes.
    """
    value, size = decode_prefix(data, max_depth=max_depth)
    if size != len(data):
        raise RemoteProtocolError("bytes follow the CBOR value")
    return value


def decode_prefix(data: bytes, *, max_depth: int = MAX_DEPTH) -> tuple[Any, int]:
    """Decode the value at the start of `data`; give it and the number of bytes it takes. Raises as `decode`."""
    stream = io.BytesIO(data)
    try:
        value = cbor2.CBORDecoder(
            stream,
            semantic_decoders=_NO_TAGS,
            max_depth=max_depth,
            allow_indefinite=False,
            allow_duplicate_keys=False,
        ).decode()
    except cbor2.CBORDecodeError:
        raise RemoteProtocolError("the CBOR is malformed") from None
    _check_keys(value)
    return value, stream.tell()


def decode_map(data: bytes, *, max_depth: int = MAX_DEPTH) -> dict[Any, Any]:
    """Decode exactly one map. Raises as `decode`, and `RemoteProtocolError` for any other type."""
    value = decode(data, max_depth=max_depth)
    if not isinstance(value, dict):
        raise RemoteProtocolError("the CBOR value is not a map")
    return value


def _check_keys(value: Any) -> None:
    # Python takes True for 1; without this a key `true` would pass for key 1.
    if isinstance(value, dict):
        for key, item in value.items():
            if type(key) not in (int, str, bytes):
                raise RemoteProtocolError("a CBOR map key is neither integer, text nor bytes")
            _check_keys(item)
    elif isinstance(value, list):
        for item in value:
            _check_keys(item)


def encode(value: Any) -> bytes:
    """Encode in the CTAP2 canonical form. Takes int, bytes, str, bool, None, list, tuple and dict."""
    return cbor2.dumps(_sorted(value))


def _sorted(value: Any) -> Any:
    if isinstance(value, Mapping):
        keyed = sorted((cbor2.dumps(key), key) for key in value)
        ordered = sorted(keyed, key=lambda pair: (pair[0][0] >> 5, len(pair[0]), pair[0]))
        return {key: _sorted(value[key]) for _, key in ordered}
    if isinstance(value, list | tuple):
        return [_sorted(item) for item in value]
    return value
