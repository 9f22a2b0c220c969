"""What travels where, as SVG: drawn by hand, the same bytes every time. Follows the reader's light or dark setting."""

from __future__ import annotations

from xml.sax.saxutils import escape

WIDTH, HEIGHT = 1040, 560

_STYLE = """
    .paper { fill: #f7f9fe; } .box { fill: #fff; stroke: #ccd5ea; stroke-width: 1.5; }
    text { fill: #131a2c; font-family: system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; font-size: 15px; }
    .name { font-size: 19px; font-weight: 700; } .small { font-size: 13.5px; fill: #566178; }
    .glyph { fill: none; stroke: #566178; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
    .wire { fill: none; stroke-width: 2.5; } .tube { fill: none; stroke-width: 15; stroke-linecap: round; opacity: .2; }
    .https { stroke: #566178; } .camera { stroke: #b07400; stroke-dasharray: 2 8; stroke-linecap: round; }
    .bluetooth { stroke: #0a7fcb; stroke-dasharray: 9 6; } .relay { stroke: #2a52d8; }
    .tip-https { fill: #566178; } .tip-camera { fill: #b07400; } .tip-bluetooth { fill: #0a7fcb; }
    .tip-relay { fill: #2a52d8; } .step circle { fill: #131a2c; } .step text { fill: #fff; font-weight: 700; }
    @media (prefers-color-scheme: dark) {
      .paper { fill: #0f1524; } .box { fill: #182034; stroke: #33405f; } text { fill: #e9edf8; }
      .small { fill: #a3aec8; } .glyph { stroke: #a3aec8; } .https { stroke: #a3aec8; } .camera { stroke: #ffcb57; }
      .bluetooth { stroke: #58b7ff; } .relay { stroke: #8aa6ff; } .tube { opacity: .25; } .tip-https { fill: #a3aec8; }
      .tip-camera { fill: #ffcb57; } .tip-bluetooth { fill: #58b7ff; } .tip-relay { fill: #8aa6ff; }
      .step circle { fill: #e9edf8; } .step text { fill: #0f1524; }
    }
"""

_LAPTOP = "M-22 -17h44v29h-44zM-30 18h60"
_PHONE = "M-12 -22h24v44h-24zM-4 16h8"
_RELAY = "M-17 0h34M-17 0l8 -7M-17 0l8 7M17 0l-8 -7M17 0l-8 7"
_WEBSITE = "M-24 -18h48v36h-48zM-24 -8h48M-18 -13h.5M-12 -13h.5"


def diagram() -> str:
    """The whole picture."""
    parts = [
        *_wires(),
        _box(30, 30, "website", ("keeps the public key,", "never sees the private one"), _WEBSITE, 100),
        _box(30, 262, "laptop", ("shows the code,", "listens for the phone,", "checks what it answers"), _LAPTOP, 164),
        _box(720, 262, "phone", ("keeps the private key,", "asks its owner", "every time"), _PHONE, 164),
        _relay(),
        _step(140, 184, 1, "a challenge: who is there?"),
        _step(140, 216, 7, "the signed answer"),
        _step(430, 150, 4, "both meet at the relay, over TLS"),
        _step(430, 182, 5, "handshake: each knows the code and was near"),
        _step(430, 214, 6, "request and signature, sealed from end to end"),
        _step(346, 358, 2, "QR code: a fresh key, a one-time secret"),
        _step(346, 404, 3, "Bluetooth: 20 bytes, heard only nearby"),
        *_legend(),
    ]
    body = "\n  ".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'aria-labelledby="title">\n'
        '  <title id="title">What travels where when a phone signs in on a laptop</title>\n'
        f"  <style>{_STYLE}  </style>\n"
        f'  <rect class="paper" width="{WIDTH}" height="{HEIGHT}" rx="20"/>\n  {body}\n</svg>\n'
    )


def _wires() -> list[str]:
    return [
        _arrow("https", "M110 248 V144", (110, 134, -90)),
        _tip("https", 110, 258, 90),
        '<path class="tube relay" d="M332 294H420M620 294H708"/>',
        _arrow("relay", "M340 294H412", (424, 294, 0)),
        _tip("relay", 326, 294, 180),
        _arrow("relay", "M628 294H700", (714, 294, 0)),
        _tip("relay", 616, 294, 180),
        _arrow("camera", "M328 370H704", (715, 370, 0)),
        _arrow("bluetooth", "M714 416H336", (325, 416, 180)),
    ]


def _arrow(kind: str, path: str, end: tuple[int, int, int]) -> str:
    return f'<path class="wire {kind}" d="{path}"/>{_tip(kind, *end)}'


def _tip(kind: str, x: int, y: int, turn: int) -> str:
    return f'<path class="tip-{kind}" d="M0 0L-13 -6.5V6.5Z" transform="translate({x} {y}) rotate({turn})"/>'


def _box(x: int, y: int, name: str, lines: tuple[str, ...], glyph: str, height: int) -> str:
    top = y + height / 2 - 8 * len(lines)
    told = "".join(
        f'<text class="small" x="{x + 90}" y="{top + 25 + 20 * row:g}">{escape(line)}</text>'
        for row, line in enumerate(lines)
    )
    return (
        f'<g><rect class="box" x="{x}" y="{y}" width="290" height="{height}" rx="16"/>'
        f'<path class="glyph" d="{glyph}" transform="translate({x + 46} {y + height / 2:g})"/>'
        f'<text class="name" x="{x + 90}" y="{top:g}">{name}</text>{told}</g>'
    )


def _relay() -> str:
    return (
        '<g><rect class="box" x="430" y="250" width="180" height="84" rx="16"/>'
        f'<path class="glyph" d="{_RELAY}" transform="translate(464 278)"/>'
        '<text class="name" x="500" y="284">relay</text>'
        '<text class="small" x="520" y="314" text-anchor="middle">sees only sealed bytes</text></g>'
    )


def _step(x: int, y: int, number: int, text: str) -> str:
    return (
        f'<g class="step"><circle cx="{x + 10}" cy="{y - 5}" r="11"/>'
        f'<text x="{x + 10}" y="{y}" text-anchor="middle">{number}</text></g>'
        f'<text x="{x + 30}" y="{y}">{escape(text)}</text>'
    )


_LEGEND = (
    ("camera", "seen", "by the phone's camera"),
    ("bluetooth", "heard", "within some metres, one way"),
    ("relay", "sealed", "readable at the two ends only"),
    ("https", "sent", "between browser and website"),
)


def _legend() -> list[str]:
    lines = []
    for number, (kind, word, text) in enumerate(_LEGEND):
        x, y = 60 + (number % 2) * 480, 476 + (number // 2) * 40
        lines.append(
            f'<path class="wire {kind}" d="M{x} {y}h54"/><text x="{x + 70}" y="{y + 5}"><tspan font-weight="700">'
            f'{word}</tspan> <tspan class="small">{escape(text)}</tspan></text>'
        )
    return lines
