"""Which RP ids an origin may use (WebAuthn Level 3, "RP ID"; HTML, "is a registrable domain suffix of or is equal to").

The client decides this, never the phone, and the answer is what keeps a passkey away from the wrong site. So: names
are compared in lower-case A-label form, IP addresses are never RP ids, and a public suffix (private section of the
list included, unknown top-level names too) is never one either, not even for the origin of the same name. Does not
resolve anything and knows no related origins.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from dataclasses import dataclass

from publicsuffixlist import PublicSuffixList

from hybrid.errors import RefusalReason, RequestRefused

MAX_NAME = 253
_MAX_INPUT = 1024  # normalising is not linear, so absurd lengths are refused before it

_ORIGIN = re.compile(r"(https?)://([^\s/?#@:\\\[\]%]+)(?::([0-9]{1,5}))?/?", re.ASCII | re.IGNORECASE)
_DOTS = re.compile("[.\u3002\uff0e\uff61]")  # what IDNA takes for a dot
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
_DEFAULT_PORTS = {"https": 443, "http": 80}
_JOINERS = "\u200c\u200d"


@dataclass(frozen=True, slots=True)
class Origin:
    """A web origin: `scheme` "https" or "http", `host` in lower-case A-label form, `port`."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        """Give the serialised origin, as it stands in clientDataJSON."""
        port = "" if self.port == _DEFAULT_PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{self.host}{port}"


def parse_origin(text: str) -> Origin:
    """Read an origin: https with a domain name, or http for localhost and names below it.

    Raises:
        RequestRefused: anything else, also an IP address, user name, path, query or empty label. `RP_ID`.
    """
    match = _ORIGIN.fullmatch(text) if len(text) <= _MAX_INPUT else None
    if match is None:
        raise _refused("the origin is not https:// and a domain name")
    scheme, host = match[1].lower(), normal_domain(match[2])
    port = int(match[3]) if match[3] else _DEFAULT_PORTS[scheme]
    if port > 0xFFFF:
        raise _refused("the port of the origin does not exist")
    if scheme == "http" and not is_localhost(host):
        raise _refused("an http origin is only accepted for localhost")
    return Origin(scheme, host, port)


def is_localhost(name: str) -> bool:
    """Whether a normalised name is localhost or below it."""
    return name == "localhost" or name.endswith(".localhost")


def check_rp_id(rp_id: str, origin: str) -> str:
    """Give the RP id in normal form if `origin` may use it.

    Raises:
        RequestRefused: it may not, or one of the two is no domain name. `RP_ID`.
    """
    host = parse_origin(origin).host
    name = normal_domain(rp_id)
    if name != host and not host.endswith("." + name):
        raise _refused(f"an origin at {host} cannot use the RP id {name}")
    if name == host == "localhost":
        return name
    # Counted against the suffix of the host: amazonaws.com is no suffix itself, but too wide for x.s3.amazonaws.com.
    if name.count(".") + 1 <= _suffix_labels(host):
        raise _refused(f"{name} is shared by many sites, so it cannot be an RP id")
    return name


def normal_domain(text: str) -> str:
    """Lower-case A-label form of a domain name.

    Raises:
        RequestRefused: not a name: an IP address in any spelling, empty labels (a trailing dot makes one), other
            characters than letters, digits and hyphens, over-long, or text that two IDNA versions read differently.
    """
    if len(text) > _MAX_INPUT:
        raise _refused("the name is too long")
    labels = [_a_label(label) for label in _DOTS.split(text)]
    # URL Standard, "ends in a number": browsers take such a host for an IPv4 address, so 1.2 is 1.0.0.2.
    if _NUMBER.fullmatch(labels[-1]):
        raise _refused("an IP address is not an RP id")
    name = ".".join(labels)
    if len(name) > MAX_NAME:
        raise _refused("the name is too long")
    return name


def _a_label(label: str) -> str:
    if not label:
        raise _refused("the name has an empty label")
    ascii_label = (label if label.isascii() else _to_ascii(label)).lower()
    if not _LABEL.fullmatch(ascii_label):
        raise _refused("a label of the name has illegal characters or length")
    if ascii_label.startswith("xn--"):
        _check_punycode(ascii_label)
    return ascii_label


def _to_ascii(label: str) -> str:
    """Convert a label, accepted only where IDNA 2003 (the standard library) and the modern mapping agree."""
    mapped = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", label).lower())
    try:
        old = label.encode("idna").decode("ascii")
        new = mapped if mapped.isascii() else "xn--" + mapped.encode("punycode").decode("ascii")
    except UnicodeError:
        raise _refused("a label of the name has illegal characters or length") from None
    if old != new:  # e.g. sharp s: mapped to ss by IDNA 2003, kept by browsers; two domains, two owners
        raise _refused("write this name in its xn-- form: versions of IDNA disagree on its letters")
    return new


def _check_punycode(label: str) -> None:
    # An A-label must decode to the one text that encodes to it, or two spellings would name one site.
    try:
        decoded = label[4:].encode("ascii").decode("punycode")
        canonical = not decoded.isascii() and "xn--" + decoded.encode("punycode").decode("ascii") == label
    except UnicodeError:
        canonical = False
    if not canonical or not _is_u_label(decoded):
        raise _refused("a label of the name is not valid punycode")


def _is_u_label(text: str) -> bool:
    if unicodedata.normalize("NFKC", text).lower() != text or unicodedata.category(text[0]).startswith("M"):
        return False
    return all(char in _JOINERS or unicodedata.category(char)[0] not in "CZ" for char in text)


def _suffix_labels(host: str) -> int:
    """How many labels the public suffix of `host` has; the last label at least."""
    suffix = _suffix_list().publicsuffix(host, accept_unknown=True)
    return suffix.count(".") + 1 if suffix else 1


@functools.cache
def _suffix_list() -> PublicSuffixList:
    return PublicSuffixList()


def _refused(message: str) -> RequestRefused:
    return RequestRefused(message, RefusalReason.RP_ID)
