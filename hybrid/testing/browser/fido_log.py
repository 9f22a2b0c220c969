"""What Chromium says about a ceremony in its own log: the lines of its FIDO and Bluetooth parts.

Source: ``components/device_event_log`` and ``device/fido`` in Chromium, as its version 156 writes them. The lines are
meant for Chromium's developers and change with its versions; `LogReport` reads only what has been stable for years.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

FLAGS = (
    "--enable-logging=stderr",
    "--vmodule=*fido*=3,*cable*=3,*webauthn*=2,*bluetooth*=2,*bluez*=2,device_event_log*=2",
)

# "[10721:10764:1121/152100.866871:VERBOSE1:components/device_event_log/device_event_log_impl.cc:214] TEXT"
_ENTRY = re.compile(r"^\[\d+:\d+:[\d/.]+:(?P<level>\w+):(?P<source>[^]]+)\] (?P<text>.*)", re.DOTALL)
_START = re.compile(r"^\[\d+:\d+:[\d/.]+:", re.MULTILINE)
# TEXT of an event log: "[15:21:00.866] FIDO: DEBUG: v2_discovery.cc:174 (680A... matches QR code)"; no level in errors
_EVENT = re.compile(
    r"\[[\d:.]+\] (?P<part>\w+): (?:(?P<level>[A-Z]+): )?(?P<source>[\w.]+:\d+) (?P<text>.*)", re.DOTALL
)
_CTAP_ERROR = re.compile(r"CTAP2 error code 0x([0-9a-f]+)")
_NET_ERROR = re.compile(r"net_error (-\d+)")
_UI_STEP = "UI step: "


@dataclass(frozen=True, slots=True)
class LogLine:
    """One entry.

    `part`: "FIDO" or "Bluetooth" for instance, empty outside of the event logs; `level`: "EVENT", "DEBUG", "ERROR"...;
    `source`: file and line in Chromium's source.
    """

    part: str
    level: str
    source: str
    text: str

    def __str__(self) -> str:
        return f"{self.part}: {self.level}: {self.source} {self.text}"


@dataclass(frozen=True, slots=True)
class LogReport:
    """The entries of some time, and what they tell."""

    lines: tuple[LogLine, ...]

    @property
    def text(self) -> str:
        """All entries of the FIDO part, one a line."""
        return "\n".join(str(line) for line in self.lines if line.part == "FIDO")

    @property
    def errors(self) -> tuple[str, ...]:
        """What the FIDO part logged as an error: usually the cause of a failure, then its consequences."""
        return tuple(line.text for line in self.lines if line.part == "FIDO" and line.level == "ERROR")

    @property
    def steps(self) -> tuple[str, ...]:
        """Pages of the dialog in their order, e.g. "kCableV2QRCode", "kCableV2Connecting", "kClosed"."""
        return tuple(line.text.removeprefix(_UI_STEP) for line in self.lines if line.text.startswith(_UI_STEP))

    @property
    def advert_matched(self) -> bool:
        """The laptop heard the phone's advert and could open it with the code's key."""
        return any("matches QR code" in line.text for line in self.lines)

    @property
    def connected(self) -> bool:
        """The handshake succeeded and the phone introduced itself."""
        return any("established v2" in line.text for line in self.lines)

    @property
    def net_errors(self) -> tuple[int, ...]:
        """Failures of TLS as Chromium numbers them, e.g. -202 for a certificate of an unknown authority."""
        return tuple(int(found) for line in self.lines for found in _NET_ERROR.findall(line.text))

    @property
    def ctap_statuses(self) -> tuple[int, ...]:
        """CTAP errors that the phone answered with."""
        return tuple(int(found, 16) for line in self.lines for found in _CTAP_ERROR.findall(line.text))


class FidoLog:
    """Chromium's log file, read while it grows."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def size(self) -> int:
        """Bytes so far: a mark to give to `since`."""
        return self._path.stat().st_size

    def since(self, mark: int = 0) -> LogReport:
        """What was logged after a mark."""
        with self._path.open("rb") as file:
            file.seek(mark)
            text = file.read().decode(errors="replace")
        starts = [match.start() for match in _START.finditer(text)]
        entries = [text[start:end] for start, end in pairwise([*starts, len(text)])]
        return LogReport(tuple(filter(None, map(_parse, entries))))


def _parse(entry: str) -> LogLine | None:
    found = _ENTRY.match(entry)
    if found is None:
        return None
    level, source, text = found.groups()
    event = _EVENT.match(text)
    if event is None:
        return LogLine("", level, source, text.strip())
    part, event_level, event_source, event_text = event.groups()
    return LogLine(part, event_level or level, event_source, event_text.strip())
