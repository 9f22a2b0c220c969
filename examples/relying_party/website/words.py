"""What records are called on a page: plain words for flags, transports, ways and entries of the log."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from fido2.utils import websafe_encode

from examples.relying_party.website.accounts import Passkey
from examples.relying_party.website.audit import Entry, Happened

_WAYS = {"phone": "a phone, over hybrid", "this-device": "this device", "security-key": "a security key"}
_TRANSPORTS = {
    "hybrid": "phone, by QR code",
    "cable": "phone, by QR code",
    "internal": "its own device",
    "usb": "USB",
    "nfc": "NFC",
    "ble": "Bluetooth",
    "smart-card": "smart card",
}
_ALGORITHMS = {-7: "ES256", -8: "EdDSA", -257: "RS256"}
_HAPPENED = {
    Happened.ACCOUNT_MADE: "Account made",
    Happened.PASSKEY_ADDED: "Passkey added",
    Happened.PASSKEY_RENAMED: "Passkey renamed",
    Happened.PASSKEY_REMOVED: "Passkey removed",
    Happened.SIGNED_IN: "Signed in",
    Happened.CONFIRMED: "Confirmed with a passkey",
    Happened.SIGNED_OUT: "Signed out",
    Happened.BACKUP_CHANGED: "Backup state changed",
    Happened.COPY_REPORTED: "Copy reported by its owner",
    Happened.REFUSED: "Refused",
    Happened.CODES_MADE: "New recovery codes",
    Happened.RECOVERED: "Recovery code used",
    Happened.RECOVERY_FAILED: "Recovery failed",
    Happened.ADMIN_OVERRIDE: "Class changed by an administrator",
}


def where_it_lives(passkey: Passkey) -> str:
    """One line: synced or not."""
    if not passkey.backup_eligible:
        return "stays on one device"
    return "synced, and backed up now" if passkey.backed_up else "can be synced, not backed up yet"


def what_that_means(passkey: Passkey) -> str:
    """BE and BS in words, for somebody who wants to know."""
    if not passkey.backup_eligible:
        return "If the device is lost, this passkey is lost with it. Keep a second one, or your recovery codes."
    if passkey.backed_up:
        return "Its password manager has copied it, so a new device of yours can have it again."
    return "Its password manager may copy it later. Until then it is lost with its device."


def transports_in_words(passkey: Passkey) -> list[str]:
    """Where a browser may look for it, without repetition; empty if the browser did not say."""
    return list(dict.fromkeys(_TRANSPORTS[name] for name in passkey.transports))


def way_in_words(way: str | None) -> str:
    return _WAYS.get(way or "", "the browser does not say")


def day(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%-d %b %Y")


def moment(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def happened(entry: Entry) -> str:
    return _HAPPENED[entry.event]


def _flag(name: str) -> Callable[[Any], str]:
    return lambda value: f"{name}={int(bool(value))}"


_DETAILS: dict[str, Callable[[Any], str]] = {
    "name": lambda value: f"“{value}”",
    "provider": lambda value: f"kept by {value}",
    "way": lambda value: f"by way of {way_in_words(str(value))}",
    "transports": lambda value: f"transports {value}" if value else "no transports named",
    "be": _flag("BE"),
    "bs": _flag("BS"),
    "policy": lambda value: f"class {value}",
    "before": lambda value: f"before: {value}",
    "reason": lambda value: f"because: {value}",
    "by": lambda value: f"by {value}",
    "left": lambda value: f"{value} left",
    "count": lambda value: f"count {value}",
    "passkey": lambda value: f"#{value}",
}


def details(entry: Entry) -> list[str]:
    """The details of an entry in a fixed order."""
    return [say(entry.detail[key]) for key, say in _DETAILS.items() if key in entry.detail]


FILTERS: dict[str, Callable[..., Any]] = {
    "algorithm": lambda number: _ALGORITHMS[number],
    "b64": websafe_encode,
    "day": day,
    "details": details,
    "happened": happened,
    "moment": moment,
    "transports": transports_in_words,
    "way": way_in_words,
    "what_that_means": what_that_means,
    "where_it_lives": where_it_lives,
}
