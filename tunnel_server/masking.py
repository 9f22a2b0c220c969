"""Taking masks off, the one thing per byte that a relay does: in C where `websockets` brings its extension."""

from __future__ import annotations

from tunnel_server.frames import Unmask, xor

unmask: Unmask
try:
    from websockets.speedups import apply_mask as unmask
except ImportError:
    unmask = xor
