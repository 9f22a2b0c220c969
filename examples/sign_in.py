"""How does my program use the passkey on a phone? Needs Bluetooth, a phone, and a site that you have a passkey for."""

from __future__ import annotations

import asyncio
import json
import sys

import qrcode

import hybrid


async def main(rp_id: str) -> None:
    code = hybrid.invite()
    drawing = qrcode.QRCode()
    drawing.add_data(code.url)
    drawing.print_ascii(out=sys.stderr, invert=True)
    async with hybrid.connect(code, on_event=lambda event: print(event, file=sys.stderr)) as session:
        options = {"rpId": rp_id, "challenge": b"from the website"}
        print(json.dumps(await hybrid.get_assertion(session, options, origin=f"https://{rp_id}")))


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "example.com"))
    except hybrid.HybridError as failure:  # Bluetooth is off, no phone came, it left: one plain line each
        sys.exit(str(failure))
