"""``python -m scripts.make_pictures [NAME...]``: makes the pictures of the documents anew, all or those of some kinds.

`diagram` is drawn, the same every time; `terminals` are recorded from real runs; `website` is photographed in a real
browser. They are committed, so that nobody needs a browser to read the documents. Every QR code in them has been
answered before it was written down: its keys are used up, and scanning it does nothing.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "docs" / "pictures"


def drawn() -> dict[str, bytes]:
    """What comes out the same every time."""
    from scripts.pictures.diagram import diagram

    return {"what-travels-where.svg": diagram().encode()}


def recorded() -> dict[str, bytes]:
    """Terminals, as SVG."""
    from scripts.pictures.recordings import demonstration, laptop_and_phone

    return {
        "terminal-demo.svg": demonstration().encode(),
        "terminal-laptop-and-phone.svg": laptop_and_phone().encode(),
    }


def photographed() -> Mapping[str, bytes]:
    """The example website and a browser's dialog, as PNG."""
    from scripts.pictures.website import photographs

    return photographs()


KINDS: dict[str, Callable[[], Mapping[str, bytes]]] = {
    "diagram": drawn,
    "terminals": recorded,
    "website": photographed,
}


def main() -> int:
    """Write and name the files. Whoever ends it from outside leaves nothing running."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    parser = argparse.ArgumentParser(prog="python -m scripts.make_pictures")
    parser.add_argument("kinds", nargs="*", choices=[*KINDS, []], metavar="NAME", help=", ".join(KINDS))
    kinds = parser.parse_args().kinds or list(KINDS)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for kind in kinds:
        for name, content in KINDS[kind]().items():
            (FOLDER / name).write_bytes(content)
            print(f"{name}  {len(content) / 1024:.0f} KiB", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
