"""What log lines look like: a sentence for people, or one JSON object a line for programs. Writes to stderr."""

from __future__ import annotations

import json
import logging
import select
from datetime import UTC, datetime
from typing import TextIO

FORMATS = ("text", "json")


class JsonLines(logging.Formatter):
    """``{"time": ISO 8601 in UTC, "level", "logger", "message"}``, with ``"worker"`` if there are several.

    ``"error"`` has the traceback of a bug.
    """

    def __init__(self, worker: int | None = None) -> None:
        super().__init__()
        self._worker = worker

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, str | int] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if self._worker is not None:
            line["worker"] = self._worker
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class Impatient(logging.StreamHandler[TextIO]):
    """Loses a line where nobody reads: waiting for a full pipe, everybody's tunnels would wait too."""

    def emit(self, record: logging.LogRecord) -> None:
        if self._takes_more():
            super().emit(record)

    def _takes_more(self) -> bool:
        try:
            number = self.stream.fileno()
        except (AttributeError, OSError):  # no stream, or one without a file
            return True
        poll = select.poll()
        poll.register(number, select.POLLOUT)
        return bool(poll.poll(0))


def set_up(level: str, form: str, *, worker: int | None = None) -> None:
    """Log from `level` on in one of `FORMATS`. `worker`: whose lines they are, if there are several."""
    name = "tunnel-server" if worker is None else f"tunnel-server[{worker}]"
    handler = Impatient()
    handler.setFormatter(
        JsonLines(worker) if form == "json" else logging.Formatter(f"{name}: %(levelname)s: %(message)s")
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # In its debug mode the event loop would log the address of every connection.
    logging.getLogger("asyncio").setLevel(logging.WARNING)
